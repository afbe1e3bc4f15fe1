"""The roster and the pacing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from parallel.core.lease_table import LeaseTable
from parallel.core.pacing import LEASE_SECONDS, MOST_LEASE_SECONDS, MOST_TASKS, Pacing
from parallel.core.roster import Roster
from parallel.core.slave import Contact, Life, Move, SlaveRecord
from parallel.core.task import Task
from tests.core.fake import Env


def roster(lives: list[Life]) -> Roster:
    """With slaves that are EXPECTED, READY, PARTED or ENDED."""
    made = Roster()
    for life in lives:
        slave = made.expect("LocalSlave()", "agent")
        if life is not Life.EXPECTED:
            made.join(slave, 1234, 1)
        if life is Life.ENDED:
            made.move(slave, Move.END)
        if life is Life.PARTED:
            made.part(slave, "it was given up")
        assert slave.life is life
    return made


def lost(made: Roster, number: int) -> SlaveRecord:
    """Have a slave heard once and then missed."""
    slave = made.slaves[number]
    made.heard(slave, 5.0, 10.0)
    made.lose(slave)
    return slave


def contact_of(made: Roster) -> Contact:
    return made.slaves[0].contact


def test_numbers_are_not_used_twice() -> None:
    made = roster([Life.READY, Life.ENDED])
    assert made.expect("LocalSlave()", "agent").number == 2


def test_a_silent_slave_is_told_once_and_may_come_back() -> None:
    made = roster([Life.READY])
    slave = made.slaves[0]
    made.heard(slave, 5.0, 10.0)
    assert made.missed(14.9, 10.0) == []
    assert made.missed(15.0, 10.0) == [slave]
    made.lose(slave)
    assert made.missed(99.0, 10.0) == [] and not made.connected
    assert made.heard(slave, 100.0, 10.0)
    assert slave.life is Life.READY and slave.contact is Contact.HEARD and made.connected == {0: slave}
    assert not made.heard(slave, 101.0, 10.0)


def test_a_slave_whose_agent_never_came_is_not_silent_but_awaited() -> None:
    made = roster([Life.EXPECTED])
    assert made.missed(1e9, 10.0) == [] and made.cut_off("agent", 5.0) == []
    made.heard(made.slaves[0], 5.0, 10.0)
    assert made.missed(15.0, 10.0) == [made.slaves[0]]


def test_a_slave_whose_agent_was_cut_off_is_lost_soon_unless_it_is_heard_again() -> None:
    made = roster([Life.READY])
    slave = made.slaves[0]
    made.heard(slave, 5.0, 10.0)
    assert made.cut_off("agent", 7.0) == [slave]
    assert made.missed(7.0, 10.0) == [slave] and contact_of(made) is Contact.CUT_OFF
    made.heard(slave, 6.0, 10.0)
    assert made.missed(15.9, 10.0) == [] and contact_of(made) is Contact.HEARD


def test_a_slave_that_its_agent_gave_up_is_no_hope_while_the_agent_goes_on_with_others() -> None:
    """Its launcher's word comes when the agent has ended: readers would wait for it for ever (simulated seed 21338)."""
    made = roster([Life.PARTED, Life.READY])
    assert not made.has_others({1: "failed"}, lost_too=False) and not made.has_others({1: "failed"}, lost_too=True)
    assert made.has_others({}, lost_too=True)
    lost(made, 1)
    assert made.has_others({1: "failed"}, lost_too=False), "what becomes of the agent is open"
    made = roster([Life.PARTED, Life.PARTED])
    assert made.has_others({1: "failed"}, lost_too=False), "it may be started again as a whole"


def test_time_in_which_the_master_stood_still_does_not_count() -> None:
    made = roster([Life.READY])
    made.heard(made.slaves[0], 5.0, 10.0)
    made.shift(90.0)
    assert made.missed(100.0, 10.0) == []


def test_hope_needs_a_slave_that_has_not_ended_and_whose_setup_did_not_fail() -> None:
    made = roster([Life.ENDED, Life.READY])
    assert made.has_others({}, lost_too=False)
    assert not made.has_others({1: "failed"}, lost_too=True)
    assert made.has_others({0: "failed"}, lost_too=False)
    lost(made, 1)
    assert made.has_others({}, lost_too=True) and not made.has_others({}, lost_too=False)
    assert made.has_others({0: "failed"}, lost_too=True) and not made.has_others({0: "failed"}, lost_too=False)
    made.move(made.slaves[1], Move.END)
    assert not made.has_others({}, lost_too=True)


def test_only_slaves_that_may_have_set_a_context_up_are_told_to_forget_it(env: Env) -> None:
    numbers = env.enlist([None, None]).numbers
    for number in numbers:
        env.joined(number)
    env.add()
    assert env.take_answer(env.setup_failed(0, 1, 0, [])) is None
    assert env.fetched(1) == [1]
    env.post(1, 1)
    env.take_delivered(1)
    waiting = env.fetch(0)
    env.drop_context(1)
    assert env.record(1).to_forget == [1] and not env.record(0).to_forget
    assert not env.record(0).setup_failed and not env.record(1).knows
    told = env.take_answer(env.fetch(1))
    assert told.lease is None and told.forget == [1]
    env.runner_disconnected(0)
    assert env.take_granted(waiting) == []


@given(st.floats(min_value=1e-7, max_value=1e4), st.floats(min_value=1e-3, max_value=LEASE_SECONDS))
def test_what_fits_takes_no_longer_than_it_may(seconds: float, room: float) -> None:
    pace = Pacing()
    assert pace.fits(1, room) == 0
    pace.learn(1, 1, seconds)
    fits = pace.fits(1, room)
    assert fits <= MOST_TASKS and fits * seconds <= room * (1 + 1e-9)
    assert fits == MOST_TASKS or (fits + 1) * seconds > room * (1 - 1e-9)


def test_nonsense_is_not_learnt() -> None:
    pace = Pacing()
    for tasks, seconds in [(0, 1.0), (1, -1.0), (1, math.inf), (1, math.nan)]:
        pace.learn(1, tasks, seconds)
    assert pace.seconds_per_task(1) is None


def test_the_estimate_follows_a_trend_and_forgets_an_outlier() -> None:
    pace = Pacing()
    pace.learn(1, 1, 100.0)
    for _ in range(20):
        pace.learn(1, 10, 0.01)
    assert abs((pace.seconds_per_task(1) or 0) - 0.001) < 1e-3


def test_leases_are_longer_while_the_master_answers_late_and_as_before_when_it_does_not() -> None:
    table, pace = LeaseTable(30.0, 3), Pacing()
    pace.learn(1, 1000, 1.0)
    for id in range(1, 3001):
        table.backlog.add(Task(id, 1, b"task"))
    assert tasks_granted(table, pace) == 100
    pace.took_turn(0.0001)
    assert tasks_granted(table, pace) == 100
    pace.took_turn(0.01)
    assert tasks_granted(table, pace) == 250
    pace.took_turn(60.0)
    assert tasks_granted(table, pace) == 1000 * MOST_LEASE_SECONDS
    for _ in range(1000):
        pace.took_turn(0.0001)
    assert pace.lease_seconds == LEASE_SECONDS and tasks_granted(table, pace) == 100


def tasks_granted(table: LeaseTable, pace: Pacing) -> int:
    """How many tasks slave 0 is granted, which it gives back."""
    lease = table.grant(0, 0.0, (), 10_000, pace)
    assert lease is not None
    return table.give_back(0)
