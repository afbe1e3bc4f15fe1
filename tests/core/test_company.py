"""When the dispatcher rests, so that outcomes of short tasks come together."""

from __future__ import annotations

import pytest

from parallel.core.company import LONGEST, WAITED, Company
from tests.core.fake import Env

STEP = 0.0005  # seconds between two outcomes


@pytest.fixture
def busy(env: Env) -> tuple[Env, Company]:
    """Two slaves with leases of many tasks of a millisecond, of which outcomes have come one by one."""
    first, second = env.slave(), env.slave("b")
    env.state.pace.learn(1, 1, 0.001)
    env.add(200)
    leases = env.fetched(first), env.fetched(second)
    assert min(map(len, leases)) >= 50
    company = Company(env.state)
    for first_task, second_task in zip(leases[0][:20], leases[1][:20]):
        come(env, company, first, first_task)
        come(env, company, second, second_task)
    return env, company


def come(env: Env, company: Company, slave: int, task: int) -> float:
    """An outcome comes; for how long the dispatcher rests then."""
    env.now += STEP
    env.post(slave, task)
    env.effects.clear()
    return company.rest(env.now)


def left(env: Env, slave: int) -> list[int]:
    """What it has not done."""
    lease = env.state.leases.by_slave.get(slave)
    return [] if lease is None else list(lease.tasks)


def test_outcomes_that_come_one_after_the_other_are_waited_for(busy: tuple[Env, Company]) -> None:
    env, company = busy
    assert company.rest(env.now) == LONGEST


def test_the_end_of_a_lease_is_not_slept_over(busy: tuple[Env, Company]) -> None:
    env, company = busy
    rests = [come(env, company, 0, task) for task in left(env, 0)[:-1]]
    assert rests[0] == LONGEST
    assert rests[-1] == 0.0, "the slave may ask for its next lease at once"
    assert rests[-2] == pytest.approx(0.001), "it has two tasks of a millisecond"


def test_a_slave_that_waits_is_not_slept_over(busy: tuple[Env, Company]) -> None:
    env, company = busy
    while 1 not in env.state.idle:
        for task in left(env, 1):
            come(env, company, 1, task)
        env.fetch(1)
    assert company.rest(env.now) == 0.0


def test_whoever_asks_for_something_is_not_slept_over_for_a_while(busy: tuple[Env, Company]) -> None:
    env, company = busy
    company.disturb(env.now, WAITED)
    assert company.rest(env.now) == 0.0
    assert company.rest(env.now + WAITED) == LONGEST


def test_outcomes_that_come_together_already_are_not_waited_for(busy: tuple[Env, Company]) -> None:
    env, company = busy
    one, other, *_ = left(env, 0)
    env.post(0, one, other)
    env.take_delivered(1)
    assert company.rest(env.now) == 0.0
    assert company.rest(env.now + WAITED) == LONGEST


def test_long_tasks_are_not_waited_for(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.01)
    env.add(10)
    company = Company(env.state)
    for task in env.fetched(number)[:-1]:
        env.now += 0.01
        env.post(number, task)
        env.effects.clear()
        assert company.rest(env.now) == 0.0


def test_the_first_outcomes_after_a_pause_are_not_waited_for(busy: tuple[Env, Company]) -> None:
    env, company = busy
    env.now += 1.0
    assert come(env, company, 0, left(env, 0)[0]) == 0.0
