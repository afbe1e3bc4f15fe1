"""Tasks whose outcomes are waited for one by one: their tags, and what happens when nobody can run them."""

from __future__ import annotations

from parallel.core import events as ev
from parallel.core.effects import AllDone, Closed, Deliver, Forsaken, NoSlaves, SetupFailed
from parallel.core.task import Task
from slave.protocol import GIVEN_UP, TIME_LIMIT, TIMED_OUT, StopTasks
from tests.core.fake import Call, Env, Launched


def add(env: Env, *tags: object, context: int = 1) -> list[int]:
    """Tasks with these tags are added, and the dispatcher turns."""
    ids = [next(env.state.task_ids) for _ in tags]
    env.state.incoming.extend(Task(id, context, b"", tag=tag) for id, tag in zip(ids, tags))
    env.collect()
    return ids


def tagged(env: Env) -> None:
    """Tasks of context 1 may have tags."""
    env.do(env.scheduler.users.readers.wait_for_tags, 1)


def until_done(env: Env, context: int = 1) -> Call:
    call = Call("finisher")
    env.do(env.scheduler.users.readers.wait_until_done, call, context)
    return call


def test_an_outcome_has_its_tasks_tag(env: Env) -> None:
    tagged(env)
    number = env.slave()
    (task,) = add(env, "me")
    assert env.fetched(number) == [task]
    env.post(number, task)
    assert [outcome.tag for outcome in env.take_delivered(1)] == ["me"]


def test_tasks_with_tags_are_dropped_when_no_slave_is_left_and_others_stay(env: Env) -> None:
    tagged(env)
    number = env.slave()
    first, _, third = add(env, "one", None, "three")
    env.slave_closed(number)
    while not isinstance(env.effects[0], Forsaken):
        env.effects.popleft()
    forsaken = env.take(Forsaken)
    assert isinstance(forsaken.reason, NoSlaves) and forsaken.tasks == {first: "one", third: "three"}
    assert env.state.left(1) == 1


def test_what_is_added_when_no_slave_is_there_is_dropped_at_once(env: Env) -> None:
    tagged(env)
    (task,) = add(env, "me")
    forsaken = env.take(Forsaken)
    assert isinstance(forsaken.reason, NoSlaves) and forsaken.tasks == {task: "me"}


def test_what_no_slave_can_set_up_is_dropped_also_when_it_comes_later(env: Env) -> None:
    tagged(env)
    number = env.slave()
    (task,) = add(env, "me")
    assert env.fetched(number) == [task]
    answer = env.setup_failed(number, 1, env.lease_id(number), [task], b"why")
    assert env.take_answer(answer) is None
    forsaken = env.take(Forsaken)
    assert isinstance(forsaken.reason, SetupFailed) and forsaken.tasks == {task: "me"}
    env.fetch(number)
    (later,) = add(env, "later")
    assert env.take(Forsaken).tasks == {later: "later"}


def test_when_the_manager_ends_tags_are_given_back(env: Env) -> None:
    tagged(env)
    env.slave()
    (task,) = add(env, "me")
    env.close()
    while not isinstance(env.effects[0], Forsaken):
        env.effects.popleft()
    assert env.take(Forsaken) == Forsaken(1, Closed(), {task: "me"})


def test_who_waits_until_all_is_done_is_answered_behind_the_last_outcome(env: Env) -> None:
    tagged(env)
    number = env.slave()
    first, second = add(env, "one", "two")
    finisher = until_done(env)
    for task in (first, second):
        assert env.fetched(number) == [task]
        env.nothing_left()
        env.post(number, task)
        env.take_delivered(1)
    assert env.take_answer(finisher) == AllDone()
    assert env.take_answer(until_done(env)) == AllDone()


def test_who_waits_until_all_is_done_is_answered_when_the_last_task_is_cancelled(env: Env) -> None:
    tagged(env)
    env.slave()
    (task,) = add(env, "me")
    finisher = until_done(env)
    assert env.cancel_task(task)
    assert env.take_answer(finisher) == AllDone()


def test_only_what_no_slave_has_and_none_is_started_for_is_cancelled_as_waiting(env: Env) -> None:
    tagged(env)
    number = env.slave()
    tasks = add(env, *"abcd")
    assert env.fetched(number) == tasks[:1]
    env.expect(Launched())  # another one is on its way
    assert env.do(env.scheduler.users.cancel_waiting, 1) == ["c", "d"]
    assert env.state.left(1) == 2
    assert not any(isinstance(effect, StopTasks) for effect in env.effects)


def test_somebody_who_waits_by_tags_is_told_why_nothing_happens_and_only_then(env: Env) -> None:
    tagged(env)
    env.slave()
    env.pass_time(60)
    assert not env.events(ev.Waiting), "nothing was waited for"
    env.state.incoming.append(Task(next(env.state.task_ids), 1, b"", tag="me"))
    env.enter()
    env.pass_time(4)
    assert not env.events(ev.Waiting)
    env.pass_time(2.5)
    assert [event.left for event in env.events(ev.Waiting)] == [1]


def test_what_no_slave_can_rebuild_fails_with_its_tag(env: Env) -> None:
    tagged(env)
    number = env.slave()
    (task,) = add(env, "me")
    assert env.fetched(number) == [task]
    env.cannot_rebuild(number, task)
    delivered = [effect for effect in env.effects if isinstance(effect, Deliver)]
    env.effects.clear()
    assert [outcome.tag for effect in delivered for outcome in effect.outcomes] == ["me"]


def test_what_runs_for_too_long_has_its_tag_and_so_has_what_is_given_up(env: Env) -> None:
    tagged(env)
    number = env.slave()
    first, second = add(env, "late", "deadly")
    assert env.fetched(number) == [first]
    env.runner_ended(number, first, cause=TIME_LIMIT)
    assert [(outcome.kind, outcome.tag) for outcome in env.take_delivered(1)] == [(TIMED_OUT, "late")]
    for _ in range(3):
        env.joined(number)
        assert env.fetched(number) == [second]
        env.runner_ended(number, second)
    assert [(outcome.kind, outcome.tag) for outcome in env.take_delivered(1)] == [(GIVEN_UP, "deadly")]


def test_who_waits_for_a_context_that_was_dropped_meanwhile_is_told_that_all_is_done(env: Env) -> None:
    env.drop_context()
    assert env.take_answer(env.read()) == AllDone()
    assert env.take_answer(until_done(env)) == AllDone()
