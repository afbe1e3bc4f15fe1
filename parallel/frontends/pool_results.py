"""What a pool's calls give: `AsyncResult`; and what it has in common with the iterators of imap.py.

    the caller's thread      adds the calls, each with a `Part` as its tag (see `Addressee` in service/mailbox.py)
    the dispatcher's         leaves outcomes here as they come, and wakes who waits
    who asks for the result  rebuilds (unpickles) it, in its own thread
    the courier's            does so where there are callbacks, and runs these

The dispatcher waits for nobody, so there is no lock that it takes: all that it does here is atomic.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections import deque
from typing import Any, Callable, Generic, NamedTuple, Protocol, TypeVar, Union

from slave.protocol import FAILURE

from ..core.effects import Outcome
from ..errors import RemoteError, UnpicklableError
from ..payload import standard_error
from ..program import Program
from ..service.lock_free import Once, drained
from ..service.mailbox import Recorder
from ..service.ticket import Ticket
from ..task_future import value_of

Result = TypeVar("Result")

Callback = Callable[[Any], object]
Send = Callable[[Callable[[], object]], object]


class Known(NamedTuple):
    """What came of calls, where that is no slave's outcome: an error, or else a value."""

    error: BaseException | None
    value: Any = None


class Recorded(NamedTuple):
    """An outcome that is to be in a checkpoint before it is used, or is there."""

    recorder: Recorder
    outcome: Outcome


Came = Union[Outcome, Known, Recorded]


class Job(Protocol):
    """Calls that were made together."""

    def settle(self, index: int, came: Came) -> None:
        """This came of a part of them.  Never waits, and runs no code of the user's."""


class Part:
    """The tag of one task of a job.  See `Addressee`.  ``recorder``: of its mailbox, if there is one."""

    __slots__ = ("index", "job", "recorder")

    def __init__(self, job: Job, index: int, recorder: Recorder | None) -> None:
        self.job, self.index, self.recorder = job, index, recorder

    def settle_at_once(self, outcome: Outcome) -> bool:
        """See `Addressee`."""
        self.settle(outcome)
        return True

    def settle(self, outcome: Outcome) -> None:
        """See `Addressee`."""
        self.job.settle(self.index, outcome if self.recorder is None else Recorded(self.recorder, outcome))

    def fail(self, error: BaseException) -> None:
        """See `Addressee`."""
        self.job.settle(self.index, Known(error))


