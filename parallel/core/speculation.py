"""Tasks that are started twice, where the user allows it: `get_context(speculate=True)`.

When nothing of a context waits and a slave has idled for a while, the task of it that has run longest is started once
more there, if it is worth it (durations.py); no task has more than two copies, and both are attempts as any other:

- the first outcome is the task's: a value, an exception, or that it took too long, for each copy has the whole time
  limit to itself.  An exception that leaves the task a retry is none: the other copy is the next try;
- the other copy is ended then with its process, which is no attempt and no loss;
- a copy that comes back for whatever reason (its process died, its slave is silent, drained, could not rebuild it, was
  cut off) leaves the task to the other one: it is not enqueued again.  A death counts, and is blamed, as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from slave.named import NamedTuple

from .chunk import Chunk
from .durations import copied_from
from .leases import Lease
from .slave import SlaveRecord
from .state import State
from .task import State as TaskState
from .task import Task

_LOOK_AGAIN = 0.05  # seconds between two looks
_UNANSWERED = 1.0  # seconds for a slave to give back what it has not started, when that is called back


class Running(NamedTuple):
    """The task that a slave runs, as far as is known since ``since`` at the latest."""

    since: float
    id: int
    task: Task | Chunk
    slave: int


class Speculation:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._next_look = 0.0
        self._seen: dict[tuple[int, int], float] = {}  # by lease and task: when it was first seen to be first

    def look(self, now: float) -> None:
        """A slave idles, or time has passed: start copies of what is worth it, the longest running first."""
        state = self._state
        if state.backlog.waiting or state.incoming:
            state.feed()
        if not state.idle or state.closing:
            return
        if now >= self._next_look:
            self._next_look = now + _LOOK_AGAIN
            due, idle = math.inf, {}
            for running in sorted(self._running(now)):
                context = running.task.context
                if context not in idle:
                    idle[context], soon = self._idle_for(context, now)
                    due = min(due, soon)
                due = min(due, self._consider(running, idle[context], now))
            state.attend(max(due, self._next_look))
        else:
            state.attend(self._next_look)

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long: as `Leases.shift`."""
        for key in self._seen:
            self._seen[key] += seconds

    def _running(self, now: float) -> Iterator[Running]:
        """What runs and has no copy, of contexts that speculate and of which nothing waits."""
        state, backlog, seen = self._state, self._state.backlog, {}
        contexts = {id for id in state.durations if id not in backlog.paused and not backlog.waits(id)}
        for lease in state.leases.by_slave.values():
            id, task = next(iter(lease.tasks.items()))
            if task.context not in contexts:
                continue
            since = self._since(lease, id, now)
            seen[lease.id, id] = since
            alone = len(lease.tasks) == 1 or now - since > _UNANSWERED  # else what stands behind comes back first
            if task.state is TaskState.LEASED and alone:
                yield Running(since, id, task, lease.slave)
        self._seen = seen

    def _since(self, lease: Lease, id: int, now: float) -> float:
        slave = self._state.roster.slaves.get(lease.slave)
        if slave is not None and slave.first == id:
            return lease.granted
        return self._seen.get((lease.id, id), now)

    def _idle_for(self, id: int, now: float) -> tuple[list[SlaveRecord], float]:
        """Slaves that may run tasks of the context and have waited for long enough, the quickest first.

        And when the next one has; infinity if none is to.
        """
        state, durations = self._state, self._state.durations[id]
        if durations.typical is None:
            return [], math.inf
        patience = durations.patience(more=state.contexts[id].low_water > 0)
        able, soon = [], math.inf
        for number, waiting in state.idle.items():
            slave = state.roster.slaves[number]
            if slave.stopped or id in slave.setup_failed or id in slave.unfit_for or id in slave.lacks:
                continue
            if waiting.since + patience <= now:
                able.append(slave)
            else:
                soon = min(soon, waiting.since + patience)
        return sorted(able, key=lambda one: durations.expected(one.number, id not in one.knows)), soon

    def _consider(self, running: Running, idle: list[SlaveRecord], now: float) -> float:
        """Start a copy if it is worth it; returns when it may be, or infinity."""
        state = self._state
        task = running.task
        best = next((one for one in idle if one.number in state.idle and one.number not in task.unfit), None)
        if best is None:
            return math.inf
        durations = state.durations[task.context]
        here = durations.expected(running.slave, durations.is_new(running.slave))
        there = durations.expected(best.number, task.context not in best.knows)
        due = running.since + copied_from(now - running.since, here, there)
        if due > now:
            return due
        found = state.table.find(task.context, running.id)  # out of its chunk
        assert found is not None, "it was looked at just now"
        state.serve_copy(best, found)
        return math.inf
