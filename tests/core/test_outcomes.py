"""What comes of tasks: outcomes, retries, tasks that are given up, have their time, or are cancelled."""

from __future__ import annotations

from parallel.core import events as ev
from parallel.core.effects import AllDone, News
from parallel.core.slave import Life
from parallel.core.task import Task
from slave.protocol import FAILURE, GIVEN_UP, STOPPED, TIME_LIMIT, TIMED_OUT, VALUE, StopTasks
from tests.core.conftest import MakeEnv
from tests.core.fake import PID, Env


# -- outcomes
def test_outcomes_are_delivered_in_the_order_of_completion_and_wake_as_many_readers(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.001)
    env.add(4)
    assert env.fetched(number) == [1, 2, 3, 4]
    readers = [env.read(), env.read(), env.read()]
    env.post(number, 2, 1)
    assert [outcome.task for outcome in env.take_delivered(1)] == [2, 1]
    assert [env.take_answer(call) for call in readers[:2]] == [News(), News()]
    env.post(number, 4)
    env.take_delivered(1)
    assert env.take_answer(readers[2]) == News()


def test_all_readers_are_woken_by_the_last_outcome_and_then_told_that_all_is_done(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    readers = [env.read(), env.read()]
    env.post(number, 1)
    env.take_delivered(1)
    assert [env.take_answer(call) for call in readers] == [News(), News()]
    assert env.take_answer(env.read()) == AllDone()


def test_an_outcome_that_comes_again_or_late_is_nothing(env: Env) -> None:
    first, second = env.slave(), env.slave("b")
    env.add()
    assert env.fetched(first) == [1]
    lease = env.lease_id(first)
    env.pass_time(9.0)
    env.heartbeat(second)
    env.pass_time(1.0)
    assert env.fetched(second) == [1]
    env.post(first, 1, lease=lease)
    (outcome,) = env.take_delivered(1)
    assert outcome.slave.startswith("slave 0")
    env.post(first, 1, lease=lease)
    env.post(second, 1)
    env.nothing_left()


def test_an_outcome_says_which_task_it_is_of_and_what_went_wrong_with_it(env: Env) -> None:
    number = env.slave()
    env.add(2, payload=b"the task")
    assert env.fetched(number) == [1]
    env.post(number, 1, data=b"value")
    (value,) = env.take_delivered(1)
    assert (value.task, value.kind, value.data, value.payload) == (1, VALUE, b"value", b"")
    assert env.fetched(number) == [2]
    env.post(number, 2, kind=FAILURE, data=b"failure")
    (failure,) = env.take_delivered(1)
    assert (failure.task, failure.kind, failure.tries, failure.payload) == (2, FAILURE, 1, b"the task")


def test_a_task_that_raises_is_tried_as_often_as_it_may_and_its_last_failure_counts(env: Env) -> None:
    number = env.slave()
    env.add(retries=2)
    for _ in range(2):
        assert env.fetched(number) == [1]
        env.post(number, 1, kind=FAILURE)
        env.nothing_left()
    assert env.fetched(number) == [1]
    env.post(number, 1, kind=FAILURE)
    (outcome,) = env.take_delivered(1)
    assert (outcome.kind, outcome.tries) == (FAILURE, 3)


def test_a_failure_that_is_told_twice_counts_once(env: Env) -> None:
    """The slave tells it again over a new connection, or its agent does; the last retry is on its way by then."""
    number = env.slave()
    env.add(retries=1)
    assert env.fetched(number) == [1]
    lease = env.state.leases.by_slave[number].id
    env.post(number, 1, kind=FAILURE)
    env.post(number, 1, kind=FAILURE, lease=lease)  # while it waits
    assert env.fetched(number) == [1]
    env.post(number, 1, kind=FAILURE, lease=lease)  # while it runs once more
    env.nothing_left()
    env.post(number, 1, data=b"value")
    (outcome,) = env.take_delivered(1)
    assert (outcome.kind, outcome.data, outcome.tries) == (VALUE, b"value", 2)


def test_a_task_that_ends_its_slave_too_often_is_given_up_and_says_how_each_attempt_ended(env: Env) -> None:
    number = env.slave()
    env.add(payload=b"deadly")
    for attempt in range(3):
        assert env.fetched(number, PID + attempt) == [1]
        env.runner_ended(number, 1, pid=PID + attempt)
        if attempt < 2:
            env.nothing_left()
            env.joined(number, PID + attempt + 1)
    (outcome,) = env.take_delivered(1)
    assert (outcome.kind, outcome.data, outcome.payload) == (
        GIVEN_UP,
        ["it was killed by SIGKILL on here"] * 3,
        b"deadly",
    )
    assert [(lost.tasks, lost.given_up) for lost in env.events(ev.SlaveLost)] == [(1, 0), (1, 0), (1, 1)]


def test_a_task_whose_time_is_over_has_that_as_its_outcome_and_what_stood_behind_it_goes_elsewhere(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.01)
    env.add(2, timeout=1.5)
    assert env.fetched(number) == [1, 2]
    env.runner_ended(number, 1, cause=TIME_LIMIT)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind, outcome.data) == (1, TIMED_OUT, 1.5)
    assert env.lease_of(number) == [] and env.task(2).ends is None and env.record(number).life is Life.EXPECTED


def test_events_of_single_tasks_are_made_only_for_who_watches(make_env: MakeEnv) -> None:
    seen: list[list[str]] = []
    for watched in (False, True):
        env = make_env(watched=watched)
        env.context()
        number = env.slave()
        env.add(retries=1)
        env.fetched(number)
        env.heartbeat(number, 1)
        env.post(number, 1, kind=FAILURE)
        env.fetched(number)
        env.runner_ended(number, 1)
        env.joined(number, PID + 1)
        env.fetched(number, PID + 1)
        env.post(number, 1)
        env.take_delivered(1)
        seen.append([type(event).__name__ for event in env.told if type(event).__name__.startswith("Task")])
    leased = ["TasksAdded", "TasksLeased", "TaskStarted", "TaskRetried", "TasksLeased", "TaskAttemptEnded"]
    assert seen == [[], [*leased, "TasksLeased", "TaskDone"]]


# -- cancelling
def test_a_cancelled_context_has_no_tasks_left_and_what_runs_is_stopped(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.04)
    env.add(5)
    assert env.fetched(number) == [1, 2]
    reader, commands = env.read(), env.commands()
    assert env.cancel() == 5
    assert env.take_answer(commands) == (1, [StopTasks(number, 1, [1, 2])])
    assert env.take_answer(reader) == AllDone()
    env.runner_ended(number, 1, cause=STOPPED)
    assert env.state.backlog.contexts == {} and not env.events(ev.SlaveLost)[0].tasks


def test_tasks_that_are_added_while_a_context_is_cancelled_stay_or_go_by_their_number(env: Env) -> None:
    before = [next(env.state.task_ids) for _ in range(2)]
    env.cancel()
    (after,) = env.add()
    env.state.incoming.extendleft(Task(id, 1, b"") for id in before)
    env.enter()
    assert list(env.state.backlog.contexts[1].tasks) == [after]


def test_one_task_can_be_cancelled_once_while_it_has_no_outcome(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.04)
    env.add(3)
    assert env.fetched(number) == [1, 2]
    commands = env.commands()
    assert env.cancel_task(2) and env.take_answer(commands) == (1, [StopTasks(number, 1, [2])])
    assert env.cancel_task(3) and not env.cancel_task(3) and not env.cancel_task(99)
    env.post(number, 1)
    env.take_delivered(1)
    assert not env.cancel_task(1)
    assert env.take_answer(env.read()) == AllDone()
