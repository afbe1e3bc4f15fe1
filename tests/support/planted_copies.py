"""Bugs of tasks that are started twice, as they are planted under the scheduler's model and under the simulation."""

from __future__ import annotations

from typing import Any

from parallel.core.lease_table import LeaseTable
from parallel.core.state import State
from parallel.core.task import Task
from tests.support.planting import without


def forgets_the_loser(real: Any, self: State, winner: Any, outcomes: Any) -> None:
    """In place of `State._end_copies`: the other copy runs on."""
    with without(self, "command"):
        real(self, winner, outcomes)


def stops_both(real: Any, self: State, winner: Any, outcomes: Any) -> None:
    """In place of the same: the copy that was first is stopped, too."""
    real(self, None, outcomes)


def knows_one_holder(real: Any, self: LeaseTable, task: Task) -> dict[int, int]:
    """In place of `LeaseTable.held_by`: the second copy is nobody's."""
    return {slave: lease for slave, lease in real(self, task).items() if slave == task.holder}
