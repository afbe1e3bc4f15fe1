"""Every exception, grouped by whose fault it is.

Error
  InputError       the call that raised it: its arguments cannot be (also a ValueError)
    InputTypeError   ... are of the wrong type (also a TypeError)
    UnpicklableError ... cannot be sent to another process (also a TypeError)
  ManagerClosed    the manager was shut down before the call
  RemoteError      a task or a setup: it raised, or it ended its slaves
    TaskGivenUp      ... the task ended its slave `max_attempts` times
    TaskTimeout      ... the task ran for longer than its `timeout`
    ResultError      ... its result cannot be rebuilt in this process
  NetworkError     the network: a port in use, an unknown host
  CheckpointError  the file of a checkpoint: somebody else's or in use, a full disk
  LaunchError      what starts slaves, a batch system say: it refuses
  NoMoreSlavesError  the slaves: all have ended, and none is to come
  InternalError    a bug in this package: a thread of the manager has died
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, TypeVar

SomeError = TypeVar("SomeError", bound="RemoteError")


class Error(Exception):
    """Base of all errors of this package.

    A context never raises as itself what a task raised: see `RemoteError`.  `map`, `Executor` and `Pool` do, as the
    functions and classes do in whose place they stand.
    """


class InputError(Error, ValueError):
    """An argument cannot be right; the message says which and what to do.  Manager and context are unharmed."""


class InputTypeError(InputError, TypeError):
    """An argument is of the wrong type, a task that is not callable for instance."""


class UnpicklableError(InputTypeError):
    """A task or setup cannot be pickled; the message names the attribute to blame.

    Not raised for a result that cannot be pickled: that happens in the slave, and is a `RemoteError`.
    """

    original: Exception | None = None  # what pickling raised


class ManagerClosed(Error, RuntimeError):
    """The manager was shut down, or belongs to this process's parent.

    Also by leaving its ``with`` block, or by ``python3 -m parallel stop``.
    """


class NetworkError(Error, OSError):
    """The master cannot listen or be found as asked: the port is in use, the host is unknown.

    Not raised for a slave that cannot reach the master: that one says so itself, in its output file.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(Error, OSError):
    """The file of a checkpoint cannot be used, or not any more; the message says which, why and what to do.

    Raised in place of the next result when results cannot be written: none is lost, and the next call tries again.
    """

    def __str__(self) -> str:
        return str(self.args[0])


class LaunchError(Error, OSError):
    """A batch system, or another program that starts slaves, refuses; the message is the command and what it said.

    ``late``: it did not answer at all, so it may have done what it was asked.  Not raised for a slave that was started
    and ended: that is told by `NoMoreSlavesError`, when no other is left.
    """

    def __init__(self, message: str, late: bool = False) -> None:
        super().__init__(message)
        self.late = late

    def __str__(self) -> str:
        return str(self.args[0])


class RemoteError(Error):
    """A task or a setup raised.  The task is done with; the slave lives on.

    ``exc``: the exception itself, or None where it cannot be rebuilt in this process.  ``type_name``, ``message``: its
    type and text.  ``traceback``: the remote traceback (text).  ``slave``: which slave it was, as text.  ``task_id``:
    what `Context.add_task` returned for the task, 0 for a setup.  ``task``: the task's repr, cut at 200 characters.
    ``label``: that of the task, or else of its context, if one was given; else ''.
    ``index``: in a map, which input it was, from 0 on; else None.  ``others``: with ``errors="last"`` the errors of the
    other tasks that failed.
    """

    task_id: int = 0
    task: str = ""
    label: str = ""
    index: int | None = None
    unpicklable: bool = False  # the exception itself could not be sent
    others: Sequence[RemoteError] = ()

    def __init__(
        self, what: str, type_name: str, message: str, traceback: str, slave: str, exc: BaseException | None = None
    ) -> None:
        super().__init__(what, type_name, message, traceback, slave, exc)
        self.what, self.type_name, self.message = what, type_name, message
        self.traceback, self.slave, self.exc = traceback, slave, exc

    def of_task(self: SomeError, task_id: int, task: str, label: str = "") -> SomeError:
        """This error, which now says which task it was."""
        self.task_id, self.task, self.label = task_id, task, label
        return self

    @property
    def _which(self) -> str:
        """Lines that say which task it was, if it was one, and that there are others."""
        count = len(self.others)
        others = f"\n  {count} more task{'s' if count > 1 else ''} failed: see others of this error" if count else ""
        label = f" of {self.label!r}" if self.label else ""
        if self.index is not None:
            return f"\n  it was input {self.index}{label}: {self.task}{others}"
        return (f"\n  it was task {self.task_id}{label}: {self.task}" if self.task_id else "") + others

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.message}" if self.message else self.type_name
        there = f"; its traceback there:\n\n{self.traceback}" if self.traceback else ""
        where = f"\n  on {self.slave}{there}".rstrip()
        return f"{self.what} raised {text}{self._which}{where}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            type(self),
            self.args,
            {"task_id": self.task_id, "task": self.task, "label": self.label, "index": self.index},
        )


