"""Slave and SlaveArray: the bases from which a way to start slaves is derived.

A way to start slaves is three verbs.  All three are called by one thread at a time and should not block for long.
"""

from __future__ import annotations

from collections.abc import Sequence

from .job import Job


class Slave:
    """One slave.  Derive from it, and define `start`, `poll` and `stop`; ``repr`` stands in every message about it."""

    def start(self, job: Job) -> None:
        """Start ``job.command`` somewhere, feed it ``job.stdin``, send its output to ``job.output``.

        Raise any exception if that cannot be done: it reaches the user.
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
    """Several slaves that are added at once.  ``slaves`` lists them."""

    def __init__(self, slaves: Sequence[Slave]) -> None:
        self.slaves = list(slaves)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slaves!r})"
