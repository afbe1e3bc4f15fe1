"""Recorder: what the live page shows, gathered by a look at the status once a second, and bounded whatever the run is.

It knows nothing of single tasks but what each slave runs at each look: so five million tasks cost what five cost.  A
look at a thousand slaves costs some milliseconds; the pause between two is so long that they take 1% of a processor.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable, Protocol

from slave.errors import SlaveError

from .status import SlaveStatus, Status
from .timeline import Timeline

_PAUSE = 1.0  # seconds between two looks
_SHARE = 0.0025  # of a processor that looks may take here; the dispatcher's and the server's threads take twice that
_MOST_POINTS = 600  # of the history
_MOST_LINES = 400  # of output
_MOST_FAILURES = 50
_MOST_SLAVES, _MOST_CONTEXTS, _MOST_EVENTS = 2_000, 50, 40  # that have a row
_LONGEST = 2_000  # characters of a text that is shown; of a traceback ten times as many


class Source(Protocol):
    """Where it looks: a manager of this process, or a `Watcher`.  Raises `SlaveError`."""

    def status(self) -> Status:
        """How things are."""

    def failures(self, after: int) -> list[dict[str, Any]]:
        """See `controls.told_failure`."""

    def output(self, places: Mapping[str, int]) -> dict[str, Any]:
        """See `output_tail.lines`."""


class Recorder:
    """See the module's text.  ``_lock`` guards what looks add to and pages read; no look is taken under it."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._began = clock()
        self._lock = threading.Lock()
        self._looks = 0
        self._now: dict[str, Any] = {"look": 0, "trouble": [], "contexts": [], "slaves": [], "events": []}
        self._gone = "there was no look yet"  # why there is no status; '' if there is
        self._points: list[tuple[int, float, int, int, int, int]] = []
        self._failures: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MOST_FAILURES)
        self._lines: deque[tuple[int, int, str]] = deque(maxlen=_MOST_LINES)
        self._timeline = Timeline()
        self._last_failure = 0
        self._places: dict[str, int] = {}
        self._master = ""
        self._made: dict[int, bytes] = {}  # by the look since which: what was made for it after the last one
        self.pause = _PAUSE

    def look(self) -> None:
        """Take a look, and see how long that takes."""
        began, used = self._clock(), time.thread_time()
        try:
            status = self._source.status()
            failures = self._source.failures(self._last_failure)
            output = self._source.output(self._places)
        except SlaveError as error:
            with self._lock:
                self._looks += 1
                self._gone = str(error)
                self._made.clear()
            return
        with self._lock:
            self._looks += 1
            self._add(status, failures, output, began - self._began)
            self._made.clear()
        self.pause = max(_PAUSE, (time.thread_time() - used) / _SHARE)

    def _add(self, status: Status, failures: list[dict[str, Any]], output: dict[str, Any], now: float) -> None:
        if status.master != self._master:  # another one than before
            self._master = status.master
            self._points, self._timeline, self._last_failure, self._places = [], Timeline(), 0, {}
            self._failures.clear()
            self._lines.clear()
        self._gone = ""
        total = status.total
        self._add_point(now, total.done, total.failed, status.working, status.connected)
        self._timeline.add(status.slaves, now, self._looks)
        self._now = self._told(status, now)
        for one in failures:
            self._last_failure = max(self._last_failure, int(one.get("number", 0)))
            texts = {key: str(one.get(key, ""))[:_LONGEST] for key in ("label", "slave", "error")}
            trace = str(one.get("traceback", ""))[: 10 * _LONGEST]
            when = now - float(one.get("ago", 0))
            self._failures.append((self._looks, {**texts, "traceback": trace, "at": when, "task": one.get("task", 0)}))
        self._places = {str(slave): at for slave, at in output.get("places", {}).items() if type(at) is int}
        for slave, text in output.get("lines", ()):
            self._lines.append((self._looks, int(slave), str(text)[:_LONGEST]))

    def _add_point(self, now: float, done: int, failed: int, working: int, connected: int) -> None:
        """The older half is thinned when there are too many, so that a run of a week has a curve, too."""
        self._points.append((self._looks, now, done, failed, working, connected))
        if len(self._points) > _MOST_POINTS:
            half = _MOST_POINTS // 2
            self._points[:half] = self._points[:half:2]

    def _told(self, status: Status, now: float) -> dict[str, Any]:
        """What is sent as a whole with each look."""
        shown = sorted(status.contexts, key=lambda one: (not one.left, one.id))[:_MOST_CONTEXTS]
        total = status.total
        return {
            "look": self._looks,
            "now": round(now, 2),
            "master": status.master,
            "release": status.release,
            "uptime": round(status.uptime, 1),
            "closing": status.closing,
            "trouble": [text[:_LONGEST] for text in status.trouble],
            "total": _context(total),
            "contexts": [_context(one) for one in shown],
            "more_contexts": len(status.contexts) - len(shown),
            "connected": status.connected,
            "working": status.working,
            "ended": status.ended,
            "slaves": [_slave(one) for one in status.slaves[:_MOST_SLAVES]],
            "more_slaves": max(0, len(status.slaves) - _MOST_SLAVES),
            "events": [
                [round(now - one.ago, 1), one.level, one.text[:_LONGEST]] for one in status.events[-_MOST_EVENTS:]
            ],
        }

    def data(self, since: int) -> bytes:
        """What a page needs that has all up to the look ``since``, as JSON; the same for all that ask the same."""
        with self._lock:
            if not 0 <= since <= self._looks:
                since = 0  # it has seen another recorder
            made = self._made.get(since)
            if made is None:
                if len(self._made) > 20:
                    self._made.clear()  # somebody asks for the sake of asking
                made = self._made[since] = self._data(since)
            return made

    def _data(self, since: int) -> bytes:
        points = [point[1:] for point in self._points if point[0] > since]
        told = {
            **self._now,
            "look": self._looks,
            "since": since,
            "gone": self._gone,
            "pause": self.pause,
            "points": [[round(at, 1), *rest] for at, *rest in points],
            "bars": self._timeline.bars(since),
            "failures": [one for look, one in self._failures if look > since],
            "lines": [[slave, text] for look, slave, text in self._lines if look > since],
        }
        return json.dumps(told, separators=(",", ":")).encode()


def _context(one: Any) -> dict[str, Any]:
    return {
        "id": one.id,
        "label": one.label[:_LONGEST],
        "done": one.done,
        "known": one.known,
        "complete": one.complete,
        "failed": one.failed,
        "running": one.running,
        "waiting": one.waiting,
        "rate": round(one.rate, 3),
        "left": None if one.time_left is None else round(one.time_left, 1),
    }


def _slave(one: SlaveStatus) -> list[Any]:
    """A row; page.js knows the columns."""
    heard = None if one.heard is None else round(one.heard, 1)
    doing = one.label or (f"task {one.task}" if one.task else one.words.partition("\n")[0])
    return [
        one.number, one.host, one.state, doing[:200], one.task, round(one.runs_for, 1), one.done, round(one.busy, 3),
        one.memory, heard, one.losses, one.name,
    ]  # fmt: skip
