"""State: everything the master knows, and the steps that the rules about runners, agents and users share.

What is to be done and told is collected in `effects` and `events`; `Scheduler.take` hands it to the dispatcher.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Callable

from slave.named import NamedTuple
from slave.protocol import FAILURE, GIVEN_UP, IDLE_SECONDS, VALUE, Command, Setup, StopTasks, as_pickle

from . import events as ev
from .chunk import Inputs
from .durations import Durations
from .effects import (
    AllDone,
    Answer,
    Call,
    Deliver,
    Effect,
    Granted,
    News,
    Outcome,
    Pause,
    Values,
    Verdict,
    WantTasks,
)
from .failures import Failures
from .lease_table import LeaseTable
from .leases import Lease
from .pacing import Pacing
from .roster import Roster
from .slave import AgentRecord, Life, Move, SlaveRecord
from .tally import Tallies, Tally
from .task import Label, Task

RECALL_AGE = 0.2  # seconds after which a lease should be done, and is called back if others idle
_SIZE_OF = attrgetter("size")
_AT_ONCE = 5_000  # added tasks that are entered in one go
_MOST_CONTEXTS, _SMALL = 4, 65536  # contexts, and bytes of a pickle, that an agent is told of ahead
_MOST_TALLIES = 1_000  # that are looked at each second


class Reader(NamedTuple):
    """A thread of the user's that waits for an outcome."""

    call: Call
    for_tasks: bool  # also if tasks are wanted


class Wait:
    """How long somebody has waited without anything happening, and when that is told next."""

    __slots__ = ("next_word", "pause", "seen")

    def __init__(self, now: float, first: float, seen: int = 0) -> None:
        self.seen = seen  # `State.progress` when it was looked at last
        self.pause = first
        self.next_word = now + first


class ContextRules(NamedTuple):
    """What the user asks of the slaves of a context."""

    needs: frozenset[str] = frozenset()  # tags that a slave must have
    most_tasks: int = 0  # that one process may run; 0: no limit
    base: int = 0  # the context of whose setup its tasks get the result, too; 0: there is none
    label: str = ""  # by which the user wants to know it
    name: str = ""  # of its setup, or of the function of a map
    speculate: bool = False  # a task of it may run on two slaves at a time


NO_RULES = ContextRules()


class ContextRecord:
    """What the master knows of one context, besides its tasks.  Only the scheduler writes here."""

    __slots__ = (
        "failures", "finishers", "first", "full", "id", "known_by", "low_water", "needs_told", "put", "readers",
        "rebuilt_by", "refusals", "refused", "rules", "setup", "stalled", "tagged", "taken", "tally", "wait",
        "wants_tasks",
    )  # fmt: skip

    def __init__(self, id: int, setup: Setup | None, rules: ContextRules, tally: Tally) -> None:
        self.id, self.setup, self.rules = id, setup, rules
        self.tally = tally  # its own, or that of the context on which it is based
        # the tags of the slaves of which the user was told that none has what it needs; None: no slave was there
        self.needs_told: tuple[list[str] | None, ...] = ()
        self.first = 0  # tasks with a lower id were cancelled before they were entered
        self.put = self.taken = 0.0  # bytes of results that were delivered; that readers have taken, as far as told
        self.full = False  # enough results wait to be read: nothing of it is granted until some are
        self.low_water = 0  # the reader wants to add tasks when fewer are left; 0: it has none
        self.wants_tasks = False  # it was told so, and has not come since
        self.readers: dict[Call, Reader] = {}
        self.finishers: list[Call] = []  # to be answered when no task is left
        self.tagged = False  # somebody waits for outcomes by their tags, and not as a reader
        self.wait: Wait | None = None  # while there are readers, or if it is tagged
        self.failures: dict[
            int, Any
        ] = {}  # by slave: setup's packed failure there, or how it ended the slave, in words
        self.rebuilt_by: set[int] = set()  # slaves that could rebuild a task of it
        self.refusals: dict[int, Any] = {}  # by task: the last that a slave said who could not (rebuilding.py)
        self.refused: dict[int, set[int]] = {}  # by slave: the tasks that it could not rebuild, though another one may
        self.stalled: list[Call] = []  # slaves that posted a result and are held up, since the context is full
        self.known_by: set[int] = set()  # slaves whose runner may have set it up


