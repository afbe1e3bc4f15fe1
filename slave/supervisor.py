"""The supervisor of an agent's slaves: it carries out what the master commands, and tells it what became of them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

from .handover import take
from .master_link import MasterLink
from .output_reports import OutputReports
from .protocol import WHICHEVER, Command, Drain, Recall, StartRunner, StopTasks
from .runner_pool import RunnerPool
from .shared_status import ANOTHER, OUTDATED_CODE

log = logging.getLogger("slave")

_DRAINED = "it was asked to end"


class Supervisor:
    """Sees to the slaves in the pool, for one master."""

    def __init__(self, pool: RunnerPool, master: MasterLink, output: OutputReports) -> None:
        self._pool, self._master, self._output = pool, master, output
        self._agent, self._service = master.session.agent, master.service

    def begin(self, slots: Sequence[tuple[int, str | None]]) -> None:
        """These are the slaves, number and output file, in the place of those of a master before."""
        self._pool.change(self._agent, slots)
        for number, output in slots:
            self._output.add(number, output)

    def add(self, number: int, output: str | None) -> None:
        """A slave more; `start_runners` starts its runner."""
        self._pool.add(number, output)
        self._output.add(number, output)

    def carry_out(self, command: Command | None) -> None:
        """Do what the master commands; None: something that this release does not know."""
        if isinstance(command, StartRunner):
            if command.slave not in self._pool.slaves:
                self.add(command.slave, command.output)
                if self._master.session.draining:  # we had been asked to end when the master gave it to us
                    self.drain([command.slave], 0.0)
                self.start_runners()
        elif isinstance(command, Recall):
            self._recalled(command.slave, command.lease, self._pool.recall(command.slave, command.lease))
        elif isinstance(command, StopTasks):
            running = self._pool.stop(command.slave, command.lease, command.tasks)
            self._recalled(command.slave, command.lease, running)
        elif isinstance(command, Drain):
            self.drain([command.slave], command.grace)
        else:
            log.warning("the master gave a command that this release does not know")

    def _recalled(self, slave: int, lease: int, running: int | None) -> None:
        """Tell the master that a lease was called back; ``running`` is None if there was no runner to hear of it."""
        if running is not None:
            self._service.recalled(self._agent, slave, lease, running)

    def drain(self, numbers: Sequence[int], grace: float) -> None:
        """Have slaves finish the tasks that run, and give back what they have not started."""
        self._master.report(functools.partial(self._service.draining, self._agent, numbers))
        for number in numbers:
            running = self._pool.drain(number, grace)
            if running:
                self._master.report(functools.partial(self._recalled, number, WHICHEVER, running))
            elif number in self._pool.slaves and not self._pool.slaves[number].pid:
                self._close_slave(number, _DRAINED)

    def reap(self) -> None:
        """See to the runners that have ended, and to those that are to be started."""
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
            self._output.tell_of_end(ended.slave)
            gathered = watch.rest() if watch is not None else b""
            if gathered:
                self._master.report(functools.partial(self._service.pass_on, gathered))
            self._master.report(functools.partial(self._service.runner_ended, ended))
            if self._pool.slaves[ended.slave].draining:
                self._close_slave(ended.slave, _DRAINED)
            elif self._pool.slaves[ended.slave].hopeless:
                why = f"its process ends right after the start, last with exit code {ended.exitcode}"
                log.warning("slave %d is not started again: %s", ended.slave, why)
                self._close_slave(ended.slave, why)
        self.start_runners()

    def start_runners(self) -> None:
        """Start a runner for each slave without; give up the slaves for which none can be had."""
        for trouble in self._pool.start_missing():
            log.warning("a slave's process cannot be started for now: %s", trouble)
        for number, slave in list(self._pool.slaves.items()):
            if slave.cannot_start:
                host = self._master.session.host
                why = f"its process cannot be started: {slave.trouble}; see what 'ulimit -a' says on {host}"
                log.warning("slave %d is given up: %s", number, why)
                self._close_slave(number, why)

    def _close_slave(self, number: int, why: str) -> None:
        del self._pool.slaves[number]
        self._output.remove(number)
        self._master.report(functools.partial(self._service.slave_closed, self._agent, number, why))
