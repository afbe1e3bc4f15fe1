"""Events as lines of a Chrome trace: the Trace Event Format's JSON array, as Perfetto and chrome://tracing read it.

Each slave is a row (a "thread") with bars ("X", complete events) of these categories:

    task    a task's function ran here; `load`, `send`: microseconds to rebuild it before, and to pack and post after
    setup   a context's setup ran
    wait    there was no task for the slave; `receive`: microseconds that the lease was then on its way
    lost    a task ran here when the slave was lost, in vain
    copy    a task ran here until another copy of it was done first

What happened at a moment (losses, retries, joins) is an instant event, and how many tasks wait and are done a counter,
once a second.  When a task ran, its slave tells (slave/traced.py); what it could not tell any more is drawn as the
master saw it, with `seen` "by the master".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from slave.protocol import FAILURE, GIVEN_UP, NO_LEASE, SETUP_NUMBERS, TIMED_OUT, VALUE, Times, TimesOfTask

from ..core import events as ev

_PID = 1
_SAME_CLOCK = 0.05  # seconds; clocks that differ by less are one: monotonic clocks of two machines never do
_COUNT_SECONDS = 1.0  # between two counters
_NUMBERS = len(TimesOfTask._fields)
_KINDS = {VALUE: "", FAILURE: "raised", GIVEN_UP: "given up", TIMED_OUT: "timed out"}
_MOST_TEXT = 500  # characters of what went wrong


class _Row:
    """What is known of one slave."""

    def __init__(self) -> None:
        self.end = 0.0  # of its last bar
        self.offset: float | None = None  # what is to be added to its clock to have ours
        self.lease, self.granted = NO_LEASE, 0.0
        self.held: dict[int, None] = {}  # tasks of the lease without an outcome
        self.started: tuple[int, float] | None = None  # what its last heartbeat named
        self.last_done = 0.0
        self.untold: dict[int, tuple[ev.TaskDone, float]] = {}  # outcomes that it has not told the times of; began


class ChromeTrace:
    """Makes lines of events, one JSON object each.  ``began``: the time that is 0 in the trace."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._contexts: dict[int, str] = {}  # their labels
        self._labels: dict[int, str] = {}  # of tasks that have one and are not drawn yet
        self._copied: dict[int, int] = {}  # tasks that were started twice: the second slave
        self._rows: dict[int, _Row] = {}
        self._added = self._done = self._failed = 0
        self._counted = 0.0
        self._makers: dict[type[ev.Event], Callable[[Any], Iterator[str]]] = {
            ev.SlaveJoined: self._joined,
            ev.SlaveLost: self._lost,
            ev.SlaveEnded: self._ended,
            ev.SlaveBack: self._back,
            ev.SetupRaised: self._setup_raised,
            ev.TasksAdded: self._tasks_added,
            ev.TasksLeased: self._leased,
            ev.TaskCopied: self._task_copied,
            ev.TaskStarted: self._started,
            ev.TasksTimed: self._timed,
            ev.TaskDone: self._task_done,
            ev.TaskRetried: self._retried,
            ev.TaskAttemptEnded: self._attempt_ended,
            ev.ContextMade: self._context_made,
            ev.ContextDropped: self._context_dropped,
            ev.ContextCancelled: self._cancelled,
            ev.MasterWasStopped: self._stopped,
            ev.Missed: self._missed,
            ev.ManagerClosed: self._closed,
        }

    def head(self, program: str) -> Iterator[str]:
        """The first lines."""
        yield _line(name="process_name", ph="M", pid=_PID, tid=0, ts=0, args={"name": program})
        yield _line(name="thread_name", ph="M", pid=_PID, tid=0, ts=0, args={"name": "master"})

    def lines(self, event: ev.Event) -> Iterator[str]:
        """What is to be written of an event."""
        maker = self._makers.get(type(event))
        if maker is not None:
            yield from maker(event)

    def rest(self) -> Iterator[str]:
        """What is left to be written at the end."""
        for number, row in self._rows.items():
            yield from self._write_untold(number, row)
        yield self._count(self._counted)

    # -- slaves

    def _row(self, number: int) -> _Row:
        return self._rows.setdefault(number, _Row())

    def _joined(self, event: ev.SlaveJoined) -> Iterator[str]:
        self._row(event.slave).offset = None  # it may be on another machine than before
        tid = _tid(event.slave)
        yield _line(name="thread_name", ph="M", pid=_PID, tid=tid, ts=0, args={"name": event.name})
        yield _line(name="thread_sort_index", ph="M", pid=_PID, tid=tid, ts=0, args={"sort_index": tid})
        yield self._instant(event.time, "joined", event.slave)

    def _lost(self, event: ev.SlaveLost) -> Iterator[str]:
        row = self._row(event.slave)
        yield from self._write_untold(event.slave, row)
        running = next(iter(row.held), 0)
        if running and (event.tasks or running in self._copied):
            cat = "lost" if event.tasks else "copy"
            began = max(row.granted, row.last_done)
            if row.started is not None and row.started[0] == running:
                began = min(row.started[1], max(began, row.end))
            yield self._bar(event.slave, cat, f"{cat}: {self._name(running)}", began, event.time,
                            {"task": running, "end": event.end[:_MOST_TEXT]}, "terrible")  # fmt: skip
        row.held, row.started, row.lease = {}, None, NO_LEASE
        name = "stopped" if event.wanted else "lost"
        args = {"end": event.end[:_MOST_TEXT], "tasks": event.tasks}
        yield self._instant(event.time, name, event.slave, args)

    def _ended(self, event: ev.SlaveEnded) -> Iterator[str]:
        yield from self._write_untold(event.slave, self._row(event.slave))
        yield self._instant(event.time, "ended", event.slave, {"end": event.end[:_MOST_TEXT]})

    def _back(self, event: ev.SlaveBack) -> Iterator[str]:
        yield self._instant(event.time, "back", event.slave)

    def _setup_raised(self, event: ev.SetupRaised) -> Iterator[str]:
        error = f"{event.type_name}: {event.message}"[:_MOST_TEXT]
        yield self._instant(event.time, "setup failed", event.slave, {"context": event.context, "error": error})

    # -- tasks

    def _tasks_added(self, event: ev.TasksAdded) -> Iterator[str]:
        if not self._added:
            yield self._instant(event.time, "run begins", None)
        self._added += len(event.tasks)
        yield from self._count_at(event.time)

    def _leased(self, event: ev.TasksLeased) -> Iterator[str]:
        row = self._row(event.slave)
        row.lease, row.granted = event.lease, event.time
        row.held = dict.fromkeys(event.tasks)
        self._labels.update(event.labels)
        yield from self._count_at(event.time)

    def _task_copied(self, event: ev.TaskCopied) -> Iterator[str]:
        self._copied[event.task] = event.slave
        args = {"task": event.task, "context": event.context, "other": event.other}
        yield self._instant(event.time, "started twice", event.slave, args)

    def _started(self, event: ev.TaskStarted) -> Iterator[str]:
        self._row(event.slave).started = event.task, event.time
        yield from ()

    def _task_done(self, event: ev.TaskDone) -> Iterator[str]:
        self._done += 1
        self._failed += event.kind != VALUE
        row = self._rows.get(event.slave)
        if row is not None:
            began = max(row.granted, row.last_done)
            row.last_done = event.time
            was_held = event.task in row.held
            row.held.pop(event.task, None)
            if event.kind in (VALUE, FAILURE) and was_held:
                row.untold[event.task] = event, began
            elif event.kind == TIMED_OUT:
                yield self._seen_by_master(event, began)
        if event.kind in (VALUE, FAILURE) and self._copied.get(event.task) == event.slave:
            yield self._instant(event.time, "copy was first", event.slave, {"task": event.task})
        if event.kind == GIVEN_UP:
            yield self._instant(event.time, "given up", event.slave, {"task": event.task, "context": event.context})
        yield from self._count_at(event.time)

    def _write_untold(self, number: int, row: _Row) -> Iterator[str]:
        untold, row.untold = row.untold, {}
        for event, began in untold.values():
            yield self._seen_by_master(event, began)

    def _seen_by_master(self, event: ev.TaskDone, began: float) -> str:
        args: dict[str, Any] = {"task": event.task, "context": event.context, "out": event.size}
        args["seen"] = "by the master"
        if event.kind != VALUE:
            args["failed"] = _KINDS[event.kind]
        name = self._name(event.task)
        return self._bar(event.slave, "task", name, began, event.time, args, "bad" if event.kind != VALUE else "")

    def _retried(self, event: ev.TaskRetried) -> Iterator[str]:
        row = self._row(event.slave)
        if event.task in row.held:
            seen = ev.TaskDone(event.time, event.context, event.task, event.slave, FAILURE, 0)
            row.untold[event.task] = seen, max(row.granted, row.last_done)
        row.last_done = event.time
        row.held.pop(event.task, None)
        args = {"task": event.task, "context": event.context, "failures": event.failures}
        yield self._instant(event.time, "retry", event.slave, args)

    def _attempt_ended(self, event: ev.TaskAttemptEnded) -> Iterator[str]:
        args = {"task": event.task, "context": event.context, "attempts": event.attempts}
        yield self._instant(event.time, "attempt ended", event.slave, {**args, "end": event.end[:_MOST_TEXT]})

    def _context_made(self, event: ev.ContextMade) -> Iterator[str]:
        if event.label:
            self._contexts[event.context] = event.label
        yield from ()

    def _context_dropped(self, event: ev.ContextDropped) -> Iterator[str]:
        self._contexts.pop(event.context, None)
        yield from ()

    def _cancelled(self, event: ev.ContextCancelled) -> Iterator[str]:
        args = {"context": event.context, "tasks": event.tasks}
        yield self._instant(event.time, "cancelled", None, args)

    # -- what a slave tells

    def _timed(self, event: ev.TasksTimed) -> Iterator[str]:
        row, times = self._row(event.slave), event.times
        offset = event.time - times.clock * 1e-9
        if 0 <= offset < _SAME_CLOCK:
            offset = 0.0
        row.offset = offset if row.offset is None else min(row.offset, offset)  # the quickest message is nearest
        if times.left_out:
            yield self._instant(event.time, "left out", event.slave, {"tasks": times.left_out})
        yield from self._lease_bar(event.slave, row, times)
        bars = [*self._setup_bars(times), *self._task_bars(row, times)]
        for _, cat, name, begins, ends, args, color in sorted(bars, key=lambda bar: bar[3]):
            yield self._bar(event.slave, cat, name, begins, ends, args, color)

    def _lease_bar(self, slave: int, row: _Row, times: Times) -> Iterator[str]:
        """The slave waited for the lease, which then was on its way."""
        if not times.got:
            return
        asked, got = row.offset + times.asked * 1e-9, row.offset + times.got * 1e-9  # type: ignore[operator]
        granted = row.granted if row.lease == times.lease else asked
        granted = min(max(granted, asked), got)
        if asked >= row.end - 1e-6:  # else it was told of with the first part
            args = {"receive": _us(got - granted), "lease": times.lease}
            yield self._bar(slave, "wait", "waits for tasks", asked, got, args)

    def _setup_bars(self, times: Times) -> Iterator[tuple[Any, ...]]:
        offset = self._rows[times.slave].offset or 0.0
        for context, began, ended, succeeded in _parts(times.setups, SETUP_NUMBERS):
            args = {"context": context} if succeeded else {"context": context, "failed": "raised"}
            name, color = f"setup of {self._contexts.get(context, f'context {context}')}", "" if succeeded else "bad"
            yield 0, "setup", name, offset + began * 1e-9, offset + ended * 1e-9, args, color

    def _task_bars(self, row: _Row, times: Times) -> Iterator[tuple[Any, ...]]:
        offset, errors = row.offset or 0.0, dict(zip(times.failed, times.errors))
        for numbers in _parts(times.tasks, _NUMBERS):
            one = TimesOfTask(*numbers)
            row.untold.pop(one.task, None)
            args: dict[str, Any] = {"task": one.task, "context": one.context, "in": one.size, "out": one.result_size}
            args["load"], args["send"] = (one.called - one.begins) / 1e3, (one.posted - one.returned) / 1e3
            if one.kind != VALUE:
                args["failed"] = errors.get(one.task, _KINDS.get(one.kind, ""))
            name = times.names[one.name] if one.name < len(times.names) else ""
            name = self._name(one.task, name)
            color = "bad" if one.kind != VALUE else ""
            yield 0, "task", name, offset + one.called * 1e-9, offset + one.returned * 1e-9, args, color

    def _name(self, task: int, name: str = "") -> str:
        """What a bar of the task is called: by its label, or by what was called."""
        take = self._labels.get if task in self._copied else self._labels.pop
        return take(task, "") or name or f"task {task}"

    # -- the run

    def _stopped(self, event: ev.MasterWasStopped) -> Iterator[str]:
        yield self._instant(event.time, "the master was stopped", None, {"seconds": round(event.seconds, 3)})

    def _missed(self, event: ev.Missed) -> Iterator[str]:
        yield self._instant(event.time, "events are missing here", None, {"events": event.count})

    def _closed(self, event: ev.ManagerClosed) -> Iterator[str]:
        yield self._instant(event.time, "run ends", None)

    def _count_at(self, time: float) -> Iterator[str]:
        if time >= self._counted + _COUNT_SECONDS:
            yield self._count(time)

    def _count(self, time: float) -> str:
        self._counted = time
        args = {"waiting": max(0, self._added - self._done), "done": self._done, "failed": self._failed}
        return _line(name="tasks", ph="C", pid=_PID, tid=0, ts=self._ts(time), args=args)

    # -- lines

    def _ts(self, time: float) -> float:
        return _us(max(0.0, time - self._began))

    def _bar(
        self, slave: int, cat: str, name: str, begins: float, ends: float, args: dict[str, Any], color: str = ""
    ) -> str:
        """Bars of a row must not overlap: clocks of two machines are not quite the same."""
        row = self._row(slave)
        begins = max(begins, row.end, self._began)
        row.end = ends = max(begins, ends)
        more = {"cname": color} if color else {}
        ts, dur = self._ts(begins), _us(ends - begins)
        return _line(name=name, cat=cat, ph="X", pid=_PID, tid=_tid(slave), ts=ts, dur=dur, args=args, **more)

    def _instant(self, time: float, name: str, slave: int | None, args: dict[str, Any] | None = None) -> str:
        tid, scope = (0, "g") if slave is None or slave < 0 else (_tid(slave), "t")
        return _line(name=name, cat="event", ph="i", s=scope, pid=_PID, tid=tid, ts=self._ts(time), args=args or {})


def _parts(flat: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (flat[at : at + size] for at in range(0, len(flat) - size + 1, size))


def _tid(slave: int) -> int:
    return slave + 1  # 0 is the master's


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _line(**event: Any) -> str:
    return json.dumps(event, separators=(",", ":"))