class Idle(NamedTuple):
    """A slave's call for tasks that waits."""

    call: Call
    until: float

    @property
    def since(self) -> float:
        """When it came."""
        return self.until - IDLE_SECONDS


class State:
    """See the module's text.  ``output_of``: the output file of a launched slave."""

    def __init__(
        self,
        term: float,
        max_attempts: int,
        *,
        run: str,
        environment: Mapping[str, Any],
        may_join: bool,
        result_bytes: float = math.inf,
        max_memory: int = 0,
        output_of: Callable[[int], str | None] = lambda number: None,
    ) -> None:
        self.run, self.environment, self.may_join = run, environment, may_join
        self.result_bytes, self.output_of = result_bytes, output_of
        self.table = LeaseTable(term, max_attempts)
        self.backlog, self.leases = self.table.backlog, self.table.leases  # what it moves tasks between
        self.pace = Pacing()
        self.durations: dict[int, Durations] = {}  # of contexts that speculate
        self.copies = self.copies_first = 0  # tasks that were started twice; of these, whose copy was first
        self.roster = Roster()
        self.contexts: dict[int, ContextRecord] = {}
        self.tallies = Tallies()
        self.failures = Failures()
        self.slowest = (
            0.0,
            0,
            0,
            "",
        )  # of what slaves ran between two words: seconds, context; task, label if it was one
        self.context_ids = itertools.count(1)
        self.task_ids = itertools.count(1)
        self.incoming: deque[Task | Inputs] = deque()  # users' threads append tasks here at any time; see take_in
        # slaves that wait for a lease, the longest waiting first (a dict looks for its first through all that were)
        self.idle: OrderedDict[int, Idle] = OrderedDict()
        self.reading = 0  # readers that wait, of whatever context
        self.tagged: set[int] = set()  # contexts that are
        self.progress = 0  # counts outcomes: whoever waits sees whether anything happens at all
        self.came_together = -math.inf  # when several outcomes came in one message the last time
        self.judge_again = False  # see `slaves_changed`; `Scheduler.take` looks at it
        self.picky_contexts: set[int] = set()  # of which some slave could not rebuild some task
        self.closing = False
        self.max_memory = max_memory  # bytes that a runner and what it started may use; 0: no limit
        self.limited = False  # some context limits how many tasks one process runs
        self.watched = False  # somebody wants events of single tasks
        self.outlives = 0.0, ""  # seconds that slaves wait for the program if it is killed, and its name
        self.shows = False  # somebody wants what tasks print
        self.levels: Mapping[str, int] | None = None  # of the log records of tasks that somebody wants; None: nobody
        self.local_output_shows = False  # what tasks on local slaves print appears where this program's output does
        self.traced = False  # runners are to tell when they do what
        self.now = 0.0
        self.due = 0.0  # when `tick` is to be called next
        self.effects: list[Effect] = []
        self.events: list[ev.Event] = []
        self._outbox: dict[int, list[Outcome | Values]] = {}

    @property
    def without_slaves(self) -> bool:
        """Whether there is no slave, and none to come."""
        return not self.roster.slaves and not self.may_join

    # -- effects

    def answer(self, call: Call, value: object) -> None:
        """The call has waited for this."""
        self.effects.append(Answer(call, value))

    def tell(self, event: ev.Event) -> None:
        """Something happened."""
        self.events.append(event)

    def attend(self, at: float) -> None:
        """Something is to be looked at then."""
        self.due = min(self.due, at)

    # -- the master's environment

    def environment_for(self, agent: AgentRecord | None) -> Mapping[str, Any]:
        """The environment, for an agent that has come.

        What the master's program was started with stays on its machine, since a command line may hold secrets; its
        variables are for slaves that it started itself as its children.
        """
        environment = dict(self.environment)
        if agent is None or agent.host != environment.get("host"):
            environment["argv"] = list(environment.get("argv", ()))[:1]
        if agent is None or not agent.is_local:
            environment.pop("variables", None)
        if self.traced:
            environment["traced"] = True
        return environment

    def first_pickles(self) -> list[bytes]:
        """Setups and first tasks, as far as they are small: what they refer to is what slaves will import."""
        found: list[Any] = []
        for id, context in itertools.islice(self.contexts.items(), _MOST_CONTEXTS):
            tasks = self.backlog.contexts.get(id)
            found.append(context.setup)
            if tasks is not None:
                found += [task.payload for task in itertools.islice(tasks.tasks.parts.values(), 1)]
        if self.incoming:
            found.append(self.incoming[0].payload)
        return [bytes(one) for one in found if isinstance(one, (bytes, bytearray)) and len(one) <= _SMALL]

    def environment_of(self, slave: int) -> Mapping[str, Any]:
        """The same for slave number ``slave``."""
        found = self.roster.slaves.get(slave)
        return self.environment_for(None if found is None else self.roster.agents.get(found.agent))

    # -- slaves

    def heard(self, slave: SlaveRecord) -> None:
        """A sign of life from a slave."""
        if self.roster.heard(slave, self.now, self.leases.term):
            self.tell(ev.SlaveBack(self.now, slave.number, str(slave)))
            self.slaves_changed()
        self.leases.renew(slave.number, self.now)

    def lose(self, slave: SlaveRecord, running: int, end: str, last_words: str = "", wanted: bool = False) -> None:
        """The slave is gone or out of reach: its tasks go elsewhere.

        ``running``: the task that is blamed, since it ended its process; 0: none (see agents.py).  ``end``: how it
        ended, in one line; ``last_words``: the end of its output; ``wanted``: we ended it ourselves.
        """
        lease = self.leases.by_slave.get(slave.number)
        back = len(lease.tasks) if lease is not None else 0
        held = lease.tasks.get(running) if lease is not None else None
        blamed = None if held is None else self.table.find(held.context, running)
        text = f"{end} on {slave.host}{last_words}"
        given_up = self.table.lose(slave.number, running, text)
        slave.running = 0
        number, name = slave.number, str(slave)
        lost = given_up.task.id if given_up is not None else 0
        self.tell(ev.SlaveLost(self.now, number, name, end, last_words, wanted, back, lost))
        if given_up is not None:
            task = given_up.task
            outcome = Outcome(task.id, GIVEN_UP, name, given_up.ends, (), payload=task.payload, tag=task.tag)
            self.deliver_failure(task.context, outcome, slave)
        elif blamed is not None and self.watched:
            attempts = len(blamed.ends or ())
            self.tell(ev.TaskAttemptEnded(self.now, blamed.context, blamed.id, number, attempts, text))
        if not wanted:
            slave.losses += 1
        self.release(slave)

    def end(self, slave: SlaveRecord, why: str, given_up: bool = False) -> None:
        """The slave will not work again, unless it has a launcher: then that has the last word.

        ``given_up``: its agent says so of itself.
        """
        if slave.life is Life.ENDED:
            return
        given_up = given_up and not slave.leaving
        self.release(slave)
        self.table.give_back(slave.number)  # should its runner's end not have been told, or come late
        self.unlearn(slave)
        if slave.has_launcher and slave.life is not Life.DISMISSED:
            self.roster.part(slave, why)
        else:
            slave.end = f"{slave.parting}; {why}" if slave.parting else why
            self.roster.move(slave, Move.END)
            self.tell(ev.SlaveEnded(self.now, slave.number, str(slave), slave.end, given_up))
        self.slaves_changed()

    def unlearn(self, slave: SlaveRecord) -> None:
        """Its runner has ended, and what that had set up is gone with it."""
        for context in slave.knows:
            if context in self.contexts:
                self.contexts[context].known_by.discard(slave.number)
        slave.knows.clear()
        slave.to_forget.clear()
        slave.told_to_forget.clear()

    def release(self, slave: SlaveRecord) -> None:
        """If the slave waits for tasks, answer it: it gets none now, or it is to end."""
        waiting = self.idle.pop(slave.number, None)
        if waiting is not None:
            over = slave.leaving or slave.life is Life.ENDED
            self.answer(waiting.call, None if over else Granted(None, self._forgotten(slave)))

    def command(self, agent_id: str, command: Command) -> None:
        """Command an agent, which may not have come yet."""
        agent = self.roster.agent(agent_id)
        agent.last_command += 1
        agent.commands.append((agent.last_command, command))
        self.send_commands(agent_id)

    def send_commands(self, agent_id: str) -> None:
        """Answer the agent's call for commands, if it waits and there are some."""
        agent = self.roster.agents[agent_id]
        if agent.call is not None and agent.commands:
            call, agent.call = agent.call, None
            self.answer(call, (agent.last_command, [command for _, command in agent.commands]))

    # -- tasks

    def take_in(self, most: float = math.inf) -> None:
        """Enter tasks that users have added since the last time: up to ``most``, the oldest."""
        incoming, contexts, add = self.incoming, self.contexts, self.backlog.add
        entered: dict[int, list[int]] = {}
        for _ in range(int(min(most, len(incoming)))):
            task = incoming.popleft()
            context = contexts.get(task.context)
            if isinstance(task, Inputs):
                self._take_in_all(task, context, entered)
            elif context is not None and task.id >= context.first:
                add(task)
                if (context.failures or context.rules.needs) and context.tagged:
                    self.judge_again = True  # there may be no slave left that could run it
                if self.watched:
                    entered.setdefault(task.context, []).append(task.id)
        for number, ids in entered.items():
            self.tell(ev.TasksAdded(self.now, number, ids))

    def _take_in_all(self, inputs: Inputs, context: ContextRecord | None, entered: dict[int, list[int]]) -> None:
        """What there is of a map's inputs."""
        for chunk in inputs.take(self.task_ids):
            if context is not None:
                self.backlog.add_chunk(chunk)
                if self.watched:
                    entered.setdefault(context.id, []).extend(chunk.ids)

    def with_tasks(self) -> Iterator[Tally]:
        """The tallies of contexts that have tasks and may be done; of very many, not of all."""
        if not self.roster.connected:
            return
        for id in itertools.islice(self.backlog.contexts, _MOST_TALLIES):
            yield self.contexts[id].tally

    def left(self, context: int) -> int:
        """How many tasks of the context have no outcome yet: 0 only if that is true of those just added too."""
        found = self.backlog.left(context)
        if not found and self.incoming:
            self.take_in()
            found = self.backlog.left(context)
        return found

    def grant(self, slave: SlaveRecord, share: int = 0) -> Lease | None:
        """A lease for the slave if there is anything to do for it: its ``share`` of what waits, or what that is now."""
        if self.incoming:
            self.take_in(_AT_ONCE)
        lease, barred = None, slave.setup_failed | slave.unfit_for if slave.unfit_for else slave.setup_failed
        barred = barred | slave.lacks if slave.lacks else barred
        while lease is None and (self.backlog.waiting or self.incoming):
            lease = self.table.grant(slave.number, self.now, barred, share or self._share(), self.pace)
            if lease is None and not self.incoming:
                break
            if lease is None:
                self.take_in(_AT_ONCE)
        if lease is not None:
            self._note_granted(slave, lease)
            if self.idle and len(lease.tasks) > 1:
                self.attend(self.now + RECALL_AGE)
        return lease

    def _note_granted(self, slave: SlaveRecord, lease: Lease) -> None:
        first = lease.tasks.first()
        slave.first, slave.label = first.id, first.tag if type(first.tag) is Label else ""
        for number in lease.contexts:
            if number not in slave.knows:
                self._make_known(slave, self.contexts[number])
        if self.watched:
            labels = {task.id: task.tag for task in lease.tasks.parts.values() if type(task.tag) is Label}
            self.tell(ev.TasksLeased(self.now, first.context, slave.number, lease.id, list(lease.tasks), labels))

    def _share(self) -> int:
        """How many of the tasks that wait now are one slave's."""
        return math.ceil((self.backlog.waiting + len(self.incoming)) / max(1, len(self.roster.connected)))

    def _make_known(self, slave: SlaveRecord, context: ContextRecord) -> None:
        """The slave is to be told when the context, and the one that it is based on, are gone."""
        slave.knows.add(context.id)
        context.known_by.add(slave.number)
        if context.id in self.durations:
            self.durations[context.id].begins(slave.number, self.now)
        base = self.contexts.get(context.rules.base)
        if base is not None:
            slave.knows.add(base.id)
            base.known_by.add(slave.number)

    def serve(self, slave: SlaveRecord, call: Call, share: int = 0) -> bool:
        """Answer a call for tasks if there is an answer.  ``share``: see `grant`."""
        if self.closing or slave.leaving:
            self.answer(call, None)
            return True
        lease = self.grant(slave, share)
        if lease is not None or slave.to_forget:
            self.answer(call, Granted(lease, self._forgotten(slave), self._most_of(lease)))
            return True
        return False

    def feed(self) -> None:
        """Give waiting tasks to idle slaves, the longest waiting first: equal shares, since they begin together."""
        skipped: dict[int, Idle] = {}
        share = self._share()
        while self.idle and (self.backlog.waiting or self.incoming):
            number = next(iter(self.idle))
            slave = self.roster.slaves[number]
            waiting = self.idle.pop(number)
            if not self.serve(slave, waiting.call, share):
                skipped[number] = waiting
                if not slave.setup_failed and not slave.picky and not slave.lacks:
                    break  # what waits is for nobody now
        if skipped:
            self.idle = OrderedDict({**skipped, **self.idle})

    def serve_copy(self, slave: SlaveRecord, task: Task) -> None:
        """Answer an idle slave's call with a task that another one runs."""
        waiting, other = self.idle.pop(slave.number), task.holder
        lease = self.table.copy(slave.number, task, self.now)
        self.copies += 1
        self.tell(ev.TaskCopied(self.now, task.context, task.id, slave.number, other))
        self._note_granted(slave, lease)
        self.answer(waiting.call, Granted(lease, self._forgotten(slave), self._most_of(lease)))

    def _end_copies(self, winner: SlaveRecord | None, outcomes: Sequence[Outcome]) -> None:
        """Tasks that two slaves held have their outcome by ``winner``: the others are stopped."""
        posted = {outcome.task for outcome in outcomes if outcome.kind in (VALUE, FAILURE)}
        for race in self.table.races.take_over():
            self.copies_first += winner is not None and winner.number == race.second and race.task in posted
            for number, lease in race.leases.items():
                slave = self.roster.slaves.get(number)
                if slave is not None and slave is not winner:
                    self.command(slave.agent, StopTasks(number, lease, [race.task]))

    def _most_of(self, lease: Lease | None) -> dict[int, int]:
        if lease is None or not self.limited:
            return {}
        found = {context: self.contexts[context].rules.most_tasks for context in lease.contexts}
        return {context: most for context, most in found.items() if most}

    def see_tags(self, slave: SlaveRecord) -> None:
        """Note of which contexts the slave, whose agent has come, lacks what they need."""
        tags = self.roster.agents[slave.agent].tags
        slave.lacks = {id for id, one in self.contexts.items() if not one.rules.needs <= tags}

    def _forgotten(self, slave: SlaveRecord) -> list[int]:
        forgotten, slave.to_forget = slave.to_forget, []
        slave.told_to_forget += forgotten
        return forgotten

    # -- outcomes

    def deliver_failure(self, context_id: int, outcome: Outcome, slave: SlaveRecord | None) -> None:
        """The same for one that is an error."""
        context = self.contexts.get(context_id)
        if context is not None:
            context.tally.failed += 1
            self.failures.note(context_id, outcome, self.now)
        self.deliver(context_id, [outcome], slave)

    def deliver(self, context_id: int, outcomes: list[Outcome], slave: SlaveRecord | None) -> None:
        """Outcomes of one slave's for the context's reader; the tasks have left the table."""
        if self.table.races.over:
            self._end_copies(slave, outcomes)
        context = self.contexts.get(context_id)
        if context is None:
            return
        self.progress += len(outcomes)
        context.put += sum(map(_SIZE_OF, outcomes))
        if context.refusals:
            for outcome in outcomes:
                context.refusals.pop(outcome.task, None)
        box = self._outbox.get(context_id)
        if box is None:
            self._outbox[context_id] = outcomes  # type: ignore[assignment]  # it is this one's now
        else:
            box.extend(outcomes)
        if self.watched:
            number = -1 if slave is None else slave.number
            for outcome in outcomes:
                self.tell(ev.TaskDone(self.now, context_id, outcome.task, number, outcome.kind, outcome.size))

    def deliver_values(self, context_id: int, values: Values, slave: SlaveRecord | None) -> None:
        """The same of a map's inputs that stood in chunks."""
        context = self.contexts[context_id]
        self.progress += len(values.tasks)
        context.put += values.size
        context.tally.done += len(values.tasks) - 1  # it counts as one outcome
        self._outbox.setdefault(context_id, []).append(values)
        if self.watched:
            number = -1 if slave is None else slave.number
            for task, data in zip(values.tasks, values.data):
                self.tell(ev.TaskDone(self.now, context_id, task, number, VALUE, len(as_pickle(data))))

    def has_outcomes(self, context: int) -> bool:
        """Whether outcomes of the context have not been handed over yet."""
        return context in self._outbox

    def send_outcomes(self) -> None:
        """Hand over what was delivered since the last time, and see whom that concerns."""
        if not self._outbox:
            return
        for context_id, outcomes in self._outbox.items():
            context = self.contexts.get(context_id)
            if context is None:
                continue
            context.tally.done += len(outcomes)
            left = self.left(context_id)
            self.effects.append(Deliver(context_id, outcomes, not left))
            if not context.full and context.put - context.taken >= self.result_bytes:
                context.full = True
                self.backlog.pause(context_id)
                self.effects.append(Pause(context_id, True))
                self.tell(ev.ResultsWait(self.now, context_id, self.result_bytes))
            if context.low_water > left and not context.wants_tasks:
                context.wants_tasks = True
                self.effects.append(WantTasks(context_id))
            if context.readers:
                self.wake_readers(context, News(), len(outcomes) if left else len(context.readers))
            if context.finishers and not left:
                self.finish(context, AllDone())
        self._outbox.clear()

    def wake_readers(self, context: ContextRecord, verdict: Verdict, most: int) -> None:
        """Answer readers of a context, the longest waiting first."""
        for call in list(context.readers)[:most]:
            del context.readers[call]
            self.reading -= 1
            self.answer(call, verdict)
        if not context.readers and not context.tagged:
            context.wait = None

    def finish(self, context: ContextRecord, verdict: Verdict) -> None:
        """Answer those that wait until no task is left."""
        finishers, context.finishers = context.finishers, []
        for call in finishers:
            self.answer(call, verdict)

    def slaves_changed(self) -> None:
        """Whoever waits for results or slaves is to be judged anew."""
        self.judge_again = True

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        self.table.check()
        self.roster.check()
        for number in self.idle:
            assert number in self.roster.slaves, f"slave {number} has ended and waits for tasks"
            assert number not in self.leases.by_slave, f"slave {number} holds a lease and waits for another"
        assert self.reading == sum(len(one.readers) for one in self.contexts.values()), "readers are counted wrongly"
        for context in self.contexts.values():
            assert context.full == (context.id in self.backlog.paused), f"context {context.id} is paused or not"
            assert not context.stalled or context.full, f"slaves are held up for context {context.id} without reason"
            assert context.known_by <= set(self.roster.slaves), f"context {context.id} is known by who has ended"
        for slave in self.roster.slaves.values():
            assert slave.setup_failed | slave.unfit_for <= set(self.contexts), (
                f"{slave} remembers contexts that are gone"
            )
        for context in self.contexts.values():
            left = {id for _, tasks in self.backlog.refused(context.id) for id in (task.id for task in tasks)}
            assert left <= set(context.refusals), f"of tasks {left} nobody knows why"
            assert not context.refusals or context.id in self.picky_contexts, f"context {context.id} is not judged"
            assert all(self.table.find(context.id, id) for id in context.refusals), "a refusal outlives its task"