class TaskGivenUp(RemoteError):
    """A task ended its slave again and again and is not tried any more.  ``ends``: how each attempt ended (text).

    Only for a task whose own process died while it ran.  Not raised for what machines, networks and batch systems do,
    nor for a slave that was told to end: those attempts do not count.
    """

    def __init__(self, what: str, slave: str, ends: Sequence[str]) -> None:
        Error.__init__(self, what, slave, list(ends))
        self.what, self.slave, self.ends = what, slave, list(ends)
        self.type_name, self.message, self.traceback, self.exc = "TaskGivenUp", "", "", None

    def __str__(self) -> str:
        lines = "".join(f"\n  attempt {number}: {end}" for number, end in enumerate(self.ends, 1))
        return f"{self.what} ended its slave {len(self.ends)} times and is given up:{lines}{self._which}"


class TaskTimeout(RemoteError):
    """A task ran for longer than its timeout and was killed, with the process that it ran in.

    ``timeout``: the limit in seconds.  Not raised for a setup, which may take as long as it likes.  Such a task is
    not tried again, whatever `retries` says.
    """

    def __init__(self, what: str, slave: str, timeout: float) -> None:
        Error.__init__(self, what, slave, timeout)
        self.what, self.slave, self.timeout = what, slave, timeout
        self.type_name, self.message, self.traceback, self.exc = "TaskTimeout", str(self), "", None

    def __str__(self) -> str:
        limit = f"its timeout of {self.timeout:g} s"
        return f"{self.what} ran for longer than {limit} and was killed, on {self.slave}{self._which}"


class ResultError(RemoteError):
    """A task ran, and its result cannot be rebuilt here: a class that this process cannot import, or no memory."""

    def __str__(self) -> str:
        where = f"\n  it came from {self.slave}\n\n{self.traceback}".rstrip()
        return f"{self.what}: {self.type_name}: {self.message}{self._which}{where}"


class NoMoreSlavesError(Error):
    """All slaves have ended, none is to come, and tasks are left; the message says how each slave ended.

    The tasks stay in their context: add a slave and ask for results again.  Not raised while a slave may still come, by
    hand for instance (``port`` given): then the master waits and says so.
    """


class InternalError(Error, RuntimeError):
    """A thread of the manager has died, which is a bug in this package; its traceback was logged.

    Raised by every call that would else wait in vain.  Results that are known by then can still be read.
    """


def as_broken_pool(error: SomeError) -> SomeError:
    """The same error, which is a ``BrokenProcessPool`` from now on too: for futures, whose users know that one."""
    from concurrent.futures.process import BrokenProcessPool  # seldom needed, and slow to import

    return _which_is_also(error, BrokenProcessPool)


def as_pickling_error(error: SomeError) -> SomeError:
    """The same error, which is a ``pickle.PicklingError`` from now on too."""
    return _which_is_also(error, pickle.PicklingError)


_both: dict[tuple[type[Any], type[Any]], type[Any]] = {}


def _which_is_also(error: SomeError, other: type[Any]) -> SomeError:
    kind = type(error)
    if not isinstance(error, other):
        if (kind, other) not in _both:
            _both[kind, other] = _of_both(kind, other)
        error.__class__ = _both[kind, other]
    return error


def _of_both(kind: type[Any], other: type[Any]) -> type[Any]:
    def reduce(self: RemoteError) -> tuple[Any, ...]:
        return kind, *super(made, self).__reduce__()[1:]

    names = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    made: type[Any] = type(kind.__name__, (kind, other), names)
    return made
