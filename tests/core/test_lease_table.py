"""The lease table, case by case; test_lease_table_model.py drives it at random."""

from __future__ import annotations

import pytest

from parallel.core.lease_table import Lease, LeaseTable
from parallel.core.pacing import LEASE_BYTES, MOST_TASKS, Pacing
from parallel.core.task import MOVES, IllegalMove, Move, State, Task

TERM = 8.0


def table_with(tasks: int, seconds: float | None = 0.001, max_attempts: int = 3) -> tuple[LeaseTable, Pacing]:
    table, pace = LeaseTable(TERM, max_attempts), Pacing()
    if seconds is not None:
        pace.learn(1, 1, seconds)
    for id in range(1, tasks + 1):
        table.add(Task(id, 1, b"x"))
    return table, pace


def grant(table: LeaseTable, pace: Pacing, slave: int = 0, now: float = 0.0, share: int = MOST_TASKS) -> Lease:
    lease = table.grant(slave, now, lambda context: True, share, pace)
    assert lease is not None
    return lease


def test_a_first_lease_holds_one_task() -> None:
    assert list(grant(*table_with(10, seconds=None)).tasks) == [1]


@pytest.mark.parametrize(("seconds", "tasks"), [(0.001, 100), (0.05, 2), (0.1, 1), (60.0, 1), (0.0, 500)])
def test_a_lease_holds_a_tenth_of_a_second_of_work(seconds: float, tasks: int) -> None:
    table, pace = table_with(500, seconds)
    assert len(grant(table, pace).tasks) == tasks


def test_a_lease_holds_no_more_than_the_share() -> None:
    table, pace = table_with(100)
    assert len(grant(table, pace, share=7).tasks) == 7


def test_a_lease_of_large_tasks_is_limited_in_bytes() -> None:
    table, pace = table_with(0, 0.0001)
    for id in range(1, 10):
        table.add(Task(id, 1, bytes(LEASE_BYTES // 2)))
    assert len(grant(table, pace).tasks) == 2


def test_contexts_are_mixed_in_the_order_of_adding() -> None:
    table, pace = table_with(0)
    for context in (1, 2):
        pace.learn(context, 1, 0.001)
    for id, context in enumerate([1, 1, 2, 1, 2], 1):
        table.add(Task(id, context, b""))
    assert list(grant(table, pace, share=3).tasks) == [1, 2, 3]
    assert list(grant(table, pace, slave=1).tasks) == [4, 5]


def test_a_task_that_comes_back_goes_to_the_front_and_keeps_count() -> None:
    table, pace = table_with(3)
    first = grant(table, pace, share=2)
    table.hand_back(0)
    again = grant(table, pace, slave=1)
    assert list(again.tasks) == [1, 2, 3]
    assert [task.attempt for task in again.tasks.values()] == [2, 2, 1]
    assert first.tasks == {}


def test_the_blame_falls_on_the_running_task_alone() -> None:
    table, pace = table_with(3, max_attempts=1)
    grant(table, pace)
    given_up = table.lose(0, 2, "it was killed")
    assert given_up is not None and given_up.task.id == 2
    assert sorted(table.tasks) == [1, 3]


def test_a_late_outcome_settles_a_task_that_waits_again() -> None:
    table, pace = table_with(1)
    grant(table, pace)
    table.lose(0, 1, "it was silent")
    assert table.settle(1) is not None
    assert table.settle(1) is None
    assert table.grant(1, 0.0, lambda context: True, 1, pace) is None
    table.check()


def test_a_late_outcome_settles_a_task_that_runs_elsewhere() -> None:
    table, pace = table_with(1)
    grant(table, pace)
    table.lose(0, 1, "it was silent")
    grant(table, pace, slave=1)
    assert table.settle(1) is not None
    assert table.leases == {}
    assert table.lose(1, 1, "it was killed") is None


def test_leases_expire_at_their_term_and_not_before() -> None:
    table, pace = table_with(2)
    grant(table, pace, now=10.0)
    assert table.expired(10.0 + TERM - 0.001) == []
    assert table.expired(10.0 + TERM) == [0]
    table.renew(0, 12.0)
    assert table.expired(10.0 + TERM) == []


def test_only_old_leases_with_tasks_behind_are_overdue() -> None:
    table, pace = table_with(5)
    lease = grant(table, pace, share=2)
    assert table.overdue(0.1, 0.2) == []
    assert table.overdue(0.2, 0.2) == [lease]
    lease.recalled = True
    assert table.overdue(0.2, 0.2) == []
    grant(table, pace, slave=1, share=1)
    assert table.overdue(9.0, 0.2) == []


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_an_illegal_move_raises_and_changes_nothing(state: State, move: Move) -> None:
    task = Task(1, 1, b"")
    task.state = state
    if (state, move) in MOVES:
        task.move(move)
        assert task.state is MOVES[state, move]
    else:
        with pytest.raises(IllegalMove, match=move.name):
            task.move(move)
        assert task.state is state


def test_the_share_counts_tasks_of_all_contexts() -> None:
    table, pace = table_with(0)
    for context in (1, 2):
        pace.learn(context, 1, 0.001)
    for id, context in enumerate([1, 2, 2], 1):
        table.add(Task(id, context, b""))
    assert list(grant(table, pace, share=2).tasks) == [1, 2]


@pytest.mark.parametrize(("running", "left"), [(2, [1, 2]), (3, [1, 2, 3]), (99, []), (0, [1, 2, 3])])
def test_a_recalled_lease_keeps_the_running_task_and_what_stands_before_it(running: int, left: list[int]) -> None:
    table, pace = table_with(3)
    lease = grant(table, pace)
    assert table.hand_back_after(0, lease.id + 1, running) == 0
    assert table.hand_back_after(0, lease.id, running) == 3 - len(left)
    assert list(lease.tasks) == left
