"""The judge: takes what comes out of the scheduler, and holds it against the model.

What is answered, delivered and told must be what the model says, no more and no less.  How many tasks a lease gets, and
when one is recalled, the scheduler may choose within limits: that is looked at, and then taken over into the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from parallel.core import events as ev
from parallel.core.durations import LEAST_PATIENCE
from parallel.core.effects import Answer, Deliver, Granted, HangUp, NoSlaves, Pause, Refuse, WantTasks
from parallel.core.pacing import LEASE_SECONDS, LEAST_SECONDS
from parallel.core.slave import Contact, Life, SlaveRecord
from parallel.core.state import RECALL_AGE, State
from parallel.core.task import Task
from slave.protocol import IDLE_SECONDS, Command, Recall
from tests.core.fake import Env
from tests.core.model import REFUSED, Model
from tests.core.model_state import ModelAgent, ModelLease, ModelSlave
from tests.support.known_inputs import KnownInputs

LONGEST_TICK = 1.0
LOOK_AGAIN = 0.05  # seconds by which a recall may come later than it could
SECONDS = {0: 0.03, 1: LEAST_SECONDS / 4, 2: None}  # that a task takes, by its context's number modulo 3; None: unknown
CONTACTS = {Contact.UNHEARD: "", Contact.HEARD: "heard", Contact.CUT_OFF: "cut", Contact.LOST: "lost"}


class Judge(Model):
    """See the module's text."""

    def __init__(self, term: float, max_attempts: int, may_join: bool, result_bytes: float) -> None:
        super().__init__(term, max_attempts, may_join, result_bytes)
        self.sound = True  # False after something was wrong
        self.measured: set[int] = set()  # contexts of which it is known what a task takes
        self.current: ModelSlave | None = None  # its call for tasks is being answered: it comes before who waits longer
        self.polls: Any = None  # a call for commands that is just being made
        self.last_lease = 0
        self.tick_seconds = min(LONGEST_TICK, term / 8)
        self._paused: set[int] = set()
        self._share = 0  # of each of the idle slaves that get tasks together
        self.idle: list[int] = []  # slaves that wait, the longest waiting first

    def examine(self, env: Env) -> None:
        """What came out of the scheduler is what the model says, and so is what it knows now."""
        self.sound = False
        self._paused = self.paused()  # what is granted now was granted before the last outcomes were delivered
        self.judge()
        self._line_up()
        self._share = 0
        while env.effects:
            self._look_at(env.effects.popleft())
        assert not self.answers, f"not answered: {self.answers}"
        assert not self.effects, f"did not come: {self.effects}"
        self._look_at_events(env)
        self._nobody_sleeps(env)
        self._compare(env.state)
        self.sound = True

    def _line_up(self) -> None:
        waiting = [slave.number for slave in self.alive() if slave.call is not None]
        current = [] if self.current is None else [self.current.number]
        earlier = [number for number in self.idle if number in waiting and number not in current]
        self.idle = [*earlier, *(number for number in waiting if number not in earlier)]

    def _look_at(self, effect: object) -> None:
        if isinstance(effect, Answer):
            self._answered(effect.call, effect.value)
        elif isinstance(effect, Refuse):
            assert self.answers.pop(effect.call, None) == REFUSED, effect
        elif not isinstance(effect, HangUp):  # which changes nothing here
            assert self.effects, f"too much: {effect}"
            _same("what came", self._in_short(effect), self.effects.pop(0))

    def _in_short(self, effect: object) -> tuple[Any, ...]:
        if isinstance(effect, Deliver):
            for outcome in effect.outcomes:
                self.outcomes[outcome.task] = self.outcomes.get(outcome.task, 0) + 1
            return "deliver", effect.context, [(one.task, one.kind, one.tries) for one in effect.outcomes], effect.last
        if isinstance(effect, Pause):
            return "pause", effect.context, effect.on
        assert isinstance(effect, WantTasks)
        return "want", effect.context

    # -- answers

    def _answered(self, call: Any, value: Any) -> None:
        asker = next((slave for slave in self.alive() if slave.call is call), None)
        agent = next((agent for agent in self.agents.values() if agent.call is call), None)
        if call in self.answers:
            self._answered_as_expected(call, value)
        elif asker is not None:
            self._look_at_lease(asker, value)
        else:
            assert agent is not None, f"{call} was answered with {value}, though it need not be, or is over"
            self._look_at_commands(agent, value)

    def _answered_as_expected(self, call: Any, value: Any) -> None:
        expected = self.answers.pop(call)
        if isinstance(expected, type):
            assert isinstance(value, expected), f"{call} was answered with {value}, not with {expected.__name__}"
        else:
            same = type(value) is type(expected) and _plain(value) == _plain(expected)
            assert same, f"{call} was answered with {value}, not with {expected}"
        left = self.left(self.reads[call]) if call in self.reads else 0
        assert not isinstance(value, NoSlaves) or value.left == left, f"{value.left} tasks are left, and not {left}"
        late = [effect for effect in self.effects if effect[:2] == ("deliver", self.reads.get(call))]
        assert not late, f"{call} was answered before the outcomes were delivered"

    def _look_at_commands(self, agent: ModelAgent, value: tuple[int, Sequence[Command]]) -> None:
        last, commands = value
        new = last - len(agent.commands)
        assert 0 <= new <= len(commands), f"commands are numbered wrongly: {value} after {agent.commands}"
        for command in commands[len(commands) - new :]:
            if isinstance(command, Recall):
                self._look_at_recall(agent, command)
            else:
                assert agent.predicted and agent.predicted.pop(0) == command, command
            agent.commands.append(command)
        _same(f"commands of {agent.id}", list(commands), agent.commands[agent.acknowledged :])
        agent.call = None

    def _look_at_recall(self, agent: ModelAgent, recall: Recall) -> None:
        slave = self.slaves[recall.slave]
        lease = slave.lease
        if agent.call is not self.polls:  # it has come just now
            assert lease is not None and lease.id == recall.lease and len(lease.tasks) > 1, f"{recall} for nothing"
            assert lease.granted + RECALL_AGE <= self.now and not lease.recalled, f"{recall} comes too early, or again"
            assert slave.connected and self.idle, f"{recall}, though nobody waits, or nobody is there"
        if lease is not None and lease.id == recall.lease:
            lease.recalled = True

    def _look_at_lease(self, slave: ModelSlave, value: Granted) -> None:
        lease, may = value.lease, self.turn(slave.failed | self._paused)
        assert lease is not None and lease.slave == slave.number and not slave.held and lease.id > self.last_lease
        assert slave.connected and not self.closing, "a lease for one that is leaving"
        got = list(lease.tasks)
        if self.holders(got[0]):
            self._look_at_copy(slave, got)
        else:
            self._look_at_turn(slave, got, may)
        _same(f"contexts that slave {slave.number} is to forget", list(value.forget), slave.forget)
        self.told_to_forget(slave)
        slave.call = None
        self.idle.remove(slave.number)
        self.last_lease = lease.id
        for id in got:
            task = self.tasks[id]
            task.attempts += 1
            if not self.holders(id):
                self.contexts[task.context].queue.remove(id)
            slave.knows.add(task.context)
        slave.lease = ModelLease(lease.id, got, self.now, self.term)

    def _look_at_turn(self, slave: ModelSlave, got: list[int], may: list[int]) -> None:
        assert got == may[: len(got)], f"slave {slave.number} got {got}; it was the turn of {may}"
        self._look_at_size(got, slave is self.current)
        for other in self.idle[: self.idle.index(slave.number)] if slave is not self.current else ():
            barred = self.slaves[other].failed | self._paused
            assert not self.turn(barred), f"slave {other} waits for longer than slave {slave.number}"

    def _look_at_copy(self, slave: ModelSlave, got: list[int]) -> None:
        """A task that runs is started once more: of a context that wants that, and of which nothing waits."""
        holders, context = self.holders(got[0]), self.contexts[self.tasks[got[0]].context]
        assert context.speculates and len(got) == 1 and len(holders) == 1, f"{got} is held by {holders}"
        assert not context.queue and context.id not in self._paused | slave.failed, f"{got} is started twice"
        (other,) = holders
        assert other is not slave and other.lease is not None and other.held[0] == got[0], f"{got} does not run"
        assert context.id in self.measured, f"{got} is started twice, and nobody knows how long it takes"
        assert slave.until - IDLE_SECONDS + LEAST_PATIENCE < self.now + 1e-6, f"slave {slave.number} has just come"

    def _look_at_size(self, got: list[int], alone: bool) -> None:
        seconds = [self._seconds(self.tasks[id].context) for id in got]
        connected = sum(slave.connected for slave in self.slaves.values())
        share = max(1, math.ceil(self.waiting() / max(1, connected)))
        if not alone:
            share = self._share = self._share or share
        total = sum(one for one in seconds if one is not None)
        assert got, "a lease of nothing"
        assert len(got) == 1 or None not in seconds, "several tasks of which nothing is known"
        assert len(got) == 1 or total <= LEASE_SECONDS * 1.001, f"{len(got)} tasks of {total} s in one lease"
        assert len(got) <= share or total <= LEAST_SECONDS * 1.001, f"{len(got)} tasks, the share is {share}"

    def _seconds(self, context: int) -> float | None:
        return SECONDS[context % 3] if context in self.measured else None

    def more_tasks(self, context: int) -> int:
        """How many tasks the reader of a context is to add."""
        seconds = self._seconds(context)
        target = max(1, len(self.alive())) * (2 if seconds is None else int(4 * LEASE_SECONDS / seconds))
        self.contexts[context].low_water, self.contexts[context].wants_tasks = max(1, target // 2), False
        return max(0, target - self.left(context))

    # -- events, and who waits in vain

    def _look_at_events(self, env: Env) -> None:
        found: list[tuple[Any, ...]] = []
        for event in env.told:
            if isinstance(event, ev.SlaveLost):
                found.append(("SlaveLost", event.slave, event.tasks, event.given_up))
            elif isinstance(event, ev.TaskStarted):
                found.append(("TaskStarted", event.slave, event.task))
            elif isinstance(event, (ev.SlaveBack, ev.SlaveJoined, ev.SlaveEnded, ev.SlaveLeaving)):
                found.append((type(event).__name__, event.slave))
        _same("events", sorted(found), sorted(self.told))
        env.told.clear()
        self.told.clear()

    def _nobody_sleeps(self, env: Env) -> None:
        for slave in self.alive():
            may = [] if slave.call is None else self.turn(slave.failed | self.paused())
            assert not may, f"slave {slave.number} waits, and so do tasks {may} that it may run"
            in_time = slave.cut_until + self.tick_seconds > self.now
            assert slave.contact != "cut" or in_time, f"slave {slave.number} is cut off, not missed"
        for agent in self.agents.values():
            assert agent.call is None or not agent.predicted, f"agent {agent.id} is not told {agent.predicted}"
        reading = any(context.readers for context in self.contexts.values())
        for context in self.contexts.values():
            assert not context.stalled or (context.full and not reading), "slaves are held up for no reason"
        assert env.scheduler.due <= self.now + self.tick_seconds, "it ticks too seldom"
        assert all(until > self.now for *_, until in self.joining.values()), "a runner waits for too long"
        assert all(one.until > self.now for one in self.endings.values()), "a process's end waits for too long"

    def look_at_recalls(self) -> None:
        """After a tick: what takes far too long has been recalled if somebody idles."""
        self.sound = False
        for slave in self.alive() if self.idle else ():
            lease, agent = slave.lease, self.agents[slave.agent]
            if lease is not None and len(lease.tasks) > 1 and slave.connected and agent.call is not None:
                in_time = lease.granted + RECALL_AGE + LOOK_AGAIN >= self.now
                assert lease.recalled or in_time, f"the lease of slave {slave.number} is not recalled"
        self.sound = True

    # -- what the scheduler knows

    def _compare(self, state: State) -> None:
        state.check()
        self._compare_tasks(state)
        roster = state.roster
        alive = self.alive()
        _same("slaves", set(roster.slaves), {slave.number for slave in alive})
        _same("connected", set(roster.connected), {slave.number for slave in alive if slave.connected})
        _same("idle", set(state.idle), {slave.number for slave in alive if slave.call is not None})
        _same("agents", set(roster.agents), set(self.agents))
        for slave in self.slaves.values():
            record = roster.known(slave.number)
            assert record is not None
            self._compare_slave(slave, record)
        _same("contexts", set(state.contexts), set(self.contexts))
        for context in self.contexts.values():
            found = state.contexts[context.id]
            _same(f"context {context.id}", (found.full, set(found.readers)), (context.full, set(context.readers)))
            knowing = {slave.number for slave in self.alive() if context.id in slave.knows}
            _same(f"slaves that know context {context.id}", found.known_by, knowing)

    def _compare_tasks(self, state: State) -> None:
        found = {id: task for context in state.backlog.contexts.values() for id, task in context.tasks.items()}
        new: dict[int, Any] = {}
        for entry in state.incoming:
            for id in entry.ids if isinstance(entry, KnownInputs) else (entry.id,):  # type: ignore[union-attr]
                if entry.context in self.contexts and id >= state.contexts[entry.context].first:
                    new[id] = Task(id, entry.context, b"", retries=entry.retries)
        found.update(new)
        _same("unsettled tasks", set(found), {id for id, task in self.tasks.items() if not task.over})
        for id, task in found.items():
            mine = self.tasks[id]
            counted = (mine.attempts, mine.retries, mine.failures, mine.blamed)
            _same(
                f"attempts, retries, failures, blame of task {id}",
                (task.attempt, task.retries, task.failures, len(task.ends or ())),
                counted,
            )
        leases = {slave.number: slave.lease for slave in self.slaves.values() if slave.lease is not None}
        held = {number: list(lease.tasks) for number, lease in state.leases.by_slave.items()}
        _same("leases", held, {number: lease.tasks for number, lease in leases.items()})
        for number, lease in leases.items():
            _same(f"the end of slave {number}'s lease", state.leases.by_slave[number].deadline, lease.deadline)
        _same("waiting tasks", state.backlog.waiting + len(new), self.waiting())

    def _compare_slave(self, slave: ModelSlave, record: SlaveRecord) -> None:
        _same(f"life of slave {slave.number}", record.life, _life(slave))
        if not slave.ended:
            _same(f"contact of slave {slave.number}", CONTACTS[record.contact], slave.contact)
            found = (record.due, record.pid, record.agent, record.setup_failed, record.running)
            _same(f"slave {slave.number}", found, (slave.due, slave.pid, slave.agent, slave.failed, slave.running))

    def all_accounted_for(self) -> None:
        """Every task has one outcome, or was cancelled, or waits, or is held by a slave."""
        for id, task in self.tasks.items():
            there = any(id in context.queue for context in self.contexts.values()) + bool(self.holders(id))
            assert self.outcomes.get(id, 0) + (id in self.cancelled) + there == 1, f"task {id} is lost, or twice there"
            assert task.over == (not there)


def _same(what: str, found: object, expected: object) -> None:
    assert found == expected, f"{what}: {found}, and not {expected}"


def _life(slave: ModelSlave) -> Life:
    if slave.ended:
        return Life.ENDED
    if slave.leaving:
        return Life.DISMISSED if slave.dismissed else Life.DRAINING
    if slave.parted:
        return Life.PARTED
    return Life.READY if slave.pid else Life.EXPECTED


def _plain(value: Any) -> Any:
    """A tuple and what is in it, as something that can be compared."""
    return (
        [list(part) if isinstance(part, (list, tuple)) else part for part in value]
        if isinstance(value, tuple)
        else value
    )
