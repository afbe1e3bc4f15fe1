"""What goes wrong, and what users ask for: each act of a plan, done to whatever it strikes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Act, AgentPlan
from .runner import Runner

if TYPE_CHECKING:
    from .agent import Agent
    from .machines import Machine
    from .run import Run


class Faults:
    """See the module's text."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._random = run.world.stream("faults")

    def do(self, act: Act) -> None:
        """It happens now."""
        getattr(self, "_" + act.what.replace("'", "").replace(" ", "_"))(act)

    # -- whom it strikes

    def _runner(self, act: Act) -> Runner | None:
        there = [
            slave.runner
            for agent in self._agents()
            for slave in agent.slaves.values()
            if slave.runner is not None and slave.runner.alive
        ]
        busy = [one for one in there if one.task]
        there = busy if busy and act.number % 2 else there
        return there[act.which % len(there)] if there else None

    def _agents(self) -> list[Agent]:
        return [one.agent for one in self._run.fleet.machines if one.agent is not None and one.agent.alive]

    def _agent(self, act: Act) -> Agent | None:
        there = self._agents()
        return there[act.which % len(there)] if there else None

    def _machine(self, act: Act) -> Machine | None:
        """One that is not the master's own."""
        there = [one for one in self._run.fleet.machines if one.on and one.plan.kind != "local"]
        return there[act.which % len(there)] if there else None

    # -- processes

    def _a_runner_dies(self, act: Act) -> None:
        runner = self._runner(act)
        if runner is not None:
            runner.die("is killed", -9)

    def _a_runner_dies_soon(self, act: Act) -> None:
        runner = self._runner(act)
        if runner is not None:
            runner.dies_in = 1 + act.which % 25

    def _a_runner_dies_when_it_has_posted(self, act: Act) -> None:
        runner = self._runner(act)
        if runner is not None:
            runner.dies_when_posted = True

    def _a_runner_is_stopped(self, act: Act) -> None:
        runner = self._runner(act)
        if runner is not None:
            runner.freeze(act.seconds)

    def _a_runners_end_is_told_late(self, act: Act) -> None:
        runner = self._runner(act)
        if runner is not None:
            for one in runner.agent.machine.open_connections(runners=False):
                one.silence(min(act.seconds, 0.8 * self._run.plan.term), self._run.plan.term, down=False)
            runner.die("is killed", -9)

    def _an_agent_is_killed(self, act: Act) -> None:
        agent = self._agent(act)
        if agent is not None:
            agent.die("is killed", -9)

    def _an_agent_is_stopped(self, act: Act) -> None:
        agent = self._agent(act)
        if agent is not None:
            agent.freeze(act.seconds)

    def _an_agent_is_asked_to_end(self, act: Act) -> None:
        agent = self._agent(act)
        if agent is not None:
            agent.grace = (30.0, 0.5, 5.0)[act.number % 3]
            agent.signal()

    def _an_agent_is_asked_twice_to_end(self, act: Act) -> None:
        agent = self._agent(act)
        if agent is not None:
            agent.signal()
            self._run.world.after(act.seconds, agent.signal)

    def _a_machine_is_switched_off(self, act: Act) -> None:
        machine = self._machine(act)
        if machine is not None:
            machine.switch_off()

    def _a_job_is_started_again(self, act: Act) -> None:
        there = [one for one in self._run.fleet.machines if one.on and one.plan.kind in ("launched", "open-ended")]
        there = [one for one in there if one.agent is not None and one.agent.alive]
        if there:
            there[act.which % len(there)].start_over()

    def _the_master_is_stopped(self, act: Act) -> None:
        self._run.master.stop(min(act.seconds, 3 * self._run.plan.term))

    # -- connections

    def _cut(self, act: Act, runners: bool) -> None:
        there = [one for machine in self._run.fleet.machines for one in machine.open_connections(runners)]
        if there:
            connection = there[act.which % len(there)]
            self._run.world.tell(f"{connection.name} is cut")
            late = min(act.seconds, 1.5 * self._run.plan.term)
            ends = ((0.001, 0.001), (0.001, late), (late, 0.001), (0.03, 0.05))[act.which % 4]
            connection.cut(act.number // 2, act.number % 3, *ends)

    def _a_runners_cable_is_cut(self, act: Act) -> None:
        self._cut(act, True)

    def _an_agents_cable_is_cut(self, act: Act) -> None:
        self._cut(act, False)

    def _lose_answer(self, act: Act, runners: bool) -> None:
        there = [one for machine in self._run.fleet.machines for one in machine.open_connections(runners)]
        if there:
            there[act.which % len(there)].lose_answer = True

    def _an_answer_to_a_runner_is_lost(self, act: Act) -> None:
        self._lose_answer(act, True)

    def _an_answer_to_an_agent_is_lost(self, act: Act) -> None:
        self._lose_answer(act, False)

    def _half_cut(self, act: Act, runners: bool) -> None:
        there = [one for machine in self._run.fleet.machines for one in machine.open_connections(runners)]
        if there:
            connection, up = there[act.which % len(there)], act.number % 2 == 0
            self._run.world.tell(f"{connection.name} is half cut for {act.seconds:g} s ({'up' if up else 'down'})")
            connection.silence(act.seconds, self._run.plan.term, up=up, down=not up)

    def _a_runner_is_half_cut(self, act: Act) -> None:
        self._half_cut(act, True)

    def _an_agent_is_half_cut(self, act: Act) -> None:
        self._half_cut(act, False)

    def _a_machine_is_silent(self, act: Act) -> None:
        machine = self._machine(act)
        if machine is not None:
            machine.be_silent(act.seconds)

    # -- launchers and users

    def _a_launcher_removes_a_slave(self, act: Act) -> None:
        self._run.fleet.remove_one(act.which)

    def _a_local_slave_is_added(self, act: Act) -> None:
        self._run.fleet.add_local(act.which)

    def _a_slave_joins_by_hand(self, act: Act) -> None:
        self._run.fleet.come(AgentPlan(act.at, 1))

    def _a_task_is_cancelled(self, act: Act) -> None:
        self._run.users.cancel_task(act.which)

    def _a_context_is_cancelled(self, act: Act) -> None:
        self._run.users.cancel(act.which)

    def _a_context_is_dropped(self, act: Act) -> None:
        self._run.users.drop(act.which)

    def _a_slave_is_dismissed(self, act: Act) -> None:
        self._run.users.dismiss(act.which, (0.0, 0.3, 1e9)[act.number % 3])

    def _a_reader_leaves(self, act: Act) -> None:
        readers = [one for context in self._run.users.contexts for one in context.readers if one.ticket is not None]
        if readers:
            readers[act.which % len(readers)].leave(min(act.seconds, 3.0))

    def _somebody_waits_for_slaves(self, act: Act) -> None:
        self._run.users.wait_for_slaves(1 + act.number, act.seconds)
