"""The lease table, case by case; test_lease_table_model.py drives it at random."""

from __future__ import annotations

import math

import pytest

from parallel.core.lease_table import LeaseTable
from parallel.core.leases import Lease
from parallel.core.moves import IllegalMove
from parallel.core.pacing import LEASE_BYTES, LEAST_SECONDS, MOST_TASKS, Pacing
from parallel.core.task import MOVES, Move, State, Task

TERM = 8.0


def table_with(tasks: int, seconds: float | None = 0.001, max_attempts: int = 3) -> tuple[LeaseTable, Pacing]:
    table, pace = LeaseTable(TERM, max_attempts), Pacing()
    if seconds is not None:
        pace.learn(1, 1, seconds)
    for id in range(1, tasks + 1):
        table.backlog.add(Task(id, 1, b"x"))
    return table, pace


def grant(table: LeaseTable, pace: Pacing, slave: int = 0, now: float = 0.0, share: int = MOST_TASKS) -> Lease:
    lease = table.grant(slave, now, (), share, pace)
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


def test_so_little_work_that_nobody_would_notice_is_not_shared() -> None:
    table, pace = table_with(500, LEAST_SECONDS / 50)
    assert len(grant(table, pace, share=1).tasks) == 50
    assert len(grant(table, pace, slave=1, share=70).tasks) == 70


def test_a_long_task_and_many_that_take_no_time_behind_it_are_no_work_that_nobody_would_notice() -> None:
    table, pace = table_with(0)
    pace.learn(1, 10, 0.0)
    pace.learn(2, 1, 0.03)
    for id, context in enumerate([2, 1, 1, 1], 1):
        table.backlog.add(Task(id, context, b""))
    assert list(grant(table, pace, share=2).tasks) == [1, 2]


