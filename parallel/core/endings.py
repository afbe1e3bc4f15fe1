"""What is decided when a runner's process has ended: what it leaves behind, and who is to blame.

Two connections tell of it.  What it posted comes over its own one, which then ends; its agent says how it ended, over
another one.  Its own is read to its end first: else a task that is done would be blamed, or run again.
"""

from __future__ import annotations

from collections.abc import Iterable

from slave.named import NamedTuple
from slave.protocol import TIME_LIMIT, TIMED_OUT, TOO_LARGE, Role, RunnerEnded

from .effects import Outcome
from .runners import Runners
from .slave import SlaveRecord
from .state import State

_HANG_UP_SECONDS = 2.0  # for a connection to end whose process has; a process that a task forked may keep it open
# a machine that is switched off, or a window that is closed, sends them to all processes: to agent and runner
_ASKING = (-1, -2, -15)  # exit codes: of SIGHUP, SIGINT, SIGTERM


class Ending(NamedTuple):
    """An agent's word on its runner's end, that waits until the runner's connection ends, or for so long.

    ``closes``: why the agent gives the slave up, as it said then; None if it does not.  ``leaves``: it ends itself.
    """

    report: RunnerEnded
    how: str
    last_words: str
    until: float
    closes: str | None = None
    leaves: bool = False


class Endings:
    """See the module's text."""

    def __init__(self, state: State, runners: Runners) -> None:
        self._state, self._runners = state, runners
        self.waiting: dict[int, Ending] = {}  # by slave

    def runner_ended(self, report: RunnerEnded, how: str, last_words: str, now: float) -> None:
        """Its agent says so.  ``how``: its exit code in words; ``last_words``: the end of its output."""
        state = self._state
        slave = state.roster.slaves.get(report.slave)
        if state.closing or slave is None or slave.pid not in (report.pid, 0):
            return
        until = now + min(_HANG_UP_SECONDS, state.leases.term / 4)
        self.waiting[slave.number] = Ending(report, how, last_words, until)
        if slave.speaks:
            state.attend(until)
        else:
            self.settle(slave)

    def closed(self, slave: SlaveRecord, why: str) -> None:
        """Its agent gives it up."""
        ending = self.waiting.get(slave.number)
        if ending is None:
            self._state.end(slave, why, given_up=True)
        else:
            self.waiting[slave.number] = ending._replace(closes=ending.closes or why)

    def left(self, slave: SlaveRecord, why: str) -> None:
        """Its agent ends, and its runner with it."""
        ending = self.waiting.get(slave.number)
        if ending is None:
            self._state.lose(slave, 0, why)
            self._state.end(slave, why)
        else:
            self.waiting[slave.number] = ending._replace(closes=ending.closes or why, leaves=True)

    def disconnected(self, role: Role) -> None:
        """A runner's connection was read to its end."""
        slave = self._state.roster.slaves.get(role.slave)
        if slave is not None and (slave.pid, slave.connection) == (role.pid, role.connection):
            slave.speaks = False
            self.settle(slave)

    def settle_overdue(self, now: float) -> None:
        """Wait no more for connections that do not end, nor while the next process has waited for long enough."""
        joining = {number for number, waiting in self._runners.joining.items() if waiting.until <= now}
        over = [one for one, ending in self.waiting.items() if ending.until <= now or one in joining]
        for number in list(self.waiting) if self._state.closing else over:
            slave = self._state.roster.slaves.get(number)
            if slave is None:
                del self.waiting[number]
            else:
                self.settle(slave)
        for ending in self.waiting.values():
            self._state.attend(ending.until)

    def settle(self, slave: SlaveRecord) -> None:
        """Nothing more will come of its former process, or nobody waits for that: the agent's word counts now."""
        ending = self.waiting.pop(slave.number, None)
        if ending is None:
            return
        if not self._state.closing and slave.pid in (ending.report.pid, 0):
            self._settle(slave, ending)
        if ending.closes is not None:
            self._state.end(slave, ending.closes, given_up=not ending.leaves)
        if ending.leaves:
            self._state.roster.forget_agent(slave.agent)

    def _settle(self, slave: SlaveRecord, ending: Ending) -> None:
        state, report = self._state, ending.report
        if report.cause:
            if report.cause == TIME_LIMIT:
                self._time_out(slave, report.task)
            if report.cause == TOO_LARGE:
                self._too_large(slave, report)
            else:
                state.lose(slave, 0, f"it was ended: {report.cause}", wanted=True)
        else:
            end = f"{ending.how} while it ran the context's setup" if report.setup else ending.how
            if report.setup:
                self._runners.bar(slave, report.setup, end + ending.last_words)
            slave.end = end + ending.last_words
            blamed = 0 if report.setup or _was_asked(slave, report) else report.task
            state.lose(slave, blamed, end, ending.last_words)
            state.slaves_changed()
        self.replace(slave)

    def settle_all(self, slaves: Iterable[SlaveRecord]) -> None:
        """The same for these."""
        for slave in list(slaves) if self.waiting else ():
            self.settle(slave)

    def replace(self, slave: SlaveRecord) -> None:
        """Its agent starts another runner."""
        self._state.roster.replace(slave)
        self._runners.let_join(slave)

    def _too_large(self, slave: SlaveRecord, report: RunnerEnded) -> None:
        """Its process was ended since it grew too large: that ended the attempt of the task that ran."""
        had, may = (f"{size / (1 << 20):,.0f} MiB" for size in (report.memory, report.allowed))
        slave.end = f"its process grew to {had} of memory, and may have {may} (max_memory)"
        if report.setup:
            slave.end += " while it ran the context's setup"
            self._runners.bar(slave, report.setup, slave.end)
        self._state.lose(slave, 0 if report.setup else report.task, slave.end)
        self._state.slaves_changed()

    def _time_out(self, slave: SlaveRecord, id: int) -> None:
        """The slave's process was ended since this task ran for too long: that is the task's outcome."""
        state = self._state
        lease = state.leases.by_slave.get(slave.number)
        task = None if lease is None or id not in lease.tasks else state.table.settle(lease.tasks[id].context, id)
        if task is not None:
            outcome = Outcome(id, TIMED_OUT, str(slave), task.timeout, (), payload=task.payload, tag=task.tag)
            state.deliver_failure(task.context, outcome, slave)


def _was_asked(slave: SlaveRecord, report: RunnerEnded) -> bool:
    """Whether the process followed a signal that asks to end, as its agent does: a machine that is switched off."""
    return slave.leaving and report.exitcode in _ASKING
