"""Leases: which slave holds which tasks, and until when.

A slave holds at most one lease, and a lease without tasks is not kept.  What becomes of the tasks of a lease that is
over is no matter of this file: see lease_table.py.
"""

from __future__ import annotations

import math

from .chunk import Chunk, ids_of
from .moves import IllegalMove
from .task import State, Task
from .task_map import TaskMap


class Lease:
    """The tasks that one slave holds, in the order in which it runs them."""

    __slots__ = ("contexts", "deadline", "granted", "id", "recalled", "slave", "tasks")

    def __init__(self, id: int, slave: int, now: float, deadline: float) -> None:
        self.id, self.slave, self.granted, self.deadline = id, slave, now, deadline
        self.tasks = TaskMap(ordered=True)
        self.contexts: set[int] = set()  # of which it was granted tasks
        self.recalled = False  # the slave was asked to give back what it has not started


class Leases:
    """See the module's text.  ``term``: seconds that a lease lasts unless it is renewed."""

    def __init__(self, term: float) -> None:
        self.term = term
        self.by_slave: dict[int, Lease] = {}
        self._last = 0
        self._none_before = 0.0  # no lease is over before that

    # -- they begin and end

    def new(self, slave: int, now: float) -> Lease:
        """An empty lease; it is kept from `begin` on.  Raises `IllegalMove` if the slave holds another one."""
        held = self.by_slave.get(slave)
        if held is not None:
            raise IllegalMove(f"slave {slave} holds lease {held.id} and is to get another one")
        return Lease(self._last + 1, slave, now, now + self.term)

    def begin(self, lease: Lease) -> None:
        """The new lease has got its tasks."""
        self._last = lease.id
        self.by_slave[lease.slave] = lease

    def release(self, task: Task | Chunk) -> None:
        """Its holder holds the task, or the tasks of a chunk, no more, and nobody does."""
        held = self.by_slave[task.holder].tasks
        if type(task) is Chunk:
            held.remove(task)
        else:
            del held.parts[task.id]
        if not held.parts:
            del self.by_slave[task.holder]
        task.holder = -1

    def take_from(self, slave: int, id: int) -> None:
        """One of the two slaves that hold the task does so no more."""
        held = self.by_slave[slave].tasks
        del held.parts[id]
        if not held.parts:
            del self.by_slave[slave]

    # -- their time

    def renew(self, slave: int, now: float) -> None:
        """A sign of life: the slave's lease lasts a full term from now."""
        lease = self.by_slave.get(slave)
        if lease is not None:
            lease.deadline = now + self.term

    def shorten(self, slave: int, deadline: float) -> None:
        """The slave's lease ends at ``deadline`` at the latest, unless it is renewed."""
        lease = self.by_slave.get(slave)
        if lease is not None:
            lease.deadline = min(lease.deadline, deadline)
            self._none_before = min(self._none_before, deadline)

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long and could hear nobody: every lease gets that time back."""
        for lease in self.by_slave.values():
            lease.deadline += seconds
            lease.granted += seconds

    def expired(self, now: float) -> list[int]:
        """The slaves whose lease is over."""
        if now < self._none_before:
            return []
        found = [slave for slave, lease in self.by_slave.items() if lease.deadline <= now]
        first = min((lease.deadline for lease in self.by_slave.values()), default=0.0)
        self._none_before = 0.0 if found else min(first, now + self.term)  # when one may be that is granted now
        return found

    def overdue(self, now: float, age: float) -> tuple[list[Lease], float]:
        """Leases not recalled yet, granted ``age`` seconds ago or more, that hold tasks behind the one that runs.

        And when the first of the others will be that old; infinity if there is none.
        """
        several = [lease for lease in self.by_slave.values() if len(lease.tasks) > 1 and not lease.recalled]
        overdue = [lease for lease in several if lease.granted + age <= now]
        later = (lease.granted + age for lease in several if lease.granted + age > now)
        return overdue, min(later, default=math.inf)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        for slave, lease in self.by_slave.items():
            assert lease.slave == slave and lease.tasks, f"the lease of slave {slave} is empty or another's"
            assert lease.id <= self._last, f"the lease of slave {slave} has a number that is still to come"
            lease.tasks.check()
            for id, task in lease.tasks.items():
                assert id in ids_of(task), f"{task!r} stands for {id} in the lease of slave {slave}"
                assert task.state in (State.LEASED, State.COPIED) and task.attempt > 0, f"{task!r} is in a lease"
