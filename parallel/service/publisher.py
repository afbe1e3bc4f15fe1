"""Publisher: hands events to the log and to subscribers, outside of everything that anybody waits for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable

from ..core.events import CannotAccept, ConnectionCut, Event, Missed, SlaveJoined, Waiting
from .messages import code_edited, log_lines

log = logging.getLogger("parallel")

_MOST_LINES, _LINE_SECONDS = 10, 30.0  # warnings of one kind that are loud at first; then one in so many seconds
_RECENT = 100  # lines that are kept for whoever asks what has happened
_MOST_EVENTS = 100_000  # that wait for one subscriber; then it misses some, and is told how many


class Subscription:
    """Somebody who is told of all events, in a thread of its own.  Made by `Manager.subscribe`."""

    def __init__(
        self,
        callback: Callable[[Event], object],
        most: int = _MOST_EVENTS,
        when_over: Callable[[], object] = lambda: None,
    ) -> None:
        self._callback, self._most, self._when_over = callback, most, when_over
        self._events: deque[Event] = deque()
        self._missed = self._told = 0  # events left out, which the publisher counts; those that the callback knows of
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="parallel subscriber")
        self._thread.start()
        self.closed = False

    def close(self, patience: float = 0.0) -> None:
        """Tell it nothing more; waits up to ``patience`` seconds until it has been told what was on its way."""
        self.closed = True
        self._wakeups.put(False)
        if patience and threading.current_thread() is not self._thread:
            self._thread.join(patience)

    def put(self, events: Sequence[Event]) -> None:
        """For the publisher's thread."""
        for event in events:
            if len(self._events) >= self._most:
                self._missed += 1
            else:
                self._events.append(event)
        self._wakeups.put(True)

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._wakeups.get()
            try:
                while self._events:
                    self._callback(self._events.popleft())
                self._tell_missed()
                if not goes_on:
                    self._when_over()
            except Exception:
                log.exception("parallel: a subscriber raised, and is told no more")
                self.closed = True
                return

    def _tell_missed(self) -> None:
        missed = self._missed - self._told
        if missed:
            self._told += missed
            self._callback(Missed(time.monotonic(), missed))


class Throttle:
    """Keeps the log readable: of many warnings of one kind that come together the first few are loud, others not."""

    def __init__(self) -> None:
        self._left: dict[type[Event], tuple[float, float]] = {}  # how many may be loud yet, as of when
        self._quiet: dict[type[Event], int] = {}  # how many were not, since the last loud one

    def level(self, event: Event, level: int) -> tuple[int, str]:
        """At which level to tell of an event that deserves ``level``, and what to add."""
        kind = type(event)
        if level < logging.WARNING or isinstance(event, (ConnectionCut, CannotAccept, Waiting)):  # have their own ways
            return level, ""
        left, since = self._left.get(kind, (_MOST_LINES, event.time))
        left = min(_MOST_LINES, left + max(0.0, event.time - since) / _LINE_SECONDS)
        if left < 1:
            self._left[kind] = left, event.time
            self._quiet[kind] = self._quiet.get(kind, 0) + 1
            return logging.INFO, ""
        self._left[kind] = left - 1, event.time
        quiet = self._quiet.pop(kind, 0)
        if quiet:
            return level, f" (and {quiet} such lines before, at level INFO)"
        if left < 2:
            return level, " (more such lines, if they come as quickly, are at level INFO)"
        return level, ""


class Publisher(threading.Thread):
    """See the module's text.

    ``edited``: the program's files of which a slave has other ones that joined at this moment, by `time.monotonic`.
    """

    def __init__(self, edited: Callable[[float], Sequence[str]] = lambda moment: ()) -> None:
        super().__init__(name="parallel events", daemon=True)
        self._edited = edited
        self._batches: queue.SimpleQueue[Sequence[Event] | BaseException | None] = queue.SimpleQueue()
        self._subscriptions: list[Subscription] = []
        self._stopped = False
        self._throttle = Throttle()
        self._recent: deque[tuple[float, int, str]] = deque(maxlen=_RECENT)

    def subscribe(
        self, callback: Callable[[Event], object], when_over: Callable[[], object] = lambda: None
    ) -> Subscription:
        """Have a callback told of all events from now on; ``when_over``: is called after the last one."""
        made = Subscription(callback, when_over=when_over)
        for one in list(self._subscriptions):
            if one.closed:
                with suppress(ValueError):  # another thread, which subscribes too, was quicker
                    self._subscriptions.remove(one)
        self._subscriptions.append(made)
        if self._stopped:  # just now: looked at when it is among those that `stop` closes
            made.close()
        return made

    def recent(self) -> list[tuple[float, int, str]]:
        """The last lines of the log: when, at which level, what.  Never waits."""
        while True:
            try:
                return list(self._recent)
            except RuntimeError:  # one came meanwhile
                continue

    def publish(self, events: Sequence[Event]) -> None:
        """Never waits."""
        self._batches.put(events)

    def bug(self, error: BaseException) -> None:
        """Have a traceback logged."""
        self._batches.put(error)

    def stop(self, patience: float) -> None:
        """End, when all that was published has been told; waits for that as long as it gets on.

        ``patience``: so many seconds may the log take to get on, and so many all subscribers together.
        """
        self._stopped = True
        self._batches.put(None)
        if threading.current_thread() is self:
            return
        left = -1
        while self.is_alive() and self._batches.qsize() != left:
            left = self._batches.qsize()
            self.join(patience)
        deadline = time.monotonic() + patience
        for subscription in list(self._subscriptions):
            subscription.close(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        """The thread's body."""
        while True:
            batch = self._batches.get()
            if batch is None:
                return
            if isinstance(batch, BaseException):
                log.error("parallel: a thread of the manager has died; please report this", exc_info=batch)
                continue
            for event, (level, text) in log_lines(batch):
                level, addition = self._throttle.level(event, level)
                self._tell(event, level, text + addition)
                if type(event) is SlaveJoined:
                    for path in self._edited(event.time):  # it may be long ago
                        self._tell(event, *code_edited(path, event))
            for subscription in list(self._subscriptions):
                subscription.put(batch)

    def _tell(self, event: Event, level: int, text: str) -> None:
        log.log(level, text)
        self._recent.append((event.time, level, text.removeprefix("parallel: ")))
