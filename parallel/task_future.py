"""TaskFuture: what `Context.submit` returns, a `concurrent.futures.Future` that is filled by the dispatcher.

A result is rebuilt (unpickled) in the thread that first asks for it: the dispatcher runs no code of the user's.  It
only notes that the outcome is there, and wakes whoever waits.  A future that has callbacks, or for which `wait` or
`as_completed` wait, is left to the courier (service/courier.py), and so is one whose lock somebody holds just then: a
signal handler that interrupted that thread may itself wait for the dispatcher.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterable
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Callable, TypeVar

from slave.protocol import VALUE
from slave.signals import came_from_handler

from .core.effects import Outcome
from .errors import ResultError, TaskGivenUp, as_broken_pool, as_pickling_error
from .outcomes import original, rebuild
from .program import Program
from .service.mailbox import Mailbox
from .stays_here import stays_here

Result = TypeVar("Result")


_SHARED: Any = threading.Condition()


class TaskFuture(concurrent.futures.Future[Result]):
    """The result that a task will have.

    ``task_id``: as of `Context.add_task`.  `cancel` also ends a task that runs, with the process that it runs in.  Its
    exception is the one that the task raised, whose ``__cause__`` is the `RemoteError` with the remote traceback; or
    that `RemoteError` where it cannot be rebuilt.  A task that ended its slave again and again has a `TaskGivenUp`, and
    one whose result cannot be rebuilt a `ResultError`, both of which are a ``BrokenProcessPool`` too; where the
    exception cannot be pickled the `RemoteError` is a ``PicklingError`` too.
    """

    task_id: int = 0

    __reduce__ = stays_here

    def __init__(self, mailbox: Mailbox, owner: object, program: Program) -> None:  # and not the base's: see below
        self._mailbox, self._program = mailbox, program
        self._owner = owner  # the context, which is kept for as long as there is something to come
        self._outcome: Outcome | None = None  # when it is known and has not been rebuilt

    # The parts of the base that most futures never need are made when they are asked for: they take longer to make than
    # all else, and the garbage collector has to look at each of them.

    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "_condition":
            return self.__dict__.setdefault(name, threading.Condition())  # of two threads one is first
        if name in ("_waiters", "_done_callbacks"):
            return self.__dict__.setdefault(name, [])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- asked by the user

    def cancel(self) -> bool:
        """Cancel the task, also if it runs.  False if its outcome is known already."""
        with self._condition:
            if self._state != PENDING:
                return self._state != FINISHED
            self._state = CANCELLED
            self.set_running_or_notify_cancel()
            self._condition.notify_all()
            self._owner = None
        self._mailbox.cancel_soon(self.task_id)
        self._invoke_callbacks()
        return True

    def running(self) -> bool:
        """Whether a slave has the task just now."""
        return self._state == PENDING and self._mailbox.is_leased(self.task_id)

    def result(self, timeout: float | None = None) -> Result:
        """As of any future: the result, waited for; raises the task's exception, TimeoutError, CancelledError."""
        try:
            self._know(timeout)
            if self._exception is None:
                result: Result = self._result
                return result
            return super().result(0)
        finally:
            self = None  # type: ignore[assignment]  # else a traceback keeps the future, and that the result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of any future: the exception or None, waited for."""
        self._know(timeout)
        return super().exception(0)

    def __repr__(self) -> str:
        outcome = self._outcome
        if outcome is None:
            return super().__repr__()
        came = "returned" if outcome.kind == VALUE else "raised"  # what, is known to who asks: that runs users' code
        return f"<{type(self).__name__} at {id(self):#x} state=finished {came}>"

    def _get_snapshot(self) -> Any:  # what asyncio asks for from 3.14 on
        if self._state == FINISHED:
            self._know(0)
        return super()._get_snapshot()  # type: ignore[misc]

    def _know(self, timeout: float | None) -> None:
        """Wait, and rebuild the outcome unless that is done."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._state != FINISHED:
            left = None if deadline is None else deadline - time.monotonic()
            try:
                super().exception(left)  # waits, and raises what there is to raise
            except concurrent.futures.TimeoutError as error:
                if (left is not None and left <= 0) or came_from_handler(error):
                    raise  # else it was woken for the sake of another future: see `settle_at_once`
        outcome = known = self._outcome
        if outcome is None:
            return
        if self._mailbox.recorder is not None:
            outcome = self._mailbox.recorder.written(outcome)
        exception, value = value_of(outcome, self._program, self._mailbox.label)
        with self._condition:
            if self._outcome is known:  # else another thread was quicker, and its result is the one
                self._exception, self._result = exception, value
                self._outcome = None

    # -- filled by the dispatcher and the courier

    def settle_at_once(self, outcome: Outcome) -> bool:
        """See `Addressee`.

        A future that nobody has looked at gets the condition that all such ones share: whoever comes in the middle of
        this waits for it there, and is woken.
        """
        parts = self.__dict__
        condition = parts.setdefault("_condition", _SHARED)
        if not condition.acquire(blocking=False):
            return False
        try:
            if parts.get("_done_callbacks") or parts.get("_waiters"):
                return False
            if self._state == PENDING:
                self._finish(outcome)
                if condition is not _SHARED or condition._waiters:
                    condition.notify_all()
            return True
        finally:
            condition.release()

    def settle(self, outcome: Outcome) -> None:
        """See `Addressee`."""
        with self._condition:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED):
                return
            self._finish(outcome)
            for waiter in self._waiters:
                if outcome.kind == VALUE:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._state = FINISHED
        self._owner = None

    def fail(self, error: BaseException) -> None:
        """See `Addressee`."""
        try:
            self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # it was cancelled
        self._owner = None


class Submitted:
    """What was submitted to a context and has no outcome yet, as a whole."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def cancel_waiting(self) -> None:
        """Cancel what no slave has got, and no slave is being started for."""
        self._cancel(self._mailbox.cancel_waiting())

    def cancel(self) -> None:
        """Cancel all, also what runs."""
        self._cancel(self._mailbox.addressees())

    def _cancel(self, futures: Iterable[object]) -> None:
        for future in futures:
            if isinstance(future, TaskFuture):
                future.cancel()

    def wait(self) -> None:
        """Wait until no task is left, or none can be run any more, and all callbacks have returned."""
        self._mailbox.wait_until_done()

    def when_done(self, errand: Callable[[], object]) -> None:
        """Have this called then, in the thread of the callbacks.  Never waits."""
        self._mailbox.when_done(errand)

    @property
    def setup_error(self) -> Exception | None:
        """Why tasks failed, if it was that setup raised on every slave."""
        return self._mailbox.setup_error


def value_of(outcome: Outcome, program: Program, label: str = "") -> tuple[BaseException | None, Any]:
    """The outcome as futures and pools have it: the exception or None, and the value.  Raises as `rebuild`."""
    is_error, value = rebuild(outcome, program)
    if not is_error:
        return None, value
    value.label = value.label or label
    if isinstance(value, (ResultError, TaskGivenUp)):
        return as_broken_pool(value), None
    return as_pickling_error(value) if value.unpicklable else original(value), None
