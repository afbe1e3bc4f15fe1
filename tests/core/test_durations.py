"""When a task that runs is worth a copy: pure rules about seconds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.core.durations import LEAST_GAIN, Durations, copied_from


def learned(*told: tuple[int, int, float]) -> Durations:
    durations = Durations()
    for slave, tasks, seconds in told:
        durations.learn(slave, tasks, seconds, 0.0)
    return durations


def test_nothing_is_typical_before_something_is_known() -> None:
    assert learned().typical is None
    assert learned((0, 0, 1.0), (0, 1, -1.0), (0, 1, math.nan)).typical is None


def test_neither_one_slow_slave_nor_one_long_task_changes_what_is_typical() -> None:
    slaves = [(number, 1, 1.0) for number in range(7)]
    durations = learned(*slaves, (7, 1, 4.0))
    assert durations.typical == 1.0 and durations.expected(7) == 4.0 and durations.expected(99) == 1.0
    assert learned((0, 2, 2.0), (1, 1, 4.0)).typical == 1.0, "of two the quicker"
    durations.learn(0, 1, 400.0, 0.0)
    assert durations.typical == 1.0


def test_a_slave_that_gets_slower_is_known_to_be_after_some_tasks() -> None:
    durations = learned((0, 1000, 1000.0))
    for _ in range(40):
        durations.learn(0, 1, 4.0, 0.0)
    assert durations.expected(0) > 3.5
    assert learned((0, 3, 1.5)).expected(0) == 0.5


def test_a_process_that_is_new_takes_longer_by_what_others_setups_took() -> None:
    durations = Durations()
    durations.begins(0, 10.0)
    assert durations.is_new(0)
    durations.learn(0, 1, 1.0, 14.0)
    assert not durations.is_new(0) and durations.expected(0) == 1.0 and durations.expected(1, new=True) == 4.0
    durations.begins(1, 20.0)
    durations.learn(1, 1, 1.0, 22.0)
    assert durations.expected(2, new=True) == 3.0


@pytest.mark.parametrize(
    "age, here, there, due",
    [
        (0.0, 1.0, 1.0, 1.5),  # nobody knows better than that it will be done soon
        (1.4, 1.0, 1.0, 1.5),
        (0.0, 4.0, 1.0, 0.0),  # on a slave that is known to be slow
        (2.75, 4.0, 1.0, 2.75),
        (2.8, 4.0, 1.0, 6.0),  # it is done about when a copy would be; if not it may take as long again
        (0.0, 1.0, 4.0, 6.0),  # where the copy would run that takes longer
        (0.0, 1.4, 1.0, 2.1),  # not slow enough to be known as such
        (0.0, 0.001, 0.001, LEAST_GAIN),  # not worth a fresh process
        (0.0, 0.15, 0.001, 0.225),
    ],
)
def test_from_which_age_on_a_copy_is_worth_it(age: float, here: float, there: float, due: float) -> None:
    assert copied_from(age, here, there) == pytest.approx(due)


SECONDS = st.floats(0.0, 1e6)


@given(SECONDS, SECONDS, SECONDS)
def test_a_task_is_copied_at_last_and_not_for_nothing(age: float, here: float, there: float) -> None:
    due = copied_from(age, here, there)
    assert due <= max(age, LEAST_GAIN, 1.5 * max(here, there))
    if due <= age < here:
        assert here - age >= max(LEAST_GAIN, there), "the copy is done first, as far as is known"
    elif due <= age:
        assert age >= max(LEAST_GAIN, here, there), "it runs for longer than tasks do"
