"""When an agent ends a runner, and why that ended: decided without a process or a clock."""

from __future__ import annotations

import pytest

from slave.protocol import BY_ITSELF, DRAINED, STOPPED, TIME_LIMIT
from slave.shared_status import DEADLINE, RECALL, SETUP, TASK
from slave.slave_state import SlaveState

SECOND = 1_000_000_000
LEASE = 5


class Fake(SlaveState):
    """A slave with a runner that is no process."""

    def __init__(self) -> None:
        super().__init__(3)
        self.alive, self.kills = True, 0
        self.begin([0] * 16, 100.0)

    @property
    def runs(self) -> bool:
        return True

    @property
    def lives(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.kills += 1
        self.alive = False

    def runs_task(self, task: int, until: float = 0.0) -> None:
        self.status[TASK], self.status[DEADLINE] = task, int(until * SECOND)


def test_a_late_task_ends_its_runner_and_that_is_why_it_ended() -> None:
    slave = Fake()
    slave.runs_task(7, until=101.0)
    slave.stop_late(int(100.9 * SECOND))
    assert slave.alive and slave.patience(int(100.9 * SECOND)) > 0
    slave.stop_late(int(101.0 * SECOND))
    assert slave.kills == 1
    assert slave.ended(-9, 101.1) == (7, 0, TIME_LIMIT)


def test_what_ended_of_itself_before_its_agent_looked_at_the_clock_was_not_late() -> None:
    """The agent was stopped, or busy: it finds the process dead, and its time over."""
    slave = Fake()
    slave.runs_task(7, until=101.0)
    slave.alive = False
    slave.stop_late(int(130.0 * SECOND))
    assert slave.ended(-11, 130.0) == (7, 0, BY_ITSELF)


@pytest.mark.parametrize("order", ["recalled", "stopped", "drained"])
def test_what_ended_of_itself_before_an_order_came_ended_of_itself(order: str) -> None:
    slave = Fake()
    slave.runs_task(7)
    slave.alive = False
    if order == "recalled":
        assert slave.recall(LEASE) == 7
    elif order == "stopped":
        assert slave.stop(LEASE, [7]) is None
    else:
        slave.drain(100.0, 100.0)
        slave.stop_late(int(101.0 * SECOND))
    assert slave.ended(-11, 101.0) == (7, 0, BY_ITSELF)


def test_the_task_that_has_just_begun_when_a_late_one_ended_is_not_the_late_one() -> None:
    slave = Fake()
    slave.runs_task(7, until=101.0)
    slave.stop_late(int(101.0 * SECOND))
    slave.runs_task(8)
    assert slave.ended(-9, 101.1) == (8, 0, STOPPED)


def test_a_recalled_lease_is_called_back_unless_the_slave_is_leaving_anyway() -> None:
    slave = Fake()
    assert slave.recall(LEASE) == 0 and slave.status[RECALL] == LEASE
    slave.runs_task(7)
    slave.drain(200.0, 100.5)
    leaving = slave.status[RECALL]
    assert slave.recall(LEASE + 1) == 7 and slave.status[RECALL] == leaving
    assert slave.alive
    slave.status[TASK] = 0
    slave.drain(200.0, 100.5)
    assert slave.kills == 1 and slave.ended(-9, 101.0).cause == DRAINED


@pytest.mark.parametrize(("exitcode", "cause"), [(-9, DRAINED), (-15, DRAINED), (-11, BY_ITSELF), (1, BY_ITSELF)])
def test_a_batch_system_that_waits_no_longer_is_not_blamed_on_the_task(exitcode: int, cause: str) -> None:
    """A crash remains the task's, and so does a kill of a slave that nobody but its master has asked to end."""
    slave = Fake()
    slave.runs_task(7)
    slave.drain(130.0, 100.5)
    slave.alive = False
    assert slave.ended(exitcode, 103.0) == (7, 0, BY_ITSELF)
    slave.hurried = True
    assert slave.ended(exitcode, 103.0) == (7, 0, cause)


def test_deaths_at_once_make_it_hopeless_and_a_task_in_between_does_not() -> None:
    slave = Fake()
    for death in range(4):
        slave.begin([0] * 16, 100.0 + death)
        slave.ended(1, 100.5 + death)
    assert not slave.hopeless
    slave.begin([0] * 16, 200.0)
    slave.status[SETUP] = 1
    slave.ended(1, 200.5)
    slave.begin([0] * 16, 201.0)
    slave.ended(1, 201.5)
    assert not slave.hopeless
    for _ in range(4):
        slave.begin([0] * 16, 202.0)
        slave.ended(1, 202.5)
    assert slave.hopeless
