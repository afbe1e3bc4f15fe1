"""Show that the simulation bites: plant one bug at a time, run seeds until it is found, and print a table.

    python3 tools/simulate.py --planted [words of a bug's name ...]

Bugs that the simulation has found in the product are marked with a star: they are planted again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

from parallel.core.agents import Agents
from parallel.core.backlog import Backlog
from parallel.core.effects import Call
from parallel.core.endings import Endings
from parallel.core.lease_table import GivenUp, LeaseTable
from parallel.core.races import Races
from parallel.core.roster import Roster
from parallel.core.runners import Runners
from parallel.core.slave import AgentRecord, SlaveRecord
from parallel.core.speculation import Running, Speculation
from parallel.core.state import ContextRecord, ContextRules, State
from parallel.core.task import State as TaskState
from parallel.core.task import Task
from parallel.core.users import Users
from slave.gathering import Watch
from slave.protocol import BY_ITSELF, CommandsReply, OutcomeMessage, RunnerEnded, SetupFailure
from slave.session import AgentSession, RunnerSession
from slave.slave_state import Death, SlaveState
from tests.support import planted_copies as copies
from tests.support.planting import Plant, planter, without

from .plan import make_plan
from .run import Failure, Run

BUGS: list[tuple[str, Plant]] = []
bug = planter(BUGS)
MOST_SECONDS = 60.0


# -- the master: leases and outcomes


@bug("a lease is not fenced: the failure of an earlier attempt costs a retry", LeaseTable, "retry")
def _(real: Any, self: LeaseTable, slave: int, lease: int, context: int, id: int) -> bool:
    task = self.find(context, id)
    holder = slave if task is None or task.holder < 0 else task.holder
    held = self.leases.by_slave.get(holder)
    return bool(real(self, holder, lease if held is None else held.id, context, id))


@bug("an outcome is kept back until the next one comes", State, "send_outcomes")
def _(real: Any, self: State) -> None:
    if sum(map(len, self._outbox.values())) != 1:
        real(self)


@bug("an outcome is delivered twice if it comes twice", LeaseTable, "settle")
def _(real: Any, self: LeaseTable, context: int, id: int) -> Any:
    known = vars(self).setdefault("settled_before", {})
    task = real(self, context, id)
    if task is not None:
        known[id] = task
    return known.get(id) if context in self.backlog.contexts else task  # else the context may be gone altogether


@bug("a lease is renewed after its expiry: it stays with its slave", Agents, "missed")
def _(real: Any, self: Agents, now: float) -> None:
    with without(self._state.table, "lose"):
        real(self, now)


@bug("a slave that is silent is never missed", Agents, "missed")
def _(real: Any, self: Agents, now: float) -> None:
    pass


@bug("a lease whose answer was lost is kept", LeaseTable, "give_back")
def _(real: Any, self: LeaseTable, slave: int, ids: Any = None) -> int:
    return 0 if ids is None else int(real(self, slave, ids))


@bug("a slave that is given up keeps its lease", State, "end")
def _(real: Any, self: State, slave: SlaveRecord, why: str, given_up: bool = False) -> None:
    with without(self.table, "give_back", 0):
        real(self, slave, why, given_up)


@bug("the blame falls on the first task of the batch", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, slave: int, running: int, end: str) -> GivenUp | None:
    lease = self.leases.by_slave.get(slave)
    first = next(iter(lease.tasks)) if lease is not None and running in lease.tasks else 0
    found: GivenUp | None = real(self, slave, first, end)
    return found


@bug("a task is given up one attempt too late", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, *arguments: Any) -> GivenUp | None:
    with mock.patch.object(self, "max_attempts", self.max_attempts + 1):
        found: GivenUp | None = real(self, *arguments)
        return found


@bug("an outage is an attempt of the task that ran", State, "lose")
def _(real: Any, self: State, slave: SlaveRecord, running: int, *arguments: Any, **named: Any) -> None:
    real(self, slave, running or (0 if named.get("wanted") else slave.running), *arguments, **named)


@bug("the death of a setup is blamed on the task", Endings, "runner_ended")
def _(real: Any, self: Endings, report: RunnerEnded, *arguments: Any) -> None:
    real(self, report._replace(setup=0), *arguments)


@bug("a slave whose setup failed is given tasks of that context", Runners, "bar")
def _(real: Any, self: Runners, slave: SlaveRecord, context: int, failure: Any) -> None:
    real(self, slave, context, failure)
    slave.setup_failed.discard(context)


@bug("of a cancelled task what runs has an outcome all the same", LeaseTable, "drop_task")
def _(real: Any, self: LeaseTable, context: int, id: int) -> Any:
    task = self.find(context, id)
    return task if task is not None and task.holder >= 0 else real(self, context, id)


@bug("a recall of an older lease is obeyed", LeaseTable, "give_back_after")
def _(real: Any, self: LeaseTable, slave: int, lease: int, running: int) -> int:
    return int(real(self, slave, 0, running))


@bug("* the agent's word on a process's end overtakes what that posted", Endings, "runner_ended")
def _(real: Any, self: Endings, report: RunnerEnded, *arguments: Any) -> None:
    slave = self._state.roster.slaves.get(report.slave)
    if slave is not None:
        slave.speaks = False
    real(self, report, *arguments)


# -- the master: slaves and users


@bug("an order is forgotten before the agent has it: it is ignored after a reconnect", Agents, "commands")
def _(real: Any, self: Agents, call: Call, agent: str, acknowledged: int, now: float) -> None:
    found = self._state.roster.agents.get(agent)
    real(self, call, agent, acknowledged if found is None or not found.commands else found.commands[-1][0], now)


@bug("a connection that was replaced cuts the agent off when it ends", Agents, "disconnected")
def _(real: Any, self: Agents, agent: str, pid: int, connection: int, now: float) -> None:
    found = self._state.roster.agents.get(agent)
    real(self, agent, pid, connection if found is None else found.connection, now)


@bug("an agent that comes back without a slave keeps it", Agents, "_end_missing")
def _(real: Any, self: Agents, agent: AgentRecord, numbers: Sequence[int | None]) -> None:
    pass


@bug("a master that was stopped gives its slaves no time back", Roster, "shift")
def _(real: Any, self: Roster, seconds: float) -> None:
    pass


@bug("a reader is not woken for the last outcome", State, "wake_readers")
def _(real: Any, self: State, context: ContextRecord, verdict: object, most: int) -> None:
    real(self, context, verdict, min(1, most) if self.left(context.id) else 0)


@bug("a paused context is never resumed", Backlog, "resume")
def _(real: Any, self: Backlog, context: int) -> None:
    pass


@bug("slaves are not told to forget a context that was dropped", Users, "drop_context")
def _(real: Any, self: Users, id: int, now: float) -> None:
    if id in self._state.contexts:
        self._state.contexts[id].known_by.clear()
    real(self, id, now)


@bug("* what a slave is to forget is lost with the answer that said it", Roster, "join")
def _(real: Any, self: Roster, slave: SlaveRecord, pid: int, connection: int) -> None:
    slave.to_forget.clear()
    real(self, slave, pid, connection)


# -- tasks that are started twice


@bug("a task is started twice, and then once more", LeaseTable, "copy")
def _(real: Any, self: LeaseTable, slave: int, task: Task, now: float) -> Any:
    lease = real(self, slave, task, now)
    del self.races.second[task.id]  # which is how it is known that it has a copy
    task.state = TaskState.LEASED
    return lease


@bug("a task is started twice though others of its context wait", Speculation, "look")
def _(real: Any, self: Speculation, now: float) -> None:
    with mock.patch.object(self._state.backlog, "waits", lambda context: False), without(self._state, "feed"):
        real(self, now)


@bug("a task is started twice though nobody wants that of its context", Users, "make_context")
def _(real: Any, self: Users, setup: Any, now: float, rules: ContextRules) -> int:
    return int(real(self, setup, now, rules._replace(speculate=True)))


@bug("a slave gets a copy of a task that it could not rebuild", Speculation, "_consider")
def _(real: Any, self: Speculation, running: Running, idle: list[SlaveRecord], now: float) -> float:
    task = running.task
    if type(task) is not Task:
        return float(real(self, running, idle, now))
    unfit, task.unfit = task.unfit, frozenset()
    due = real(self, running, idle, now)
    task.unfit = unfit
    return float(due)


@bug("a slave gets a copy of a task whose setup failed there", Speculation, "_idle_for")
def _(real: Any, self: Speculation, id: int, now: float) -> Any:
    with mock.patch.object(self._state, "idle", {}):
        found = real(self, id, now)
    return [self._state.roster.slaves[number] for number in self._state.idle], found[1]


@bug("a task of a full context is started twice", Speculation, "_running")
def _(real: Any, self: Speculation, now: float) -> Any:
    with mock.patch.object(self._state.backlog._turns, "paused", set()):
        return list(real(self, now))


bug("the other copy runs on when the first is done", State, "_end_copies")(copies.forgets_the_loser)
bug("the copy that was first is stopped, too", State, "_end_copies")(copies.stops_both)
bug("who is cancelled goes on if it is the second copy", LeaseTable, "held_by")(copies.knows_one_holder)


@bug("a copy that is lost is enqueued though the other one runs", LeaseTable, "_back")
def _(real: Any, self: LeaseTable, slave: int, tasks: Sequence[Task], move: Any) -> None:
    copied = [task for task in tasks if task.state is TaskState.COPIED]
    real(self, slave, tasks, move)
    for task in copied:
        self.leases.release(task)
        task.state = TaskState.WAITING
        self.backlog.put_back([task])


@bug("who loses one copy loses the other one too", Races, "leave_to_other")
def _(real: Any, self: Races, slave: int, task: Task, move: Any) -> None:
    other = self.second[task.id] if slave == task.holder else task.holder
    real(self, other, task, move)


@bug("the death of a copy is blamed on nothing, since the other one runs", LeaseTable, "lose")
def _(real: Any, self: LeaseTable, slave: int, running: int, end: str) -> GivenUp | None:
    found: GivenUp | None = real(self, slave, 0 if running in self.races.second else running, end)
    return found


@bug("a copy that raises uses up no retry", LeaseTable, "retry")
def _(real: Any, self: LeaseTable, slave: int, lease: int, context: int, id: int) -> bool:
    task = self.find(context, id)
    copied = task is not None and task.state is TaskState.COPIED
    again = bool(real(self, slave, lease, context, id))
    if again and copied and task is not None and task.state is TaskState.LEASED:
        task.retries += 1
    return again


# -- the slaves


@bug("outcomes that may not have arrived are not posted again on the next connection", RunnerSession, "join_request")
def _(real: Any, self: RunnerSession, connection: int) -> Any:
    request = real(self, connection)
    self.answered()
    return request


@bug("a runner comes back without the lease that it holds", RunnerSession, "join_request")
def _(real: Any, self: RunnerSession, connection: int) -> Any:
    return real(self, connection)._replace(lease=0)


@bug("a runner ignores that its lease is called back", RunnerSession, "recalled")
def _(real: Any, self: RunnerSession, recall: int) -> bool:
    return False


@bug("a runner gives back the task that it runs, too", RunnerSession, "outcome")
def _(real: Any, self: RunnerSession, kind: int, data: Any, buffers: Any) -> tuple[OutcomeMessage, bool]:
    first = self.unstarted[0]
    message, one_way = real(self, kind, data, buffers)
    if len(self.unstarted) > 1:
        self.unstarted.append(first)
    return message, one_way


@bug("a runner whose setup failed gives only the first task back", RunnerSession, "setup_failed")
def _(real: Any, self: RunnerSession, context: int, data: Any) -> SetupFailure:
    told: SetupFailure = real(self, context, data)
    return told._replace(unstarted=list(told.unstarted)[:1])


@bug("what a runner has gathered is kept back while its next task runs", Watch, "look")
def _(real: Any, self: Watch, *arguments: Any) -> bytes:
    return b""


@bug("what a runner has gathered is lost when it dies", Watch, "rest")
def _(real: Any, self: Watch) -> bytes:
    return b""


@bug("what a runner has gathered before its connection broke is said to have arrived", RunnerSession, "values")
def _(real: Any, self: RunnerSession, count: int, message: bytes) -> None:
    real(self, count, message)
    self.answered()


@bug("the last value that a runner has gathered is run again", RunnerSession, "values")
def _(real: Any, self: RunnerSession, count: int, message: bytes) -> None:
    real(self, count - 1, message)


@bug("an order is carried out again and again", AgentSession, "carried_out")
def _(real: Any, self: AgentSession, reply: CommandsReply) -> None:
    pass


@bug("an agent never gives a master up", AgentSession, "gives_up")
def _(real: Any, self: AgentSession, now: float, refused: object = ()) -> bool:
    return False


@bug("an agent renews its leases too seldom", AgentSession, "heartbeat_due")
def _(real: Any, self: AgentSession, now: float) -> bool:
    due = bool(real(self, now))
    if due:
        self.next_heartbeat = now + 1.5 * self.first.lease
    return due


@bug("the time limit of one task ends the next one", SlaveState, "ended")
def _(real: Any, self: SlaveState, exitcode: int | None, now: float) -> Death:
    cause = None if self.stopped is None else self.stopped[0]
    found: Death = real(self, exitcode, now)
    return found if cause is None else found._replace(cause=cause)


@bug("an agent tells what it ended itself as the process's own end", SlaveState, "ended")
def _(real: Any, self: SlaveState, exitcode: int | None, now: float) -> Death:
    found: Death = real(self, exitcode, now)
    return found._replace(cause=BY_ITSELF)


@bug("* a process that had crashed is said to have been late", SlaveState, "end")
def _(real: Any, self: SlaveState, cause: str, task: int) -> None:
    if self.stopped is None:
        self.stopped = cause, task
        self.kill()


class Found(NamedTuple):
    """When a bug was found: with which seed, after how many seeds, steps and seconds; and what was said."""

    seed: int
    seeds: int
    steps: int
    seconds: float
    failure: Failure


def find(plant: Plant, first: int = 0, most: float | None = None) -> Found | None:
    """Run seeds with the bug planted, from ``first`` on, until it is found or so many seconds have passed."""
    steps, began, seed = 0, time.process_time(), first
    with plant():
        while time.process_time() - began < (most or MOST_SECONDS):
            run = Run(make_plan(seed))
            failure = run.to_the_end()
            steps += run.world.steps
            if failure is not None:
                return Found(seed, seed - first + 1, steps, time.process_time() - began, failure)
            seed += 1
    return None


def table(words: Sequence[str] = (), first: int = 0) -> tuple[list[str], int]:
    """The table in markdown, and how many bugs were not found."""
    lines, missed = ["| bug | seed | steps | seconds | what is said |", "|---|---|---|---|---|"], 0
    for text, plant in BUGS:
        if words and not any(word in text for word in words):
            continue
        found = find(plant, first)
        if found is None:
            missed += 1
            lines.append(f"| {text} | NOT FOUND | | | |")
        else:
            lines.append(
                f"| {text} | {found.seed} | {found.steps} | {found.seconds:.1f} | {found.failure.text[:110]} |"
            )
        print(lines[-1], flush=True)
    return lines, missed
