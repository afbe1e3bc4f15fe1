"""Reading a trace again: what each slave did with its time.

A run lasts from its first task to the end of its last one.  Each slave's share of that time is divided into

    starting   before it had joined
    set-up     setups ran
    work       tasks ran
    sending    tasks and results were rebuilt, packed and on their way
    waiting    there was nothing for it to do, and later there was
    idle tail  there was nothing more for it to do, and others still worked
    in vain    tasks ran that ended with their slave
    gone       it had ended
    other      the rest: a slave's process was replaced, say
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

PARTS = ("starting", "set-up", "work", "sending", "waiting", "idle tail", "in vain", "gone", "other")


class NotATrace(Exception):
    """The file is none that `Manager(trace=...)` has written; ``str()`` says why."""


@dataclass
class Bar:
    """A bar of the trace, in seconds."""

    slave: int
    cat: str
    name: str
    begins: float
    ends: float
    args: dict[str, Any]


@dataclass
class SlaveTimes:
    """What one slave did, in seconds."""

    name: str = ""
    joined: float = math.inf
    last: float = 0.0  # end of its last bar
    ended: float = math.inf
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


@dataclass
class Summary:
    """What is told of a run.  Times in seconds."""

    program: str = ""
    begins: float = math.inf
    ends: float = 0.0
    slaves: dict[int, SlaveTimes] = field(default_factory=dict)
    tasks: int = 0
    failed: int = 0
    lost: int = 0  # slaves' processes that ended or were not heard of
    copies: int = 0  # tasks that were started twice
    copies_first: int = 0  # of these, whose second copy was done first
    missing: int = 0  # events that the trace lacks
    setups: int = 0
    sent: int = 0  # bytes of tasks and results
    finished: bool = False  # the run's end is in the trace
    durations: array[float] = field(default_factory=lambda: array("d"))  # of tasks, in their order
    longest: tuple[float, str, int] = (0.0, "", -1)  # seconds, name, slave

    @property
    def seconds(self) -> float:
        """How long the run lasted."""
        return max(0.0, self.ends - self.begins)

    def total(self, part: str) -> float:
        """Seconds of all slaves."""
        return sum(slave.parts[part] for slave in self.slaves.values())

    def share(self, part: str) -> float:
        """The same, of all slaves' time."""
        whole = len(self.slaves) * self.seconds
        return self.total(part) / whole if whole else 0.0


# -- reading


def events_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of a trace that was written a line each; what is cut off at its end is left out.

    Raises `NotATrace`.
    """
    broken = ""
    for number, line in enumerate(lines):
        text = line.strip().rstrip(",")
        if number == 0 and text != "[":
            raise NotATrace("it does not begin as a trace of Manager(trace=...) does")
        if text in ("", "[", "]"):
            continue
        if broken:
            raise NotATrace(f"line {number} is no event: {broken[:60]!r}")
        try:
            event = json.loads(text)
        except ValueError:
            broken = text or " "  # the last one may be half written
            continue
        if not isinstance(event, dict) or not isinstance(event.get("ph"), str):
            raise NotATrace(f"line {number + 1} is no event: {text[:60]!r}")
        yield event


def summarize(events: Iterable[dict[str, Any]]) -> Summary:
    """What the events of a trace say altogether.  Raises `NotATrace`."""
    summary = Summary()
    try:
        for event in events:
            kind = event["ph"]
            if kind == "X":
                _add_bar(summary, _bar(event))
            elif kind in ("i", "M"):
                _add_moment(summary, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotATrace(f"an event lacks what it should have: {type(error).__name__}: {error}") from None
    _close(summary)
    return summary


def _bar(event: dict[str, Any]) -> Bar:
    begins, lasts = float(event["ts"]) / 1e6, float(event["dur"]) / 1e6
    return Bar(int(event["tid"]) - 1, event["cat"], str(event["name"]), begins, begins + lasts, event.get("args", {}))


def _add_moment(summary: Summary, event: dict[str, Any]) -> None:
    name, slave = event["name"], int(event["tid"]) - 1
    args = event.get("args", {})
    if name == "process_name":
        summary.program = str(args["name"])
    elif name == "thread_name" and slave >= 0:
        summary.slaves.setdefault(slave, SlaveTimes()).name = str(args["name"])
    elif name == "run begins":
        summary.begins = min(summary.begins, float(event["ts"]) / 1e6)
    elif name == "joined":
        one = summary.slaves.setdefault(slave, SlaveTimes())
        one.joined = min(one.joined, float(event["ts"]) / 1e6)
    elif name == "ended":
        summary.slaves.setdefault(slave, SlaveTimes()).ended = float(event["ts"]) / 1e6
    elif name == "lost":
        summary.lost += 1
    elif name == "started twice":
        summary.copies += 1
    elif name == "copy was first":
        summary.copies_first += 1
    elif name == "run ends":
        summary.finished = True
    elif name in ("events are missing here", "left out"):
        summary.missing += int(args.get("events", args.get("tasks", 0)))


def _add_bar(summary: Summary, bar: Bar) -> None:
    slave = summary.slaves.setdefault(bar.slave, SlaveTimes())
    parts, seconds = slave.parts, bar.ends - bar.begins
    slave.joined = min(slave.joined, bar.begins)
    slave.last = max(slave.last, bar.ends)
    if bar.cat == "task":
        around = (float(bar.args.get("load", 0)) + float(bar.args.get("send", 0))) / 1e6
        parts["work"] += seconds
        parts["sending"] += around
        slave.last = max(slave.last, bar.ends + float(bar.args.get("send", 0)) / 1e6)
        summary.ends = max(summary.ends, bar.ends)
        summary.tasks += 1
        summary.failed += "failed" in bar.args
        summary.sent += int(bar.args.get("in", 0)) + int(bar.args.get("out", 0))
        summary.durations.append(seconds)
        if seconds > summary.longest[0]:
            summary.longest = seconds, bar.name, bar.slave
    elif bar.cat == "setup":
        parts["set-up"] += seconds
        summary.setups += 1
    elif bar.cat == "wait":
        receive = min(seconds, float(bar.args.get("receive", 0)) / 1e6)
        parts["sending"] += receive
        parts["waiting"] += seconds - receive
    elif bar.cat in ("lost", "copy"):
        parts["in vain"] += seconds
        summary.ends = max(summary.ends, bar.ends)


def _close(summary: Summary) -> None:
    """Divide what is left of each slave's time."""
    if not summary.tasks and not summary.lost:
        raise NotATrace("no task has ended in it")
    first = min((slave.joined for slave in summary.slaves.values()), default=0.0)
    if not math.isfinite(summary.begins):
        summary.begins = first
    for number in [one for one, slave in summary.slaves.items() if not math.isfinite(slave.joined)]:
        del summary.slaves[number]  # it never came
    for slave in summary.slaves.values():
        parts = slave.parts
        parts["starting"] = max(0.0, min(slave.joined, summary.ends) - summary.begins)
        last = max(slave.last, slave.joined, summary.begins)
        parts["gone"] = max(0.0, summary.ends - max(slave.ended, last))
        parts["idle tail"] = max(0.0, summary.ends - last) - parts["gone"]
        told = sum(parts.values())
        excess = told - summary.seconds  # a slave that waited before the first task was there
        parts["waiting"] = max(0.0, parts["waiting"] - max(0.0, excess))
        parts["other"] = max(0.0, summary.seconds - sum(parts.values()))
