"""The driver: tells the scheduler and the model the same, and has the judge compare what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slave.protocol import BY_ITSELF, VALUE, OutcomeMessage, Ran, outcome_message
from tests.core.fake import RUN, Env, Launched
from tests.core.judge import SECONDS, Judge
from tests.core.model_state import ModelAgent, ModelSlave

OLD_LEASE = 999_999


class Driver:
    """See the module's text.  Agents that are connected always wait for commands."""

    def __init__(self, term: float, max_attempts: int, may_join: bool, result_bytes: float) -> None:
        self.env = Env(term, max_attempts, may_join=may_join, result_bytes=result_bytes, watched=True)
        self.judge = Judge(term, max_attempts, may_join, result_bytes)
        self.former: list[str] = []  # the agents that there were so far
        self._last_pid = 100
        self._as_inputs = False
        self._contexts = 0

    @property
    def sound(self) -> bool:
        """Whether nothing was raised so far."""
        return self.env.sound and self.judge.sound

    def settle(self) -> None:
        """Compare, and let the agents ask for commands again."""
        self.judge.now = self.env.now
        self.judge.examine(self.env)
        self.judge.current = None
        for agent in list(self.judge.agents.values()):
            if agent.enlisted and agent.online and agent.call is None and not self.judge.closing:
                self.wait_for_commands(agent)

    def model(self) -> Judge:
        """The model, which is told what happens after the scheduler was."""
        self.judge.now, self.judge.sound = self.env.now, False
        return self.judge

    def new_pid(self) -> int:
        """A process that was never there."""
        self._last_pid += 1
        return self._last_pid

    # -- runners

    def join(self, slave: ModelSlave, pid: int, connection: int, this_run: bool = True, lease: int = 0) -> None:
        call = self.env.join(slave.number, pid, connection, RUN if this_run else "another", lease)
        self.model().join(call, slave.number, pid, connection, this_run, lease)
        self.settle()

    def fetch(self, slave: ModelSlave, pid: int, connection: int, contexts: Sequence[int]) -> None:
        """``contexts``: of which it says how long their tasks take, where that is known."""
        ran = [Ran(id, 1, SECONDS[id % 3] or 0.0) for id in contexts if SECONDS[id % 3] is not None]
        known = slave.pid == pid and slave.connection == connection and not slave.ended
        call = self.env.fetch(slave.number, pid, connection, ran)
        model = self.model()
        model.measured |= {stretch.context for stretch in ran} if known else set()
        model.fetch(call, slave.number, pid, connection)
        model.current = slave if slave.call is call else None
        self.settle()

    def work(self, slave: ModelSlave, size: int = 0) -> None:
        """What a slave does all the time: it posts what came of its first task, or asks for more."""
        if slave.held:
            self.post([self.message(slave, slave.held[0], VALUE, size)])
        elif slave.pid and not slave.ended and slave.call is None:
            self.fetch(slave, slave.pid, slave.connection, list(self.judge.contexts))

    def message(self, slave: ModelSlave, task: int, kind: int, size: int = 0, lease: int = 0) -> OutcomeMessage:
        """An outcome; under the slave's current lease if no other is given."""
        lease = lease or (slave.lease.id if slave.lease is not None else OLD_LEASE)
        return outcome_message(slave.number, lease, self.judge.tasks[task].context, task, kind, bytes(size), ())

    def post(self, batch: Sequence[OutcomeMessage]) -> None:
        self.env.outcomes(batch)
        self.model().outcomes_came(batch)
        self.settle()

    def post_and_wait(self, message: OutcomeMessage) -> None:
        call = self.env.post_and_wait(message)
        self.model().post_and_wait(call, message)
        self.settle()

    def give_back(self, slave: ModelSlave, lease: int, unstarted: Sequence[int]) -> None:
        call = self.env.give_back(slave.number, lease, unstarted)
        self.model().give_back(call, slave.number, lease, unstarted)
        self.settle()

    def setup_failed(self, slave: ModelSlave, context: int, lease: int) -> None:
        unstarted = [id for id in slave.held if self.judge.tasks[id].context == context]
        call = self.env.setup_failed(slave.number, context, lease, unstarted)
        self.model().setup_failed(call, slave.number, context, lease, unstarted)
        self.settle()

    def runner_disconnected(self, slave: ModelSlave, pid: int, connection: int) -> None:
        self.env.runner_disconnected(slave.number, pid, connection)
        self.model().runner_disconnected(slave.number, pid, connection)
        self.settle()

    # -- agents

    def enlist_new(self, count: int) -> None:
        """An agent that was started by hand."""
        self.enlist(ModelAgent(f"by hand {len(self.judge.slaves)}"), [None] * count)

    def enlist(
        self, agent: ModelAgent, slaves: Sequence[int | None], run: str = "", runners: dict[int, int] | None = None
    ) -> None:
        """On new connections, whether or not the old ones are known to have ended."""
        connection, anew = agent.connection + 1, agent.enlisted and not run
        numbers = self.env.enlist(slaves, agent.id, run, connection, runners).numbers
        assert list(numbers) == self.model().enlist(slaves, agent.id, bool(run), connection, runners or {})
        self.former.append(agent.id)
        known = self.judge.agents.get(agent.id)
        if known is None:  # it had said that it leaves
            self.settle()
            return
        known.online = False
        self.settle()
        known.online = True
        self.wait_for_commands(known, 0 if anew else None)

    def enlist_late(self, agent: ModelAgent, run: str) -> None:
        """What it said on an older connection is read only now."""
        numbers = self.env.enlist(agent.slaves, agent.id, run, agent.connection - 1, late=True).numbers
        assert list(numbers) == self.model().enlist(agent.slaves, agent.id, bool(run), agent.connection - 1, {})
        self.settle()

    def come_back(self, agent: ModelAgent) -> None:
        """With all that it had, if it has enlisted before."""
        slaves = [self.judge.slaves[number] for number in agent.slaves]
        runners = {slave.number: slave.pid for slave in slaves if slave.pid}
        self.enlist(agent, agent.slaves, RUN if agent.enlisted else "", runners)

    def come_to_order(self) -> None:
        """Agents that are awaited come, those that are cut off come back, and their slaves join."""
        if not self.judge.alive():
            self.enlist_new(2)
        for agent in list(self.judge.agents.values()):
            if not (agent.enlisted and agent.online):
                self.come_back(agent)
        for slave in self.judge.alive():
            if not slave.pid and self.judge.agents[slave.agent].enlisted:
                self.join(slave, self.new_pid(), 1)

    def given_up_comes_back(self, id: str) -> None:
        """An agent that left, or whose launcher said that it has ended."""
        reply = self.env.enlist([None], id, RUN, 99, {})
        assert reply.done and not reply.numbers
        call = self.env.commands(id)
        self.model().wait_for_commands(call, id, 0)
        self.settle()

    def wait_for_commands(self, agent: ModelAgent, acknowledged: int | None = None) -> None:
        if acknowledged is None:
            acknowledged = agent.acknowledged if agent.answer_is_lost else len(agent.commands)
        agent.answer_is_lost = False
        call = self.env.commands(agent.id, acknowledged)
        self.model().wait_for_commands(call, agent.id, acknowledged)
        self.judge.polls = call
        self.settle()
        self.judge.polls = None

    def agent_disconnected(self, agent: ModelAgent, current: bool) -> None:
        connection = agent.connection - (not current)
        self.env.agent_disconnected(connection, agent.id)
        self.model().agent_disconnected(connection, agent.id)
        self.settle()
        if current and agent.call is not None:
            self.env.commands_disconnected(agent.call, agent.id)
            agent.call = None
        agent.online = agent.online and not current
        self.settle()

    def heartbeat(self, beats: Sequence[tuple[int, int, int]]) -> None:
        self.env.heartbeats(beats)
        self.model().heartbeat(beats)
        self.settle()

    def all_are_heard(self) -> None:
        """Each agent that is connected sends a heartbeat: its slaves run their first tasks."""
        there = [slave for slave in self.judge.alive() if slave.pid and self.judge.agents[slave.agent].online]
        self.heartbeat([(slave.number, slave.pid, (slave.held or [0])[0]) for slave in there])

    def runner_ended(
        self,
        slave: ModelSlave,
        pid: int,
        task: int,
        setup: int = 0,
        cause: str = BY_ITSELF,
        hung_up: bool = True,
    ) -> None:
        self.env.runner_ended(slave.number, task, setup=setup, cause=cause, pid=pid, hung_up=hung_up)
        self.model().runner_ended(slave.number, task, setup, cause, pid, hung_up)
        self.settle()

    def slave_closed(self, number: int) -> None:
        self.env.slave_closed(number)
        self.model().slave_closed(number)
        self.settle()

    def recalled(self, slave: ModelSlave, lease: int, running: int) -> None:
        self.env.recalled(slave.number, lease, running)
        self.model().recalled(slave.number, lease, running)
        self.settle()

    def draining(self, number: int) -> None:
        self.env.draining(number)
        self.model().draining([number])
        self.settle()

    def leave(self, agent: str) -> None:
        self.env.leave(agent)
        self.judge.agents[agent].online = False
        self.model().leave_agent(agent)
        self.settle()

    # -- launchers

    def expect(self, agent: str, open_ended: bool, launched: bool) -> None:
        """A slave of an agent that has not come, or of one that runs: that is commanded to start it."""
        runs = agent in self.judge.agents and self.judge.agents[agent].enlisted
        (number,) = self.env.expect(Launched("job", open_ended, launched), agent=agent)
        assert number == self.model().expect(agent, open_ended, launched)
        self.settle()
        if runs:
            self.env.start_by_agent(number, agent=agent)
            self.model().start_by_agent(number, agent)
            self.settle()

    def launcher_says_ended(self, agent: str, numbers: Sequence[int] | None = None, moves: bool = False) -> None:
        successor = f"after {agent}" if moves else None
        moved = self.env.launcher_says_ended(agent, "it is gone", numbers, successor)
        if numbers is None:
            self.judge.agents[agent].online = False
        assert moved == self.model().launcher_says_ended(agent, numbers, successor)
        self.settle()

    # -- users

    def make_context(self) -> None:
        self._contexts += 1
        speculates = self._contexts % 3 != 2  # of which it is known how long its tasks take
        self.model().context(self.env.context(b"setup", speculates), speculates)
        self.settle()

    def add(self, context: int, count: int, retries: int) -> None:
        self._as_inputs = not self._as_inputs  # which is to make no difference
        ids = self.env.add(count, context, retries=retries, as_inputs=self._as_inputs)
        if self.judge.contexts[context].low_water:
            self.env.enter()  # else it may be told too early that more are wanted
        self.model().add(ids, context, retries)
        self.settle()

    def more_tasks(self, context: int) -> None:
        """A reader asks how many tasks to add, and adds them."""
        count = self.env.more_tasks(context)
        assert count == self.model().more_tasks(context)
        if count < 15:
            self.add(context, count, 0)
        else:
            self.env.no_more_tasks(context)
            self.model().no_more_tasks(context)
        self.settle()

    def drop_context(self, context: int) -> None:
        self.env.drop_context(context)
        self.model().drop_context(context)
        self.settle()

    def cancel(self, context: int, outcomes: Sequence[OutcomeMessage] = ()) -> None:
        """Perhaps just after some outcomes came, in the same turn of the dispatcher."""
        with self.env.one_turn():
            if outcomes:
                self.env.outcomes(outcomes)
                self.model().outcomes_came(outcomes)
            assert self.env.cancel(context) == self.model().cancel(context)
        self.settle()

    def cancel_task(self, task: int) -> None:
        context = self.judge.tasks[task].context
        found = self.env.cancel_task(task, context)
        assert found == bool(self.model().cancel(context, task))
        self.settle()

    def take_results(self, id: int, count: int, tells: bool) -> None:
        """The user takes results, and the scheduler is told of it now or later."""
        context = self.judge.contexts[id]
        context.untold += sum(context.unread[:count])
        del context.unread[:count]
        if tells:
            self.env.results_taken(context.untold, id)
            self.model().results_taken(id, context.untold)
            context.untold = 0
            self.settle()

    def read(self, id: int, for_tasks: bool = False) -> None:
        """A reader has taken everything, and waits; for tasks only if it is alone."""
        context = self.judge.contexts[id]
        for_tasks = for_tasks and not context.readers
        context.unread.clear()
        context.untold = 0
        call = self.env.read(id, for_tasks)
        self.model().read(call, id, for_tasks)
        self.settle()

    def stop_reading(self, call: Any, id: int) -> None:
        self.env.stop_reading(call, id)
        self.model().stop_reading(call, id)
        self.settle()

    def wait_for_slaves(self, wanted: int) -> None:
        call = self.env.wait_for_slaves(wanted)
        self.model().waiters[call] = wanted
        self.settle()

    def stop_waiting_for_slaves(self) -> None:
        call = next(iter(self.judge.waiters))
        connected = self.env.stop_waiting_for_slaves(call)
        del self.model().waiters[call]
        assert connected == sum(slave.connected for slave in self.judge.slaves.values())
        self.settle()

    def dismiss(self, number: int) -> None:
        self.env.dismiss(number, 1.0)
        self.model().dismiss(number)
        self.settle()

    # -- time, and the end

    def pass_time(self, seconds: float, heard: bool = False) -> None:
        """``heard``: and meanwhile all agents that are connected send heartbeats."""
        for _ in self.env.ticks(seconds):
            self.model().tick()
            self.settle()
            self.judge.look_at_recalls()
            if heard:
                self.all_are_heard()
        self.settle()

    def stand_still(self, seconds: float) -> None:
        """The master was stopped."""
        late = max(0.0, self.env.now + seconds - self.env.scheduler.due)
        if late:
            self.env.stand_still(seconds)
            self.model().tick(late)
            self.settle()

    def close(self) -> None:
        """The manager ends: nobody waits any more."""
        self.env.close()
        self.model().close()
        self.settle()
        state = self.env.state
        polling = [agent for agent in state.roster.agents.values() if agent.call is not None]
        left = [state.idle, polling, self.env.scheduler.runners.joining, self.env.scheduler.users.waiters]
        assert not any(left) and not state.reading, left

    def wind_down(self) -> None:
        """All agents end, and all contexts are dropped: nothing of what is over is kept."""
        while self.judge.agents:
            agent = next(iter(self.judge.agents))
            self.leave(agent)
            if agent in self.judge.agents:
                self.launcher_says_ended(agent)
        for id in list(self.judge.contexts):
            self.drop_context(id)
        self.pass_time(self.judge.term)
        state = self.env.state
        left: list[Any] = [state.idle, state.contexts, state.roster.slaves, state.roster.agents, state.roster.connected]
        left += [
            state.backlog.contexts,
            state.leases.by_slave,
            state.backlog.paused,
            self.env.scheduler.runners.joining,
            self.env.scheduler.endings.waiting,
        ]
        assert not any(left) and not state.roster.lost and not state.backlog.waiting, left
        assert not any(state.pace.seconds_per_task(id) for id in range(99)), "a context that is gone is measured"
        assert not state.durations and not state.table.races.second and not state.table.races.over, "something is kept"
