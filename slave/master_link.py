"""An agent's two connections to its master: it enlists, reports, hears commands, and comes back when they broke.

How it stands with the master, and what follows from that, session.py decides.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from typing import Callable

from .agent_config import AgentConfig
from .errors import Incompatible, MasterGone, ProtocolError, Rejected, Unreachable, WrongKey
from .introduction import HANDSHAKE_SECONDS
from .keys import Key
from .link import AgentServiceProxy, CallFailed, Link
from .machine import tells_memory
from .protocol import COMMANDS, RELEASE, REPORTS, Command, End, EnlistReply, Role
from .runner_pool import RunnerPool
from .session import AgentSession, commands_of
from .wire import Connection

log = logging.getLogger("slave")

_GOODBYE_SECONDS = 1.0
_BROKEN = (OSError, EOFError, ProtocolError)
FAILED = (*_BROKEN, CallFailed)  # what a call raises for which the connections are lost

# poll() where there is one: it takes descriptors of any number, and, unlike epoll and kqueue, none of its own
Selector: Callable[[], selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class MasterLink:
    """The connections to one master.  ``pool``: whose runners it is told of.

    ``session``: how the agent stands with it; ``service``: its calls for reports; ``done``: it has said that it is,
    before a connection to it broke.
    """

    def __init__(self, config: AgentConfig, pool: RunnerPool) -> None:
        self._config, self._pool = config, pool
        numbers = [number for number, _ in config.slaves]
        self.session = AgentSession(
            config.agent, socket.gethostname(), os.getpid(), sys.version.split()[0], numbers, config.tags
        )
        self._reports, self._commands = self._link(REPORTS), self._link(COMMANDS)
        self.service = self._reports.proxy(AgentServiceProxy)
        self._command_service = self._commands.proxy(AgentServiceProxy)
        self.done = False

    def _link(self, kind: str) -> Link:
        role = Role(kind, 0, self._config.agent, os.getpid(), 0)
        config = self._config
        return Link(config.addresses, config.key, role, master=config.master, encrypt=config.encrypt)

    @property
    def config(self) -> AgentConfig:
        """As it is now: with what it got in exchange for its token."""
        return self._config

    @property
    def master(self) -> str | None:
        """The fingerprint of the master that was found, or what is known of it before."""
        return self._reports.master

    @property
    def connections(self) -> list[Connection]:
        """Those that are open: for commands, and for reports."""
        return [link.connection for link in (self._commands, self._reports) if link.connected]

    @property
    def outlives(self) -> float:
        """Seconds for which runners are kept if the master is killed; 0 if that is left to it, before it has said."""
        wanted, reply = self._config.outlives, self.session.reply
        if wanted is None:
            return 0.0 if reply is None else float(reply.environment.get("outlives", (0.0, ""))[0])
        return wanted

    @property
    def program(self) -> str:
        """The name of the master's program, as it says it; '' before."""
        reply = self.session.reply
        return "" if reply is None else str(reply.environment.get("outlives", (0.0, ""))[1])

    def enlist(self) -> EnlistReply:
        """Connect and report for duty.

        Raises `SlaveError` (Unreachable, WrongKey, Incompatible, Rejected, MasterFinished), OSError or EOFError.
        """
        session, first = self.session, self.session.reply is None
        try:
            self._reports.connect()
            self._reports.master = self._commands.master = self._reports.connection.master  # from now on this one alone
            self._reports.connection.limit(HANDSHAKE_SECONDS)
            alive = [] if first else self._pool.alive()
            request = session.enlist_request(self._reports.count, list(self._pool.slaves), alive)
            reply = self.service.enlist(request)
        except CallFailed as error:
            raise Rejected(f"the master refused this slave: {error}") from None
        session.judge(reply)
        if first and reply.release != RELEASE:
            log.warning(
                "the master is of release %s, this slave program of %s; they speak the same protocol and work together",
                reply.release,
                RELEASE,
            )
        if reply.key:
            self._come_with(Key(reply.key.encode(), reply.ident))
        self._commands.connect()
        self._reports.connection.limit(None)
        for link in (self._reports, self._commands):
            link.be_patient(reply.lease)
        self._command_service.ask_commands(*session.commands_request())
        session.enlisted(reply, self._reports.connection.peer, time.monotonic())
        self._pool.max_memory = min(filter(None, (reply.max_memory, self._config.max_memory)), default=0)
        if self._pool.max_memory and not tells_memory():
            log.warning("this system does not tell how much memory a process uses: max_memory is of no effect here")
        return reply

    def _come_with(self, key: Key) -> None:
        """From now on; the token that we came with is spent by that."""
        self._config = self._config._replace(key=key)
        self._reports.key = self._commands.key = key

    def report(self, report: Callable[[], None]) -> None:
        """Report, unless the master is out of reach: then `enlist` will tell it the whole state again."""
        if self.session.connected:
            try:
                report()
            except FAILED as error:
                self.lose(error)

    def listen(self, ready: Sequence[object], carry_out: Callable[[Command | None], None]) -> bool:
        """Hear what the connections that are ``ready`` have; whether that is the master's word that it is done.

        Else its commands are carried out.  Raises one of `FAILED`: then they are to be lost.
        """
        if self._commands.connection in ready:
            reply = self._command_service.commands()
            commands = [] if reply is None else commands_of(reply)
            if any(isinstance(command, End) for command in commands):
                return True
            for command in commands:
                carry_out(command)
            if reply is not None:
                self.session.carried_out(reply)
                self._command_service.ask_commands(*self.session.commands_request())
        if self._reports.connection in ready:
            self.service.listen()
        return False

    def leave(self, why: str) -> None:
        """Say goodbye, unless the master is too busy to hear it."""
        if self.session.connected:
            try:
                self._reports.connection.limit(_GOODBYE_SECONDS)
                self.service.leave(self._config.agent, why)
            except FAILED as error:
                log.info("the master could not be told that this slave ends: %s", error)

    def drop(self) -> None:
        """Close the connections."""
        self._reports.drop()
        self._commands.drop()

    def lose(self, error: BaseException) -> None:
        """They broke: `come_back` is to be tried, unless the master is done."""
        if self.session.connected:
            self.done = self._heard_end()
            if not self.done:
                log.warning("the connection to the master broke (%s); trying again", error)
            self.session.lost(time.monotonic())
        self.drop()
        self._pool.watch_no_more()

    def _heard_end(self) -> bool:
        """Whether the word that the master is done lies here unread: it waits only so long for us to hang up."""
        try:
            connection = self._commands.connection
            with Selector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                if not connection.has_more and not selector.select(0):
                    return False  # nothing is there, and on a line that is cut nothing may come for long
            connection.limit(_GOODBYE_SECONDS)  # half of a word may lie there
            reply = self._command_service.commands()
        except (*FAILED, ValueError):  # it is closed
            return False
        return reply is not None and any(isinstance(command, End) for command in commands_of(reply))

    def come_back(self) -> None:
        """Enlist again.  Raises `MasterGone` if the master has been out of reach for too long."""
        now = time.monotonic()
        lost = self.session.lost_for(now)
        try:
            self.enlist()
            log.warning("connected to the master again, after %.1f s", lost)
        except (Unreachable, WrongKey, Incompatible, *_BROKEN) as error:
            if isinstance(error, Rejected):
                raise  # the master itself refused; else somebody said so who has proved nothing
            refused = error.refused if isinstance(error, Unreachable) else ()
            if self.session.gives_up(now, refused):
                raise MasterGone(f"the master has been gone for {lost:.0f} s ({error})") from None
