"""What is decided when an agent speaks, falls silent, or its launcher has word of it.

An attempt counts against a task, and too many of them give it up, in one case only: the task's own process ended by
itself while it ran the task, and the agent, which lives, says so.  Silence, lost machines, agents that ended and
signals that ask to end count nothing: the network, the engine or a user did that, again and again if need be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slave.protocol import (
    POLL_SECONDS,
    Drain,
    EnlistReply,
    EnlistRequest,
    OutputPart,
    RecordPart,
    RunnerBeat,
    RunnerEnded,
    StartRunner,
)

from . import events as ev
from .effects import Call, HangUp
from .endings import Endings
from .leases import Lease
from .slave import AgentRecord, Contact, Life, Move, SlaveRecord
from .state import State

RECONNECT_SECONDS = 1.0  # for an agent whose connection has ended to come back before its slaves' tasks go elsewhere
BY_HAND = "started by hand"


class Agents:
    """See the module's text."""

    def __init__(self, state: State, endings: Endings) -> None:
        self._state, self._endings = state, endings
        self._hung_up: dict[int, int] = {}  # by slave: the lease that seems not to have arrived over its connection

    # -- it comes

    def enlist(self, request: EnlistRequest, accepted: int, now: float) -> EnlistReply:
        """An agent comes, or comes back after its connection broke (then ``run`` names this master).

        ``accepted``: which of all connections that were accepted this is said on.  A process that comes anew, and has
        the number and counts its connections as the former one did (a container's), comes on a later one; what was said
        on an earlier one is read late.
        """
        state = self._state
        state.now = now
        reply = EnlistReply(state.run, state.leases.term, {}, [], False, max_memory=state.max_memory)
        if request.run not in ("", state.run):
            return reply  # it looks for another master, and will see that this is not the one
        if state.closing or (request.run and request.agent not in state.roster.agents):
            return reply._replace(done=True)  # or it was given up: it left, or its launcher said that it has ended
        agent = state.roster.agent(request.agent)
        late = accepted < agent.accepted or (request.run and request.pid != agent.pid)
        if late:  # it is back already, on a newer connection, and nobody is on this one
            return reply._replace(numbers=agent.numbers)
        self._endings.settle_all(agent.slaves.values())
        if request.run and request.agent not in state.roster.agents:
            return reply._replace(done=True)  # it had said that it leaves
        agent = state.roster.agent(request.agent)
        agent.connection, agent.accepted = request.connection, accepted
        agent.host, agent.pid, agent.version = request.host, request.pid, request.version
        agent.tags = frozenset(request.tags)
        if not agent.enlisted:
            state.tell(ev.AgentCame(now, agent.host, agent.pid, agent.version, request.release))
            state.slaves_changed()  # it may bring fewer than somebody waits for
        if agent.enlisted and not request.run:
            self._start_over(agent)
        if agent.enlisted and request.run:
            self._end_missing(agent, request.slaves)
        elif not agent.numbers:
            agent.numbers = [self._number_of(agent, number) for number in request.slaves]
        agent.enlisted = True
        pids = {runner.slave: runner.pid for runner in request.runners}
        for slave in list(agent.slaves.values()):
            slave.host = agent.host
            state.see_tags(slave)
            state.heard(slave)
            if slave.pid and slave.number in pids and pids[slave.number] != slave.pid:
                state.lose(slave, 0, "its process ended while its machine was out of reach")
                self._endings.replace(slave)
        shows = state.shows and not (agent.is_local and state.local_output_shows)
        environment = dict(state.environment_for(agent))
        if state.outlives[0] and not agent.is_local:
            environment["outlives"] = state.outlives
        if environment.get("preload"):
            environment["first"] = state.first_pickles()
        return reply._replace(numbers=agent.numbers, environment=environment, shows=shows, levels=state.levels)

    def _number_of(self, agent: AgentRecord, number: int | None) -> int:
        """The number of a slave that the agent brings: a new one, unless it is launched and has one."""
        roster = self._state.roster
        if number is not None and number in roster.slaves:
            return number
        sibling = next(iter(agent.slaves.values()), None)
        slave = roster.expect(BY_HAND, agent.id)
        if sibling is not None and sibling.has_launcher:  # its launcher left it to the agent how many there are
            slave.name, slave.has_launcher = sibling.name, True
            slave.output = self._state.output_of(slave.number)
        return slave.number

    def _start_over(self, agent: AgentRecord) -> None:
        """Another process of the same agent has come: its engine has started its job again."""
        state = self._state
        for slave in list(agent.slaves.values()):
            if slave.pid:
                state.lose(slave, 0, "its job was started again")
            if slave.life is Life.DISMISSED:
                state.command(agent.id, Drain(slave.number, 0.0))
            state.release(slave)
            state.roster.start_over(slave, agent.id)

    def _end_missing(self, agent: AgentRecord, numbers: Sequence[int | None]) -> None:
        """An agent has come back without some of its slaves, and could not say so when they ended for good."""
        commanded = [one.slave for _, one in agent.commands if isinstance(one, StartRunner)]
        for slave in list(agent.slaves.values()):
            if slave.number not in numbers and slave.number not in commanded:
                why = "its process ended right after each start, while its machine was out of reach"
                self._state.lose(slave, 0, why)
                self._state.end(slave, why)

    # -- it waits for commands

    def commands(self, call: Call, agent_id: str, acknowledged: int, now: float) -> None:
        """Answered with ``(number of the last, commands)``; waits for `POLL_SECONDS` at most, and then with none.

        ``acknowledged``: the last number that the agent has; later ones are given again.
        """
        state = self._state
        state.now = now
        agent = state.roster.agents.get(agent_id)
        if agent is None:  # it was given up
            state.answer(call, None)
            return
        if agent.call is not None:
            state.answer(agent.call, (agent.last_command, []))  # an earlier connection's
        agent.commands = [(number, command) for number, command in agent.commands if number > acknowledged]
        agent.call, agent.waits_until = call, now + POLL_SECONDS
        if state.closing:
            self.end_all()
        else:
            state.send_commands(agent_id)

    def end_polls(self, now: float) -> None:
        """Answer the calls for commands that have waited for long enough."""
        for agent in self._state.roster.agents.values():
            if agent.call is not None and agent.waits_until <= now:
                call, agent.call = agent.call, None
                self._state.answer(call, (agent.last_command, []))

    def end_all(self) -> None:
        """The master is done: all agents that wait are told to end."""
        for agent in self._state.roster.agents.values():
            if agent.call is not None:
                call, agent.call = agent.call, None
                self._state.answer(call, None)

    # -- it reports

    def heartbeat(self, agent: str, runners: Sequence[RunnerBeat], now: float) -> None:
        """These runners are alive."""
        state = self._state
        state.now = now
        for number, pid, task, memory, stopped in runners:
            slave = state.roster.slaves.get(number)
            if slave is not None and slave.pid in (pid, 0):
                slave.memory, slave.stopped = memory, stopped != 0
                if not task and not slave.running and number in state.leases.by_slave:
                    self._see_whether_it_arrived(slave, state.leases.by_slave[number], now)
                if task != slave.running:
                    slave.running, slave.since = task, now
                    if task and state.watched:
                        state.tell(ev.TaskStarted(now, number, task))
                state.heard(slave)

    def _see_whether_it_arrived(self, slave: SlaveRecord, lease: Lease, now: float) -> None:
        """A slave that has a lease runs none of its tasks, for the second time.

        Somebody on the way may have dropped the answer, which nothing tells if nothing comes after it.  When its
        connection ends the runner asks again on another one; if it has the lease, that costs it nothing else.
        """
        term = self._state.leases.term
        if now < lease.granted + POLL_SECONDS + term or self._hung_up.get(slave.number) == lease.id:
            return
        self._hung_up[slave.number] = lease.id  # once: what is sent then may be on its way for long
        self._state.effects.append(HangUp(slave.number, slave.pid, slave.connection))

    def output(self, parts: Sequence[OutputPart], now: float) -> None:
        """What these slaves have printed."""
        for number, data, left_out in parts:
            slave = self._state.roster.slaves.get(number)
            if slave is not None:
                self._state.tell(ev.TaskOutput(now, number, str(slave), bytes(data), left_out, slave.output or ""))

    def records(self, parts: Sequence[RecordPart], now: float) -> None:
        """What tasks on these slaves have logged."""
        for number, kind, data, left_out in parts:
            slave = self._state.roster.slaves.get(number)
            if slave is not None:
                self._state.tell(ev.TaskRecord(now, number, str(slave), kind, bytes(data), left_out))

    def runner_ended(self, report: RunnerEnded, how: str, last_words: str, now: float) -> None:
        """A runner's process ended while its agent lives; a new one is on its way.

        ``how``: its exit code in words; ``last_words``: the end of its output.
        """
        self._state.now = now
        self._endings.runner_ended(report, how, last_words, now)

    def slave_closed(self, number: int, why: str, last_words: str, now: float) -> None:
        """The agent gives a slave up."""
        self._state.now = now
        slave = self._state.roster.slaves.get(number)
        if slave is not None:
            self._endings.closed(slave, why + last_words)

    def recalled(self, number: int, lease: int, running: int, now: float) -> None:
        """The slave will start no task of the lease (0: whichever it holds) after the one that runs."""
        self._state.now = now
        self._state.table.give_back_after(number, lease, running)

    def draining(self, numbers: Sequence[int], now: float) -> None:
        """These slaves end when their running tasks have."""
        state = self._state
        state.now = now
        for number in numbers:
            slave = state.roster.slaves.get(number)
            if slave is None:
                continue
            if not slave.leaving:  # else we asked for it
                state.tell(ev.SlaveLeaving(now, number, str(slave)))
            state.roster.move(slave, Move.DRAIN)
            state.release(slave)
            state.slaves_changed()

    def leave(self, agent: str, why: str, now: float) -> None:
        """The agent ends, and its runners with it; that is nobody's fault."""
        self._state.now = now
        for slave in self._state.roster.of_agent(agent):
            self._endings.left(slave, why)
        self._state.roster.forget_agent(agent)

    def disconnected(self, agent_id: str, pid: int, connection: int, now: float) -> None:
        """The reports connection of its process ``pid`` ended: if it does not come back soon, its slaves are lost."""
        state = self._state
        state.now = now
        agent = state.roster.agents.get(agent_id)
        if agent is None or (agent.pid, agent.connection) != (pid, connection):
            return  # it is back already, on another connection or as another process
        due = now + RECONNECT_SECONDS
        for slave in state.roster.cut_off(agent_id, due):
            state.leases.shorten(slave.number, due)
        state.attend(due)

    def commands_disconnected(self, agent_id: str, call: Call, now: float) -> None:
        """Its commands connection ended: nobody waits there any more."""
        agent = self._state.roster.agents.get(agent_id)
        if agent is not None and agent.call is call:
            agent.call = None

    # -- its launcher reports

    def ended(
        self,
        agent_id: str,
        why: str,
        numbers: Sequence[int] | None,
        last_words: Mapping[int, str],
        successor: str | None,
        now: float,
    ) -> list[int]:
        """The slave program has ended, and these slaves (None: all of its) are no more.

        If it had enlisted they move to the agent ``successor``, where one is named; returns the numbers of these.
        """
        state = self._state
        state.now = now
        agent = state.roster.agents.get(agent_id)
        if agent is None or state.closing:
            return []
        self._endings.settle_all(agent.slaves.values())
        moved: list[int] = []
        came = agent.enlisted
        for slave in list(agent.slaves.values()):
            if numbers is not None and slave.number not in numbers:
                continue
            slave.has_launcher = False
            words = last_words.get(slave.number, "")
            state.lose(slave, 0, f"its slave program ended: {why}", words)
            if successor is not None and came and not slave.leaving:
                state.release(slave)
                state.roster.start_over(slave, successor)
                moved.append(slave.number)
            else:
                state.end(slave, why + words)
        if numbers is None:
            state.roster.forget_agent(agent_id)
        return moved

    def missed(self, now: float) -> None:
        """Re-enqueue the tasks of slaves whose lease is over, and of those that are not heard any more."""
        state = self._state
        slaves = state.roster.slaves
        self._endings.settle_all(slaves[number] for number in state.leases.expired(now))
        expired = {number: slaves[number] for number in state.leases.expired(now)}
        silent = {slave.number: slave for slave in state.roster.missed(now, state.leases.term)}
        for slave in {**expired, **silent}.values():
            state.lose(slave, 0, _silence(slave, now))
            if slave.contact in (Contact.HEARD, Contact.CUT_OFF):
                state.roster.lose(slave)
        if expired or silent:
            state.slaves_changed()


def _silence(slave: SlaveRecord, now: float) -> str:
    if slave.contact is Contact.CUT_OFF:
        return (
            "its connection ended and did not come back (was it killed, its machine switched off, or the network cut?)"
        )
    return f"nothing was heard of it for {now - slave.heard:.1f} s (is its machine off, or the network cut?)"
