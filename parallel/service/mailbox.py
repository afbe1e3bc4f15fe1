"""Mailbox: one context's place in the master, for the user's threads: tasks go in, outcomes come out."""

from __future__ import annotations

import functools
import math
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, Protocol

from slave.outcome import unpack_failure
from slave.protocol import Payload, Setup

from ..core.chunk import Inputs
from ..core.effects import AllDone, Closed, Forsaken, News, NoSlaves, Outcome, SetupFailed, TasksWanted, Values, Verdict
from ..core.state import ContextRules
from ..core.task import Label, Task
from ..core.users import MOST_EACH
from ..errors import ManagerClosed, NoMoreSlavesError, RemoteError, as_broken_pool
from .dispatcher import Dispatcher, Waiter
from .messages import how_all_ended
from .ticket import AsyncTicket, Ticket

_PASSED_ON = 64 * 1024  # bytes of results that addressees got, after which the scheduler is told
_TELLS = 8  # how often readers tell what they took while a full load of results is read


class Addressee(Protocol):
    """The tag of a task whose outcome is for nobody else: a future."""

    def settle_at_once(self, outcome: Outcome) -> bool:
        """Take it, if that needs no waiting and no code of the user's; False if `settle` is to be called."""

    def settle(self, outcome: Outcome) -> None:
        """Take it.  Called by the courier."""

    def fail(self, error: BaseException) -> None:
        """There will be none.  Called by the courier."""


class _Errand:
    """What a question of the scheduler's answers: has something done by the courier when it does."""

    def __init__(self, send: Callable[[Callable[[], object]], None], errand: Callable[[], object]) -> None:
        self._send, self._errand = send, errand

    def answer(self, value: object) -> None:
        """See `Ticket.answer`."""
        self._send(self._errand)

    def refuse(self, error: BaseException) -> None:
        """See `Ticket.refuse`: it is not to be waited for any more."""
        self._send(self._errand)


class Recorder(Protocol):
    """Has a context's outcomes written to a file, and knows those of earlier runs: see parallel/checkpoint."""

    waits: int

    def note(self, outcomes: Sequence[Any]) -> None:
        """These have come, each an `Outcome` or `Values`.  Called by the dispatcher."""

    def waiting(self) -> AbstractContextManager[object]:
        """While a reader waits for an outcome; at the end what has come is written, or `CheckpointError` raised."""

    def more(self) -> int:
        """How many tasks are to be added at least, since those added last were known."""

    def front(self) -> Outcome | None:
        """The first of `Mailbox.ready`, written or read; None: look again.  Raises `CheckpointError`."""

    def front_values(self, values: Values) -> None:
        """These, the first of `Mailbox.ready`, are written by now.  Raises `CheckpointError`."""

    def input_cannot_be_rebuilt(self, index: int) -> None:
        """What came of that one of them."""

    def written(self, outcome: Outcome) -> Outcome:
        """The same of an outcome that is in no mailbox."""

    def cannot_be_rebuilt(self) -> None:
        """What came of the last one."""

    def cancelled(self, task: int | None = None) -> None:
        """No outcome comes of this task, or of any that has none."""

    def submit(self, addressee: Any, payload: bytes, timeout: float | None, retries: int, name: str) -> int:
        """Add a task as `Mailbox.add_for` does, or give its result at once.  ``name``: of its callable."""

    def id_of(self, task: int) -> int:
        """By what id a task is known here."""


