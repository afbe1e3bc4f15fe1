"""The user's threads: they make contexts, add tasks and read results, as mailbox.py and feeder.py do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parallel.core.effects import AllDone, Closed, News, NoSlaves, Outcome, SetupFailed, TasksWanted
from parallel.core.state import ContextRules
from parallel.core.task import Task
from slave.shared_status import SETUP
from tests.support.known_inputs import KnownInputs

from .ledger import Ledger, TaskRecord
from .master import Master, Ticket
from .plan import ContextPlan, Plan, TaskPlan
from .runner import Data
from .world import World

if TYPE_CHECKING:
    from .runner import Runner

_AGAIN = 1.0  # seconds after which a user who was told that no slave is left looks again
_TELLS = 8  # as in mailbox.py


class SimulatedContext:
    """A context, as the user's threads share it."""

    def __init__(self, users: Users, id: int, plan: ContextPlan) -> None:
        self.users, self.id, self.plan = users, id, plan
        self.ready: deque[Outcome] = deque()
        self.added, self.all_known = 0, -1
        self.wants_tasks = self.paused = self.dropped = False
        self.held = True  # by a thread of the user's; the master hears some time after that it no longer is
        self.untold = 0.0
        self.source: deque[TaskPlan] = deque()  # what its iterable has left
        self.feeds = False  # its iterable is not known to be exhausted
        self.readers = [Reader(self, number) for number in range(plan.readers)]
        self._inputs: dict[tuple[float | None, int], KnownInputs] = {}

    def inputs(self, plan: TaskPlan) -> KnownInputs:
        """Where tasks of a map with this limit and so many retries go."""
        rules = plan.limit, plan.retries
        if rules not in self._inputs:
            self._inputs[rules] = KnownInputs(self.id, *rules)
        return self._inputs[rules]


class Reader:
    """A thread that reads a context's results."""

    def __init__(self, context: SimulatedContext, number: int) -> None:
        self.context, self.world = context, context.users.world
        self.name = f"reader {number + 1} of context {context.id}"
        self.ticket: Ticket | None = None  # that it waits for
        self.done = True  # no task is left, as far as it knows; or it is away
        self.asks_for_tasks = False

    def go_on(self) -> None:
        """Read again, if it does not."""
        if self.done and self.context.held:
            self.done = False
            self.world.after(0.0, self._read)

    def _read(self) -> None:
        context = self.context
        if not context.held or self.done or self.ticket is not None:
            return
        if context.wants_tasks and context.feeds:
            self._refill()
        elif context.ready:
            self._take(context.ready.popleft())
        elif context.all_known == context.added and not context.feeds:
            self.done = True
        elif context.all_known == context.added:
            self._refill()
        else:
            self._wait()

    def _take(self, outcome: Outcome) -> None:
        context, users = self.context, self.context.users
        users.ledger.tasks[outcome.task].taken = True
        context.untold += outcome.size
        if context.paused or context.untold >= users.plan.result_bytes / _TELLS:
            told, context.untold = context.untold, 0.0
            users.master.tell(users.master.scheduler.users.readers.results_taken, context.id, told)
        self.world.after(context.plan.reading, self._read)

    def _wait(self) -> None:
        self.ticket = ticket = Ticket(lambda verdict: self._told(ticket, verdict))
        self.context.users.master.wait_for(ticket, self._wait_for_news)

    def _wait_for_news(self, ticket: Ticket, now: float) -> None:
        master, context = self.context.users.master, self.context
        if context.ready or context.dropped:
            master._answer(ticket, News())
        else:
            master.scheduler.users.readers.wait_for_news(ticket, context.id, not self.asks_for_tasks, now)

    def _told(self, ticket: Ticket, verdict: object) -> None:
        if self.ticket is not ticket:
            return  # it has gone meanwhile
        self.ticket = None
        context = self.context
        if isinstance(verdict, (NoSlaves, SetupFailed)) and not context.ready:
            context.users.hears(context, verdict)
            self.world.after(_AGAIN, self._read)
            return
        if isinstance(verdict, AllDone) and not context.ready:
            if not context.feeds:
                self.done = True
                return
            self._refill()
        elif isinstance(verdict, TasksWanted):
            context.wants_tasks = True
            self._read()
        elif isinstance(verdict, Closed) and not context.ready:
            self.done = True
        else:
            self._read()

    def _refill(self) -> None:
        users, context = self.context.users, self.context
        context.wants_tasks = False
        self.asks_for_tasks = True
        users.master.call(self._add, self._tasks_wanted)

    def _tasks_wanted(self, now: float) -> int:
        users, context = self.context.users, self.context
        if context.dropped:
            return 0
        return users.master.scheduler.users.tasks_wanted(context.id, 0.0, now)

    def _add(self, count: int) -> None:
        users, context = self.context.users, self.context
        self.asks_for_tasks = False
        for _ in range(count if context.held else 0):
            if not context.source:
                context.feeds = False
                users.master.tell(users.master.scheduler.users.no_more_tasks, context.id)
                break
            users.add(context, context.source.popleft())
        self._read()

    def leave(self, seconds: float) -> None:
        """Ctrl-C while it waits; it comes again after a while."""
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            users = self.context.users
            self.world.tell(f"{self.name} leaves")
            users.master.tell(users.master.scheduler.users.readers.stop_waiting, ticket, self.context.id)
        self.done = True
        self.world.after(seconds, self.go_on)


