"""How many outcomes there were, and at which rate."""

from __future__ import annotations

import functools

import pytest

from parallel.core.state import NO_RULES
from parallel.core.tally import Tallies, Tally
from slave.protocol import FAILURE, RECYCLED, Ran
from tests.core.fake import PID, Env


def run(tally: Tally, began: float, seconds: int, each_second: float) -> float:
    """So many seconds of work, looked at once a second; returns the time at their end."""
    for second in range(seconds):
        tally.look(began + second)
        tally.done = round((second + 1) * each_second)
    return began + seconds


def test_a_steady_rate_is_told() -> None:
    tally = Tally(0.0)
    now = run(tally, 0.0, 100, 7)
    assert tally.rate(now) == pytest.approx(7, rel=0.05)


def test_what_was_long_ago_does_not_count() -> None:
    tally = Tally(0.0)
    now = run(tally, 0.0, 50, 100)
    for second in range(40):
        tally.look(now + second)
        tally.done += 1
    assert tally.rate(now + 40) == pytest.approx(1, rel=0.1)


def test_of_tasks_that_take_minutes_all_count() -> None:
    tally = Tally(0.0)
    now = run(tally, 0.0, 600, 1 / 60)
    assert tally.rate(now) == pytest.approx(1 / 60, rel=0.05)


def test_a_pause_is_no_work() -> None:
    tally, tallies = Tally(0.0), Tallies()
    for second in range(10):
        tallies.look(float(second), [tally])
        tally.done += 5
    for second in range(10, 1000):
        tallies.look(float(second), [])
    assert tally.rate(1000.0) == 0
    for second in range(1000, 1010):
        tallies.look(float(second), [tally])
        tally.done += 5
    assert tally.rate(1010.0) == pytest.approx(5, rel=0.2)


def test_what_is_looked_at_too_early_is_not_walked() -> None:
    tallies = Tallies()
    tallies.look(1.0, [])

    def walked() -> object:
        raise AssertionError("it was walked")
        yield Tally(0.0)

    tallies.look(1.5, walked())  # type: ignore[arg-type]


def test_outcomes_and_failures_are_counted_and_a_maps_are_its_contexts(env: Env) -> None:
    number = env.slave()
    env.add(2)
    assert env.fetched(number) == [1]
    env.post(number, 1, kind=FAILURE)
    env.take_delivered(1)
    tally = env.state.contexts[1].tally
    assert (tally.done, tally.failed) == (1, 1)
    of_map = env.do(functools.partial(env.scheduler.users.make_context, None, rules=NO_RULES._replace(base=1)))
    env.add(1, of_map)
    assert env.fetched(number) == [2]
    env.post(number, 2)
    env.take_delivered(1)
    assert env.fetched(number) == [3]
    env.post(number, 3)
    env.take_delivered(of_map)
    env.drop_context(of_map)
    assert (tally.done, tally.failed) == (3, 1)
    env.effects.clear()


def test_the_slowest_task_is_one_that_a_slave_ran_alone(env: Env) -> None:
    number = env.slave()
    env.add(2)
    assert env.fetched(number) == [1]
    env.post(number, 1)
    env.take_delivered(1)
    assert env.fetched(number, ran=[Ran(1, 1, 7.0)]) == [2]
    env.post(number, 2)
    env.take_delivered(1)
    env.fetch(number, ran=[Ran(1, 40, 5.0)])
    assert env.state.slowest[:3] == (7.0, 1, 1)
    assert env.state.roster.slaves[number].worked == 12.0
    env.fetch(number, ran=[Ran(1, 40, 9.0)])
    assert env.state.slowest[:3] == (9.0, 1, 0), "any of the forty may have taken longer than 7 s"
    env.effects.clear()


def test_losses_against_our_will_are_counted(env: Env) -> None:
    number = env.slave()
    env.runner_ended(number, cause=RECYCLED)
    env.joined(number, pid=PID + 1)
    assert env.state.roster.slaves[number].losses == 0
    env.runner_ended(number, pid=PID + 1)
    assert env.state.roster.slaves[number].losses == 1
