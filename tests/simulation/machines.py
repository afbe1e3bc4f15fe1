"""Machines, the agents on them, and the launchers that start them and say that they have ended."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from slave.protocol import RUNNER, Role

from .agent import Agent
from .master import Master
from .network import Connection
from .plan import AgentPlan, Restart
from .world import World

if TYPE_CHECKING:
    from .users import Users

_CONNECT_SECONDS = 5.0  # until a machine that cannot be reached is given up
_TRIES = 5  # of a local agent


class Expected(NamedTuple):
    """As a launcher expects a slave."""

    name: str
    open_ended: bool = False
    has_launcher: bool = True


class Machine:
    """A machine on which one agent runs at a time."""

    def __init__(self, fleet: Fleet, name: str, plan: AgentPlan) -> None:
        self.fleet, self.name, self.plan = fleet, name, plan
        self.world, self.master, self.users = fleet.world, fleet.master, fleet.users
        self.speed, self.on, self.silent_until = plan.speed, True, 0.0
        self.agent: Agent | None = None
        self.connections: list[Connection] = []
        self.id = name  # of its agent
        self.deaths = 0
        self._random = self.world.stream(name)

    def new_pid(self) -> int:
        """A process id that no other process has."""
        return next(self.fleet.pids)

    def refused(self, wanted: Master | None) -> Collection[tuple[str, int]]:
        """The addresses that have just refused a connection to that master: nobody listens, or another one does."""
        return () if self._is_there(wanted) else (("master", 1),)

    def _is_there(self, wanted: Master | None) -> bool:
        return self.master.open and wanted in (None, self.master)

    def dial(self, client: Any, then: Callable[[bool], None]) -> None:
        """Connect: ``then`` is called with whether that was possible."""
        now, master = self.world.now, self.master
        if now < self.silent_until:
            client.later(_CONNECT_SECONDS, then, False)
        elif not self._is_there(client.serves):
            client.later(0.001, then, False)
        elif master.stopped_until > now + 10.0:
            client.later(10.0, then, False)
        else:
            client.later(max(0.0, master.stopped_until - now) + 0.002 + 0.003 * self._random.random(), then, True)

    def connect(self, client: Any, role: Role) -> Connection:
        """A connection to the master."""
        connection = Connection(self.world, self.master, client, role, self.fleet.slowness)
        self.connections = [one for one in self.connections if one.client_open or one.server_open]
        self.connections.append(connection)
        if self.world.now < self.silent_until:
            connection.silence(self.silent_until - self.world.now, self.fleet.term)
        if not self._is_there(client.serves):  # any more: it was when this was begun
            connection.hang_up()
        return connection

    def start(self, numbers: Sequence[int | None], stays: bool = False) -> None:
        """Start an agent."""
        if not self.on:
            return
        self.agent = Agent(self, self.id, numbers, stays)
        self.world.tell(f"{self.agent.name} is started on {self.name}")

    def start_over(self) -> None:
        """Its engine starts its job again: another process of the same agent."""
        if self.agent is None:
            return
        self.world.tell(f"the job of agent {self.id} is started again")
        former, self.agent = self.agent, None
        former.die("is killed", -9)
        self.world.after(1.0 * self._random.random(), self._start_again)

    def _start_again(self) -> None:
        if self.on and self.agent is None and not self.fleet.closing:
            views = self.master.scheduler.launches.describe(self.id, self.world.now)
            self.start([view.number for view in views if not view.ended] or [None])

    def agent_died(self, agent: Agent, exitcode: int) -> None:
        """Its process has ended: whoever has started it says so."""
        if self.on:
            self.world.after(0.05 * self._random.random(), self.fleet.agent_ended, self, agent, exitcode)

    def switch_off(self) -> None:
        """It is gone, without a word."""
        if not self.on:
            return
        self.world.tell(f"{self.name} is switched off")
        self.on = False
        for connection in self.connections:
            connection.client_open = False
            connection.silence(1e9, self.fleet.term, up=True, down=True)
        if self.agent is not None:
            self.agent.die("is gone with its machine", -9)
        self.world.after(20.0 * self._random.random(), self.fleet.machine_is_off, self)

    def be_silent(self, seconds: float) -> None:
        """Its cable is pulled for so long."""
        self.world.tell(f"{self.name} cannot be reached for {seconds:g} s")
        self.silent_until = max(self.silent_until, self.world.now + seconds)
        for connection in self.connections:
            connection.silence(seconds, self.fleet.term)

    def open_connections(self, runners: bool) -> list[Connection]:
        """Those of its runners, or of its agent."""
        return [one for one in self.connections if one.client_open and (one.role.kind == RUNNER) == runners]

    def outlives(self) -> float:
        """Seconds for which an agent that starts here waits for the next master, when its own is gone."""
        restart = self.fleet.restart
        return 0.0 if restart is None or self.plan.kind == "local" else restart.wait

    def another_master(self, master: Master, users: Users) -> None:
        """It is there from now on, and nobody has launched anything for it."""
        self.master, self.users = master, users
        self.plan = self.plan._replace(kind="by hand")
        if self.agent is None:
            self.on = False  # nobody starts one any more
        elif self.agent.alive and self.agent.session.reply is None and self.agent.is_launched:
            self.agent.die("is deleted", -9)


class Fleet:
    """All machines, and the launchers."""

    def __init__(self, world: World, master: Master, users: Users, term: float, slowness: float) -> None:
        self.world, self.master, self.users, self.term, self.slowness = world, master, users, term, slowness
        self.pids = itertools.count(101)
        self.machines: list[Machine] = []
        self.closing = False
        self.restart: Restart | None = None
        self._random = world.stream("launchers")

    def another_master(self, master: Master, users: Users) -> None:
        """The one that was there is gone."""
        self.master, self.users = master, users
        for machine in self.machines:
            machine.another_master(master, users)

    def come(self, plan: AgentPlan) -> None:
        """An agent comes, of itself or started by a launcher."""
        if self.closing:
            return
        machine = Machine(self, f"machine{len(self.machines) + 1}", plan)
        self.machines.append(machine)
        if plan.kind == "by hand":
            machine.start([None] * plan.slaves)
        else:
            self._launch(machine, plan)

    def _launch(self, machine: Machine, plan: AgentPlan) -> None:
        open_ended = plan.kind == "open-ended"
        count = 1 if open_ended else plan.slaves
        expected = [Expected(plan.kind, open_ended, plan.kind != "local")] * count

        def expect(now: float) -> list[int]:
            numbers = self.master.scheduler.launches.expect(machine.id, expected, now)
            if plan.output:
                self.master.outputs.update(numbers)
            return numbers

        def start(numbers: list[int]) -> None:
            self.world.after(0.5 * self._random.random(), machine.start, [*numbers, *extra], plan.kind == "local")

        extra = [None] * (plan.slaves - 1) if open_ended else []
        self.master.call(start, expect)

    def add_local(self, which: int) -> None:
        """One more local slave, which the agent that runs is to start."""
        local = [one for one in self.machines if one.plan.kind == "local" and one.agent and one.agent.alive]
        if not local or self.closing:
            return
        machine = local[which % len(local)]

        def expect(now: float) -> None:
            numbers = self.master.scheduler.launches.expect(machine.id, [Expected("local", False, False)], now)
            self.master.scheduler.launches.start_by_agent(machine.id, numbers, "nowhere", now)
            self.world.tell(f"slave {numbers[0]} is to be started by {machine.id}")

        self.master.tell(expect)

    def agent_ended(self, machine: Machine, agent: Agent | None, exitcode: int) -> None:
        """Whoever started it sees that its process has ended, after a while."""
        if machine.plan.kind == "by hand" or self.closing or agent is None or machine.agent is not agent:
            return
        machine.agent = None
        if machine.plan.kind == "local":
            self._replace_local(machine, agent.id)
        elif exitcode and machine.on and machine.deaths < 3 and self._random.chance(0.4):
            machine.deaths += 1  # the engine starts the job again
            self.world.after(2.0 * self._random.random(), self._start_again, machine)
        else:
            self._say_ended(agent.id, None, None, lambda moved: None)

    def machine_is_off(self, machine: Machine) -> None:
        """A launcher sees that, after a while."""
        if machine.plan.kind != "by hand" and not self.closing:
            self._say_ended(machine.id, None, None, lambda moved: None)

    def _start_again(self, machine: Machine) -> None:
        if not self.closing and machine.on:
            views = self.master.scheduler.launches.describe(machine.id, self.world.now)
            machine.start([view.number for view in views if not view.ended])

    def _replace_local(self, machine: Machine, former: str) -> None:
        machine.deaths += 1
        machine.id = f"{machine.name}-{machine.deaths}"
        successor = machine.id if machine.deaths < _TRIES and machine.on else None

        def start(moved: list[int]) -> None:
            if moved and not self.closing:
                machine.start(moved, stays=True)

        self._say_ended(former, None, successor, start)

    def _say_ended(
        self, agent: str, numbers: list[int] | None, successor: str | None, then: Callable[[list[int]], None]
    ) -> None:
        self.world.tell(f"its launcher says that agent {agent} has ended")
        ended = self.master.scheduler.agents.ended
        self.master.call(then, ended, agent, "it has ended", numbers, {}, successor)

    def remove_one(self, which: int) -> None:
        """A launcher says that one slave of an agent is no more."""
        slaves = [one for one in self.master.state.roster.slaves.values() if one.has_launcher]
        if slaves:
            slave = slaves[which % len(slaves)]
            self._say_ended(slave.agent, [slave.number], None, lambda moved: None)
