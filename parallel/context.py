"""Context: the user's tasks in, the user's results out."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Callable, Generic, Literal, TypeVar, overload

from slave.mapped import Mapped
from slave.plain_numbers import whole
from slave.protocol import Payload

from .checks import check_key, check_label, check_timeout, name_of
from .core.effects import Outcome
from .core.state import ContextRules
from .core.task import Label
from .entrance import Entrance, Owner, Record
from .errors import InputError, InputTypeError, RemoteError
from .feeder import Feeder
from .idle_maps import IdleMaps
from .map_inputs import MapInputs, check_options, inputs_of
from .mapping import MOST_EARLY, MapResults
from .payload import digest_of, dump_by_value, setup_dump
from .results import LAST, RAISE, RETURN, Results, put_back, take
from .service.mailbox import Mailbox
from .stays_here import stays_here
from .task_future import Submitted, TaskFuture

if TYPE_CHECKING:
    from .monitor.status import ContextStatus

Result = TypeVar("Result")


class Context(Generic[Result]):
    """Tasks that share a setup.  Made by `Manager.get_context`.

    Setup runs once on each slave that gets a task of this context; what it returned becomes the arguments of every task
    there: a tuple is unpacked, None gives no argument, anything else is one argument.
    """

    __reduce__ = stays_here

    def __init__(
        self,
        manager: Owner,
        setup: Callable[[], object] | None,
        timeout: float | None,
        retries: int,
        rules: ContextRules,
        record: Record | None = None,
    ) -> None:
        self._manager, self._program = manager, manager.program
        self._timeout, self._retries = timeout, retries
        manager.tell_slaves()
        payload = None if setup is None else setup_dump(setup, "the setup", manager.program, in_parts=record is None)
        self._mailbox = Mailbox(manager.dispatcher, payload, rules)
        self._rules = rules._replace(base=self._mailbox.id)  # of its maps
        setups = [] if payload is None or record is None else [payload]
        self._entrance = Entrance(manager, self._mailbox, self._rules, record, setups)
        self._pack, self._submitted = self._entrance.pack, Submitted(self._mailbox)
        self._recorder = None if record is None else record(self._mailbox, setups, manager.begin)
        self._feeder = Feeder(self._mailbox, self._feed)
        self._idle_maps = IdleMaps()
        weakref.finalize(self, self._idle_maps.abandon).atexit = False
        self._reading = threading.RLock()  # guards the front of the mailbox: who looks at an outcome is who takes it
        finalizer = weakref.finalize(self, Mailbox.abandon, self._mailbox)
        finalizer.atexit = False  # then the manager ends, and everything with it

    def __repr__(self) -> str:
        return f"<Context {self._mailbox.id} of {self._manager!r}>"

    def add_task(
        self,
        task: Callable[..., Result],
        /,
        *args: object,
        timeout: float | None = None,
        label: str | None = None,
        key: str | None = None,
        **named: object,
    ) -> int:
        """Add a task: any picklable callable, which will be called with what setup returned.

        With arguments it stands for ``functools.partial(task, *args, **named)``: they come before setup's.
        Never among them are ``timeout``, the seconds that the task may run (math.inf: as long as it takes; default: the
        context's), ``label``, a name by which errors and whoever watches call it (default: that of the callable), and
        ``key``, by which it is known again if the context has a checkpoint (default: by its pickle).

        Returns its id, a whole number that no other task of this manager has: see `cancel` and `RemoteError.task_id`.

        It is pickled now: later changes to it do not matter.  Raises `InputTypeError` if it is not callable,
        `UnpicklableError` if it cannot be pickled (naming the attribute to blame), `InputError` for an impossible
        timeout, `ManagerClosed`; the context is unharmed by each.
        """
        payload = self._pack(task, args, named)
        limit = self._timeout if timeout is None else check_timeout(timeout)
        tag = None if label is None else Label(check_label(label))
        if key is not None:
            key = check_key(key)
        if self._recorder is None:
            return self._mailbox.add(payload, limit, self._retries, tag)
        assert type(payload) is bytes  # with a checkpoint
        if key is None and tag is None:
            id = self._recorder.add_usual(payload, task, limit, self._retries)
            if id:
                return id
        text = "" if tag is None else str(tag)
        return self._recorder.add(payload, name_of(task), limit, self._retries, key=key, label=text, tag=tag, task=task)

    def submit(self, task: Callable[..., Result], /, *args: object, **named: object) -> TaskFuture[Result]:
        """Add a task whose outcome comes as a future, and not to `get_results_unordered`; starts the slaves.

        A `concurrent.futures.Future` in every way, whose `cancel` also ends a task that runs: see `TaskFuture`.  The
        arguments are as in `add_task`, but that a ``timeout`` or ``label`` is one of the task's.  If no slave is left
        that could run it, the future fails with `NoMoreSlavesError`, or with `RemoteError` if setup raised on all.

        Callbacks run in a thread of the manager's and may submit more; one that waits for another future waits in vain.
        Work goes on whether or not somebody keeps the future or the context.  Raises what `add_task` raises.
        """
        return self._submit(self._pack(task, args, named), task)

    def submit_by_value(self, task: Callable[..., Result]) -> TaskFuture[Result]:
        """For front ends: the same for scripts without a guard, since what they define is sent by value.

        That is done by cloudpickle; where that is not installed it is sent by reference, as ever.
        """
        self._entrance.look()
        return self._submit(dump_by_value("the task", self._program, task), task)

    def submit_input(self, mailbox: Mailbox, item: object) -> TaskFuture[Any]:
        """For front ends: the same for an input of a function that has a mailbox (`Entrance.mailbox_of`)."""
        self._entrance.look()
        future: TaskFuture[Any] = TaskFuture(mailbox, self, self._program)
        payload = dump_by_value("the task", self._program, item)
        future.task_id = mailbox.add_for(future, payload, self._timeout, self._retries)
        return future

    def _submit(self, payload: Payload, task: object) -> TaskFuture[Any]:
        future: TaskFuture[Any] = TaskFuture(self._mailbox, self, self._program)
        if self._recorder is not None:
            assert type(payload) is bytes  # with a checkpoint
            future.task_id = self._recorder.submit(future, payload, self._timeout, self._retries, name_of(task))
            return future
        future.task_id = self._entrance.mailbox.add_for(future, payload, self._timeout, self._retries)
        return future

    # -- maps

    def map(
        self,
        function: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        buffersize: int | None = None,
        key: Callable[..., str] | None = None,
    ) -> MapResults[Result]:
        """The results of ``function`` for each input, in the inputs' order, as an iterator; starts the slaves.

        With several iterables each gives one argument.  What setup returned comes as further arguments.  The function
        is pickled once, now, and sent once to each runner, and so is what is bound to it, as in a partial; inputs are
        taken while results are asked for, as the slaves need them, so that the iterables may be endless.

        ``timeout``: seconds that one call may run; default: the context's.  ``buffersize``: so many inputs, at most,
        are taken ahead of the results that were given.  ``key``: called as the function is, here, it gives the text by
        which the input is known again if the context has a checkpoint.

        Raises `InputError` (`InputTypeError`, `UnpicklableError`) for what cannot be, and what `Manager.begin` raises.
        The iterator raises, where `get_results_unordered` does, the same; in the place of a result the `RemoteError`
        (an `UnpicklableError` for an input that cannot be pickled) of that input, whose ``index`` it has: the next call
        goes on behind it.  `MapResults.close` stops what runs.  ``async for`` works too.
        """
        return self.map_inputs(function, iterables, True, timeout, buffersize, key=key)

    def map_unordered(
        self,
        function: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        buffersize: int | None = None,
        key: Callable[..., str] | None = None,
    ) -> MapResults[Result]:
        """The same in the order of completion: each result is given as soon as it is known."""
        return self.map_inputs(function, iterables, False, timeout, buffersize, key=key)

    def map_inputs(
        self,
        function: Callable[..., Result],
        iterables: tuple[Iterable[Any], ...],
        ordered: bool,
        timeout: float | None,
        buffersize: int | None,
        starred: bool = False,
        originals: bool = False,
        key: Callable[..., str] | None = None,
    ) -> MapResults[Result]:
        """For front ends: `map`, or `map_unordered`.  ``starred``: each input is several arguments.

        ``originals``: what calls raised is raised as itself.
        """
        inputs = inputs_of(function, iterables)
        limit = self._timeout if timeout is None else check_timeout(timeout)
        buffersize = check_options(buffersize, key)
        program = self._program
        if program.may_have_changed():
            self._manager.tell_slaves()
        mapped = Mapped(function, starred or len(iterables) > 1, self._mailbox.id)
        payload = setup_dump(mapped, "the function", program)
        digest = digest_of(payload)
        rules = self._rules._replace(name=name_of(function))
        mailbox = self._idle_maps.take(digest) or Mailbox(self._manager.dispatcher, payload, rules)
        ahead = MOST_EARLY if ordered and buffersize is None else buffersize
        dumps = self._entrance.input_packer()
        taken = MapInputs(mailbox, inputs, dumps, limit=limit, retries=self._retries, ahead=ahead)
        results: MapResults[Result] = MapResults(
            mailbox,
            taken,
            program,
            ordered=ordered,
            originals=originals,
            context=self,
            when_over=functools.partial(self._idle_maps.keep, digest),
        )
        recorder = self._entrance.record_calls(mailbox, function, mapped.starred)
        if recorder is None:
            self._manager.begin()
        else:
            taken.record_by(recorder, rules.name, key, mapped.starred)
            recorder.begin()
        return results

    # -- asynchronously

    async def __aiter__(self) -> AsyncIterator[Result]:
        """The results as of `get_results_unordered`, for ``async for``; tasks of `add_tasks` are not taken here."""
        self._mailbox.read = True
        self._begin()
        hand: list[Outcome] = []
        try:
            while True:
                with self._reading:
                    is_error, value = take(self._mailbox, self._program, hand)
                if not hand:
                    if not await self._mailbox.wait_async(for_tasks=False):
                        return
                    continue
                hand.clear()
                if is_error:
                    raise value
                yield value
        except BaseException:
            with self._reading:
                put_back(self._mailbox, hand)
            raise

    # -- for front ends

    @property
    def progress(self) -> ContextStatus:
        """How far it is, its maps included: see parallel/monitor/status.py.  May be asked by a signal handler."""
        from .monitor.survey import progress_of  # which most programs do not need, and starts slowly

        return progress_of(self._manager.dispatcher, self._mailbox.id)

    @property
    def submitted(self) -> Submitted:
        """All that was submitted and has no outcome yet."""
        return self._submitted

    def _begin(self) -> None:
        """Results are asked for: have the slaves started, unless all is known."""
        if self._recorder is None:
            self._manager.begin()
        else:
            self._recorder.begin()

    @property
    def entrance(self) -> Entrance:
        """For tasks with tags of one's own."""
        return self._entrance

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
        be read; new tasks can be added.  Raises `InputTypeError` for what is no id.
        """
        if task is not None:
            id = whole(task)
            if id is None:
                raise InputTypeError(f"cancel takes the id that add_task returned, a whole number, and not {task!r}")
            return int(self._mailbox.cancel_task(id))
        self._feeder.clear()
        return self._mailbox.cancel()

    @overload
    def get_results_unordered(self, *, errors: Literal["raise", "last"] = "raise") -> Results[Result]: ...

    @overload
    def get_results_unordered(self, *, errors: Literal["return"]) -> Results[Result | RemoteError]: ...

    def get_results_unordered(self, *, errors: str = "raise") -> Results[Any]:
        """A generator of the tasks' results, in the order of their completion; starts the slaves if need be.

        Tasks may be added while it runs.  Left early and called again it goes on where it was; when no task is left it
        is empty.

        For a task that raised there is a `RemoteError`, as `TaskTimeout` or `TaskGivenUp` where that is what happened.
        ``errors`` says what becomes of it; the task is done with in any case:

        - "raise": the generator raises it when its turn comes, and ends; call again for the rest.  What ``list(...)``
          or ``sorted(...)`` had collected by then is lost: read in a loop, or by ``results.extend(...)``, which keeps
          what came before;
        - "return": it stands among the results, and is not raised;
        - "last": all results come first; then the first error is raised, and the others are its ``others``.

        The generator raises `NoMoreSlavesError` when no slave is left and none is to come, `ManagerClosed` after a
        shutdown, `CheckpointError` when results cannot be kept, `InternalError` for a bug in this package; this call
        `InputError` for other ``errors``, and what `Manager.begin` raises.
        """
        if errors not in (RAISE, RETURN, LAST):
            raise InputError(f"errors={errors!r} is not one of 'raise', 'return', 'last'")
        self._mailbox.read = True
        self._begin()
        return Results(self._mailbox, self._feeder, self._reading, self._program, errors)