class Waker:
    """Wakes the threads that wait for something; who calls `wake` never waits."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def wake(self) -> None:
        """Have all of them look again."""
        for ticket in drained(self._tickets):
            ticket.answer(None)

    def wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until it holds, for ``timeout`` seconds at most; whether it does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not condition():
            ticket = Ticket()
            self._tickets.append(ticket)
            if condition():
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if not ticket.wait(left):
                try:
                    self._tickets.remove(ticket)
                except ValueError:
                    pass  # it was rung just now
                return condition()
        return True


class AsyncResult(Generic[Result]):
    """As of ``multiprocessing.pool``: the result that calls will have.

    ``parts``: how many tasks they are.  ``joined``: their lists are one; else there is one part, and its value is the
    result.  ``send``: what callbacks are to be called by.  ``forget`` is called when all is known.
    """

    def __init__(
        self,
        parts: int,
        joined: bool,
        program: Program | None,
        send: Send,
        forget: Callable[[AsyncResult[Any]], object],
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> None:
        self._came: list[Came | None] = [None] * parts
        self._to_come = [None] * parts  # one for each part that is not known
        self._claim = Once()  # who is first finishes this
        self._joined, self._program, self._send, self._forget = joined, program, send, forget
        self._callback, self._error_callback = callback, error_callback
        self._waker = Waker()
        self._done = False
        self._known: Known | None = None  # when somebody has looked

    def begin(self) -> None:
        """To be called once; there may be no parts to come."""
        if not self._to_come:
            self._all_came()

    # -- asked by the user

    def ready(self) -> bool:
        """Whether all calls are done, and the callback has returned."""
        return self._done

    def successful(self) -> bool:
        """Whether no call raised.  Raises ValueError if that is not known yet."""
        if not self._done:
            raise ValueError(f"{self!r} not ready")
        return self._look().error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, for ``timeout`` seconds at most."""
        if not self._done:
            self._waker.wait_for(self.ready, timeout)

    def get(self, timeout: float | None = None) -> Result:
        """The result, waited for.  Raises what a call raised, and ``multiprocessing.TimeoutError``."""
        self.wait(timeout)
        if not self._done:
            raise multiprocessing.TimeoutError
        known = self._look()
        if known.error is not None:
            raise known.error
        result: Result = known.value
        return result

    def _look(self) -> Known:
        """Rebuild what came, unless that is done."""
        came = self._came
        if self._known is None:
            known = self._rebuilt(came)
            if self._known is None:  # else another thread was quicker, and its result is the one
                self._known = known
                self._came = []
        return self._known

    def _rebuilt(self, came: list[Came | None]) -> Known:
        if not self._joined:
            return known_of(came[0], self._program)
        values: list[Any] = []
        error: BaseException | None = None
        for part in came:
            known = known_of(part, self._program)
            if error is None:
                error = known.error
                values.extend(known.value or ())
        return Known(None, values) if error is None else Known(error)

    # -- filled by other threads

    def settle(self, index: int, came: Came) -> None:
        """See `Job`."""
        parts = self._came
        if index < len(parts) and parts[index] is None:
            parts[index] = came
            self._to_come.pop()
            if not self._to_come:
                self._all_came()

    def drop(self, error: BaseException) -> None:
        """The pool was terminated: nothing more comes, and nobody is called."""
        if self._claim.first():
            self._known = Known(error)
            self._finish()

    def _all_came(self) -> None:
        if self._claim.first():
            if self._callback is None and self._error_callback is None:
                self._finish()
            else:
                self._send(self._call_back)

    def _call_back(self) -> None:
        try:
            known = self._look()
            callback, argument = (
                (self._callback, known.value) if known.error is None else (self._error_callback, known.error)
            )
            if callback is not None:
                callback(argument)
        finally:
            self._finish()

    def _finish(self) -> None:
        self._callback = self._error_callback = None
        self._done = True
        self._waker.wake()
        self._forget(self)


def terminated() -> BaseException:
    """What is raised by a result that does not come any more."""
    return concurrent.futures.CancelledError("the pool was terminated before this was done")


def known_of(came: Came | None, program: Program | None) -> Known:
    """What came, rebuilt; errors are what the standard's pools raise.  Raises `CheckpointError`: ask again."""
    assert came is not None
    if isinstance(came, Known):
        return came
    assert program is not None
    if isinstance(came, Recorded):
        came = came.recorder.written(came.outcome)
    error, value = value_of(came, program)
    if error is not None and came.kind == FAILURE:
        error = _as_of_a_pool(error)
    return Known(error, value)


class _Shown(str):
    """Text that is its own repr."""

    def __repr__(self) -> str:
        return str(self)


def _as_of_a_pool(error: BaseException) -> BaseException:
    """A result or an exception that could not be pickled there is a MaybeEncodingError."""
    unsent = getattr(error, "unsent", None)  # by slave/outcome.py
    if isinstance(error, RemoteError) and error.unpicklable:
        reason, value = f"{error.type_name} cannot be sent", f"{error.type_name}({error.message!r})"
    elif isinstance(unsent, tuple):
        value, reason = unsent
    else:
        return error
    from multiprocessing import pool  # seldom needed

    found: BaseException = pool.MaybeEncodingError(  # type: ignore[attr-defined]
        _Shown(reason), _Shown(value)
    )
    found.__cause__ = error
    return found


def size_of(came: Came) -> int:
    """How many bytes a result takes, about."""
    outcome = came.outcome if isinstance(came, Recorded) else came
    return outcome.size if isinstance(outcome, Outcome) else 0


def standard(error: Exception) -> BaseException:
    """What the standard library raises for what cannot be sent."""
    return standard_error(error) if isinstance(error, UnpicklableError) else error
