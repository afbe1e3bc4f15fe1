"""Show that the model test finds bugs: plant one at a time, run the machine, and print how many examples it took.

    .venv/3.11/bin/python -m tests.core.planted_bugs [--most 2000] [--seed 1] [words of a bug's name ...]

Bugs that were found in the scheduler by this test or while it was written are marked with a star.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Callable
from unittest import mock

from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.stateful import run_state_machine_as_test

from parallel.core.agents import Agents
from parallel.core.backlog import Backlog
from parallel.core.chunk import Chunk
from parallel.core.durations import Durations
from parallel.core.effects import Answer, Call
from parallel.core.endings import Endings
from parallel.core.lease_table import GivenUp, LeaseTable
from parallel.core.leases import Lease, Leases
from parallel.core.races import Races
from parallel.core.readers import Readers
from parallel.core.roster import Roster
from parallel.core.runners import Runners
from parallel.core.scheduler import Scheduler
from parallel.core.slave import AgentRecord, Contact, Life, SlaveRecord
from parallel.core.state import State
from parallel.core.task import State as TaskState
from parallel.core.task import Task
from parallel.core.users import Users
from slave.protocol import TIME_LIMIT, EnlistRequest, OutcomeMessage, RunnerBeat, RunnerEnded, ValuesMessage
from tests.core.test_scheduler_model import SchedulerMachine
from tests.support import planted_copies as copies
from tests.support.planting import Plant, planter, without

BUGS: list[tuple[str, Plant]] = []
bug = planter(BUGS)


def nothing(real: object, *arguments: object, **named: object) -> None:
    """Stands in for what is forgotten altogether."""


# -- tasks


@bug("the outcome of an attempt that is not the current one settles nothing", Runners, "outcomes")
def _(real: Any, self: Runners, batch: Sequence[OutcomeMessage | ValuesMessage], now: float) -> None:
    leases = self._state.leases.by_slave
    kept: list[OutcomeMessage | ValuesMessage] = []
    for message in batch:
        held = leases[message[0]].tasks if message[0] in leases else {}
        if len(message) == 4:
            data = message[3]
            pairs = [pair for pair in zip(data[::2], data[1::2]) if pair[0] in held]
            kept.append((*message[:3], [part for pair in pairs for part in pair]))
        elif message[3] in held:
            kept.append(message)
    real(self, kept, now)


@bug("the blame falls on the first task of the lease", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, slave: int, running: int, end: str) -> GivenUp | None:
    lease = self.leases.by_slave.get(slave)
    found: GivenUp | None = real(self, slave, next(iter(lease.tasks)) if lease and running in lease.tasks else 0, end)
    return found


@bug("a task is given up one attempt too late", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, *arguments: Any) -> GivenUp | None:
    with mock.patch.object(self, "max_attempts", self.max_attempts + 1):
        found: GivenUp | None = real(self, *arguments)
        return found


@bug("a retry is not counted", LeaseTable, "retry")
def _(real: Any, self: LeaseTable, slave: int, lease: int, context: int, id: int) -> bool:
    task, again = self.find(context, id), real(self, slave, lease, context, id)
    if again and task is not None:
        task.retries += 1
    return bool(again)


@bug("the failure of an attempt that is not the current one costs a retry", LeaseTable, "retry")
def _(real: Any, self: LeaseTable, slave: int, lease: int, context: int, id: int) -> bool:
    held = self.leases.by_slave.get(slave)
    return bool(real(self, slave, lease if held is None else held.id, context, id))


@bug("a task that comes back goes to the back of the queue", Backlog, "put_back")
def _(real: Any, self: Backlog, tasks: Sequence[Task | Chunk]) -> None:
    real(self, tasks)
    for task in tasks:
        queue = self._turns.line_of(task).queue
        queue.remove(task)
        queue.append(task)
        self._turns.line_up(self._turns.line_of(task))


@bug("tasks of a context whose setup failed on a slave are granted to it", LeaseTable, "grant")
def _(real: Any, self: LeaseTable, slave: int, now: float, excluded: object, *arguments: Any) -> Any:
    return real(self, slave, now, (), *arguments)


@bug("of a cancelled context what runs stays leased", LeaseTable, "drop")
def _(real: Any, self: LeaseTable, context: int) -> int:
    tasks = list(self.backlog.contexts[context].tasks) if context in self.backlog.contexts else []
    waiting = [id for id in tasks if self.backlog.contexts[context].tasks[id].state is TaskState.WAITING]
    return sum(self.drop_task(context, id) is not None for id in waiting)


@bug("a cancelled task that runs is not stopped", Users, "_stop")
def _(real: Any, self: Users, held: dict[int, tuple[int, list[int]]]) -> None:
    pass


@bug("a lease exceeds its share behind a task that takes long", Backlog, "fill")
def _(real: Any, self: Backlog, lease: Lease, excluded: Any, share: int, pace: Any) -> None:
    aside: list[tuple[int, int]] = []
    head = self._turns.first(lease.slave, excluded, aside)
    self._turns.put_back(aside)
    slow = head is not None and (pace.seconds_per_task(head.id) or 0.0) > 0.01
    real(self, lease, excluded, 10 * share if slow else share, pace)


# -- leases and time


@bug("a lease is over only after its deadline", Leases, "expired")
def _(real: Any, self: Leases, now: float) -> list[int]:
    return [slave for slave, lease in self.by_slave.items() if lease.deadline < now]


@bug("a heartbeat does not renew the lease", Leases, "renew")
def _(real: Any, self: Leases, slave: int, now: float) -> None:
    pass


@bug("a master that was stopped gives slaves their time back, and leases not", Leases, "shift")
def _(real: Any, self: Leases, seconds: float) -> None:
    pass


@bug("a lease is not given back when its slave joins as another process", Runners, "_join")
def _(real: Any, self: Runners, *arguments: Any) -> None:
    with without(self._state.table, "give_back", 0):
        real(self, *arguments)


@bug("a lease whose answer was lost is kept", Runners, "fetch")
def _(real: Any, self: Runners, call: Call, request: Any, now: float) -> None:
    with without(self._state.table, "give_back", 0), without(self._state, "grant"):
        real(self, call, request, now)


@bug("a slave that falls silent is blamed on its task", State, "lose")
def _(real: Any, self: State, slave: SlaveRecord, running: int, end: str, *arguments: Any, **named: Any) -> None:
    running = slave.running if end.startswith("nothing was heard") else running
    real(self, slave, running, end, *arguments, **named)


@bug("a slave whose agent ended is blamed on its task", State, "lose")
def _(real: Any, self: State, slave: SlaveRecord, running: int, end: str, *arguments: Any, **named: Any) -> None:
    running = slave.running if end.startswith("its slave program ended") else running
    real(self, slave, running, end, *arguments, **named)


@bug("a recall is ignored", Agents, "recalled")
def _(real: Any, self: Agents, *arguments: Any) -> None:
    pass


@bug("a recall that names an older lease is obeyed", LeaseTable, "give_back_after")
def _(real: Any, self: LeaseTable, slave: int, lease: int, running: int) -> int:
    return int(real(self, slave, 0, running))


@bug("nothing is recalled", Runners, "recall_overdue")
def _(real: Any, self: Runners, now: float) -> None:
    pass


@bug("* leases granted in `take` begin when something happened last", Scheduler, "take")
def _(real: Any, self: Scheduler, now: float | None = None) -> Any:
    return real(self, None)


@bug("* a slave that its agent gives up keeps its lease", State, "end")
def _(real: Any, self: State, slave: SlaveRecord, why: str, given_up: bool = False) -> None:
    with without(self.table, "give_back", 0):
        real(self, slave, why, given_up)


# -- tasks that are started twice


@bug("a slave gets a copy as soon as it asks", Durations, "patience")
def _(real: Any, self: Durations, more: bool) -> float:
    return 0.0


bug("the other copy runs on when the first is done", State, "_end_copies")(copies.forgets_the_loser)
bug("the copy that was first is stopped, too", State, "_end_copies")(copies.stops_both)
bug("cancelling stops one of the two", LeaseTable, "held_by")(copies.knows_one_holder)


@bug("who loses one copy loses the other one too", Races, "leave_to_other")
def _(real: Any, self: Races, slave: int, task: Task, move: Any) -> None:
    real(self, self.second[task.id] if slave == task.holder else task.holder, task, move)


@bug("the death of a copy is blamed on nothing", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, slave: int, running: int, end: str) -> GivenUp | None:
    found: GivenUp | None = real(self, slave, 0 if running in self.races.second else running, end)
    return found


# -- slaves and agents


@bug("the heartbeat of a former process is accepted", Agents, "heartbeat")
def _(real: Any, self: Agents, agent: str, runners: Sequence[RunnerBeat], now: float) -> None:
    slaves = self._state.roster.slaves
    real(
        self,
        agent,
        [RunnerBeat(one.slave, slaves[one.slave].pid, one.task) for one in runners if one.slave in slaves],
        now,
    )


@bug("a call that waits is forgotten when its slave is asked to end", Agents, "draining")
def _(real: Any, self: Agents, *arguments: Any) -> None:
    with without(self._state, "release"):
        real(self, *arguments)


@bug("a slave that is asked to end gets tasks all the same", State, "serve")
def _(real: Any, self: State, slave: SlaveRecord, call: Call) -> bool:
    life, slave.life = slave.life, Life.READY if slave.leaving else slave.life
    served = real(self, slave, call)
    slave.life = life
    return bool(served)


@bug("a runner waits on though its agent has told how the former one ended", Runners, "let_join")
def _(real: Any, self: Runners, slave: SlaveRecord) -> None:
    pass


@bug("an agent's connection that was replaced cuts it off when it ends", Agents, "disconnected")
def _(real: Any, self: Agents, agent: str, pid: int, connection: int, now: float) -> None:
    found = self._state.roster.agents.get(agent)
    real(self, agent, pid, connection if found is None else found.connection, now)


@bug("a slave is missed at its old time after it was cut off and came back", Roster, "heard")
def _(real: Any, self: Roster, slave: SlaveRecord, now: float, term: float) -> bool:
    due = slave.due if slave.contact is Contact.CUT_OFF else math.inf
    back = real(self, slave, now, term)
    slave.due = min(due, slave.due)
    return bool(back)


@bug("a slave that was lost stays lost though it is heard", Roster, "heard")
def _(real: Any, self: Roster, slave: SlaveRecord, now: float, term: float) -> bool:
    return slave.contact is not Contact.LOST and bool(real(self, slave, now, term))


@bug("commands are forgotten before they are acknowledged", Agents, "commands")
def _(real: Any, self: Agents, call: Call, agent: str, acknowledged: int, now: float) -> None:
    found = self._state.roster.agents.get(agent)
    given = acknowledged if found is None or not found.commands else max(acknowledged, found.commands[0][0] - 1)
    real(self, call, agent, given + bool(found is not None and len(found.commands) > 1), now)


@bug("an agent that comes back without a slave keeps it", Agents, "_end_missing")
def _(real: Any, self: Agents, agent: AgentRecord, numbers: Sequence[int | None]) -> None:
    pass


@bug("a task that was ended for its time limit has no outcome", Agents, "runner_ended")
def _(real: Any, self: Agents, report: RunnerEnded, *arguments: Any) -> None:
    cause = "stopped" if report.cause == TIME_LIMIT else report.cause
    real(self, report._replace(cause=cause), *arguments)


@bug("* an agent that was given up comes back with slaves that nobody runs", Agents, "enlist")
def _(real: Any, self: Agents, request: EnlistRequest, *arguments: Any) -> Any:
    self._state.roster.agent(request.agent)
    return real(self, request, *arguments)


@bug("* a context remembers slaves whose process has ended", State, "unlearn")
def _(real: Any, self: State, slave: SlaveRecord) -> None:
    slave.knows.clear()
    slave.to_forget.clear()


@bug("contexts to forget are not told again though the answer may be lost", State, "_forgotten")
def _(real: Any, self: State, slave: SlaveRecord) -> Any:
    found = real(self, slave)
    slave.told_to_forget.clear()
    return found


@bug("a runner's word on an older connection is a join", Runners, "_is_late")
def _(real: Any, self: Runners, *arguments: Any) -> bool:
    return False


@bug("an agent's word on an older connection makes that the current one", Agents, "enlist")
def _(real: Any, self: Agents, request: EnlistRequest, accepted: int, now: float) -> Any:
    agent = self._state.roster.agents.get(request.agent)
    if agent is not None:
        agent.accepted = min(agent.accepted, accepted)
    return real(self, request, accepted, now)


@bug("an agent's word on the end of a process counts before what that posted was read", Endings, "runner_ended")
def _(real: Any, self: Endings, report: RunnerEnded, *arguments: Any) -> None:
    real(self, report, *arguments)
    slave = self._state.roster.slaves.get(report.slave)
    if slave is not None:
        self.settle(slave)


@bug("an agent that gives a slave up does not wait for what its process posted", Endings, "closed")
def _(real: Any, self: Endings, slave: SlaveRecord, why: str) -> None:
    self.settle(slave)
    real(self, slave, why)


@bug("an agent's goodbye does not wait for what its runners posted", Endings, "left")
def _(real: Any, self: Endings, slave: SlaveRecord, why: str) -> None:
    self.settle(slave)
    real(self, slave, why)


@bug("the end of a process waits for ever for a connection that does not end", Endings, "settle_overdue")
def _(real: Any, self: Endings, now: float) -> None:
    pass


@bug("* the end of a process is forgotten when the next one joins first", Endings, "settle_overdue")
def _(real: Any, self: Endings, now: float) -> None:
    with mock.patch.object(self._runners, "joining", {}):
        real(self, now)


# -- those that wait


@bug("a reader is not woken for the last task", State, "wake_readers")
def _(real: Any, self: State, context: Any, verdict: object, most: int) -> None:
    real(self, context, verdict, min(1, most))


@bug("* a reader is told that all is done before it has the last outcome", Readers, "judge")
def _(real: Any, self: Readers, context: Any) -> None:
    with without(self._state, "send_outcomes"):
        real(self, context)


@bug("a reader learns late that no slave can go on", State, "slaves_changed")
def _(real: Any, self: State) -> None:
    pass


@bug("a paused context is never resumed", Backlog, "resume")
def _(real: Any, self: Backlog, context: int) -> None:
    self._turns.paused.discard(context)


@bug("a slave is held up though a reader waits", Readers, "_let_go")
def _(real: Any, self: Readers, context: Any) -> None:
    if not self._state.reading:
        real(self, context)


@bug("calls for tasks wait for ever", Runners, "end_polls")
def _(real: Any, self: Runners, now: float) -> None:
    pass


@bug("the slave that has waited least is served first", State, "feed")
def _(real: Any, self: State) -> None:
    self.idle = OrderedDict(reversed(list(self.idle.items())))
    real(self)
    self.idle = OrderedDict(reversed(list(self.idle.items())))


@bug("a call is answered twice", State, "answer")
def _(real: Any, self: State, call: Call, value: object) -> None:
    real(self, call, value)
    if value is False:
        self.effects.append(Answer(call, value))


@bug("slaves are not told to forget a context that was dropped", Users, "drop_context")
def _(real: Any, self: Users, id: int, now: float) -> None:
    if id in self._state.contexts:
        self._state.contexts[id].known_by.clear()
    real(self, id, now)


class Counted(SchedulerMachine):
    """Counts the examples until the bug is found."""

    examples = found_at = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1

    def teardown(self) -> None:
        sound = False
        try:
            super().teardown()
            sound = not hasattr(self, "driver") or self.driver.sound
        finally:
            if not sound and not self.found_at:
                type(self).found_at = self.examples


def examples_needed(plant: Callable[[], Any], most: int, seed: int) -> tuple[int, str]:
    """How many examples the machine needs to find the bug, 0 if it does not; and what it says then."""
    Counted.examples = Counted.found_at = 0
    core.global_force_seed = seed  # type: ignore[assignment]  # as pytest's --hypothesis-seed does
    chosen = settings(
        max_examples=most,
        stateful_step_count=60,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with plant():
        try:
            run_state_machine_as_test(Counted, settings=chosen)
        except Exception as error:
            said = str(error).splitlines() or [""]
            return Counted.found_at, f"{type(error).__name__}: {said[0]}".replace("AssertionError: ", "")
    return 0, ""


def main() -> int:
    """Print the table; returns how many bugs were not found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=2000, help="examples for each bug")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("words", nargs="*", help="only bugs whose names hold one of these")
    options = parser.parse_args()
    missed = 0
    print(f"seed {options.seed}, at most {options.most} examples\nfound  examples  seconds  bug")
    for text, plant in BUGS:
        if options.words and not any(word in text for word in options.words):
            continue
        began = time.perf_counter()
        needed, said = examples_needed(plant, options.most, options.seed)
        missed += not needed
        seconds = time.perf_counter() - began
        print(f"{'yes' if needed else 'NO':5}  {needed:8}  {seconds:7.1f}  {text}\n{'':26}{said[:90]}", flush=True)
    print(f"{missed} not found")
    return missed


if __name__ == "__main__":
    sys.exit(min(1, main()))
