"""Work: what a front end's object stands on, and what goes on when that is gone.

The slaves are of a manager of its own, which is made by the first call and ended when all is done, or of the user's.
Work that is not finished is kept here; at interpreter exit it is waited for, as the standard executors do.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, Callable, Union

from ..checks import check_manager
from ..errors import ManagerClosed, UnpicklableError
from ..manager import Manager
from ..payload import standard_error
from ..task_future import Submitted
from .calls import Functions
from .inline import InlineWork, inside_task

if TYPE_CHECKING:
    from ..context import Context
    from ..service.mailbox import Mailbox

_unfinished: set[Work] = set()
_exiting = False


class Work:
    """See the module's text.

    ``manager``: whose slaves to use; None: ``max_workers`` local slaves of its own, which print where this program
    does.  ``setup``: run once in each slave; what it returns is not used.  ``most_tasks``: after so many of its tasks
    a slave's process is replaced.  ``checkpoint``, ``speculate``: as of `Manager.get_context`.  ``dropped_at_exit``:
    what is not done when the interpreter exits is given up.
    """

    def __init__(
        self,
        manager: Manager | None,
        max_workers: int,
        setup: Callable[[], object] | None,
        most_tasks: int | None = None,
        dropped_at_exit: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        speculate: bool = False,
    ) -> None:
        self.manager, self.checkpoint, self._speculate = manager, checkpoint, speculate
        self.own = manager is None
        self._workers, self._setup, self._most_tasks = max_workers, setup, most_tasks
        self._dropped_at_exit = dropped_at_exit
        self._functions: Functions | None = None
        self._pid = os.getpid()
        self._starting = threading.RLock()  # held while the manager is made
        self._context: Context[Any] | None = None

    @property
    def max_workers(self) -> int:
        """How many calls run at a time."""
        if self.own or self.manager is None:
            return self._workers
        return max(1, sum(info.state not in ("ended", "lost") for info in self.manager.slaves))

    @property
    def context(self) -> Context[Any]:
        """The context of its tasks; the first look makes it, and the manager.

        Raises `UnpicklableError` if setup cannot be pickled, and RuntimeError when the interpreter exits.
        """
        if self._context is None:
            with self._starting:
                if self._context is None:
                    self._context = self._make_context()
        return self._context

    def _make_context(self) -> Context[Any]:
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self.manager is None:
            self.manager = Manager.local(self._workers, output="-", progress=False)
        try:
            context: Context[Any] = self.manager.get_context(
                self._setup,
                max_tasks_per_slave=self._most_tasks,
                checkpoint=self.checkpoint,
                speculate=self._speculate,
            )
        except BaseException:
            if self.own:
                self.manager.shutdown(wait=False)
                self.manager = None
            raise
        _unfinished.add(self)
        return context

    def submit(
        self, function: Callable[..., Any], args: tuple[object, ...], named: dict[str, object]
    ) -> concurrent.futures.Future[Any]:
        """Have a slave call it.  What cannot be pickled fails its own future, as in the standard library."""
        try:
            return self.context.submit(function, *args, **named)
        except UnpicklableError as error:
            return _failed(error)

    def submit_by_value(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """The same, by `Context.submit_by_value`."""
        try:
            return self.context.submit_by_value(function)
        except UnpicklableError as error:
            return _failed(error)

    def submit_input(self, mailbox: Mailbox, item: object) -> concurrent.futures.Future[Any]:
        """The same, by `Context.submit_input`."""
        try:
            return self.context.submit_input(mailbox, item)
        except UnpicklableError as error:
            return _failed(error)

    @property
    def functions(self) -> Functions:
        """For a pool, in the place of `submit`: the ways for calls.  Raises as `context` does."""
        if self._functions is None:
            with self._starting:
                if self._functions is None:
                    self._functions = Functions(self.context.entrance)
        return self._functions

    @property
    def _calls(self) -> Functions | Submitted | None:
        """All that was called, if anything was."""
        if self._context is None:
            return None
        return self._functions or self._context.submitted

    @property
    def broken(self) -> Exception | None:
        """Why nothing can be run any more: setup raised on every slave, and there will be no others."""
        return self._context.submitted.setup_error if self.own and self._context is not None else None

    def cancel_waiting(self) -> None:
        """Cancel the futures of calls that no slave has."""
        if self._context is not None and not self._is_forked():
            self._context.submitted.cancel_waiting()

    def finish(self) -> None:
        """Wait until all is done, then end the slaves if they are its own.  May be called again."""
        calls = self._calls
        if calls is not None and not self._is_forked():
            calls.wait()
            self._close(wait=True)

    def finish_soon(self) -> None:
        """The same without waiting.  For finalizers too."""
        calls = self._calls
        if calls is not None and self in _unfinished and not self._is_forked():
            calls.when_done(lambda: self._close(wait=False))

    def abort(self) -> None:
        """Cancel what is not done, and end the slaves if they are its own."""
        calls = self._calls
        if calls is not None and self in _unfinished and not self._is_forked():
            try:
                calls.cancel()
            except ManagerClosed:
                pass  # the user's, who has shut it down
            self._close(wait=True)

    def finish_at_exit(self) -> None:
        """The interpreter is about to exit."""
        if self._dropped_at_exit:
            self.abort()
        else:
            self.finish()

    def _is_forked(self) -> bool:
        """Whether this process is a fork of the one that has these slaves: what is under way is that one's."""
        return self._pid != os.getpid()

    def _close(self, wait: bool) -> None:
        if self.own and self.manager is not None:
            self.manager.shutdown(wait=wait)
        _unfinished.discard(self)


def _failed(error: UnpicklableError) -> concurrent.futures.Future[Any]:
    """A future that fails with the standard library's exception."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_exception(standard_error(error))
    return future


AnyWork = Union[Work, InlineWork]


def begin(
    name: str,
    manager: Manager | None,
    max_workers: int,
    setup: Callable[[], object] | None = None,
    most_tasks: int | None = None,
    dropped_at_exit: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    speculate: bool = False,
) -> AnyWork:
    """The work of a front end that the user called ``name``: on slaves, or inside a task in this process."""
    if inside_task(name):
        return InlineWork(setup)
    check_manager(manager)
    return Work(manager, max_workers, setup, most_tasks, dropped_at_exit, checkpoint, speculate)


def _finish_all() -> None:
    """The interpreter is about to exit."""
    global _exiting
    _exiting = True
    for work in list(_unfinished):
        work.finish_at_exit()


def exiting() -> bool:
    """Whether the interpreter is about to exit: nothing new can be begun."""
    return _exiting


# before threads are joined, as the standard executors do: callbacks still run then
getattr(threading, "_register_atexit", atexit.register)(_finish_all)
