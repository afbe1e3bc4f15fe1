"""tools/foresee.py: runs of sizes that there are not here, foreseen by the real scheduler; here small ones."""

from __future__ import annotations

import pytest

from tools.foresee import Costs, Found, Run

COSTS = Costs(60e-6, 3.4e-6)


def foreseen(slaves: int, tasks: int, seconds: float, slow: float = 0.0, lost: float = 0.0) -> Found:
    return Run(slaves, tasks, seconds, slow, lost, COSTS).go()


@pytest.mark.parametrize(("slaves", "tasks", "seconds"), [(2, 400, 0.01), (4, 2000, 0.005), (8, 800, 0.05)])
def test_few_slaves_take_what_their_tasks_take_and_little_more(slaves: int, tasks: int, seconds: float) -> None:
    """The cases that ``--check`` runs in reality, too."""
    found = foreseen(slaves, tasks, seconds)
    assert found.ideal == pytest.approx(tasks * seconds / slaves)
    assert found.ideal < found.seconds < 1.02 * found.ideal
    assert found.lost == 0 and found.slaves_busy > 0.98


def test_a_master_that_is_busy_is_the_limit() -> None:
    found = foreseen(200, 20_000, 0.0001)
    assert found.master_busy > 0.9 and found.slaves_busy < 0.5
    assert found.seconds > 20_000 * COSTS.task


def test_lost_and_slow_slaves_cost_time_and_no_task() -> None:
    """`go` returns when every task has come back exactly once."""
    found = foreseen(50, 3000, 0.1, slow=0.1, lost=0.5)
    assert found.lost > 10 and found.again >= found.lost
    assert found.seconds < 1.3 * found.ideal
    assert found == foreseen(50, 3000, 0.1, slow=0.1, lost=0.5), "one seed, one course"
