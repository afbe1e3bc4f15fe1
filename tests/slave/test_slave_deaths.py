"""What an agent decides about one of its slaves: when its runner is ended, and whether another one is started."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from slave.protocol import BY_ITSELF, DRAINED
from slave.session import ANY_LEASE
from slave.shared_status import JOINED, RECALL, STAGE, STARTING, TASK, UNHEARD, WORKED
from slave.slave_state import SlaveState


class Slave(SlaveState):
    """Its runner is a list of cells."""

    def __init__(self) -> None:
        super().__init__(3)
        self.runs_now, self.killed, self.now = False, 0, 100.0

    @property
    def runs(self) -> bool:
        return self.runs_now

    @property
    def lives(self) -> bool:
        return self.runs_now

    def kill(self) -> None:
        self.killed += 1

    def start(self, stage: int = STARTING) -> Any:
        cells = [0] * 8
        cells[STAGE] = stage
        self.runs_now = True
        self.begin(cells, self.now)
        return cells

    def dies(self, stage: int, after: float = 0.1, task: int = 0) -> str:
        """A runner that gets so far; returns why it ended."""
        self.start(stage)[TASK] = task
        self.now += after
        self.runs_now = False
        return self.ended(-signal.SIGALRM, self.now).cause


def test_runners_that_die_at_once_and_never_reach_the_master_are_given_up() -> None:
    slave = Slave()
    for _ in range(4):
        assert slave.dies(STARTING) == BY_ITSELF and not slave.hopeless
    slave.dies(STARTING)
    assert slave.hopeless


@pytest.mark.parametrize("between", [WORKED, JOINED])
def test_deaths_between_tasks_cost_a_pause_and_no_slave(between: int) -> None:
    slave = Slave()
    pauses = []
    for _ in range(20):
        slave.dies(between)
        assert not slave.hopeless
        pauses.append(round(slave.start_after - slave.now, 3))
    assert pauses[:6] == [0.0, 0.0, 0.05, 0.1, 0.2, 0.4] and max(pauses) == 2.0
    for _ in range(500):
        slave.dies(WORKED)
        assert not slave.hopeless, "as long as it works between its deaths"
    slave.dies(WORKED, after=10.0)
    assert slave.start_after == slave.now


def test_runners_that_reach_the_master_again_and_again_and_begin_nothing_are_given_up_in_the_end() -> None:
    slave = Slave()
    for _ in range(24):
        slave.dies(JOINED)
        assert not slave.hopeless
    slave.dies(JOINED)
    assert slave.hopeless


def test_a_task_that_ends_its_slave_costs_no_pause() -> None:
    slave = Slave()
    for _ in range(50):
        slave.dies(WORKED, task=9)
        assert slave.start_after == slave.now and not slave.hopeless


def test_one_that_is_idle_is_ended_at_once_when_it_is_to_drain() -> None:
    slave = Slave()
    cells = slave.start(WORKED)
    assert slave.drain(slave.now + 60, slave.now) == 0
    assert slave.killed == 1 and cells[RECALL] == ANY_LEASE


def test_one_whose_last_outcome_may_not_have_been_heard_leaves_by_itself() -> None:
    """If it were killed, its agent's word on its end might overtake the outcome, and the task be run again."""
    slave = Slave()
    cells = slave.start(WORKED)
    cells[UNHEARD] = 1
    assert slave.drain(slave.now + 60, slave.now) == 0
    assert slave.killed == 0 and cells[RECALL] == ANY_LEASE
    slave.runs_now = False
    assert slave.ended(0, slave.now).cause == DRAINED


def test_it_is_not_waited_for_without_end() -> None:
    slave = Slave()
    slave.start(WORKED)[UNHEARD] = 1
    slave.drain(slave.now + 60, slave.now)
    slave.stop_late(int((slave.now + 4.9) * 1e9))
    assert slave.killed == 0
    slave.stop_late(int((slave.now + 5.1) * 1e9))
    assert slave.killed == 1
