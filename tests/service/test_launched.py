"""Slaves whose launcher has the last word: they leave, vanish, and are started again, as their engine pleases."""

from __future__ import annotations

import pytest

from parallel.core.roster import SlaveState
from parallel.service import expiry
from parallel.service.status import how_all_ended, what_slaves_do
from tests.service.test_late_words import PID, Master


@pytest.fixture
def master() -> Master:
    """With one slave, number 0, that was launched and has joined."""
    made = Master()
    made.books.roster.expect(0, "job 12.1", "a")
    made.books.roster.slaves[0].launched = made.books.roster.slaves[0].preemptible = True
    made.books.roster.new_number()
    assert made.enlist([0]) == [0]
    assert made.tasks.join(0, PID, 1, made.books.run, 0)
    return made


def slave_of(master: Master) -> SlaveState:
    state: SlaveState = master.books.roster.slaves[0].state
    return state


def test_a_slave_that_leaves_has_ended_when_its_launcher_says_so(master: Master) -> None:
    master.desk.leave("a", "it was ended by SIGTERM")
    assert slave_of(master) is SlaveState.EXPECTED and master.books.roster.possible() == 1
    master.desk.agent_ended("a", "job 12.1 left the queue")
    assert slave_of(master) is SlaveState.ENDED
    with master.books.lock:
        assert how_all_ended(master.books).endswith("it was ended by SIGTERM; job 12.1 left the queue")


def test_a_slave_that_the_user_removed_has_ended_when_it_leaves(master: Master) -> None:
    slave = master.books.roster.slaves[0]
    slave.draining = slave.dismissed = True
    master.desk.slot_closed("a", 0, "it was asked to end")
    assert slave_of(master) is SlaveState.ENDED


def test_what_vanishes_with_its_job_is_blamed_on_no_task(master: Master) -> None:
    master.add()
    master.tasks.fetch(0, PID, 1, [])
    assert master.lease_of(0) == [1]
    master.desk.beat("a", [(0, PID, 1)])
    with master.books.lock:
        expiry.tick(master.books, master.books.roster.slaves[0].due + 1, 0.0)
    assert slave_of(master) is SlaveState.LOST
    master.desk.agent_ended("a", "job 12.1 left the queue")
    with master.books.lock:
        assert master.books.table.tasks[1].ends is None
        master.books.table.check()


def test_what_vanishes_after_it_was_asked_to_end_is_blamed_on_no_task(master: Master) -> None:
    master.books.roster.slaves[0].preemptible = False
    master.add()
    master.tasks.fetch(0, PID, 1, [])
    master.desk.beat("a", [(0, PID, 1)])
    assert master.books.roster.slaves[0].suspect == 1
    master.desk.drain("a", [0])
    master.desk.agent_ended("a", "it exited with code 1")
    assert slave_of(master) is SlaveState.ENDED
    with master.books.lock:
        assert master.books.table.tasks[1].ends is None
        master.books.table.check()


def test_a_job_that_starts_again_brings_the_same_slave_with_another_process(master: Master) -> None:
    master.add(3)
    master.tasks.fetch(0, PID, 1, [])
    held = master.lease_of(0)
    assert held
    assert master.enlist([0], connection=1) == [0], "a new process, which knows nothing of the run"
    assert slave_of(master) is SlaveState.EXPECTED and master.lease_of(0) == []
    assert master.tasks.join(0, PID + 1, 1, master.books.run, 0)
    assert slave_of(master) is SlaveState.READY
    master.tasks.fetch(0, PID + 1, 1, [])
    assert master.lease_of(0)[0] == held[0]


def test_a_removed_slave_whose_job_starts_again_is_told_to_end_again(master: Master) -> None:
    slave = master.books.roster.slaves[0]
    slave.draining = slave.dismissed = True
    master.enlist([0])
    assert ("drain", 0, 0.0) in [order for _, order in master.books.roster.agents["a"].orders]


def test_nobody_knows_how_many_slaves_an_agent_brings_before_it_has_come() -> None:
    master = Master()
    roster = master.books.roster
    first = roster.expect(roster.new_number(), "SSHSlave('node1')", "a", "out0")
    first.launched = first.with_others = True
    master.books.output_of = lambda number: f"out{number}"
    assert roster.open_ended()
    assert master.enlist([0, None, None]) == [0, 1, 2]
    assert not roster.open_ended()
    others = [roster.slaves[number] for number in (1, 2)]
    assert [(one.name, one.output, one.launched) for one in others] == [
        ("SSHSlave('node1')", "out1", True),
        ("SSHSlave('node1')", "out2", True),
    ]


def test_slaves_that_do_the_same_are_told_of_together() -> None:
    master = Master()
    roster = master.books.roster
    for number in range(9):
        slave = roster.expect(roster.new_number(), f"job 12.{number}", str(number))
        slave.doing = "queued (qw): full" if number != 3 else "held (hqw)"
    with master.books.lock:
        told = what_slaves_do(master.books)
    assert told == (
        "not connected yet: slave 0 (job 12.0), slave 1 (job 12.1), slave 2 (job 12.2), slave 4 (job 12.4), 4 more: "
        "queued (qw): full; slave 3 (job 12.3): held (hqw)"
    )
