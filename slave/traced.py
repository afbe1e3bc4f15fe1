"""What a runner notes of when it does what, and tells a master that keeps a trace (parallel/monitor/trace.py).

It is noted for each task when it was rebuilt, called, had returned and was posted, for each setup when it ran, and when
the lease was asked for and came, all by this machine's monotonic clock; and the master is told before it is asked for
the next lease.  What is told is for people: if a connection breaks over it, it is left out and counted.
"""

from __future__ import annotations

import time
from typing import Any

from .contexts import Contexts
from .link import TaskQueueProxy
from .missing import shown
from .outcome import Packed, unpack_failure
from .protocol import FAILURE, FetchRequest, LeaseMessage, Times, TimesOfTask

_MOST_AT_ONCE = 2_000  # tasks that one message tells of
_MOST_NOTED = 20_000  # tasks of one lease that are noted
_MOST_ERRORS, _MOST_ERROR = 50, 200  # in one message; characters of each
_MOST_NAME = 100  # characters

_now = time.monotonic_ns


class Notes:
    """What this runner has done since it told the master."""

    def __init__(self, slave: int) -> None:
        self._slave = slave
        self._lease = self._asked = self._got = 0
        self._tasks: list[tuple[int, ...]] = []
        self._setups: list[int] = []
        self._errors: dict[int, str] = {}
        self._names: dict[str, int] = {"": 0}  # of what was called
        self._left_out = 0
        self._task: list[int] = []  # of the one that runs: itself, its context, its size, rebuilt from when on
        self._call = 0, 0, 0  # began, ended, its name

    def came(self, lease: int, asked: int) -> None:
        """A lease that was asked for at ``asked`` has come."""
        self._lease, self._asked, self._got = lease, asked, _now()

    def begins(self, task: int, context: int, size: int) -> None:
        """A task of ``size`` bytes is to be rebuilt and run."""
        self._task = [task, context, size, _now()]

    def called(self, began: int, ended: int, name: str) -> None:
        """The function of that name was called at ``began``, and has returned or raised."""
        self._call = began, ended, self._names.setdefault(name, len(self._names))

    def set_up(self, context: int, began: int, succeeded: bool) -> None:
        """A setup ran from ``began`` until now."""
        self._setups += [context, began, _now(), int(succeeded)]

    def posted(self, packed: Packed) -> None:
        """The outcome of the task has been posted."""
        kind, data, buffers = packed
        if not self._task:
            return
        if len(self._tasks) >= _MOST_NOTED:
            self._left_out += 1
        else:
            task, context, size, begins = self._task
            sent = sum(len(memoryview(part)) for part in (data, *buffers))
            called, returned, name = self._call if self._call[0] >= begins else (begins, begins, 0)  # no argument of it
            self._tasks.append((task, context, begins, called, returned, _now(), kind, size, sent, name))
        if kind == FAILURE and len(self._errors) < _MOST_ERRORS:
            failure = unpack_failure(data)
            first = (failure.message.splitlines() or [""])[0]
            self._errors[self._task[0]] = shown(f"{failure.type_name}: {first}", _MOST_ERROR)
        self._task = []

    def messages(self) -> list[Times]:
        """What there is to tell, which is forgotten here."""
        tasks, setups, errors, left_out = self._tasks, self._setups, self._errors, self._left_out
        names = list(self._names)
        self._tasks, self._setups, self._errors, self._left_out, self._names = [], [], {}, 0, {"": 0}
        if not (tasks or setups or left_out):
            return []
        made = []
        for at in range(0, max(1, len(tasks)), _MOST_AT_ONCE):
            flat = [number for task in tasks[at : at + _MOST_AT_ONCE] for number in task]
            told = Times(self._slave, self._lease, 0, self._asked, self._got, left_out, setups, flat, names, (), ())
            made.append(told._replace(failed=list(errors), errors=list(errors.values())))
            setups, errors, left_out = [], {}, 0
        return made

    def lost(self, messages: list[Times]) -> None:
        """These were not told."""
        self._left_out += sum(one.left_out + len(one.tasks) // len(TimesOfTask._fields) for one in messages)


class TracedContexts(Contexts):
    """Notes when setups and tasks are called."""

    notes: Notes

    def call(self, context: int, task: Any) -> object:
        """See `Contexts`."""
        self.arguments(context)
        mapped = self._mapped.get(context)
        name = shown(_name_of(task if mapped is None else mapped.function), _MOST_NAME)
        began = _now()
        try:
            return super().call(context, task)
        finally:
            self.notes.called(began, _now(), name)

    def _run(self, context: int) -> Any:
        began = _now()
        found = super()._run(context)
        self.notes.set_up(context, began, isinstance(found, tuple))
        return found


def _name_of(called: Any) -> str:
    """The name of what is called, in a task's pickle with or without arguments of its own."""
    if type(called) is tuple and len(called) == 2:  # its arguments and it: see mapped.py
        called = called[1]
    called = getattr(called, "func", called)  # of a partial
    name = getattr(called, "__qualname__", None)
    return name if type(name) is str else type(called).__qualname__


class TracedTaskQueue(TaskQueueProxy):
    """Tells what was noted with each question for a lease."""

    notes: Notes

    def fetch(self, request: FetchRequest) -> LeaseMessage | None:
        """See `TaskQueueProxy`."""
        messages = self.notes.messages()
        try:
            while messages:
                self._send("times", (tuple(messages[0]._replace(clock=_now())),))
                messages.pop(0)
        except BaseException:
            self.notes.lost(messages)
            raise
        asked = _now()
        lease = super().fetch(request)
        if lease is not None:
            self.notes.came(lease.lease, asked)
        return lease