class Mailbox:
    """See the module's text.  Safe to use from several threads; `took` and `put_back` from one at a time."""

    def __init__(self, dispatcher: Dispatcher, setup: Setup | None, rules: ContextRules) -> None:
        self._dispatcher = dispatcher
        self._state = dispatcher.scheduler.state
        self._users = dispatcher.scheduler.users
        self._readers = self._users.readers
        # the dispatcher's thread appends, readers take from the front: both is atomic
        self.ready: deque[Any] = deque()  # outcomes; for a map, also `Values`
        self.label = rules.label
        self.coming = 0.0  # tasks that are still to be taken out of iterables; math.inf if nobody knows how many
        self.read = False  # somebody has asked for results
        self.added, self.all_known = 0, -1  # the last task; it, as long as all outcomes were handed over: see `add`
        self.wants_tasks = False  # fewer tasks are left than the slaves may need until the reader looks next
        self.paused = False  # too much waits to be read, and the scheduler wants to be told when it is
        self.courier = dispatcher.courier
        self._addressed = False  # some of the tasks have an `Addressee`
        self.setup_error: Exception | None = None  # why addressees were told that nothing comes, if it was setup
        self._passed_on = 0  # bytes of results that addressees got and the scheduler was not told of
        self._tell_at = self._state.result_bytes / _TELLS
        self._untold = 0.0  # bytes of results that readers have taken and the scheduler was not told of
        self.recorder: Recorder | None = None
        self.new_id: Callable[[], int] = self._state.task_ids.__next__  # for a task that is about to be added
        self.id: int = dispatcher.call(self._make, setup, rules)

    def _make(self, setup: Setup | None, rules: ContextRules, now: float) -> int:
        id: int = self._users.make_context(setup, now, rules)
        self._dispatcher.mailboxes[id] = self
        return id

    def add(self, payload: Payload, timeout: float | None, retries: int, tag: object = None, id: int = 0) -> int:
        """One more task; returns its id.  Raises `ManagerClosed`.  ``tag``: comes back with its outcome.

        Does not wait for the dispatcher, and wakes it only for the sake of an idle slave.  No task is slept over: the
        dispatcher first notes that a slave is idle and then looks for tasks, here a task comes first and then the look.
        Nor is one overlooked: `added` changes when the task is there; the dispatcher reads it first and looks then.
        """
        state = self._state
        if state.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        id = id or next(state.task_ids)
        try:
            state.incoming.append(Task(id, self.id, payload, timeout, retries, tag))
        finally:  # also if a signal handler of the user's raises here: the task may have been added
            self.added = id
            if state.idle:
                self._dispatcher.wake()
        return id

    def add_known(self, outcome: Outcome) -> None:
        """One more task, whose outcome is known.  Raises `ManagerClosed`."""
        if self._state.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        self.ready.append(outcome)
        if self.recorder is not None and self.recorder.waits:
            self._dispatcher.tell(self._readers.look_again, self.id)

    def inputs(self, timeout: float | None, retries: int) -> Inputs:
        """For the inputs of a map: see `add_input`."""
        return Inputs(self.id, timeout, retries)

    def add_input(self, inputs: Inputs, payload: Any) -> None:
        """One more input, in as little time as can be; NO_TASK: there is no such task.  Raises `ManagerClosed`."""
        state = self._state
        if state.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        try:
            inputs.payloads.append(payload)
        finally:  # it is there, whatever a signal's handler raises from here on
            try:
                if not inputs.listed:
                    inputs.listed = True
                    state.incoming.append(inputs)
            finally:
                self.added += 1
                if state.idle:
                    self._dispatcher.wake()

    def add_inputs(self, inputs: Inputs, payloads: list[Any]) -> None:
        """The same for several, which come in one step; the list is not the caller's any more."""
        state = self._state
        if state.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        count = len(payloads)
        try:
            inputs.payloads.append(payloads)
        finally:
            try:
                if not inputs.listed:
                    inputs.listed = True
                    state.incoming.append(inputs)
            finally:
                self.added += count
                if state.idle:
                    self._dispatcher.wake()

    def add_for(self, addressee: Addressee, payload: Payload, timeout: float | None, retries: int, id: int = 0) -> int:
        """The same for a task whose outcome only this one is to get.

        Raises `InternalError` too: nobody waits here who could be told later that nothing comes any more.
        """
        if not self._addressed:
            self._begin_to_address()
        id = id or next(self._state.task_ids)
        self._state.incoming.append(Task(id, self.id, payload, timeout, retries, addressee))
        self._added(id)
        return id

    def add_all_for(self, tasks: Sequence[tuple[Addressee, Payload]]) -> None:
        """The same for several tasks, of which a slave may then get as many as it should have at once."""
        if not self._addressed:
            self._begin_to_address()
        ids = self._state.task_ids
        made = [Task(next(ids), self.id, payload, None, 0, addressee) for addressee, payload in tasks]
        if made:
            self._state.incoming.extend(made)
            self._added(made[-1].id)

    def _begin_to_address(self) -> None:
        self.courier.start()
        self._addressed = True
        self._dispatcher.tell(self._readers.wait_for_tags, self.id)

    def _added(self, last: int) -> None:
        """Tasks for addressees were added just now, the last of them this one."""
        state, dispatcher = self._state, self._dispatcher
        self.added = last
        dispatcher.check_alive()
        if state.closing:  # looked at now, since what is added later than that is nobody's
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        if state.idle or state.without_slaves:
            dispatcher.wake()

    # -- for the dispatcher

    def deliver(self, outcomes: Sequence[Any]) -> None:
        """Outcomes, in the order of their coming."""
        if self.recorder is not None:
            self.recorder.note(outcomes)
        if not self._addressed:
            self.ready.extend(outcomes)
            return
        late = []
        for outcome in outcomes:
            assert type(outcome) is Outcome, "no map's inputs have addressees"
            if outcome.tag is None or type(outcome.tag) is Label:
                self.ready.append(outcome)
                continue
            self._passed_on += outcome.size
            if not outcome.tag.settle_at_once(outcome):  # type: ignore[attr-defined]
                late.append(outcome)
        if late:
            self.courier.send(lambda: _settle(late))
        if self._passed_on >= min(_PASSED_ON, self._tell_at):
            self._dispatcher.tell(self._readers.results_taken, self.id, self._passed_on)
            self._passed_on = 0

    def forsake(self, forsaken: Forsaken) -> None:
        """No slave can run these tasks, and they are dropped."""
        self.courier.send(lambda: self._forsake(forsaken))

    def _forsake(self, forsaken: Forsaken) -> None:
        error = _error_of(forsaken.reason, self.label)  # type: ignore[arg-type]
        if isinstance(error, RemoteError):
            error = self.setup_error = as_broken_pool(error)
        _fail(forsaken.tasks.values(), error)  # type: ignore[arg-type]

    def fail(self, error: BaseException) -> None:
        """Nothing more comes."""
        if self._addressed:
            addressees = self._addressees(0.0)
            self.courier.send(lambda: _fail(addressees, error))  # type: ignore[arg-type]

    def _addressees(self, now: float) -> list[object]:
        found = self._state.backlog.contexts.get(self.id)
        tasks = [*(() if found is None else found.tasks.parts.values()), *self._state.incoming]
        tags = [task.tag for task in tasks if task.context == self.id and task.tag is not None]
        return [tag for tag in tags if type(tag) is not Label]

    # -- until all is done

    def addressees(self) -> list[object]:
        """Of all tasks that have no outcome yet."""
        found: list[object] = self._dispatcher.call(self._addressees)
        return found

    def wait_until_done(self) -> None:
        """Wait until no task is left, or none can be run any more."""
        ticket = Ticket()
        try:
            self._dispatcher.ask(ticket, self._readers.wait_until_done, self.id)
            self._dispatcher.wait_for(ticket)
        except BaseException:
            self._dispatcher.tell(self._readers.stop_waiting, ticket, self.id)
            raise
        self.courier.flush()

    def when_done(self, errand: Callable[[], object]) -> None:
        """Have the courier do this when no task is left, or none can be run any more.  Never waits."""
        self.courier.start()
        self._dispatcher.ask(_Errand(self.courier.send, errand), self._readers.wait_until_done, self.id)

    def wait(self, for_tasks: bool = True) -> bool:
        """Wait until an outcome is ready or, ``for_tasks``, tasks are wanted; False when no task is left.

        Raises `NoMoreSlavesError` or `RemoteError` when no slave can go on with the context, `ManagerClosed` when the
        manager is shut down, `InternalError`.
        """
        if self.recorder is None or self.ready:
            return self._wait(for_tasks)
        with self.recorder.waiting():
            return self._wait(for_tasks)

    def _wait(self, for_tasks: bool) -> bool:
        while not self.ready:
            if self.all_known == self.added:
                return bool(self.ready)  # it is set after they were handed over
            self._dispatcher.check_alive()
            told = self._heed(self._verdict(for_tasks))
            if told is not None:
                return told
        return True

    def _heed(self, verdict: Verdict) -> bool | None:
        """What `wait` returns at this verdict; None: it waits on.  Raises as that does."""
        if isinstance(verdict, AllDone):
            return bool(self.ready)
        if isinstance(verdict, (NoSlaves, SetupFailed, Closed)):
            if not self.ready:
                raise _error_of(verdict, self.label)
            return True
        if isinstance(verdict, TasksWanted):
            self.wants_tasks = True
            return True
        return None

    async def wait_async(self, for_tasks: bool = True) -> bool:
        """The same in a coroutine, without a thread."""
        if self.recorder is None or self.ready:
            return await self._wait_async(for_tasks)
        with self.recorder.waiting():
            return await self._wait_async(for_tasks)

    async def _wait_async(self, for_tasks: bool) -> bool:
        while not self.ready:
            if self.all_known == self.added:
                return bool(self.ready)
            self._dispatcher.check_alive()
            ticket = AsyncTicket()
            try:
                self._dispatcher.ask(ticket, self._wait_for_news, for_tasks)
                self._dispatcher.see_to_what_is_left()
                verdict: Verdict = await ticket.result()
            except BaseException:  # the coroutine was cancelled
                self._dispatcher.tell(self._readers.stop_waiting, ticket, self.id)
                raise
            told = self._heed(verdict)
            if told is not None:
                return told
        return True

    def _verdict(self, for_tasks: bool) -> Verdict:
        ticket, dispatcher = Ticket(), self._dispatcher
        try:
            dispatcher.leave(ticket, self._wait_for_news, for_tasks)
            if not self._readers.can_wait(self.id, for_tasks):  # looked at when it was left
                dispatcher.wake()
            dispatcher.wait_for(ticket)
        except BaseException:
            self._dispatcher.tell(self._readers.stop_waiting, ticket, self.id)
            raise
        verdict: Verdict = ticket.result()  # type: ignore[assignment]  # by `Users.wait_for_news`
        return verdict

    def _wait_for_news(self, ticket: Waiter, for_tasks: bool, now: float) -> None:
        if self.ready:  # it came while this was on its way to the dispatcher
            ticket.answer(News())
        else:
            self._readers.wait_for_news(ticket, self.id, for_tasks, now)

    def took(self, outcome: Outcome | Values) -> None:
        """A reader takes this outcome, the first of `ready`."""
        self.ready.popleft()
        self._untold += outcome.size
        if self.paused or self._untold >= self._tell_at:
            told, self._untold = self._untold, 0.0
            self._dispatcher.tell(self._readers.results_taken, self.id, told)

    def put_back(self, outcome: Outcome) -> None:
        """The outcome that was taken last did not reach the user."""
        self._untold -= outcome.size
        self.ready.appendleft(outcome)

    def wanted(self, seconds: float, most: int = MOST_EACH) -> int:
        """How many tasks are to be added so that the slaves have work for ``seconds``; ``most`` for each slave."""
        self.wants_tasks = False
        question = functools.partial(self._users.tasks_wanted, most=most)
        count: int = self._dispatcher.call(question, self.id, seconds)
        return count if self.recorder is None else max(count, self.recorder.more())

    def wanted_at_first(self) -> int:
        """The same as long as there are none, and without waiting for the dispatcher."""
        count: int = self._users.tasks_wanted_at_first(self.id, 0.0)
        return count

    def no_more_tasks(self) -> None:
        """There are no more tasks to add."""
        self.wants_tasks, self.coming = False, 0.0
        self._dispatcher.tell(self._users.no_more_tasks, self.id)

    def cancel(self) -> int:
        """Drop what waits and stop what runs; returns how many tasks these were."""
        self.read = True  # nobody wonders any more where the results are
        count: int = self._dispatcher.call(self._users.cancel, self.id)
        if self.recorder is not None:
            self.recorder.cancelled()
        return count

    def cancel_task(self, task: int) -> bool:
        """The same for one task; False if it has its outcome already."""
        if self.recorder is not None:
            task = self.recorder.id_of(task)
        found: bool = self._dispatcher.call(self._users.cancel_task, self.id, task)
        if found and self.recorder is not None:
            self.recorder.cancelled(task)
        return found

    def cancel_soon(self, task: int) -> None:
        """The same without waiting for that."""
        self._dispatcher.tell(self._cancel_soon, task)

    def _cancel_soon(self, task: int, now: float) -> None:
        if self.id in self._state.contexts:
            self._users.cancel_task(self.id, task, now)

    def cancel_waiting(self) -> list[object]:
        """Drop the tasks that no slave holds; returns their addressees."""
        dropped: list[object] = self._dispatcher.call(self._users.cancel_waiting, self.id)
        return dropped

    def is_leased(self, task: int) -> bool:
        """Whether a slave holds the task."""
        found: bool = self._dispatcher.call(self._users.is_leased, self.id, task)
        return found

    def abandon(self) -> None:
        """Nobody can ask for the outcomes any more.  Never waits: it is called by the garbage collector."""
        self._dispatcher.tell(self._forget)

    @property
    def never_read(self) -> bool:
        """Whether tasks were added, and nobody has ever asked for a result, or waits for one."""
        return bool(self.added) and not self.read and not self._addressed

    def _forget(self, now: float) -> None:
        if self.never_read:
            self._dispatcher.never_read += 1
        self._dispatcher.mailboxes.pop(self.id, None)
        self._users.drop_context(self.id, now)


