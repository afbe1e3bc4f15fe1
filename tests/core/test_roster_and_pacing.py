"""The roster and the pacing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from parallel.core.pacing import LEASE_SECONDS, MOST_TASKS, Pacing
from parallel.core.roster import Roster, SlaveRecord, SlaveState


def roster(states: list[SlaveState]) -> Roster:
    made = Roster()
    for state in states:
        number = made.new_number()
        made.expect(number, "LocalSlave()", "agent").state = state
    return made


def slave(made: Roster, number: int) -> SlaveRecord:
    return made.slaves[number]


def test_numbers_are_not_used_twice() -> None:
    made = roster([SlaveState.READY] * 2)
    assert made.new_number() == 2


def test_a_silent_slave_is_told_once_and_may_come_back() -> None:
    made = roster([SlaveState.READY])
    slave(made, 0).pid = 1234
    made.heard(slave(made, 0), 5.0, 10.0)
    assert made.silent(14.9) == []
    assert made.silent(15.0) == [slave(made, 0)]
    slave(made, 0).state = SlaveState.LOST
    assert made.silent(99.0) == []
    assert made.heard(slave(made, 0), 100.0, 10.0)
    assert slave(made, 0).state is SlaveState.READY
    assert not made.heard(slave(made, 0), 101.0, 10.0)


def test_a_slave_whose_agent_never_came_is_not_silent_but_awaited() -> None:
    made = roster([SlaveState.EXPECTED])
    assert made.silent(1e9) == [] and made.cut_off("agent", 5.0) == []
    made.heard(slave(made, 0), 5.0, 10.0)
    assert made.silent(15.0) == [slave(made, 0)]


def test_a_slave_whose_agent_was_cut_off_is_lost_soon_unless_it_is_heard_again() -> None:
    made = roster([SlaveState.READY])
    made.heard(slave(made, 0), 5.0, 10.0)
    assert made.cut_off("agent", 7.0) == [slave(made, 0)]
    assert made.silent(7.0) == [slave(made, 0)] and slave(made, 0).cut
    made.heard(slave(made, 0), 6.0, 10.0)
    assert made.silent(15.9) == [] and not slave(made, 0).cut


def test_time_in_which_the_master_stood_still_does_not_count() -> None:
    made = roster([SlaveState.READY])
    made.heard(slave(made, 0), 5.0, 10.0)
    made.shift(90.0)
    assert made.silent(100.0) == []


def test_hope_needs_a_slave_that_is_neither_ended_nor_barred() -> None:
    made = roster([SlaveState.ENDED, SlaveState.READY])
    assert made.hopeful(1, lost_too=False)
    slave(made, 1).barred.add(1)
    assert not made.hopeful(1, lost_too=True)
    assert made.hopeful(2, lost_too=False)
    slave(made, 1).state = SlaveState.LOST
    assert made.hopeful(2, lost_too=True) and not made.hopeful(2, lost_too=False)
    slave(made, 1).state = SlaveState.ENDED
    assert not made.hopeful(2, lost_too=True)


def test_only_slaves_that_may_have_set_a_context_up_are_told_to_forget_it() -> None:
    made = roster([SlaveState.READY] * 2)
    slave(made, 1).knows.add(7)
    slave(made, 0).barred.add(7)
    assert made.forget_context(7) == [slave(made, 1)]
    assert slave(made, 1).to_forget == [7]
    assert not slave(made, 0).barred and not slave(made, 1).knows


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
