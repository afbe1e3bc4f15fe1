"""Context: the user's tasks in, the user's results out."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Generic, Protocol, TypeVar

from slave.main_module import NAMES as MAIN_NAMES
from slave.missing import master_has, missing_module
from slave.outcome import unpack_failure
from slave.pickling import explain, references
from slave.protocol import FAILURE, GIVEN_UP, TIMED_OUT, VALUE

from .checks import check_timeout
from .core.effects import Outcome
from .errors import InputTypeError, RemoteError, ResultError, TaskGivenUp, TaskTimeout, UnpicklableError
from .feeder import Feeder
from .pickled import describe
from .program import Program
from .service.dispatcher import Dispatcher
from .service.mailbox import Mailbox

Result = TypeVar("Result")


class Owner(Protocol):
    """What a context needs of the manager that made it."""

    program: Program
    dispatcher: Dispatcher

    def begin(self) -> None:
        """Start the slaves that were added."""

    def tell_slaves(self) -> None:
        """Have them learn what has changed in the program."""


class Context(Generic[Result]):
    """Tasks that share a setup.  Made by `Manager.get_context`.

    Setup runs once on each slave that gets a task of this context; what it returned becomes the arguments of every task
    there: a tuple is unpacked, None gives no argument, anything else is one argument.
    """

    def __init__(self, manager: Owner, setup: Callable[[], object] | None, timeout: float | None, retries: int) -> None:
        self._manager, self._program = manager, manager.program
        self._timeout, self._retries = timeout, retries
        manager.tell_slaves()
        payload = None if setup is None else dump(setup, "the setup", manager.program)
        self._mailbox = Mailbox(manager.dispatcher, payload)
        self._feeder = Feeder(self._mailbox, self._feed)
        self._reading = threading.RLock()  # guards the front of the mailbox: who looks at an outcome is who takes it
        finalizer = weakref.finalize(self, Mailbox.abandon, self._mailbox)
        finalizer.atexit = False  # then the manager ends, and everything with it

    def __repr__(self) -> str:
        return f"<Context {self._mailbox.id} of {self._manager!r}>"

    def add_task(self, task: Callable[..., Result], *, timeout: float | None = None) -> int:
        """Add a task: any picklable callable, which will be called with what setup returned.

        Returns its id, a whole number that no other task of this manager has: see `cancel` and `RemoteError.task_id`.

        ``timeout``: seconds that it may run (math.inf: as long as it takes); default: the context's.

        It is pickled now: later changes to it do not matter.  Raises `InputTypeError` if it is not callable,
        `UnpicklableError` if it cannot be pickled (naming the attribute to blame), `InputError` for an impossible
        timeout, `ManagerClosed`; the context is unharmed by each.
        """
        if not callable(task):
            raise InputTypeError(f"a task must be callable, and {task!r} is not; to pass data, use functools.partial")
        program = self._program
        if program.glance():
            self._manager.tell_slaves()
        payload = _quick_pickle(task) or dump(task, "the task", program)
        if program.main_stays:
            check_main(payload, "the task")
        limit = self._timeout if timeout is None else check_timeout(timeout)
        return self._mailbox.add(payload, limit, self._retries)

    def add_tasks(self, tasks: Iterable[Callable[..., Result]], *, timeout: float | None = None) -> None:
        """Add the tasks of an iterable, which may be endless: they are taken from it as the slaves need them.

        It is asked in the thread that reads the results, while that reads.  What it raises comes out of the loop over
        the results, and it is not asked again then; a task of it that cannot be added raises there as in `add_task`,
        and the next call for results goes on behind it.  ``timeout``: as in `add_task`, for each task.

        Raises `InputTypeError` if it is not iterable, `InputError` for an impossible timeout.
        """
        if timeout is not None:
            check_timeout(timeout)
        self._feeder.append(tasks, timeout)

    def _feed(self, task: Callable[..., Result], timeout: float | None) -> None:
        self.add_task(task, timeout=timeout)

    def cancel(self, task: int | None = None) -> int:
        """Drop the tasks that wait and stop those that run; returns how many these were: they have no outcome.

        ``task``, an id that `add_task` returned: that one only; 0 is returned if its outcome is known already.

        A running task is stopped by ending its slave's process; a new one takes its place, and runs setup again when
        it gets a task.  Iterables given to `add_tasks` are asked no more.  Results that are known already stay and can
        be read; new tasks can be added.
        """
        if task is not None:
            return int(self._mailbox.cancel_task(task))
        self._feeder.clear()
        return self._mailbox.cancel()

    def get_results_unordered(self) -> Iterator[Result]:
        """A generator of the tasks' results, in the order of their completion; starts the slaves if need be.

        Tasks may be added while it runs.  Left early and called again it goes on where it was; when no task is left it
        is empty.

        The generator raises `RemoteError` for a task that raised (that task is done with, call again for the rest),
        as `TaskTimeout` or `TaskGivenUp` where that is what happened,
        `NoMoreSlavesError` when no slave is left, `ManagerClosed` after a shutdown.
        """
        self._manager.begin()
        return self._results()

    def _results(self) -> Iterator[Result]:
        """An outcome that has left the mailbox without reaching the user goes back: Ctrl-C loses nothing."""
        self._feeder.refill()
        while True:
            if self._mailbox.wants_tasks:
                self._feeder.refill()
            taken: Outcome | None = None
            try:
                with self._reading:
                    taken, is_error, value = self._take()
                if taken is None:
                    if not self._mailbox.wait(for_tasks=not self._feeder.asking):
                        if self._feeder.exhausted or self._feeder.asking:
                            return
                        self._feeder.refill()
                elif is_error:
                    taken = None
                    raise value
                else:
                    began = None if self._feeder.exhausted else time.monotonic()
                    taken = None
                    yield value
                    if began is not None:
                        self._feeder.was_away(time.monotonic() - began)
            except BaseException:
                if taken is not None:
                    with self._reading:
                        self._mailbox.put_back(taken)
                raise

    def _take(self) -> tuple[Outcome | None, bool, Any]:
        """The next outcome, whether it is an error, and its value; it leaves the mailbox when it has been rebuilt."""
        ready = self._mailbox.ready
        if not ready:
            return None, False, None
        taken = ready[0]
        try:
            is_error, value = _rebuild(taken, self._program)
            self._mailbox.took(taken)
            return taken, is_error, value
        except BaseException:
            if not ready or ready[0] is not taken:
                self._mailbox.put_back(taken)
            raise


def _rebuild(outcome: Outcome, program: Program) -> tuple[bool, Any]:
    """Whether the outcome is an error to raise, and that error or the value."""
    kind, slave, data = outcome.kind, outcome.slave, outcome.data
    if kind == VALUE:
        try:
            if program.main_is_hidden:
                return False, program.loads(lambda: pickle.loads(data, buffers=outcome.buffers))
            return False, pickle.loads(data, buffers=outcome.buffers)
        except Exception as error:
            what = "a task's result cannot be rebuilt in this process"
            trace = traceback.format_exc()
            result_error = ResultError(what, type(error).__name__, str(error), trace, slave, error)
            return True, result_error.of_task(outcome.task, "it ran, and is not kept")
    if kind == TIMED_OUT:
        return True, TaskTimeout("a task", slave, data).of_task(outcome.task, describe(outcome.payload))
    if kind == GIVEN_UP:
        return True, TaskGivenUp("a task", slave, data).of_task(outcome.task, describe(outcome.payload))
    assert kind == FAILURE, f"an outcome of the unknown kind {kind}"
    failure = unpack_failure(data)
    exception = program.loads(failure.exception)
    ours = master_has(missing_module(exception))
    trace = failure.traceback + (f"{ours[0].upper()}{ours[1:]}\n" if ours else "")
    what = "a task" if outcome.tries == 1 else f"a task (tried {outcome.tries} times)"
    remote = RemoteError(what, failure.type_name, failure.message, trace, slave, exception)
    return True, remote.of_task(outcome.task, describe(outcome.payload))


def dump(value: object, name: str, program: Program) -> bytes:
    """The pickle of a task or setup.  Raises `UnpicklableError` naming what is to blame."""
    try:
        payload = program.dumps(value)
    except Exception as error:
        why = f"{name} cannot be sent to a slave: {explain(value, name, error)}"
    else:
        if program.main_stays:
            check_main(payload, name)
        return payload
    raise UnpicklableError(why)  # not while the other is handled: its traceback is all ours and tells nothing more


def _quick_pickle(value: object) -> bytes | None:
    """The pickle; None if there is none, and then `dump` tells why."""
    try:
        return pickle.dumps(value, 5)
    except Exception:
        return None


def check_main(payload: bytes, name: str) -> None:
    """Raise `UnpicklableError` if it refers to a program that slaves cannot import."""
    if not any(main.encode() in payload for main in MAIN_NAMES):  # else it may be a name, or a text in data
        return
    wanted = [attribute for module, attribute in references(payload) if module in MAIN_NAMES]
    if wanted:
        raise UnpicklableError(
            f"{name} refers to something defined in this session, which has no file that a slave could import: "
            f"{', '.join(wanted[:3])}; put its functions and classes into a module (a .py file beside you) and import "
            f"them from there"
        )