def test_a_lease_of_large_tasks_is_limited_in_bytes() -> None:
    table, pace = table_with(0, 0.0001)
    for id in range(1, 10):
        table.backlog.add(Task(id, 1, bytes(LEASE_BYTES // 2)))
    assert len(grant(table, pace).tasks) == 2


def test_contexts_are_mixed_in_the_order_of_adding() -> None:
    table, pace = table_with(0)
    for context in (1, 2):
        pace.learn(context, 1, 0.001)
    for id, context in enumerate([1, 1, 2, 1, 2], 1):
        table.backlog.add(Task(id, context, b""))
    assert list(grant(table, pace, share=3).tasks) == [1, 2, 3]
    assert list(grant(table, pace, slave=1).tasks) == [4, 5]


def test_a_task_that_comes_back_goes_to_the_front_and_keeps_count() -> None:
    table, pace = table_with(3)
    first = grant(table, pace, share=2)
    table.give_back(0)
    again = grant(table, pace, slave=1)
    assert list(again.tasks) == [1, 2, 3]
    assert [task.attempt for task in again.tasks.values()] == [2, 2, 1]
    assert first.tasks == {}


def test_the_blame_falls_on_the_running_task_alone() -> None:
    table, pace = table_with(3, max_attempts=1)
    grant(table, pace)
    given_up = table.lose(0, 2, "it was killed")
    assert given_up is not None and given_up.task.id == 2
    assert sorted(table.backlog.contexts[1].tasks) == [1, 3]


def test_a_late_outcome_settles_a_task_that_waits_again() -> None:
    table, pace = table_with(1)
    grant(table, pace)
    table.lose(0, 1, "it was silent")
    assert table.settle(1, 1) is not None
    assert table.settle(1, 1) is None
    assert table.grant(1, 0.0, (), 1, pace) is None
    table.check()


def test_a_late_outcome_settles_a_task_that_runs_elsewhere() -> None:
    table, pace = table_with(1)
    grant(table, pace)
    table.lose(0, 1, "it was silent")
    grant(table, pace, slave=1)
    assert table.settle(1, 1) is not None
    assert table.leases.by_slave == {}
    assert table.lose(1, 1, "it was killed") is None


def test_leases_expire_at_their_term_and_not_before() -> None:
    table, pace = table_with(2)
    grant(table, pace, now=10.0)
    assert table.leases.expired(10.0 + TERM - 0.001) == []
    assert table.leases.expired(10.0 + TERM) == [0]
    table.leases.renew(0, 12.0)
    assert table.leases.expired(10.0 + TERM) == []


def test_only_old_leases_with_tasks_behind_are_overdue() -> None:
    table, pace = table_with(5)
    lease = grant(table, pace, share=2)
    assert table.leases.overdue(0.1, 0.2) == ([], 0.2)
    assert table.leases.overdue(0.2, 0.2) == ([lease], math.inf)
    lease.recalled = True
    assert table.leases.overdue(0.2, 0.2) == ([], math.inf)
    grant(table, pace, slave=1, share=1)
    assert table.leases.overdue(9.0, 0.2) == ([], math.inf)


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
        table.backlog.add(Task(id, context, b""))
    assert list(grant(table, pace, share=2).tasks) == [1, 2]


@pytest.mark.parametrize(("running", "left"), [(2, [1, 2]), (3, [1, 2, 3]), (99, []), (0, [1, 2, 3])])
def test_a_recalled_lease_keeps_the_running_task_and_what_stands_before_it(running: int, left: list[int]) -> None:
    table, pace = table_with(3)
    lease = grant(table, pace)
    assert table.give_back_after(0, lease.id + 1, running) == 0
    assert table.give_back_after(0, lease.id, running) == 3 - len(left)
    assert list(lease.tasks) == left


def test_nothing_of_a_paused_context_is_granted_until_it_is_resumed() -> None:
    table, pace = table_with(3)
    table.backlog.add(Task(4, 2, b""))
    table.backlog.pause(1)
    table.check()
    assert list(grant(table, pace).tasks) == [4]
    assert table.grant(1, 0.0, (), 1, pace) is None
    table.backlog.resume(1)
    table.check()
    assert list(grant(table, pace, slave=1).tasks) == [1, 2, 3]


def test_a_paused_context_to_which_tasks_come_back_or_are_added_stays_paused() -> None:
    table, pace = table_with(2)
    grant(table, pace, share=1)
    table.backlog.pause(1)
    table.give_back(0)
    table.backlog.add(Task(3, 1, b""))
    assert table.grant(0, 0.0, (), 9, pace) is None
    table.backlog.resume(1)
    assert list(grant(table, pace).tasks) == [1, 2, 3]


def test_nothing_of_an_excluded_context_is_granted_and_it_keeps_its_turn() -> None:
    table, pace = table_with(2)
    table.backlog.add(Task(3, 2, b""))
    lease = table.grant(0, 0.0, {1}, MOST_TASKS, pace)
    assert lease is not None and list(lease.tasks) == [3]
    assert table.grant(1, 0.0, {1}, MOST_TASKS, pace) is None
    assert list(grant(table, pace, slave=1).tasks) == [1, 2]


def test_a_task_of_another_context_with_the_same_id_settles_nothing() -> None:
    table, _ = table_with(1)
    assert table.settle(2, 1) is None and table.find(1, 1) is not None


def test_a_failure_costs_a_retry_only_if_the_attempt_is_the_current_one() -> None:
    table, pace = table_with(0)
    table.backlog.add(Task(1, 1, b"", retries=1))
    lease = grant(table, pace)
    assert table.retry(0, lease.id + 1, 1, 1) and table.retry(5, lease.id, 1, 1)
    task = table.find(1, 1)
    assert task is not None and (task.retries, task.failures, task.state) == (1, 0, State.LEASED)
    assert table.retry(0, lease.id, 1, 1)
    assert (task.retries, task.failures, task.state) == (0, 1, State.WAITING)
    grant(table, pace)
    assert not table.retry(0, 2, 1, 1), "its retries are used up: this is the outcome"


def test_a_failure_that_is_told_twice_is_not_the_outcome_though_it_took_the_last_retry() -> None:
    """The second word finds the task waiting, and then under way again: its last attempt has the word."""
    table, pace = table_with(0)
    table.backlog.add(Task(1, 1, b"", retries=1))
    first = grant(table, pace)
    assert table.retry(0, first.id, 1, 1) and table.retry(0, first.id, 1, 1)
    last = grant(table, pace, slave=1)
    assert table.retry(0, first.id, 1, 1) and table.retry(1, first.id, 1, 1)
    assert not table.retry(1, last.id, 1, 1)


def test_what_is_dropped_leaves_nothing_and_what_others_hold_stays() -> None:
    table, pace = table_with(2)
    table.backlog.add(Task(3, 2, b""))
    pace.learn(2, 1, 0.001)
    grant(table, pace, share=3)
    assert table.held(1) == {0: (1, [1, 2])}
    assert table.drop_task(1, 1) is not None and table.drop_task(1, 1) is None
    assert table.drop(1) == 1 and table.drop(1) == 0
    assert list(table.backlog.contexts) == [2] and list(table.leases.by_slave[0].tasks) == [3]
    assert table.drop(2) == 1 and not table.leases.by_slave and not table.backlog.contexts


@pytest.mark.parametrize("leaves", ["drop", "settle"])
def test_a_context_gets_the_turn_of_an_older_task_that_stood_behind_the_one_that_leaves(leaves: str) -> None:
    """Found by the model: 5 came back after 1, so stands before it; when it is gone it is 1's turn, and not 3's."""
    table, pace = table_with(0)
    for id, context in ((1, 1), (3, 2), (4, 3), (5, 1)):
        table.backlog.add(Task(id, context, b"x"))
    assert [list(grant(table, pace, slave, share=1).tasks) for slave in range(4)] == [[1], [3], [4], [5]]
    for slave in range(4):
        table.give_back(slave)
    if leaves == "drop":
        assert table.drop_task(1, 5) is not None
    else:
        assert table.settle(1, 5) is not None
    table.check()
    assert list(grant(table, pace, 4, share=1).tasks) == [1]
