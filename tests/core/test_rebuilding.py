"""Tasks that slaves cannot rebuild: whether the slave is to blame, or the task."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.core import events as ev
from parallel.core.effects import Answer, Call, Deliver
from parallel.service.messages import log_line
from slave.protocol import FAILURE, VALUE
from tests.core.fake import Env


def two(env: Env, tasks: int = 1) -> tuple[int, int]:
    """Two slaves, by hand, and tasks 1, 2, ..."""
    slaves = env.slave("a"), env.slave("b")
    env.add(tasks)
    return slaves


def post(env: Env, slave: int, *tasks: int, lease: int = 0) -> None:
    """It could rebuild them."""
    env.post(slave, *tasks, lease=lease)
    assert [one.task for one in env.take_delivered(1)] == list(tasks)


def failures(env: Env) -> list[int]:
    """The tasks that were told to have failed since the last time."""
    delivered = [effect for effect in env.effects if isinstance(effect, Deliver)]
    for effect in delivered:
        env.effects.remove(effect)
    return [one.task for effect in delivered for one in effect.outcomes if one.kind == FAILURE]


def test_a_task_that_a_slave_cannot_rebuild_goes_to_another_and_has_not_begun(env: Env) -> None:
    bad, good = two(env)
    assert env.fetched(bad) == [1]
    env.cannot_rebuild(bad, 1)
    assert failures(env) == [] and env.task(1).ends is None
    env.fetch(bad)
    assert env.fetched(good) == [1]
    post(env, good, 1)
    assert bad in env.state.idle, "nothing of that is for it"
    (told,) = env.events(ev.TaskNotRebuilt)
    assert (told.slave, told.task, told.first, told.out) == (bad, 1, True, False)


def test_a_slave_that_can_rebuild_nothing_is_out_after_three_and_says_so(env: Env) -> None:
    bad, good = two(env, 9)
    for task in (1, 2, 3):
        assert env.fetched(bad) == [task]
        env.cannot_rebuild(bad, task)
    env.fetch(bad)
    assert bad in env.state.idle, "nothing of that is for it"
    for task in range(1, 10):
        assert env.fetched(good) == [task]
        post(env, good, task)
    assert failures(env) == []
    first, second, third = env.events(ev.TaskNotRebuilt)
    assert (first.first, second.first, third.first) == (True, False, False)
    assert (first.out, second.out, third.out) == (False, False, True)
    told = [log_line(one) for one in (first, second, third)]
    assert [level for level, _ in filter(None, told)] == [30, 20, 30]
    assert str(told[0]).count("cannot do task 1, which others may: ModuleNotFoundError: No module named") == 1
    assert "is out for context 1, of which it could rebuild no task" in str(told[2])
    assert "install it" in str(told[2])


def test_a_slave_that_could_rebuild_others_is_not_out_because_of_bad_ones(env: Env) -> None:
    one, other = two(env, 7)
    assert env.fetched(one) == [1]
    post(env, one, 1)
    for task in (2, 3, 4, 5):
        assert env.fetched(one) == [task]
        env.cannot_rebuild(one, task)
    assert env.fetched(one) == [6], "it goes on with the others"
    assert not any(told.out for told in env.events(ev.TaskNotRebuilt))
    assert env.fetched(other) == [2]


def test_a_task_that_no_slave_can_rebuild_fails_and_the_others_are_done(env: Env) -> None:
    """The poison comes first, before any slave has shown what it can."""
    one, other = two(env, 3)
    assert env.fetched(one) == [1]
    env.cannot_rebuild(one, 1)
    assert env.fetched(one) == [2]
    assert env.fetched(other) == [1]
    env.cannot_rebuild(other, 1)
    assert failures(env) == [1]
    post(env, one, 2)
    assert env.fetched(other) == [3]


def test_slaves_that_were_out_because_of_bad_tasks_are_in_again_when_these_have_failed_everywhere(env: Env) -> None:
    one, other = two(env, 5)
    for task in (1, 2, 3):
        assert env.fetched(one) == [task]
        env.cannot_rebuild(one, task)
    waits = env.fetch(one)
    assert env.record(one).unfit_for == {1}
    assert env.fetched(other) == [1]
    env.cannot_rebuild(other, 1)
    assert failures(env) == [1] and env.record(one).unfit_for == set()
    assert env.take_granted(waits) == [4]
    for task in (2, 3):
        assert env.fetched(other) == [task]
        env.cannot_rebuild(other, task)
        assert failures(env) == [task]
    assert env.fetched(other) == [5]


def test_where_no_slave_can_rebuild_anything_each_task_fails_once_and_soon(env: Env) -> None:
    slaves = two(env, 8)
    failed: list[int] = []
    for _ in range(40):
        for slave in slaves:
            if env.state.left(1) and slave not in env.state.idle:
                call = env.fetch(slave)
                if slave not in env.state.idle:
                    (task,) = env.take_granted(call)
                    env.cannot_rebuild(slave, task)
                    failed += failures(env)
    assert sorted(failed) == list(range(1, 9))


@pytest.mark.parametrize("how", ["ends", "is lost", "is removed"])
def test_slaves_that_are_out_get_another_chance_when_no_other_is_left(env: Env, how: str) -> None:
    bad, good = two(env, 5)
    for task in (1, 2, 3):
        assert env.fetched(bad) == [task]
        env.cannot_rebuild(bad, task)
    waits = env.fetch(bad)
    for task in (1, 2, 3):
        assert env.fetched(good) == [task]
        post(env, good, task)
    if how == "ends":
        env.leave("b")
    elif how == "is lost":
        env.agent_disconnected(agent="b")
        env.heartbeat(bad)
        env.pass_time(1.0)
    else:
        env.dismiss(good)
    assert env.take_granted(waits) == [4]
    env.cannot_rebuild(bad, 4)
    assert failures(env) == [4], "the error is the task's when no slave is left"
    assert env.fetched(bad) == [5]


def test_what_is_left_when_the_slave_that_refused_it_has_ended_waits_for_the_next_slave(env: Env) -> None:
    slave = env.slave("a")
    env.slave("b")
    env.add(1)
    assert env.fetched(slave) == [1]
    env.cannot_rebuild(slave, 1)
    env.leave("b")
    assert failures(env) == [1], "one is here, and cannot"
    env.add(1)
    env.slave("c")
    assert env.fetched(slave) == [2]
    env.cannot_rebuild(slave, 2)
    env.leave("a")
    env.leave("c")
    assert failures(env) == []
    assert env.fetched(env.slave("d")) == [2]


def test_a_late_word_of_another_lease_changes_nothing(env: Env) -> None:
    one, other = two(env)
    assert env.fetched(one) == [1]
    env.cannot_rebuild(one, 1, lease=99)
    assert env.lease_of(one) == [1]
    env.cannot_rebuild(other, 1, lease=1)
    assert env.lease_of(one) == [1] and env.task(1).unfit == frozenset()


def test_cancelled_and_dropped_tasks_leave_nothing_of_their_refusals(env: Env) -> None:
    bad, _ = two(env, 4)
    for task in (1, 2, 3):
        assert env.fetched(bad) == [task]
        env.cannot_rebuild(bad, task)
    env.cancel_task(1, 1)
    env.state.check()
    env.cancel(1)
    env.state.check()
    assert not env.state.contexts[1].refusals and env.record(bad).unfit_for == {1}
    env.drop_context(1)
    assert env.record(bad).unfit_for == set() and not env.state.picky_contexts
    assert not env.state.backlog.contexts and not env.state.backlog._turns._others


def test_the_outcome_of_an_earlier_attempt_settles_what_another_slave_could_not_rebuild(env: Env) -> None:
    one, other = two(env)
    assert env.fetched(one) == [1]
    lease = env.lease_id(one)
    env.agent_disconnected(agent="a")
    env.heartbeat(other, agent="b")
    env.pass_time(1.0)
    assert env.fetched(other) == [1]
    env.cannot_rebuild(other, 1)
    post(env, one, 1, lease=lease)
    assert not env.state.contexts[1].refusals and env.state.left(1) == 0


def test_retries_are_for_tasks_that_began(env: Env) -> None:
    slave = env.slave()
    env.add(1, retries=2)
    assert env.fetched(slave) == [1]
    env.cannot_rebuild(slave, 1)
    assert failures(env) == [1]


@given(
    can=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4),
    order=st.lists(st.integers(0, 3), max_size=30),
    goes=st.sampled_from([None, None, 0, 1]),
)
@settings(max_examples=100, deadline=None)
def test_who_can_rebuild_it_does_each_task_and_else_it_fails_once(
    can: list[list[bool]], order: list[int], goes: int | None
) -> None:
    """``can``: by slave and task; ``order``: who asks first; ``goes``: a slave that leaves in the middle."""
    env = Env()
    env.context()
    slaves = [env.slave(str(number)) for number in range(len(can))]
    env.add(12)
    outcomes: dict[int, list[int]] = {}
    waiting: dict[int, Call] = {}
    left = set()

    def turn(slave: int) -> None:
        if slave in left:
            return
        if slave not in waiting:
            waiting[slave] = env.fetch(slave)
        look()
        for task in env.lease_of(slave):
            if can[slave][task - 1]:
                env.post(slave, task)
            else:
                env.cannot_rebuild(slave, task, answered=False)
            look()

    def look() -> None:
        while env.effects:
            effect = env.effects.popleft()
            if isinstance(effect, Deliver):
                for one in effect.outcomes:
                    outcomes.setdefault(one.task, []).append(one.kind)
            elif isinstance(effect, Answer):
                for slave in [number for number, call in waiting.items() if call is effect.call]:
                    del waiting[slave]
        env.state.check()

    for slave in order:
        if slave < len(slaves):
            turn(slave)
    if goes is not None and goes < len(slaves) - 1:
        env.leave(str(goes))
        left.add(goes)
        look()
    for _ in range(60):
        for slave in slaves:
            turn(slave)
    assert sorted(outcomes) == list(range(1, 13)), f"tasks {set(range(1, 13)) - set(outcomes)} wait for ever"
    assert all(len(kinds) == 1 for kinds in outcomes.values())
    for task, (kind,) in outcomes.items():
        able = [one for one in slaves if can[one][task - 1]]
        if kind == VALUE:
            assert able
        else:
            assert not set(able) - left, f"slaves {able} could have done task {task}"
    env.finish()
