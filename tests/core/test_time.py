"""Time: what expires, what is put off, and what a master that was stopped does."""

from __future__ import annotations

import pytest

from parallel.core import events as ev
from parallel.core import runners
from parallel.core.leases import Lease
from parallel.core.patience import SELDOM
from parallel.core.slave import Contact
from tests.core.conftest import MakeEnv
from tests.core.fake import Env


def with_a_lease(env: Env) -> float:
    """A slave holds one; returns its deadline."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    return env.state.leases.by_slave[number].deadline


@pytest.mark.parametrize(("late", "kept"), [(0.0, False), (0.4, False), (1000.0, True)])
def test_time_in_which_the_timer_did_not_run_counts_for_nobody(env: Env, late: float, kept: bool) -> None:
    deadline = with_a_lease(env)
    env.now = deadline + 1.0
    env.tick(late)
    assert (0 in env.state.leases.by_slave) == kept
    assert not kept or env.state.leases.by_slave[0].deadline == deadline + late


def test_nobody_is_taken_for_lost_while_the_master_ends(env: Env) -> None:
    deadline = with_a_lease(env)
    env.close()
    env.now = deadline + 1.0
    env.tick()
    assert 0 in env.state.leases.by_slave and not env.events(ev.SlaveLost)


def test_a_lease_is_over_at_its_deadline_and_not_before(env: Env) -> None:
    with_a_lease(env)
    env.pass_time(9.999)
    assert env.lease_of(0) == [1]
    env.pass_time(0.001)
    assert env.lease_of(0) == [] and env.record(0).contact is Contact.LOST
    (lost,) = env.events(ev.SlaveLost)
    assert lost.end == "nothing was heard of it for 10.0 s (is its machine off, or the network cut?)"


def test_a_heartbeat_renews_the_lease_and_one_of_another_process_does_not(env: Env) -> None:
    with_a_lease(env)
    env.pass_time(9.0)
    env.heartbeat(0, pid=1)
    assert env.state.leases.by_slave[0].deadline == 110.0
    env.heartbeat(0)
    assert env.state.leases.by_slave[0].deadline == 119.0 == env.record(0).due


def test_a_slave_whose_agents_connection_ended_is_lost_a_second_later_and_nobody_is_blamed(env: Env) -> None:
    with_a_lease(env)
    env.agent_disconnected()
    env.pass_time(0.9)
    assert env.lease_of(0) == [1]
    env.pass_time(0.1)
    assert env.lease_of(0) == [] and env.task(1).ends is None
    (lost,) = env.events(ev.SlaveLost)
    assert lost.end.startswith("its connection ended and did not come back")


def test_a_master_that_was_stopped_tells_that_once(env: Env) -> None:
    with_a_lease(env)
    env.stand_still(60.0)
    (stopped,) = env.events(ev.MasterWasStopped)
    assert stopped.seconds > 58 and env.lease_of(0) == [1] and not env.events(ev.SlaveLost)


def test_who_waits_without_progress_is_told_after_five_seconds_and_then_ever_more_seldom(make_env: MakeEnv) -> None:
    env = make_env(may_join=True)
    env.context()
    env.add(2)
    env.read()
    for after, words in [(4.9, 0), (0.1, 1), (9.9, 1), (0.1, 2), (19.9, 2), (0.1, 3), (3600.0, 12)]:
        env.pass_time(after)
        assert len(env.events(ev.Waiting)) == words
    first, last = env.events(ev.Waiting)[0], env.events(ev.Waiting)[-1]
    assert (first.context, first.left, first.wanted, first.may_join) == (1, 2, 0, True)
    assert last.time - env.events(ev.Waiting)[-2].time == SELDOM


def test_who_waits_is_told_anew_only_when_five_seconds_have_passed_since_the_last_progress(env: Env) -> None:
    number = env.slave()
    env.context()
    env.add(1, 1)
    env.add(1, 2)
    assert env.fetched(number) == [1]
    env.read(2)
    env.pass_time(4.0)
    env.post(number, 1)
    env.take_delivered(1)
    env.heartbeat(number)
    env.pass_time(5.9)
    assert not env.events(ev.Waiting), "other contexts' outcomes are progress too"
    env.pass_time(0.5)
    (waiting,) = env.events(ev.Waiting)
    assert (waiting.context, waiting.connected, waiting.busy) == (2, 1, 0)


def test_a_lease_that_takes_too_long_is_recalled_when_somebody_idles(env: Env) -> None:
    busy = env.slave()
    env.state.pace.learn(1, 1, 0.01)
    env.add(3)
    assert env.fetched(busy) == [1, 2, 3]
    idle = env.slave("b")
    call, waiting = env.commands(), env.fetch(idle)
    env.pass_time(0.19)
    env.nothing_left()
    env.pass_time(0.01)
    last, (recall,) = env.take_answer(call)
    assert (last, *recall) == (1, busy, env.lease_id(busy))
    env.recalled(busy, env.lease_id(busy), running=1)
    assert env.take_granted(waiting) == [2] and env.lease_of(busy) == [1]


def test_the_more_leases_there_are_the_rarer_they_are_looked_at(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """While slaves idle: so that looking never takes more than a small share of the time."""
    monkeypatch.setattr(runners, "_LOOK_EACH", 0.1)
    env.state.pace.learn(1, 1, 0.01)
    numbers = [env.slave(name) for name in "abcde"]
    env.add(20)
    for number in numbers:
        assert len(env.fetched(number)) > 1
    while env.state.backlog.waiting:
        env.fetched(env.slave(f"{env.state.backlog.waiting} are left"))
    looks: list[float] = []
    real = env.state.leases.overdue

    def overdue(now: float, age: float) -> tuple[list[Lease], float]:
        looks.append(now)
        return real(now, age)

    monkeypatch.setattr(env.state.leases, "overdue", overdue)
    env.fetch(env.slave("idle"))
    env.pass_time(2.0)
    assert looks[1] - looks[0] == pytest.approx(0.1 * len(env.state.leases.by_slave))
    assert all(lease.recalled for lease in env.state.leases.by_slave.values() if len(lease.tasks) > 1)
    env.effects.clear()


def test_the_term_may_be_set_until_an_agent_has_been_told_of_it(make_env: MakeEnv) -> None:
    env = make_env()
    env.do(env.scheduler.set_term, 4.0)
    assert env.enlist().lease == 4.0
    env.do(env.scheduler.set_term, 99.0)
    assert env.enlist(agent="b").lease == 4.0