class Users:
    """See the module's text.  Also tells what tasks and setups do on slaves."""

    def __init__(self, world: World, plan: Plan, ledger: Ledger, master: Master) -> None:
        self.world, self.plan, self.ledger, self.master = world, plan, ledger, master
        self.contexts: list[SimulatedContext] = []
        self.to_add = len(plan.tasks)
        self.setups_died: set[int] = set()  # contexts whose setup has ended a process
        self.told: list[object] = []  # verdicts that ended a reader's wait without a result
        self.waiters: list[Ticket] = []

    # -- contexts and tasks

    def begin(self) -> None:
        """Make the contexts, begin to read them, and plan when tasks are added."""
        for plan in self.plan.contexts:
            self.master.call(lambda context: context.readers and None, self._make, plan)
        self.world.after(0.01, self._plan_tasks)

    def _make(self, plan: ContextPlan, now: float) -> SimulatedContext:
        setup = None if plan.setup == "none" else self._setup_text(len(self.contexts), plan)
        id = self.master.scheduler.users.make_context(setup, now, ContextRules(speculate=plan.speculates))
        if plan.speculates:
            self.ledger.speculates.add(id)
        context = SimulatedContext(self, id, plan)
        self.contexts.append(context)
        self.master.contexts[id] = context
        return context

    def _setup_text(self, number: int, plan: ContextPlan) -> bytes:
        return f"setup {number}{' anew' if plan.anew else ''}".encode()

    def setup_of(self, context: int) -> bytes:
        """The pickle of a context's setup; b"" if it has none."""
        found = self._of(context)
        return b"" if found.plan.setup == "none" else self._setup_text(self.contexts.index(found), found.plan)

    def _plan_tasks(self) -> None:
        if len(self.contexts) < len(self.plan.contexts):  # the master is stopped
            self.world.after(0.01, self._plan_tasks)
            return
        for plan in self.plan.tasks:
            if plan.context < len(self.contexts):
                self.world.at(plan.at, self._add_planned, self.contexts[plan.context], plan)

    def _add_planned(self, context: SimulatedContext, plan: TaskPlan) -> None:
        self.to_add -= 1
        if not context.held:
            return
        if context.plan.feeds:
            context.source.append(plan)
            context.feeds = True
        else:
            self.add(context, plan)
        for reader in context.readers:
            reader.go_on()

    def add(self, context: SimulatedContext, plan: TaskPlan) -> None:
        """As `Mailbox.add`."""
        state = self.master.state
        if state.closing:
            return
        id = next(state.task_ids)
        self.ledger.added(id, context.id, plan)
        if context.plan.maps:
            inputs = context.inputs(plan)
            inputs.put(id, b"a task")
            if not inputs.listed:
                inputs.listed = True
                state.incoming.append(inputs)
        else:
            state.incoming.append(Task(id, context.id, b"a task", plan.limit, plan.retries))
        context.added = id
        self.world.tell(f"task {id} is added to context {context.id}: it {_in_words(plan)}")
        if state.idle:
            self.master.wake()

    def cancel(self, which: int) -> None:
        """All tasks of a context."""
        context = self._context(which)
        if context is not None:
            self.cancel_context(context)

    def cancel_context(self, context: SimulatedContext) -> None:
        """As `Context.cancel`."""
        context.source.clear()
        context.feeds = False
        self.master.tell(self.master.scheduler.users.no_more_tasks, context.id)
        self.master.tell(self._cancel, context)

    def _cancel(self, context: SimulatedContext, now: float) -> None:
        if context.dropped:
            return
        gone = self.ledger.of_context(context.id)
        self.world.tell(f"context {context.id} is cancelled")
        self.ledger.cancelled(gone)
        count = self.master.scheduler.users.cancel(context.id, now)
        assert count == len(gone), f"{count} tasks were cancelled, and not {[task.id for task in gone]}"

    def cancel_task(self, which: int) -> None:
        """One task."""
        tasks = list(self.ledger.unsettled.values())
        if tasks:
            self.master.tell(self._cancel_task, tasks[which % len(tasks)])

    def _cancel_task(self, task: TaskRecord, now: float) -> None:
        if self._of(task.context).dropped:
            return
        over = task.over
        self.world.tell(f"task {task.id} is cancelled")
        if not over:
            self.ledger.cancelled([task])
        found = self.master.scheduler.users.cancel_task(task.context, task.id, now)
        assert found != over, f"task {task.id} was cancelled: {found}, and was over: {over}"

    def drop(self, which: int) -> None:
        """A context, of which nobody wants anything any more."""
        context = self._context(which)
        if context is not None:
            self.drop_context(context)

    def drop_context(self, context: SimulatedContext) -> None:
        """As `Mailbox.abandon`."""
        self.world.tell(f"context {context.id} is dropped")
        context.source.clear()
        context.held = context.feeds = False
        self.master.tell(self._forget, context)

    def _forget(self, context: SimulatedContext, now: float) -> None:
        if context.dropped:
            return
        context.dropped = True
        self.master.contexts.pop(context.id, None)
        self.ledger.gone([task for task in self.ledger.tasks.values() if task.context == context.id and not task.taken])
        self.master.scheduler.users.drop_context(context.id, now)

    def _context(self, which: int) -> SimulatedContext | None:
        there = [context for context in self.contexts if not context.dropped]
        return there[which % len(there)] if there else None

    def _of(self, id: int) -> SimulatedContext:
        return next(context for context in self.contexts if context.id == id)

    def hears(self, context: SimulatedContext, verdict: object) -> None:
        """A reader was told that no slave can go on."""
        self.told.append(verdict)
        self.world.tell(f"the reader of context {context.id} is told: {type(verdict).__name__}")
        if isinstance(verdict, SetupFailed) and self.master.state.now > self.plan.calm:
            self.cancel_context(context)

    # -- slaves

    def wait_for_slaves(self, wanted: int, seconds: float) -> None:
        """Wait for so many slaves, for a while."""
        ticket = Ticket(lambda verdict: None)
        self.waiters.append(ticket)
        users = self.master.scheduler.users
        self.master.wait_for(ticket, users.wait_for_slaves, wanted)
        self.world.after(seconds, self.master.call, lambda count: None, self._stop_waiting, ticket)

    def _stop_waiting(self, ticket: Ticket, now: float) -> None:
        self.waiters.remove(ticket)
        self.master.scheduler.users.stop_waiting_for_slaves(ticket, now)

    def dismiss(self, which: int, grace: float) -> None:
        """Have a slave removed."""
        slaves = list(self.master.state.roster.slaves)
        if slaves:
            number = slaves[which % len(slaves)]
            self.world.tell(f"slave {number} is dismissed")
            self.master.tell(self.master.scheduler.users.dismiss, number, grace)

    # -- what tasks and setups do

    def seconds_of(self, task: int) -> float:
        """How long a task takes."""
        return self.ledger.tasks[task].plan.seconds

    def begins(self, task: int, runner: Runner) -> str:
        """A task begins on a runner; what it will do."""
        record = self.ledger.tasks[task]
        plan = record.plan
        self._is_ready_for(record, runner)
        if plan.what == "unfit here" and runner.slave.number % 2:
            return "unfit"
        record.runs += 1
        if plan.what == "dies":
            return "dies" if record.died < plan.times else "returns"
        if plan.what == "raises":
            return "raises" if len(record.made) < plan.times else "returns"
        return "returns"

    def _is_ready_for(self, task: TaskRecord, runner: Runner) -> None:
        setup = self.setup_of(task.context)
        if setup and setup not in runner.returned:
            self.ledger.fail(f"{runner.name} runs task {task.id}, and {setup!r} has not returned in its process")
        if runner.program != self.master.program:
            self.ledger.fail(f"{runner.name} has begun with {runner.program}, and runs tasks of {self.master.program}")

    def ends(self, task: int, runner: Runner, what: str) -> Data:
        """It has ended: what it made."""
        record = self.ledger.tasks[task]
        data = Data(task, runner.pid, record.plan.size, self.world.now)
        record.made.append(data)
        record.late += _is_late(record.plan, runner)
        return data

    def stops(self, runner: Runner) -> None:
        """A runner's process has ended."""
        task = self.ledger.tasks.get(runner.task)
        if task is None:
            return
        if runner.own_end:
            task.died += not runner.status[SETUP]
        elif runner.runs:
            task.stopped += 1
        task.late += runner.runs and _is_late(task.plan, runner)

    def sets_up(self, context: int, runner: Runner) -> tuple[float, str]:
        """A setup begins on a runner: how long it takes, and what it will do."""
        key = runner.pid, context
        self.ledger.setups[key] = self.ledger.setups.get(key, 0) + 1
        setup = self.setup_of(context)
        if setup in runner.has_kept:
            self.ledger.fail(f"{runner.name} has what {setup!r} returned, and runs it again")
        runner.has_kept.clear()  # which may be given up then: there may be no memory for both
        plan = self._of(context).plan
        what = plan.setup
        if what == "raises here":
            what = "raises" if runner.slave.number % 2 else "returns"
        elif what == "dies":
            what = "returns" if context in self.setups_died else "dies"
            self.setups_died.add(context)
        return plan.seconds, what

    @property
    def done(self) -> bool:
        """Whether all tasks were added, and all that can be read was."""
        return not self.to_add and all(
            context.dropped
            or (not context.feeds and not context.ready and all(reader.done for reader in context.readers))
            for context in self.contexts
        )

    def waiting(self) -> Sequence[str]:
        """Who is not done, in words."""
        return [one.name for context in self.contexts if not context.dropped for one in context.readers if not one.done]


def _is_late(plan: TaskPlan, runner: Runner) -> bool:
    """Whether the task that runs there, or has just ended, took longer than it may."""
    return plan.limit is not None and runner.world.now >= runner.began + plan.limit - 1e-6


def _in_words(plan: TaskPlan) -> str:
    what = f"{plan.what} after {plan.seconds:.4g} s"
    if plan.times:
        what += f" ({plan.times} times)"
    if plan.limit is not None:
        what += f", may take {plan.limit:g} s"
    return what + (f", {plan.retries} retries" if plan.retries else "")
