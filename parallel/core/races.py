"""Races: tasks that two slaves hold (COPIED), and those of which one of the two has won.

When a task is started twice is decided in speculation.py; here is written down that it was.  Both leases hold the task;
its ``holder`` is the slave that had it first, until that one gives it up.
"""

from __future__ import annotations

from slave.named import NamedTuple

from .chunk import Chunk
from .leases import Lease, Leases
from .task import Move, State, Task


class Race(NamedTuple):
    """A task that two slaves held has its outcome.

    ``leases``: by slave, that under which it held the task; ``second``: the slave that got it later.
    """

    task: int
    leases: dict[int, int]
    second: int


class Races:
    """See the module's text."""

    def __init__(self, leases: Leases) -> None:
        self.second: dict[int, int] = {}  # by COPIED task: the second slave that holds it
        self.over: list[Race] = []  # that have a winner, and of which nobody has stopped the other slave yet
        self._leases = leases

    def begin(self, task: Task, lease: Lease) -> None:
        """Under this new lease a slave gets the task that another one holds."""
        task.move(Move.COPY)
        task.attempt += 1
        lease.tasks.parts[task.id] = task
        lease.contexts.add(task.context)
        self.second[task.id] = lease.slave

    def leave_to_other(self, slave: int, task: Task | Chunk, move: Move) -> None:
        """Of the two slaves that hold a task this one does so no more."""
        task.move(move)
        second = self.second.pop(task.id)
        if slave == task.holder:
            task.holder = second
        self._leases.take_from(slave, task.id)

    def end(self, task: Task | Chunk, *, won: bool) -> None:
        """Of the two slaves that hold a task its holder alone is left, as ever.

        ``won``: by the outcome of one of them, so that both are to be stopped by whoever asks for it.
        """
        second = self.second.pop(task.id)
        if won:
            leases = {slave: self._leases.by_slave[slave].id for slave in (task.holder, second)}
            self.over.append(Race(task.id, leases, second))
        self._leases.take_from(second, task.id)

    def take_over(self) -> list[Race]:
        """The races that are over, once."""
        over, self.over = self.over, []
        return over

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        for id, slave in self.second.items():
            held_by = [number for number, lease in self._leases.by_slave.items() if id in lease.tasks]
            assert slave in held_by, f"slave {slave} holds task {id} no more, and is its second"
            task = self._leases.by_slave[slave].tasks[id]
            assert task.state is State.COPIED and sorted(held_by) == sorted((task.holder, slave)), f"{task!r}"
