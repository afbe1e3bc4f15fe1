"""The agent: one per machine and master.  One thread, one loop; it runs no user code.

    reports link    agent -> master   heartbeats, how runners ended, leases called back (one way but for enlist, leave)
    commands link   master -> agent   start a runner, recall a lease, end               (a long poll, always open)

The loop waits for commands, for the death of a runner (SIGCHLD), for signals, and for the time of the next heartbeat.
Both links are master_link.py's; over them supervisor.py tells how slaves fare, output_reports.py what they print.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import selectors
import signal
import time
from collections.abc import Sequence
from typing import Any

from .agent_config import AgentConfig
from .dial import Address
from .errors import MasterGone
from .gathering import LOOK_SECONDS
from .master_link import FAILED, MasterLink, Selector
from .output_reports import OutputReports
from .runner import Closable, RunnerConfig
from .runner_pool import RunnerPool, Slave
from .signals import Quit, Signals
from .supervisor import Supervisor
from .voice import message as message_of

log = logging.getLogger("slave")

OWNER_SECONDS = 2.0  # between two looks for the machine's owner
_OWNER = "the owner of this machine is back"
_POLL_WITHOUT_SIGCHLD = 0.5  # seconds; where no signal tells of a runner's death (Windows)
_MOST_HEARD = 1000  # messages of runners that are taken at a time
_DONE = "the master is done"


class Agent:
    """Serves one master until that is done, gone, or a signal comes."""

    def __init__(self, config: AgentConfig, start_method: str | None = None) -> None:
        self.stepped_back = False  # since the owner of this machine is back
        self._look_for_owner = 0.0  # when to look next
        self._signals, self._watching = Signals(), False
        self._anew = False  # a signal came since the last heartbeat: a process may have been stopped
        self._stirred = True  # something has woken us: a process may have ended
        self._pool = RunnerPool(config.agent, self._runner_config, self._inherited, self._signals.waker, start_method)
        self._be(config)

    def _be(self, config: AgentConfig) -> None:
        """The agent that the config says, which has not enlisted."""
        self._master = MasterLink(config, self._pool)
        self._output = OutputReports(self._master, self._hear)
        self._supervisor = Supervisor(self._pool, self._master, self._output)

    @property
    def config(self) -> AgentConfig:
        """As it is now: with what it got in exchange for its token."""
        return self._master.config

    def enlist(self) -> None:
        """Connect, report for duty, and start the runners.

        Raises `SlaveError` (Unreachable, WrongKey, Incompatible, Rejected, MasterFinished), OSError or EOFError.
        """
        reply = self._master.enlist()
        self._output.begin(reply)
        self._supervisor.begin([(number, output) for number, (_, output) in zip(reply.numbers, self.config.slaves)])
        if not self._watching:
            self._watching = True
            self._signals.watch(self._pool.kill)  # before there is a runner that would die with us
        self._pool.hand_over()
        self._supervisor.start_runners()

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
                    self._output.tell(last=True)
                    return end
        except Quit as quit_:
            self._master.leave(f"it was ended by {quit_}")
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
        self._master.drop()
        self._output.close()

    # -- if the master was killed

    @property
    def outlives(self) -> float:
        """Seconds for which its runners are kept then, for the next run of the master's program."""
        return self._master.outlives

    @property
    def program(self) -> str:
        """The name of that, as the master says it."""
        return self._master.program

    @property
    def rests(self) -> bool:
        """Whether all runners have left the master that is gone."""
        return self._pool.rests

    def rest(self, seconds: float) -> None:
        """See for so long to the runners that are kept.  Raises `Quit`; then they have ended."""
        with Selector() as selector:
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
        slaves = [(None, output) for _, output in self.config.slaves]
        new = self.config._replace(agent=secrets.token_hex(16), addresses=addresses, master=master, slaves=slaves)
        self._be(new._replace(stays=False))
        try:
            self.enlist()
        except BaseException:
            self._leave_master()
            raise

    def _step(self) -> str | None:
        """Wait for something to happen and deal with it; why this is the end, if it is.  Raises as `serve`."""
        ready = self._wait()
        asked = self._signals.asked
        if asked is not None and self._master.session.drain():
            # a terminal that was closed, or a machine that shuts down, asks for the end and not for patience
            grace = 0.0 if asked == getattr(signal, "SIGHUP", None) else self.config.grace
            log.warning("asked to end; running tasks have %g s to finish (again: at once)", grace)
            self._pool.hurry()
            self._supervisor.drain(list(self._pool.slaves), grace)
        if self._owner_is_back():
            self._supervisor.drain(list(self._pool.slaves), self.config.grace)
        self._pool.stop_late()
        self._pool.stop_large()
        if self._stirred or not self._pool.settled:
            self._stirred = not hasattr(signal, "SIGCHLD")
            self._supervisor.reap()
        self._output.tell()
        if not self._pool.slaves:
            if asked is not None:
                raise Quit(asked)
            if self.stepped_back:
                self._master.leave(_OWNER)
                return _OWNER
            if not self.config.stays:
                self._master.leave("it has no slaves any more")
                return "no slave is left here"
        if self.config.tied and 0 in ready and not os.read(0, 4096):
            raise MasterGone("the master's process has ended")
        if self._master.done:
            return _DONE
        if self._master.session.looks_for_master:
            self._master.come_back()
        elif self._master.session.connected:
            try:
                return self._talk(ready)
            except FAILED as error:
                self._master.lose(error)
        return None

    def _owner_is_back(self) -> bool:
        """Whether this machine's owner has just come back, and we are to step back: `AgentConfig.owner`."""
        owner, now = self.config.owner, time.monotonic()
        if owner is None or now < self._look_for_owner:
            return False
        self._look_for_owner = now + OWNER_SECONDS
        owner.look()
        if owner.away_for() > OWNER_SECONDS or not self._master.session.drain():
            return False
        log.warning("%s (%s); running tasks have %g s to finish", _OWNER, owner.sign, self.config.grace)
        self._pool.be_nice()
        self.stepped_back = True
        return True

    def _talk(self, ready: Sequence[object]) -> str | None:
        """Listen to the master where there is something to hear, and send a heartbeat in time; as `_step`."""
        if self._master.listen(ready, self._supervisor.carry_out):
            return _DONE
        if self._master.session.heartbeat_due(time.monotonic()):
            self._pool.reap_orphans()
            self._master.service.heartbeat(self.config.agent, self._pool.alive(self._anew))
            self._anew = False
        return None

    def _wait(self) -> list[object]:
        """What is readable, after at most the time to the next heartbeat or try."""
        sources: list[Any] = [self._signals.woken]
        patience = min(self._master.session.patience(time.monotonic()), self._pool.patience())
        connections = []
        if self._master.session.connected:
            connections = self._master.connections
            sources += connections
            if any(connection.has_more for connection in connections):
                patience = 0.0
        sources += self._pool.sources
        if self.config.tied:
            sources.append(0)
        patience = min(patience, self._output.patience(time.monotonic()))
        if self.config.owner is not None:
            patience = min(patience, OWNER_SECONDS)
        if not hasattr(signal, "SIGCHLD") or not self._pool.complete:
            patience = min(patience, _POLL_WITHOUT_SIGCHLD)
        with Selector() as selector:
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
        while self._master.session.connected and self._pool.watches():
            found = selector.select(0)
            if found or time.monotonic() >= until:
                return found
            time.sleep(LOOK_SECONDS)  # a selector counts in milliseconds
            for frames in self._pool.overdue():
                self._master.report(functools.partial(self._master.service.pass_on, frames))
        return selector.select(max(0.0, until - time.monotonic()))

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
            if message is not None:
                self._output.hear(message)

    def _runner_config(self, slave: Slave) -> RunnerConfig:
        reply = self._master.session.first
        return RunnerConfig(
            slave=slave.number,
            run=reply.run,
            addresses=self.config.addresses,
            key=self.config.key,
            patience=reply.lease,
            environment=reply.environment,
            output=slave.output,
            shielded=self.config.shielded,
            master=self._master.master,
            encrypt=self.config.encrypt,
            siblings=len(self._pool.slaves),
            voice=self._output.voice(slave.number),
            keeps=self.outlives > 0,
        )

    def _inherited(self) -> list[Closable]:
        return [*self._master.connections, self._signals.woken]
