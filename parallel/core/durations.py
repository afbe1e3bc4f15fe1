"""How long the tasks of a context take, on each slave: from it, whether one that runs is worth a copy elsewhere.

Kept only for contexts that speculate (speculation.py).  What counts is what slaves have told of tasks that were done;
a typical task is the median slave's, so that neither one slow slave nor one long task changes what is expected.  A
process that gets its first task of the context has to set that up before, which takes what it took others.
"""

from __future__ import annotations

import math

from slave.named import NamedTuple

LEAST_GAIN = 0.2  # seconds: who runs for less, or has less to go, is not worth the fresh process that the loser costs
_SLOW = 1.5  # times as long as elsewhere takes a slave that is known to be slow
_OVERDUE = 1.5  # times as long as tasks take there runs one of which nobody knows how long it will take
_WORTH = 1.25  # times as long as a copy takes has one to go that is worth it
_PATIENCE = {False: 0.1, True: 0.5}  # of a task's time for which a slave has waited: if more are said to come, longer
LEAST_PATIENCE, _MOST_PATIENCE = 0.05, 10.0  # seconds
_MEMORY = 10  # tasks, about, from which a mean is: a slave may get slower, or its tasks longer


class _Mean(NamedTuple):
    tasks: int
    seconds: float

    def learn(self, tasks: int, seconds: float) -> _Mean:
        """With so many more, which took so long altogether."""
        together = self.tasks + tasks
        mean = self.seconds + (seconds / tasks - self.seconds) * tasks / together
        return _Mean(min(together, _MEMORY), mean)


_NOTHING = _Mean(0, 0.0)


class Durations:
    """Of one context."""

    def __init__(self) -> None:
        self._means: dict[int, _Mean] = {}  # by slave
        self._setup = _NOTHING  # what goes by, besides, until the first task of a process is done
        self._new: dict[int, float] = {}  # slaves whose process has told of none yet: since when it has one
        self._typical: float | None = None

    def begins(self, slave: int, now: float) -> None:
        """A process gets its first task of the context."""
        self._new[slave] = now

    def learn(self, slave: int, tasks: int, seconds: float, now: float) -> None:
        """A slave says that it ran ``tasks`` tasks, one after the other, in ``seconds`` altogether."""
        if tasks <= 0 or not 0 <= seconds < math.inf:
            return
        began = self._new.pop(slave, None)
        if began is not None:
            self._setup = self._setup.learn(1, max(0.0, now - began - seconds))
        self._means[slave] = self._means.get(slave, _NOTHING).learn(tasks, seconds)
        self._typical = None

    def is_new(self, slave: int) -> bool:
        """Whether the first task of its process is not known to be done."""
        return slave in self._new

    @property
    def typical(self) -> float | None:
        """Seconds; None as long as no task is known to be done."""
        if self._typical is None and self._means:
            means = sorted(mean.seconds for mean in self._means.values())
            self._typical = means[(len(means) - 1) // 2]
        return self._typical

    def patience(self, more: bool) -> float:
        """Seconds for which a slave waits before it gets a copy: whoever adds tasks as results come may add some.

        ``more``: he said that he has some.
        """
        return min(_MOST_PATIENCE, max(LEAST_PATIENCE, _PATIENCE[more] * (self.typical or 0.0)))

    def expected(self, slave: int, new: bool = False) -> float:
        """Seconds that a task takes on a slave, as far as is known; only if a typical one's are.

        ``new``: its process has to set the context up before.
        """
        known = self._means.get(slave)
        seconds = known.seconds if known is not None else self.typical or 0.0
        return seconds + self._setup.seconds if new else seconds


def copied_from(age: float, here: float, there: float) -> float:
    """The age, in seconds, from which a task that has run for ``age`` is worth a copy.

    ``here``: what a task takes where it runs; ``there``: where the copy would.  A slave that is known to be slow has so
    much to go that a copy is done before; else a task is that has run for so much longer than tasks do that it may take
    as long again.
    """
    if here >= _SLOW * there and here - age >= max(LEAST_GAIN, _WORTH * there):
        return age
    return max(LEAST_GAIN, _OVERDUE * max(here, there))
