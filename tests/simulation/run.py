"""One run: from its plan to its end, and whether all was as it should be.

it begins      contexts are made, agents come, tasks are added, readers read
it goes wrong  the acts of the plan
it is killed   if that is in the plan: then another master comes, and slaves that have waited serve it
it calms down  a healthy slave joins: from here on all must be done within a bound
it is over     contexts are dropped, and the tables must be empty
it ends        the manager is shut down or its process is killed, and all processes must end
"""

from __future__ import annotations

import re
import traceback
from typing import NamedTuple

from .agent import Agent
from .faults import Faults
from .ledger import Ledger
from .machines import Fleet
from .master import Master
from .plan import KILLED, OUT_OF_REACH, SHUT_DOWN, AgentPlan, Plan, Restart
from .users import Users
from .world import Process, World

CHECK_EVERY = 8  # turns of the master between two checks of all tables
_MOST_STEPS = 200_000
_NUMBERS = re.compile(r"\[.*?\]|[\d.]+")


class Failure(NamedTuple):
    """What was wrong: when, after how many steps, and in whose words."""

    kind: str
    text: str
    time: float
    steps: int


class Run:
    """See the module's text."""

    def __init__(
        self,
        plan: Plan,
        *,
        tells: bool = False,
        check_every: int = CHECK_EVERY,
        world: World | None = None,
        helped: bool = True,
    ) -> None:
        self.plan = plan
        self.world = world = World(plan.seed, tells) if world is None else world
        self.ledger = Ledger(world, plan)
        self.master = Master(world, plan, self.ledger, check_every)
        self.ledger.state = self.master.state
        self.users = Users(world, plan, self.ledger, self.master)
        self.fleet = Fleet(world, self.master, self.users, plan.term, plan.slowness)
        self.fleet.restart = plan.restart
        self._check_every = check_every
        self._former: list[Ledger] = []  # of runs whose masters were killed
        faults = Faults(self)
        self.users.begin()
        for agent in plan.agents:
            world.at(agent.at, self.fleet.come, agent)
        for act in plan.acts:
            world.at(act.at, faults.do, act)
        self.calm = plan.calm
        if helped:
            world.at(self.calm + 1.0, self.fleet.come, AgentPlan(self.calm + 1.0, 1))

    def to_the_end(self) -> Failure | None:
        """Let it happen; what was wrong, or None."""
        try:
            if self.plan.restart is not None:
                self._restart(self.plan.restart)
            self._until_done()
            self._wind_down()
        except Exception as error:
            said = str(error).splitlines()
            text = f"{type(error).__name__}: {said[0] if said else ''}".replace("AssertionError: ", "")
            return Failure(_where(error), text, self.world.now, self.world.steps)
        return None

    def _restart(self, restart: Restart) -> None:
        self._pass(restart.at)
        self._kill_master()
        self._pass(restart.pause)
        now, plan = self.world.now, self.plan
        contexts = [one._replace(anew=number in restart.anew) for number, one in enumerate(plan.contexts)]
        tasks = [one._replace(at=now + one.at) for one in plan.tasks]
        self.plan = plan = plan._replace(contexts=contexts, tasks=tasks, restart=None)
        self._former.append(self.ledger)
        self.ledger = Ledger(self.world, plan)
        program = self.master.program if restart.same else "another program"
        self.master = Master(self.world, plan, self.ledger, self._check_every, "the next run", program)
        self.ledger.state = self.master.state
        self.users = Users(self.world, plan, self.ledger, self.master)
        self.world.tell("another master begins")
        self.fleet.another_master(self.master, self.users)
        self.users.begin()
        self.calm = max(self.calm, plan.calm)
        self.world.at(self.calm + 1.0, self.fleet.come, AgentPlan(self.calm + 1.0, 1))

    def _kill_master(self) -> None:
        self.master.vanish([one for machine in self.fleet.machines for one in machine.connections])

    def _until_done(self) -> None:
        bound = self.calm + self._patience()
        while not (self.users.done and self.world.now > self.calm):
            self._step()
            if self.world.now > bound or self.world.steps > _MOST_STEPS:
                raise AssertionError(
                    f"{bound - self.calm:.0f} s after the last fault nothing goes on: {self.users.waiting()} wait, "
                    f"tasks {list(self.ledger.unsettled)} are left"
                )
        self.ledger.final()

    def _patience(self) -> float:
        """The seconds within which all is to be done when nothing goes wrong any more."""
        plan = self.plan
        work = sum(task.seconds * (1 + task.retries + plan.max_attempts) for task in plan.tasks)
        setups = 10 * sum(context.seconds for context in plan.contexts)
        reading = sum(context.reading for context in plan.contexts) * len(plan.tasks)
        return 60.0 + 3 * (work + setups) + reading + 12 * plan.term + 100 * plan.slowness

    def _step(self) -> None:
        if not self.world.step():
            raise AssertionError("nothing is going to happen any more")

    def _pass(self, seconds: float) -> None:
        end = self.world.now + seconds
        self.world.at(end, lambda: None)
        while self.world.now < end:
            self._step()

    def _wind_down(self) -> None:
        """Nothing is left of what is over; and when the manager ends, everybody does."""
        self._pass(1.0 + 10 * self.plan.slowness)
        self.master.scheduler.check()
        self.ledger.compare()
        table, state = self.master.state.table, self.master.state
        _empty("tasks", state.backlog.contexts)
        _empty("leases", state.leases.by_slave)
        for context in self.users.contexts:
            if not context.dropped:
                self.users.drop_context(context)
        self._pass(1.0 + 10 * self.plan.slowness)
        self.master.scheduler.check()
        _empty("contexts", state.contexts)
        _empty("paused contexts", state.backlog.paused)
        _empty("readers", [call for one in state.contexts.values() for call in one.readers])
        _empty("the paces of contexts", state.pace._seconds)
        _empty("the durations of contexts", state.durations)
        _empty("tasks that two slaves hold, or held", [*table.races.second, *table.races.over])
        assert state.backlog.waiting == 0 and state.reading == 0, "somebody is counted who is no more"
        self._slaves_are_there()
        for slave in state.roster.slaves.values():
            _empty(f"what {slave} knows", slave.knows)
        for runner in self._runners():
            slave_record = state.roster.connected.get(runner.slave.number)
            told = runner.slave.number in state.idle  # what it asked before was answered
            if told and slave_record is not None and slave_record.pid == runner.pid and not slave_record.to_forget:
                _empty(f"what {runner.name} has set up", runner._conversation.set_up)
        self._end()

    def _end(self) -> None:
        """The master ends, and so does everybody who has ever been with it: told by it, or of themselves."""
        self.fleet.closing = True
        if self.plan.end == KILLED:
            self._kill_master()
        else:
            for machine in self.fleet.machines if self.plan.end == OUT_OF_REACH else ():
                if machine.plan.kind != "local":
                    machine.be_silent(1e9)
            self.master.close()
        bound = self.world.now + 60.0 + 12 * self.plan.term
        while there := [one.name for one in [*self._agents(), *self._runners()] if one.alive and self._is_to_end(one)]:
            self._step()
            if self.world.now > bound:
                raise AssertionError(f"{self.plan.end}, and these have not ended: {there}")

    def _is_to_end(self, process: Process) -> bool:
        """Whether it hears of that, or has met the master: who has not may look for one as long as it likes."""
        return not isinstance(process, Agent) or self.plan.end == SHUT_DOWN or process.session.reply is not None

    def _slaves_are_there(self) -> None:
        """The slaves that an agent is said to have are those that it has."""
        for agent in self._agents():
            record = self.master.state.roster.agents.get(agent.id)
            if agent.is_served and not agent.frozen and record is not None:
                said = {number for number, slave in record.slaves.items() if not slave.parting}
                assert said <= set(agent.slaves), (
                    f"{agent.name} is said to have slaves {said}, not {list(agent.slaves)}"
                )

    def _agents(self) -> list[Agent]:
        return [one.agent for one in self.fleet.machines if one.agent is not None]

    def _runners(self) -> list:  # type: ignore[type-arg]
        all_of_them = [one for ledger in [*self._former, self.ledger] for one in ledger.runners.values()]
        return [one for one in dict.fromkeys(all_of_them) if one.alive]


def _empty(what: str, table: object) -> None:
    assert not table, f"all is over, and there are still {what}: {table}"


def _where(error: BaseException) -> str:
    """The kind of a failure, by which a shorter story is told to be of the same."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next(frame for frame in reversed(frames) if frame.name not in ("fail", "_empty"))
    return f"{type(error).__name__} in {place.name}: {_NUMBERS.sub('#', str(error).partition(chr(10))[0])[:60]}"
