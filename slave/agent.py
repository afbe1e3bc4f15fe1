"""The agent: one per machine and master.  One thread, one loop; it runs no user code.

    reports link    agent -> master   heartbeats, how runners ended, leases called back (one way but for enlist, leave)
    commands link   master -> agent   start a runner, recall a lease, end               (a long poll, always open)

The loop waits for commands, for the death of a runner (SIGCHLD), for signals, and for the time of the next heartbeat.
How the agent stands with the master, and what follows from that, session.py decides.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Callable

from .dial import Address
from .errors import Incompatible, MasterGone, ProtocolError, Rejected, Unreachable, WrongKey
from .gathering import LOOK_SECONDS
from .handover import take
from .introduction import HANDSHAKE_SECONDS
from .keys import Key
from .link import AgentServiceProxy, CallFailed, Link
from .machine import Owner, tells_memory
from .named import NamedTuple
from .output_tail import Tails
from .protocol import (
    COMMANDS,
    RELEASE,
    REPORTS,
    WHICHEVER,
    Command,
    Drain,
    End,
    OutputPart,
    Recall,
    Role,
    StartRunner,
    StopTasks,
)
from .runner import Closable, RunnerConfig
from .runner_pool import RunnerPool, Slave
from .session import AgentSession, commands_of
from .shared_status import ANOTHER, OUTDATED_CODE
from .signals import Quit, Signals
from .voice import Voice
from .voice import message as message_of

log = logging.getLogger("slave")

_GOODBYE_SECONDS = 1.0
OWNER_SECONDS = 2.0  # between two looks for the machine's owner
_OWNER = "the owner of this machine is back"
_POLL_WITHOUT_SIGCHLD = 0.5  # seconds; where no signal tells of a runner's death (Windows)
_DRAINED = "it was asked to end"
_MOST_HEARD = 1000  # messages of runners that are taken at a time
_DONE = "the master is done"
_BROKEN = (OSError, EOFError, ProtocolError)

# poll() where there is one: it takes descriptors of any number, and, unlike epoll and kqueue, none of its own
_Selector: Callable[[], selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class AgentConfig(NamedTuple):
    """What an agent is told at its start: where the master is, and which slaves to be."""

    agent: str
    addresses: Sequence[Address]
    key: bytes
    slaves: Sequence[tuple[int | None, str | None]]  # number (None: the master gives one), output file
    grace: float = 30.0  # seconds that running tasks get to finish when a signal asks the agent to end
    stays: bool = False  # also when it has no slaves: the master may give it new ones
    # a batch system sends SIGTERM to all processes of a job: the agent hears it, and lets running tasks finish
    shielded: bool = False
    master: str | None = None  # the fingerprint of the master to serve, or its beginning; None: whoever holds the key
    # stdin is a pipe that the master's process, on this machine, holds open: its end is the end of the master
    tied: bool = False
    tags: Sequence[str] = ()  # what this machine has
    max_memory: int = 0  # bytes that a runner and what it started may use; 0: what the master says
    owner: Owner | None = None  # whom to step back for
    encrypt: bool = True  # False: a channel that is only authenticated will do
    # seconds that its runners are kept if the master is killed, for the next run of its program; None: as it says
    outlives: float | None = 0.0


class Agent:
    """Serves one master until that is done, gone, or a signal comes."""

    def __init__(self, config: AgentConfig, start_method: str | None = None) -> None:
        self._be(config)
        self.stepped_back = False  # since the owner of this machine is back
        self._look_for_owner = 0.0  # when to look next
        self._tails: Tails | None = None  # of the runners' output, if the master wants that
        self._signals, self._watching = Signals(), False
        self._anew = False  # a signal came since the last heartbeat: a process may have been stopped
        self._stirred = True  # something has woken us: a process may have ended
        self._pool = RunnerPool(config.agent, self._runner_config, self._inherited, self._signals.waker, start_method)

    def _be(self, config: AgentConfig) -> None:
        """The agent that the config says, which has not enlisted."""
        self._config = config
        numbers = [number for number, _ in config.slaves]
        self._session = AgentSession(
            config.agent, socket.gethostname(), os.getpid(), sys.version.split()[0], numbers, config.tags
        )
        self._reports, self._commands = self._link(REPORTS), self._link(COMMANDS)
        self._service = self._reports.proxy(AgentServiceProxy)
        self._command_service = self._commands.proxy(AgentServiceProxy)
        self._done = False  # the master has said that it is, before a connection to it broke

    def _link(self, kind: str) -> Link:
        role = Role(kind, 0, self._config.agent, os.getpid(), 0)
        config = self._config
        return Link(config.addresses, config.key, role, master=config.master, encrypt=config.encrypt)

    def enlist(self) -> None:
        """Connect and report for duty.

        Raises `SlaveError` (Unreachable, WrongKey, Incompatible, Rejected, MasterFinished), OSError or EOFError.
        """
        session, first = self._session, self._session.reply is None
        try:
            self._reports.connect()
            self._reports.master = self._commands.master = self._reports.connection.master  # from now on this one alone
            self._reports.connection.limit(HANDSHAKE_SECONDS)
            alive = [] if first else self._pool.alive()
            request = session.enlist_request(self._reports.count, list(self._pool.slaves), alive)
            reply = self._service.enlist(request)
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
        if first:
            if reply.shows or reply.levels is not None:
                self._tails = Tails(reply.shows)
                log.addHandler(self._tails.unwanted)
            slots = [(number, output) for number, (_, output) in zip(reply.numbers, self._config.slaves)]
            self._pool.change(self._config.agent, slots)
            for number, output in slots:
                self._tell_output_of(number, output)
            if not self._watching:
                self._watching = True
                self._signals.watch(self._pool.kill)  # before there is a runner that would die with us
            self._pool.hand_over()
            self._start_runners()

    def _add(self, number: int, output: str | None) -> None:
        self._pool.add(number, output)
        self._tell_output_of(number, output)

    def _tell_output_of(self, number: int, output: str | None) -> None:
        if self._tails is not None:
            self._tails.add(number, output)

    @property
    def config(self) -> AgentConfig:
        """As it is now: with what it got in exchange for its token."""
        return self._config

    def _come_with(self, key: Key) -> None:
        """From now on; the token that we came with is spent by that."""
        self._config = self._config._replace(key=key)
        self._reports.key = self._commands.key = key

    def serve(self) -> str:
        """Serve until the master is done, or no slave is left here; returns which.  Runners have ended in any case.

        Raises `MasterGone`, `Incompatible`, and `Quit` after a signal: then the running tasks got some time to finish.
        After `MasterGone`, if this agent `outlives` its master, they have not ended: see `enlist_with` and `close`.
        """
        keeps = False
        try:
            while True:
                end = self._step()
                if end is not None:
                    self._tell_output(last=True)
                    return end
        except Quit as quit_:
            self._leave(f"it was ended by {quit_}")
            raise
        except MasterGone:
            keeps = self.outlives > 0
            raise
        finally:
            if keeps:
                self._pool.keep()
                self._leave_master()
            else:
                self._pool.end()
                self._close_links()

    def close(self) -> None:
        """Give up before `serve`, or after it."""
        self._pool.kill()
        self._close_links()

    def _close_links(self) -> None:
        self._leave_master()
        self._signals.close()

    def _leave_master(self) -> None:
        self._reports.drop()
        self._commands.drop()
        if self._tails is not None:
            log.removeHandler(self._tails.unwanted)
            self._tails.close()
            self._tails = None

    # -- if the master was killed

    @property
    def outlives(self) -> float:
        """Seconds for which its runners are kept then, for the next run of the master's program."""
        wanted, reply = self._config.outlives, self._session.reply
        if wanted is None:
            return 0.0 if reply is None else float(reply.environment.get("outlives", (0.0, ""))[0])
        return wanted

    @property
    def program(self) -> str:
        """The name of that, as the master says it."""
        reply = self._session.reply
        return "" if reply is None else str(reply.environment.get("outlives", (0.0, ""))[1])

    @property
    def rests(self) -> bool:
        """Whether all runners have left the master that is gone."""
        return self._pool.rests

    def rest(self, seconds: float) -> None:
        """See for so long to the runners that are kept.  Raises `Quit`; then they have ended."""
        with _Selector() as selector:
            selector.register(self._signals.woken, selectors.EVENT_READ)
            selector.select(min(seconds, self._pool.patience()))
        self._hear()
        if self._signals.asked is not None:
            self.close()
            raise Quit(self._signals.asked)
        self._pool.stop_late()
        self._pool.stop_large()
        for ended in self._pool.reap():
            log.info("the process of slave %d, which waited for a master, has ended", ended.slave)

    def enlist_with(self, addresses: Sequence[Address], master: str | None) -> None:
        """Enlist with the next master, for which the runners that are kept work if its program is the same.

        Raises as `enlist`; then there may be another one.
        """
        slaves = [(None, output) for _, output in self._config.slaves]
        new = self._config._replace(agent=secrets.token_hex(16), addresses=addresses, master=master, slaves=slaves)
        self._be(new._replace(stays=False))
        try:
            self.enlist()
        except BaseException:
            self._leave_master()
            raise

    def _leave(self, why: str) -> None:
        """Say goodbye, unless the master is too busy to hear it."""
        if self._session.connected:
            try:
                self._reports.connection.limit(_GOODBYE_SECONDS)
                self._service.leave(self._config.agent, why)
            except (*_BROKEN, CallFailed) as error:
                log.info("the master could not be told that this slave ends: %s", error)

    def _step(self) -> str | None:
        """Wait for something to happen and deal with it; why this is the end, if it is.  Raises as `serve`."""
        ready = self._wait()
        asked = self._signals.asked
        if asked is not None and self._session.drain():
            # a terminal that was closed, or a machine that shuts down, asks for the end and not for patience
            grace = 0.0 if asked == getattr(signal, "SIGHUP", None) else self._config.grace
            log.warning("asked to end; running tasks have %g s to finish (again: at once)", grace)
            self._pool.hurry()
            self._drain(list(self._pool.slaves), grace)
        if self._owner_is_back():
            self._drain(list(self._pool.slaves), self._config.grace)
        self._pool.stop_late()
        self._pool.stop_large()
        if self._stirred or not self._pool.settled:
            self._stirred = not hasattr(signal, "SIGCHLD")
            self._reap()
        self._tell_output()
        if not self._pool.slaves:
            if asked is not None:
                raise Quit(asked)
            if self.stepped_back:
                self._leave(_OWNER)
                return _OWNER
            if not self._config.stays:
                self._leave("it has no slaves any more")
                return "no slave is left here"
        if self._config.tied and 0 in ready and not os.read(0, 4096):
            raise MasterGone("the master's process has ended")
        if self._done:
            return _DONE
        if self._session.looks_for_master:
            self._try_again()
        elif self._session.connected:
            try:
                return self._talk(ready)
            except (*_BROKEN, CallFailed) as error:
                self._lose(error)
        return None

    def _owner_is_back(self) -> bool:
        """Whether this machine's owner has just come back, and we are to step back: `AgentConfig.owner`."""
        owner, now = self._config.owner, time.monotonic()
        if owner is None or now < self._look_for_owner:
            return False
        self._look_for_owner = now + OWNER_SECONDS
        owner.look()
        if owner.away_for() > OWNER_SECONDS or not self._session.drain():
            return False
        log.warning("%s (%s); running tasks have %g s to finish", _OWNER, owner.sign, self._config.grace)
        self._pool.be_nice()
        self.stepped_back = True
        return True

    def _talk(self, ready: Sequence[object]) -> str | None:
        """Listen to the master where there is something to hear, and send a heartbeat in time; as `_step`."""
        if self._commands.connection in ready:
            reply = self._command_service.commands()
            commands = [] if reply is None else commands_of(reply)
            if any(isinstance(command, End) for command in commands):
                return _DONE
            for command in commands:
                self._carry_out(command)
            if reply is not None:
                self._session.carried_out(reply)
                self._command_service.ask_commands(*self._session.commands_request())
        if self._reports.connection in ready:
            self._service.listen()
        if self._session.heartbeat_due(time.monotonic()):
            self._pool.reap_orphans()
            self._service.heartbeat(self._config.agent, self._pool.alive(self._anew))
            self._anew = False
        return None

    def _wait(self) -> list[object]:
        """What is readable, after at most the time to the next heartbeat or try."""
        sources: list[Any] = [self._signals.woken]
        patience = min(self._session.patience(time.monotonic()), self._pool.patience())
        connections = []
        if self._session.connected:
            connections = [self._commands.connection, self._reports.connection]
            sources += connections
            if any(connection.has_more for connection in connections):
                patience = 0.0
        sources += self._pool.sources
        if self._config.tied:
            sources.append(0)
        if self._tails is not None:
            patience = min(patience, self._tails.patience(time.monotonic()))
        if self._config.owner is not None:
            patience = min(patience, OWNER_SECONDS)
        if not hasattr(signal, "SIGCHLD") or not self._pool.complete:
            patience = min(patience, _POLL_WITHOUT_SIGCHLD)
        with _Selector() as selector:
            for source in sources:
                selector.register(source, selectors.EVENT_READ)
            ready: list[Any] = [key.fileobj for key, _ in self._select(selector, patience)]
        ready += [one for one in connections if one.has_more and one not in ready]
        if self._signals.woken in ready:
            self._hear()
        return ready

    def _select(self, selector: selectors.BaseSelector, patience: float) -> list[Any]:
        """Wait with a selector; meanwhile pass on what runners have gathered and do not send."""
        until = time.monotonic() + patience
        while self._session.connected and self._pool.watches():
            found = selector.select(0)
            if found or time.monotonic() >= until:
                return found
            time.sleep(LOOK_SECONDS)  # a selector counts in milliseconds
            for frames in self._pool.overdue():
                self._report(functools.partial(self._service.pass_on, frames))
        return selector.select(max(0.0, until - time.monotonic()))

    def _reap(self) -> None:
        for ended in list(self._pool.reap()):
            level = logging.INFO if ended.exitcode or ended.task else logging.DEBUG  # else the master told it to end
            log.log(
                level,
                "the process of slave %d (pid %d) ended with exit code %s",
                ended.slave,
                ended.pid,
                ended.exitcode,
            )
            slave = self._pool.slaves[ended.slave]
            watch = slave.watch
            if slave.status[OUTDATED_CODE] == ANOTHER:
                why = take(slave.memory_of_runner).decode("utf-8", "replace")
                log.info("slave %d gets a fresh process, and sets up anew: %s", ended.slave, why)
            if self._tails is not None:
                self._hear()
                self._send_output(self._tails.ended(ended.slave))
            gathered = watch.rest() if watch is not None else b""
            if gathered:
                self._report(functools.partial(self._service.pass_on, gathered))
            self._report(functools.partial(self._service.runner_ended, ended))
            if self._pool.slaves[ended.slave].draining:
                self._close_slave(ended.slave, _DRAINED)
            elif self._pool.slaves[ended.slave].hopeless:
                why = f"its process ends right after the start, last with exit code {ended.exitcode}"
                log.warning("slave %d is not started again: %s", ended.slave, why)
                self._close_slave(ended.slave, why)
        self._start_runners()

    def _tell_output(self, last: bool = False) -> None:
        """Tell the master what runners have printed, if it wants that and it is time."""
        if self._tails is not None and self._session.connected:
            self._hear()
            self._send_output(self._tails.look_last() if last else self._tails.look(time.monotonic()))
            records = self._tails.records()
            if records:
                self._report(functools.partial(self._service.records, self._config.agent, records))

    def _hear(self) -> None:
        """Take what has woken us, and what runners tell by that."""
        for _ in range(_MOST_HEARD):
            try:
                data = self._signals.woken.recv(65536)
            except BlockingIOError:
                return
            self._stirred = True
            message = message_of(data)
            self._anew |= message is None and data != b"!"  # a signal
            if message is not None and self._tails is not None:
                self._tails.hear(message)

    def _send_output(self, parts: list[OutputPart]) -> None:
        if parts:
            self._report(functools.partial(self._service.output, self._config.agent, parts))

    def _drain(self, numbers: Sequence[int], grace: float) -> None:
        """Have slaves finish the tasks that run, and give back what they have not started."""
        self._report(functools.partial(self._service.draining, self._config.agent, numbers))
        for number in numbers:
            running = self._pool.drain(number, grace)
            if running:
                self._report(functools.partial(self._recalled, number, WHICHEVER, running))
            elif number in self._pool.slaves and not self._pool.slaves[number].pid:
                self._close_slave(number, _DRAINED)

    def _close_slave(self, number: int, why: str) -> None:
        del self._pool.slaves[number]
        if self._tails is not None:
            self._tails.remove(number)
        self._report(functools.partial(self._service.slave_closed, self._config.agent, number, why))

    def _start_runners(self) -> None:
        for trouble in self._pool.start_missing():
            log.warning("a slave's process cannot be started for now: %s", trouble)
        for number, slave in list(self._pool.slaves.items()):
            if slave.cannot_start:
                why = (
                    f"its process cannot be started: {slave.trouble}; see what 'ulimit -a' says on {self._session.host}"
                )
                log.warning("slave %d is given up: %s", number, why)
                self._close_slave(number, why)

    def _carry_out(self, command: Command | None) -> None:
        if isinstance(command, StartRunner):
            if command.slave not in self._pool.slaves:
                self._add(command.slave, command.output)
                if self._session.draining:  # we had been asked to end when the master gave it to us
                    self._drain([command.slave], 0.0)
                self._start_runners()
        elif isinstance(command, Recall):
            self._recalled(command.slave, command.lease, self._pool.recall(command.slave, command.lease))
        elif isinstance(command, StopTasks):
            running = self._pool.stop(command.slave, command.lease, command.tasks)
            self._recalled(command.slave, command.lease, running)
        elif isinstance(command, Drain):
            self._drain([command.slave], command.grace)
        else:
            log.warning("the master gave a command that this release does not know")

    def _recalled(self, slave: int, lease: int, running: int | None) -> None:
        """Tell the master that a lease was called back; ``running`` is None if there was no runner to hear of it."""
        if running is not None:
            self._service.recalled(self._config.agent, slave, lease, running)

    def _report(self, report: Callable[[], None]) -> None:
        """Report, unless the master is out of reach: then `enlist` will tell it the whole state again."""
        if self._session.connected:
            try:
                report()
            except (*_BROKEN, CallFailed) as error:
                self._lose(error)

    def _lose(self, error: BaseException) -> None:
        if self._session.connected:
            self._done = self._heard_end()
            if not self._done:
                log.warning("the connection to the master broke (%s); trying again", error)
            self._session.lost(time.monotonic())
        self._reports.drop()
        self._commands.drop()
        self._pool.watch_no_more()

    def _heard_end(self) -> bool:
        """Whether the word that the master is done lies here unread: it waits only so long for us to hang up."""
        try:
            connection = self._commands.connection
            with _Selector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                if not connection.has_more and not selector.select(0):
                    return False  # nothing is there, and on a line that is cut nothing may come for long
            connection.limit(_GOODBYE_SECONDS)  # half of a word may lie there
            reply = self._command_service.commands()
        except (*_BROKEN, CallFailed, ValueError):  # it is closed
            return False
        return reply is not None and any(isinstance(command, End) for command in commands_of(reply))

    def _try_again(self) -> None:
        """Enlist again.  Raises `MasterGone` if the master has been out of reach for too long."""
        now = time.monotonic()
        lost = self._session.lost_for(now)
        try:
            self.enlist()
            log.warning("connected to the master again, after %.1f s", lost)
        except (Unreachable, WrongKey, Incompatible, *_BROKEN) as error:
            if isinstance(error, Rejected):
                raise  # the master itself refused; else somebody said so who has proved nothing
            refused = error.refused if isinstance(error, Unreachable) else ()
            if self._session.gives_up(now, refused):
                raise MasterGone(f"the master has been gone for {lost:.0f} s ({error})") from None

    def _runner_config(self, slave: Slave) -> RunnerConfig:
        reply = self._session.first
        return RunnerConfig(
            slave=slave.number,
            run=reply.run,
            addresses=self._config.addresses,
            key=self._config.key,
            patience=reply.lease,
            environment=reply.environment,
            output=slave.output,
            shielded=self._config.shielded,
            master=self._reports.master,
            encrypt=self._config.encrypt,
            siblings=len(self._pool.slaves),
            voice=self._voice(slave.number),
            keeps=self.outlives > 0,
        )

    def _voice(self, slave: int) -> Voice | None:
        """What its runner is to tell us."""
        reply = self._session.first
        if self._tails is None or not hasattr(socket, "AF_UNIX"):
            return None
        return Voice(reply.levels, reply.shows, reply.shows and not self._tails.reads(slave))

    def _inherited(self) -> list[Closable]:
        links = [link.connection for link in (self._reports, self._commands) if link.connected]
        return [*links, self._signals.woken]
