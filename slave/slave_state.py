"""What an agent knows of one of its slaves, and what it decides about it: when its runner is ended, and why it ended.

Nothing here waits, ends a process or reads a clock: runner_pool.py does, and time is passed in.  So one seed can run
these very decisions in simulated time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from .named import NamedTuple
from .protocol import BY_ITSELF, DRAINED, OUTDATED, RECYCLED, STOPPED, TIME_LIMIT, TOO_LARGE
from .session import ANY_LEASE
from .shared_status import (
    DEADLINE,
    JOINED,
    OUTDATED_CODE,
    RECALL,
    RECYCLE,
    SETUP,
    SHORTEST,
    STAGE,
    TASK,
    UNHEARD,
    WORKED,
    SharedStatus,
)

_AT_ONCE = 5.0  # seconds of life below which a runner "died at once"
_TRIES = 5  # deaths at once, in a row, without ever reaching the master: then a runner is not started again
_IDLE_TRIES = 25  # the same of runners that reached it and began no task
_UNPUNISHED = 2  # deaths at once, in a row, after which the next runner is started without a pause
_PAUSE = 0.05, 2.0  # seconds before the one after that, and at most: each pause is twice the one before
_LEAVES = 5.0  # seconds for an idle runner to have its last outcomes heard, and leave by itself
_NANO = 1_000_000_000
_KILLED = (-9, -15)  # by SIGKILL or SIGTERM, which have these numbers everywhere


class Death(NamedTuple):
    """What a runner did when it ended, by its shared status, and why it ended: see `protocol.RunnerEnded`."""

    task: int
    setup: int
    cause: str


class SlaveState(ABC):
    """One slave of an agent: its number stays, its runner may change.

    Whoever derives from this starts runners, says whether one is there (`runs`, `lives`) and ends it (`kill`).
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.status: SharedStatus = None  # of its runner
        self.deaths_at_once = 0  # in a row, between tasks
        self.deaths_in_vain = 0  # of these, those since one began a task
        self.never_joined = 0  # of these, those since one reached the master
        self.start_after = 0.0  # when the next runner may be started
        self.started = 0.0  # when its runner was
        self.memory = 0  # bytes that its runner used when it was ended for that
        self.stopped: tuple[str, int] | None = None  # why we end the process, and the task because of which
        self.draining = False  # its runner is to leave, and none comes after it
        self.drain_until = math.inf  # when a draining slave's task is ended
        self.hurried = False  # a batch system has asked its job to end, and kills all of it when its time is over

    @property
    @abstractmethod
    def runs(self) -> bool:
        """Whether it has a runner, which has not been found dead."""

    @property
    @abstractmethod
    def lives(self) -> bool:
        """Whether its runner's process has not ended: else it did that of itself, and is found dead soon."""

    @abstractmethod
    def kill(self) -> None:
        """End its process now."""

    @property
    def busy(self) -> bool:
        """Whether its runner runs a task or a setup, by its shared status."""
        return bool(self.status[TASK] or self.status[SETUP])

    def begin(self, status: SharedStatus, now: float) -> None:
        """A runner has been started, which shares this status."""
        self.status, self.started, self.stopped = status, now, None

    # -- to end

    def end(self, cause: str, task: int) -> None:
        """End its process because of ``task``, unless that is under way or it has ended of itself."""
        if self.stopped is None and self.lives:
            self.stopped = cause, task
            self.kill()

    def recall(self, lease: int) -> int | None:
        """Call a lease back: the task that runs, after which its runner starts none; None if there is no runner."""
        if not self.runs:
            return None
        if not self.draining:
            self.status[RECALL] = lease
        return int(self.status[TASK])

    def stop(self, lease: int, tasks: Sequence[int]) -> int | None:
        """Call a lease back of which ``tasks`` were cancelled, and end the runner if one of these runs.

        Returns as `recall`; None too if the runner was ended.
        """
        running = self.recall(lease)
        if running is None or running not in tasks:
            return running
        self.end(STOPPED, running)
        return None

    def drain(self, until: float, now: float) -> int | None:
        """Let its runner finish what it runs, until then, and start nothing more; as `recall`.

        One that is idle leaves by itself too if what it has posted may still be on its way to the master: if it were
        ended now, the word of that might overtake it, and a finished task run again.
        """
        running = self.recall(ANY_LEASE)
        if running is None:
            return None
        self.draining, self.drain_until = True, min(self.drain_until, until)
        if not self.busy and self.status[UNHEARD]:
            self.drain_until = min(self.drain_until, now + _LEAVES)
        elif not self.busy:
            self.end(DRAINED, 0)  # it waits for tasks, or will see the recall before it starts one
        return running

    def stop_late(self, now: int) -> None:
        """End its runner if its task's time, or its own to drain, is over; ``now`` in nanoseconds."""
        task = self.status[TASK]  # read before the deadline, so that this is not an earlier task's
        deadline = self.status[DEADLINE]
        if deadline and deadline <= now:
            self.end(TIME_LIMIT, task)
        elif self.drain_until * _NANO <= now:
            self.end(DRAINED, task)

    def stop_large(self, memory: int) -> None:
        """End its runner, which uses more memory than it may, if a task or a setup is there to be told of it."""
        if self.busy and self.stopped is None:
            self.memory = memory
            self.end(TOO_LARGE, self.status[TASK])

    def patience(self, now: int) -> float:
        """Seconds within which its runner's time may be over.

        A task with a time limit may begin at any moment; who looks again after the shortest limit of all, at the
        latest, sees it in time.
        """
        found = self.drain_until - now / _NANO
        if self.stopped is None and self.status[SHORTEST]:
            found = min(found, self.status[SHORTEST] / _NANO)
            if self.status[DEADLINE]:
                found = min(found, (self.status[DEADLINE] - now) / _NANO)
        return found

    # -- how it ended

    def ended(self, exitcode: int | None, now: float) -> Death:
        """Its runner has been found dead."""
        task, setup = self.status[TASK], self.status[SETUP]
        cause, because = self.stopped or (BY_ITSELF, 0)
        if self.draining and not exitcode:
            cause = DRAINED
        elif self.hurried and cause == BY_ITSELF and exitcode in _KILLED:
            cause = DRAINED  # who asked the whole job to end waits no longer: no fault of its task
        elif cause == BY_ITSELF and self.status[OUTDATED_CODE]:
            cause = RECYCLED if self.status[OUTDATED_CODE] == RECYCLE else OUTDATED
        if cause == TOO_LARGE and not (task or setup):
            cause = RECYCLED  # what made it grow is done
        if cause == TIME_LIMIT and because != task:
            cause = STOPPED  # the late task has just ended, and the next one had to die for it
        self._count(cause == BY_ITSELF and not self.busy and now - self.started < _AT_ONCE)
        doublings = min(20, self.deaths_at_once - _UNPUNISHED - 1)
        self.start_after = now + (min(_PAUSE[1], _PAUSE[0] * 2**doublings) if doublings >= 0 else 0.0)
        return Death(task, setup, cause)

    def _count(self, at_once: bool) -> None:
        stage = self.status[STAGE]
        self.deaths_at_once = self.deaths_at_once + 1 if at_once else 0
        self.deaths_in_vain = self.deaths_in_vain + 1 if at_once and stage < WORKED else 0
        self.never_joined = self.never_joined + 1 if at_once and stage < JOINED else 0

    @property
    def hopeless(self) -> bool:
        """Whether its runners died at once so often that another try is no use.

        Not as long as they work between their deaths: somebody's alarm or kill that hits an idle one costs a pause.
        """
        return self.never_joined >= _TRIES or self.deaths_in_vain >= _IDLE_TRIES
