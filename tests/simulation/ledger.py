"""The simulation's own books, kept from what is said and what really happens: never from what the scheduler remembers.

Who holds which task, by the leases that slaves were given and by what was said of them since; what came of each task,
by what arrived; who is to blame, by how processes really ended.  What the scheduler delivers and tells is held against
that at once; `compare` holds its tables against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parallel.core import events as ev
from parallel.core.effects import Answer, Deliver, Effect, Granted, Outcome, Pause
from parallel.core.state import State
from slave.protocol import (
    BY_ITSELF,
    FAILURE,
    GIVEN_UP,
    STOPPED,
    TIME_LIMIT,
    TIMED_OUT,
    VALUE,
    OutcomeMessage,
    RebuildFailure,
    RunnerEnded,
)
from slave.shared_status import TASK
from tests.support.known_inputs import KnownInputs, outcomes_of

from .plan import HARMLESS, WISHES, Plan, TaskPlan
from .world import World

if TYPE_CHECKING:
    from .runner import Data, Runner

_LAST_WORDS = 2.0  # seconds for which the master waits for what a process has said before it ended
_PROMPT = 0.2  # seconds within which an outcome is known, besides its way; the end of an output may be read before
_STOPPED = 1.0  # seconds within which a process ends that runs what nobody wants, besides the way of that word
KINDS = {VALUE: "a value", FAILURE: "a failure", GIVEN_UP: "given up", TIMED_OUT: "timed out"}


class TaskRecord:
    """What the ledger knows of one task."""

    __slots__ = (
        "blamed", "by", "cancelled", "context", "copies", "died", "expected", "failures", "id", "late", "made",
        "outcome", "plan", "refused_by", "retries", "runs", "stopped", "taken",
    )  # fmt: skip

    def __init__(self, id: int, context: int, plan: TaskPlan) -> None:
        self.id, self.context, self.plan = id, context, plan
        self.retries, self.failures = plan.retries, 0  # left; that were followed by another try
        self.runs = self.died = 0  # began; ended their process, which had announced it
        self.stopped = self.late = 0  # were ended with their process; of these took longer than they may
        self.made: list[Data] = []  # by runs that ended
        self.refused_by: set[int] = set()  # slaves that could not rebuild it
        self.blamed = 0  # how often the master blamed it
        self.copies = 0  # how often it was started while another slave held it
        self.by = 0  # the process whose outcome it has
        self.expected: tuple[int, int] | None = None  # what is to be delivered: kind, tries
        self.outcome: int | None = None
        self.taken = self.cancelled = False

    @property
    def over(self) -> bool:
        """Whether it has its outcome, or will have none."""
        return self.outcome is not None or self.cancelled or self.expected is not None


class Ledger:
    """See the module's text."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.state: State  # of the scheduler: only `look` and `compare` see it
        self.tasks: dict[int, TaskRecord] = {}
        self.unsettled: dict[int, TaskRecord] = {}
        self.held: dict[int, tuple[int, dict[int, None]]] = {}  # by slave: its lease and the tasks
        self.joined: dict[int, tuple[int, int]] = {}  # by slave: pid and connection
        self.barred: dict[int, set[int]] = {}  # by slave: contexts whose setup failed there
        self.paused: set[int] = set()
        self.speculates: set[int] = set()  # contexts that do
        self.to_stop: dict[int, tuple[int, float]] = {}  # by pid: the task that it is to run no more, since when
        self.runners: dict[int, Runner] = {}  # by pid: all that ever joined
        self.setups: dict[tuple[int, int], int] = {}  # by pid and context
        self.ended: dict[int, tuple[RunnerEnded, float]] = {}  # by slave: how its runner ended, and when that was told
        self.doubtful: set[tuple[int, int]] = set()  # tasks that were blamed for a process that had posted them
        self.mistaken: set[int] = set()  # slaves that were taken for those of a process that was started again
        self.may_run_again = False  # something went wrong that is not in the plan, and may explain it
        self._to_blame = 0  # the task that is to be blamed by the call that is being carried out
        self._due: dict[int, None] = {}  # tasks whose outcome is to be delivered
        self._effects = self._events = 0  # how many of these were looked at

    def fail(self, what: str) -> None:
        """Something is wrong."""
        raise AssertionError(what)

    # -- what really happens

    def added(self, id: int, context: int, plan: TaskPlan) -> None:
        """A task was added."""
        self.tasks[id] = self.unsettled[id] = TaskRecord(id, context, plan)

    def cancelled(self, tasks: Sequence[TaskRecord]) -> None:
        """These were cancelled, and whoever runs them is to stop."""
        for task in tasks:
            self._are_to_stop(task.id, 0)
        self.gone(tasks)

    def gone(self, tasks: Sequence[TaskRecord]) -> None:
        """Nobody wants them any more."""
        for task in tasks:
            task.cancelled = True
            self.unsettled.pop(task.id, None)
            self._due.pop(task.id, None)
            self._not_held(task.id)

    def of_context(self, context: int) -> list[TaskRecord]:
        """Its tasks that are not over."""
        return [task for task in self.unsettled.values() if task.context == context]

    # -- what slaves say

    def outcomes(self, batch: Sequence[OutcomeMessage]) -> None:
        """These are about to be carried out."""
        for slave, lease, _, id, kind, data, _ in batch:
            if (id, data.by) in self.doubtful:
                self.fail(f"task {id} is blamed, and its outcome was on its way when slave {slave} ended")
            task = self.unsettled.get(id)
            if task is None:
                continue
            if not self.plan.acts and self.world.now - data.at > _PROMPT + 3 * self.plan.slowness:
                self.fail(f"the outcome of task {id} took {self.world.now - data.at:.2f} s though nothing went wrong")
            held = self.held.get(slave)
            current = held is not None and held[0] == lease and id in held[1]
            if kind == FAILURE and (task.retries or task.failures) and not current:
                continue  # another attempt is on its way
            if kind == FAILURE and task.retries and held is not None:
                task.retries -= 1
                task.failures += 1
                del held[1][id]  # a copy of it is the next try
            else:
                self._settles(task, kind, data.by)

    def _settles(self, task: TaskRecord, kind: int, by: int = 0) -> None:
        task.by = by
        if task.copies:
            self._are_to_stop(task.id, by)
        task.expected = kind, 1 + (task.failures if kind in (VALUE, FAILURE) else 0)
        self._due[task.id] = None
        del self.unsettled[task.id]
        self._not_held(task.id)

    def called(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A slave's or an agent's call is about to be carried out."""
        if method == "fetch":
            request = arguments[0]
            if self.joined.get(request.slave) == (request.pid, request.connection):
                self.held.pop(request.slave, None)
        elif method == "give_back":
            self._given_back(arguments[0].slave, arguments[0].lease, arguments[0].unstarted)
        elif method == "setup_failed":
            failure = arguments[0]
            self._given_back(failure.slave, failure.lease, failure.unstarted)
            self._holds_nothing(failure.slave, failure.lease, failure.context)
            self.barred.setdefault(failure.slave, set()).add(failure.context)
        elif method == "rebuild_failed":
            self._not_rebuilt(arguments[0])
        elif method == "recalled":
            self._recalled(*arguments[1:])

    def _given_back(self, slave: int, lease: int, ids: Sequence[int]) -> None:
        held = self.held.get(slave)
        if held is not None and held[0] == lease:
            for id in ids:
                held[1].pop(id, None)

    def _holds_nothing(self, slave: int, lease: int, context: int) -> None:
        """A slave that cannot set a context up keeps no task of it: others wait for work while it runs the rest."""
        held = self.held.get(slave, (0, {}))
        kept = [id for id in held[1] if held[0] == lease and self.tasks[id].context == context]
        if kept:
            self.fail(f"the setup of context {context} failed on slave {slave}, and it has not given back {kept}")

    def _not_rebuilt(self, failure: RebuildFailure) -> None:
        held, task = self.held.get(failure.slave), self.unsettled.get(failure.task)
        if held is not None and held[0] == failure.lease and task is not None and failure.task in held[1]:
            task.refused_by.add(failure.slave)
            del held[1][failure.task]

    def _recalled(self, slave: int, lease: int, running: int) -> None:
        held = self.held.get(slave)
        if held is not None and lease in (0, held[0]) and running:
            ids = list(held[1])
            for id in ids[ids.index(running) + 1 :] if running in held[1] else ids:
                del held[1][id]

    def runner_ended(self, report: RunnerEnded) -> None:
        """An agent's word on the end of a runner is about to be carried out: it counts when its slave is lost next."""
        runner = self.runners.get(report.pid)
        if report.cause == BY_ITSELF and runner is not None and not runner.own_end:
            self.fail(f"the end of slave {report.slave} is told as its own, and was not")
        if report.cause == STOPPED and report.task and self.tasks[report.task].copies:
            self._was_stopped(self.tasks[report.task], report)
        if self.joined.get(report.slave, (report.pid, 0))[0] == report.pid:  # else a word on a former process
            self.ended[report.slave] = report, self.world.now

    def _has_ended(self, report: RunnerEnded, told: float) -> None:
        self.joined.pop(report.slave, None)
        runner, held = self.runners.get(report.pid), self.held.get(report.slave)
        task = self.unsettled.get(report.task)
        if report.cause == BY_ITSELF and report.setup:
            self.barred.setdefault(report.slave, set()).add(report.setup)
        elif held is not None and task is not None and report.task in held[1]:
            if report.cause == BY_ITSELF:
                if runner is None or runner.status[TASK] != report.task:
                    self.fail(f"task {report.task} is blamed, and did not run when slave {report.slave} ended")
                elif runner.task != report.task:  # it had posted it; that may be lost, or come too late
                    self.tasks[report.task].died += 1
                    if self.world.now - told < min(_LAST_WORDS, self.plan.term / 4):
                        self.doubtful.add((report.task, report.pid))
                self._to_blame = report.task
            elif report.cause == TIME_LIMIT:
                self._settles(task, TIMED_OUT)

    def slave_closed(self, slave: int) -> None:
        """An agent's word that it gave a slave up is about to be carried out."""
        if slave not in self.ended:
            self.held.pop(slave, None)

    def _not_held(self, id: int) -> None:
        for _, ids in self.held.values():
            ids.pop(id, None)

    # -- tasks that are started twice

    def _holders(self, id: int) -> list[int]:
        return [slave for slave, (_, ids) in self.held.items() if id in ids]

    def _copied(self, slave: int, ids: Sequence[int]) -> None:
        """Tasks that others hold are granted: one at a time, where that is wanted, and never to a third slave."""
        task = self.tasks[ids[0]]
        others = self._holders(task.id)
        if task.context not in self.speculates or len(ids) > 1 or len(others) > 1 or slave in others:
            self.fail(f"slaves {others} hold task {task.id}, and slave {slave} gets it")
        if task.context in self.paused:
            self.fail(f"task {task.id} is started twice, and nothing of its context is to be started")
        waiting = [one.id for one in self.of_context(task.context) if not self._holders(one.id)]
        if waiting:
            self.fail(f"task {task.id} is started twice, and tasks {waiting} wait")
        task.copies += 1

    def _are_to_stop(self, id: int, winner: int) -> None:
        """Whoever holds the task is to end it, but for the process ``winner``."""
        for slave in self._holders(id):
            pid, _ = self.joined.get(slave, (0, 0))
            if pid not in (0, winner):
                self.to_stop[pid] = id, self.world.now

    def _was_stopped(self, task: TaskRecord, report: RunnerEnded) -> None:
        may_be_late = any(one.limit is not None for one in self.plan.tasks)  # the one before, when this one began
        if not task.over and not may_be_late:
            self.fail(f"slave {report.slave} was stopped while it ran task {task.id}, which has no outcome")
        if task.by == report.pid:
            self.fail(f"slave {report.slave} was stopped for task {task.id}, whose outcome is its own")

    def _look_who_runs_on(self) -> None:
        disturbed = any(act.what not in HARMLESS for act in self.plan.acts)
        for pid, (task, since) in list(self.to_stop.items()):
            runner = self.runners.get(pid)
            if runner is None or not (runner.alive and runner.runs) or runner.task != task or disturbed:
                del self.to_stop[pid]
            elif self.world.now - since > _STOPPED + 6 * self.plan.slowness:
                self.fail(f"task {task} is over, and {runner.name} runs it on")

    # -- what comes of it

    def look(self) -> None:
        """Look at what the scheduler wants done and told since the last time."""
        state = self.state
        if len(state.events) > self._events:
            self._see_events(state.events[self._events :])
            self._events = len(state.events)
        if len(state.effects) > self._effects:
            self._see_effects(state.effects[self._effects :])
            self._effects = len(state.effects)
        if self._to_blame:
            self.fail(f"task {self._to_blame} has ended its process, and is not blamed")

    def taken(self, effects: Sequence[Effect], events: Sequence[ev.Event]) -> None:
        """The same for what the dispatcher has taken."""
        if len(events) > self._events:
            self._see_events(events[self._events :])
        if len(effects) > self._effects:
            self._see_effects(effects[self._effects :])
        self._events = self._effects = 0
        if self._due:
            self.fail(f"the outcomes of tasks {list(self._due)} are kept back")

    def _see_events(self, events: Sequence[ev.Event]) -> None:
        for event in events:
            if isinstance(event, ev.SlaveLost):
                self._lost(event)
            elif isinstance(event, ev.TaskAttemptEnded):
                self._blamed(event.task, event.attempts)
            elif isinstance(event, ev.SlaveEnded):
                self.held.pop(event.slave, None)

    def _lost(self, event: ev.SlaveLost) -> None:
        if self.world.story is not None:
            self.world.tell(f"to the master slave {event.slave} is lost: {event.end}")
        runner = self.runners.get(self.joined.get(event.slave, (0, 0))[0])
        if event.end == "its job was started again" and runner is not None and runner.alive:
            # its agent's first word, said twice since an answer was lost, and the earlier one read last: from a process
            # that was started again with the same number that cannot be told, and costs a run
            self.mistaken.add(event.slave)
            self.may_run_again = True
        if (
            event.slave not in self.mistaken
            and event.end.startswith("its connection ended")
            and runner is not None
            and runner.agent.is_served
        ):
            self.fail(f"slave {event.slave} is missed, and its agent is connected")
        if event.end.startswith("nothing was heard") and all(act.what in HARMLESS for act in self.plan.acts):
            self.fail(f"slave {event.slave} is missed, and nothing has kept it silent")
        before = len(self.held.get(event.slave, (0, ()))[1])
        if event.slave in self.ended:
            self._has_ended(*self.ended.pop(event.slave))
        _, held = self.held.pop(event.slave, (0, {}))
        if event.tasks not in (before, len(held)):
            self.fail(f"slave {event.slave} held {list(held)}, and is said to have held {event.tasks} tasks")
        if event.given_up:
            self._blamed(event.given_up, self.plan.max_attempts)
            task = self.unsettled.get(event.given_up)
            if task is None:
                self.fail(f"task {event.given_up} is given up, and is over")
            else:
                self._settles(task, GIVEN_UP)

    def _blamed(self, id: int, attempts: int) -> None:
        task = self.tasks[id]
        task.blamed += 1
        if id != self._to_blame:
            self.fail(f"task {id} is blamed, and is not to blame")
        if attempts != task.blamed or attempts > self.plan.max_attempts:
            self.fail(f"task {id} is blamed for the {task.blamed}. time, and it is said to be the {attempts}.")
        if task.died < task.blamed:
            self.fail(f"task {id} is blamed {task.blamed} times, and ended {task.died} processes")
        self._to_blame = 0

    def _see_effects(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                for outcome in outcomes_of(effect):
                    self._delivered(effect.context, outcome)
            elif isinstance(effect, Answer):
                if isinstance(effect.value, Granted):
                    self._granted(effect.call, effect.value)
                elif effect.value is True and effect.call.method == "join":
                    self._has_joined(effect.call.arguments[0])
            elif isinstance(effect, Pause):
                (self.paused.add if effect.on else self.paused.discard)(effect.context)

    def _granted(self, call: Any, value: Granted) -> None:
        if value.lease is None:
            return
        slave, ids = call.arguments[0].slave, list(value.lease.tasks)
        if self.held.get(slave, (0, {}))[1]:
            self.fail(f"slave {slave} holds {list(self.held[slave][1])} and gets {ids}")
        for id in ids:
            if id not in self.unsettled:
                self.fail(f"task {id} is over, and slave {slave} gets it")
            if slave in self.unsettled[id].refused_by:
                self.fail(f"slave {slave} gets task {id}, which it could not rebuild")
            if self.unsettled[id].context in self.barred.get(slave, ()):
                self.fail(f"slave {slave} gets task {id}, whose setup failed there")
            if self._holders(id):
                self._copied(slave, ids)
        self.held[slave] = value.lease.id, dict.fromkeys(ids)
        if self.world.story is not None:
            self.world.tell(f"slave {slave} is given tasks {ids}, lease {value.lease.id}")

    def _has_joined(self, request: Any) -> None:
        slave = request.slave
        held, former = self.held.get(slave), self.joined.get(slave, (0, 0))[0]
        if held is not None and (former != request.pid or held[0] != request.lease):
            del self.held[slave]
        self.joined[slave] = request.pid, request.connection
        if self.world.story is not None:
            self.world.tell(f"slave {slave} has joined as process {request.pid}")

    def _delivered(self, context: int, outcome: Outcome) -> None:
        task = self.tasks[outcome.task]
        if task.cancelled:
            self.fail(f"task {task.id} was cancelled, and has an outcome")
        if task.outcome is not None:
            self.fail(f"task {task.id} has a second outcome")
        if task.expected is None and task.refused_by and outcome.kind == FAILURE:
            self._settles(task, FAILURE)  # nobody is left who might rebuild it
            task.made.append(outcome.data)
        if task.expected is None:
            self.fail(f"task {task.id} has an outcome, and none is known")
        if (outcome.kind, outcome.tries) != task.expected:
            self.fail(f"task {task.id} has outcome {outcome.kind, outcome.tries}, and not {task.expected}")
        if task.context != context:
            self.fail(f"task {task.id} has its outcome in context {context}")
        kind = outcome.kind
        if kind in (VALUE, FAILURE) and not any(outcome.data is data for data in task.made):
            self.fail(f"task {task.id} has {KINDS[kind]} that no run of it has made")
        if kind == GIVEN_UP and not len(outcome.data) == task.blamed == self.plan.max_attempts <= task.died:
            self.fail(f"task {task.id} is given up after {outcome.data}, and ended {task.died} processes")
        if kind == TIMED_OUT and not task.late:
            self.fail(f"task {task.id} timed out, and took no longer than it may")
        task.outcome = kind
        self._due.pop(task.id, None)
        if self.world.story is not None:
            self.world.tell(f"the outcome of task {task.id} is known: {KINDS[kind]}")

    # -- what the scheduler knows

    def quick_check(self) -> None:
        """Nobody waits for a task that waits for somebody."""
        state = self.state
        if self.to_stop:
            self._look_who_runs_on()
        if not state.idle or not self.unsettled or state.closing:
            return
        everywhere = {id for _, ids in self.held.values() for id in ids}
        unfit = {(task.context, slave) for task in self.tasks.values() for slave in task.refused_by}
        for task in self.unsettled.values():
            if task.id in everywhere or task.context in self.paused:
                continue
            for slave in state.idle:
                if task.context not in self.barred.get(slave, ()) and (task.context, slave) not in unfit:
                    self.fail(f"slave {slave} waits for a task, and task {task.id} for a slave")

    def compare(self) -> None:
        """What the scheduler's tables say is what the ledger says."""
        leases = {number: list(lease.tasks) for number, lease in self.state.leases.by_slave.items()}
        held = {number: list(ids) for number, (_, ids) in self.held.items() if ids}
        if leases != held:
            self.fail(f"slaves hold {held}, and by the lease table {leases}")
        known = {id for context in self.state.backlog.contexts.values() for id in context.tasks}
        for task in self.state.incoming:
            known.update(task.ids if isinstance(task, KnownInputs) else [task.id])  # type: ignore[union-attr]
        missing = self.unsettled.keys() - known
        if missing:
            self.fail(f"tasks {sorted(missing)} are lost")
        if len(self.ended) > len(self.runners):
            self.fail("ends of runners are not dealt with")

    def final(self) -> None:
        """Every task has one outcome, or was cancelled, and the reader has it."""
        for task in self.tasks.values():
            if not task.cancelled and task.outcome is None:
                self.fail(f"task {task.id} has no outcome")
            if task.outcome is not None and not task.taken and not task.cancelled:
                self.fail(f"task {task.id} has an outcome that nobody was given")
        for (pid, context), times in self.setups.items():
            if times > 1:
                self.fail(f"setup of context {context} ran {times} times in process {pid}")
        # what a process that dies had posted is lost with a cable, or comes after its launcher's word that it has ended
        cut = self.plan.slowness > 0 or any(act.what not in WISHES for act in self.plan.acts)
        died = any(not runner.alive and runner.exitcode for runner in self.runners.values())
        if not self.may_run_again and not (cut and died) and all(act.what in HARMLESS for act in self.plan.acts):
            for task in self.tasks.values():
                if task.runs > 1 + task.failures + task.died + task.stopped + task.copies:
                    self.fail(f"task {task.id} ran {task.runs} times though nothing that went wrong explains it")
