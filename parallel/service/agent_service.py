"""AgentService: what agents tell and ask, by proxy (slave/link.py has the other end)."""

from __future__ import annotations

from typing import Any

from slave.protocol import AGENT_SERVICE, CommandsReply, End, RunnerEnded, encode_command

from ..core.scheduler import Scheduler
from ..exits import describe_exit, tail
from . import checked
from .keyring import Keyring, TokenUsed
from .peer import Call


class AgentService:
    """Agents enlist here, renew their runners' leases, report deaths, and get their commands.

    The methods: see slave/protocol.py.
    """

    service = AGENT_SERVICE

    def __init__(self, scheduler: Scheduler, keyring: Keyring) -> None:
        self._agents, self._roster, self._keyring = scheduler.agents, scheduler.state.roster, keyring

    def enlist(self, call: Call, request: Any) -> None:
        """See `Agents.enlist`."""
        wanted = checked.enlist_request(request)
        call.own_agent(wanted.agent)
        try:
            given = self._keyring.enlist(call.ident, wanted.agent)
        except TokenUsed as used:
            call.refuse(str(used))
            return
        reply = self._agents.enlist(wanted, call.accepted, call.now)
        if given is not None:
            reply = reply._replace(key=given.decode(), ident=given.ident)
        call.answer(tuple(reply))

    def commands(self, call: Call, agent: Any, acknowledged: Any) -> None:
        """See `Agents.commands`."""
        call.own_agent(agent)
        last = checked.number(acknowledged)
        call.encode = lambda found: commands_message(found, last)
        self._agents.commands(call, agent, last, call.now)

    def heartbeat(self, call: Call, agent: Any, runners: Any) -> None:
        """See `Agents.heartbeat`."""
        call.own_agent(agent)
        beats, here = checked.beats(runners), self._roster.agents.get(agent)
        if here is not None:
            self._agents.heartbeat(agent, [beat for beat in beats if beat.slave in here.slaves], call.now)

    def runner_ended(self, call: Call, report: Any) -> None:
        """See `Agents.runner_ended`."""
        ended = checked.message(RunnerEnded, report)
        call.own_agent(ended.agent)
        if not self._has(ended.agent, ended.slave):
            return
        how = describe_exit(ended.exitcode)
        if ended.cause:
            self._agents.runner_ended(ended, how, "", call.now)
        else:
            self._with_last_words(
                call, ended.slave, lambda words, now: self._agents.runner_ended(ended, how, words, now)
            )

    def slave_closed(self, call: Call, agent: Any, slave: Any, why: Any) -> None:
        """See `Agents.slave_closed`."""
        call.own_agent(agent)
        number, reason = checked.number(slave), checked.text(why)
        if self._has(agent, number):
            self._with_last_words(
                call, number, lambda words, now: self._agents.slave_closed(number, reason, words, now)
            )

    def _has(self, agent: str, number: int) -> bool:
        """Whether the slave is the agent's: nobody else speaks for it."""
        slave = self._roster.slaves.get(number)
        return slave is not None and slave.agent == agent

    def _with_last_words(self, call: Call, number: int, then: Any) -> None:
        """Go on when the end of a slave's output has been read: its file may be on a slow disk."""
        slave = self._roster.slaves.get(number)
        output = None if slave is None else slave.output
        if output is None:
            then("", call.now)
        else:
            call.aside(lambda: tail(output), then)

    def recalled(self, call: Call, agent: Any, slave: Any, lease: Any, running: Any) -> None:
        """See `Agents.recalled`."""
        call.own_agent(agent)
        number, lease, running = map(checked.number, (slave, lease, running))
        if self._has(agent, number):
            self._agents.recalled(number, lease, running, call.now)

    def output(self, call: Call, agent: Any, parts: Any) -> None:
        """See `Agents.output`."""
        call.own_agent(agent)
        self._agents.output([one for one in checked.output(parts) if self._has(agent, one.slave)], call.now)

    def records(self, call: Call, agent: Any, parts: Any) -> None:
        """See `Agents.records`."""
        call.own_agent(agent)
        self._agents.records([one for one in checked.records(parts) if self._has(agent, one.slave)], call.now)

    def draining(self, call: Call, agent: Any, slaves: Any) -> None:
        """See `Agents.draining`."""
        call.own_agent(agent)
        numbers = [number for number in checked.numbers(slaves) if self._has(agent, number)]
        self._agents.draining(numbers, call.now)

    def leave(self, call: Call, agent: Any, why: Any) -> None:
        """See `Agents.leave`."""
        call.own_agent(agent)
        self._agents.leave(agent, checked.text(why), call.now)
        call.answer(None)


def commands_message(found: Any, acknowledged: int) -> tuple[Any, ...]:
    """The answer to `commands` as it goes to the agent; None stands for the master's end."""
    if found is None:
        return tuple(CommandsReply(acknowledged, [encode_command(End())]))
    last, commands = found
    return tuple(CommandsReply(last, [encode_command(command) for command in commands]))