def still_in(iterator: Iterator[Any]) -> float:
    """How many items the iterator will give; math.inf if it does not tell, or might run the user's code for that."""
    if type(iterator).__module__ != "builtins" or not hasattr(iterator, "__length_hint__"):
        return math.inf
    return operator.length_hint(iterator)


def _settle(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        outcome.tag.settle(outcome)  # type: ignore[attr-defined]


def _fail(addressees: Iterable[Addressee], error: BaseException) -> None:
    for addressee in addressees:
        addressee.fail(error)


def _error_of(verdict: NoSlaves | SetupFailed | Closed, label: str) -> Exception:
    if isinstance(verdict, NoSlaves):
        left = verdict.left
        text = f"{left} task{' is' if left == 1 else 's are'} left and {how_all_ended(verdict)}"
        return NoMoreSlavesError(text)
    if isinstance(verdict, Closed):
        return ManagerClosed("the manager was shut down while results were waited for")
    return _setup_error(verdict, label)


def _setup_error(verdict: SetupFailed, label: str) -> RemoteError:
    tried = verdict.tried
    what = (f"the setup of context {label!r}" if label else "the context's setup") + (
        f" (tried on {tried} slaves, none is left to try)" if tried > 1 else ""
    )
    if isinstance(verdict.data, str):
        return RemoteError(what, "SlaveEnded", verdict.data, "", verdict.slave)
    failure = unpack_failure(verdict.data)
    return RemoteError(what, failure.type_name, failure.message, failure.traceback, verdict.slave, failure.exception())
