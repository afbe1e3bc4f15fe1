"""Slave and SlaveArray: the bases from which a way to start slaves is derived.

A way to start slaves is three verbs: start, poll, stop.  All three are called by one thread at a time, never under a
lock of the manager's: one that blocks holds up nobody but the slaves that were added together with its own, and
`Manager.shutdown` leaves it behind after a few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from .job import Job
from .staging import StagingFolder


class TryAgain(Exception):
    """Raised by ``start``: it cannot be done just now, but maybe soon (a queue does not answer); it is tried again."""


class Slave:
    """One slave, or several of one machine.

    Derive from it, and define `start`, `poll` and `stop`; ``repr`` stands in every message about it.
    """

    runners: int | None = 1  # how many slaves it brings; None: as many as the CPUs that it may use there
    doing = ""  # what it does before it is connected, in words; a launcher's poll may update it

    trouble = ""  # why it will not come unless somebody helps, in words; the user is told at once

    def check(self) -> None:
        """Called by `Manager.add_slave`.  Raise `InputError` if it is known already that it cannot be started."""

    def start(self, job: Job) -> None:
        """Start ``job.command`` somewhere, feed it ``job.stdin``, send its output to ``job.output``.

        Raise `TryAgain` if it cannot be done just now, and any other exception if it cannot be done: that reaches the
        user.
        """
        raise TypeError(f"{type(self).__name__} must define start(job): see parallel.Slave")

    def poll(self) -> str | None:
        """None while it waits or runs; how it ended, in words, when it has."""
        raise TypeError(f"{type(self).__name__} must define poll(): see parallel.Slave")

    def stop(self) -> None:
        """End it if it still runs.  Called at shutdown, when the slave program has been asked to end and given time."""
        raise TypeError(f"{type(self).__name__} must define stop(): see parallel.Slave")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SlaveArray:
    """Several slaves that are added at once.  ``slaves`` lists them.

    Derive from it, and set ``together``, to start, ask and stop them by one command; as it is, each goes by itself.
    """

    together = False
    staging: StagingFolder | None = None  # for files that the slaves' machines see; set by `Manager.add_slave`
    hearsay = False  # whether poll tells of ends what another one says (a queue): a slave that is heard knows better
    urgent = False  # some of them were connected and are not heard any more: the next poll had better know more
    closing = False  # all have been told to end: polls come quickly, and had better ask nobody else

    def __init__(self, slaves: Sequence[Slave]) -> None:
        self.slaves = list(slaves)

    def check(self) -> None:
        """See `Slave.check`."""
        for slave in self.slaves:
            slave.check()

    def start(self, jobs: Sequence[Job]) -> None:
        """Start them all; ``jobs`` are in the order of `slaves`.  Raise as `Slave.start`."""
        for slave, job in zip(self.slaves, jobs):
            slave.start(job)

    def poll(self) -> list[str | None]:
        """For each slave what its ``poll`` would say.  Called about once a second; also for slaves that have ended."""
        return [_how(slave) for slave in self.slaves]

    def stop(self, slaves: Sequence[Slave]) -> None:
        """End some of them, which have not ended."""
        for slave in slaves:
            slave.stop()

    def finish(self) -> None:
        """All have ended or were stopped, and the manager ends: leave nothing behind.  Called by `Manager.shutdown`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slaves!r})"


def _how(slave: Slave) -> str | None:
    try:
        return slave.poll()
    except Exception as error:
        return f"its launcher cannot say how it is: {type(error).__name__}: {error}"
