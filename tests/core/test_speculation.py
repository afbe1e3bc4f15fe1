"""Tasks that are started twice: which, when, where, and what becomes of the two copies, whatever happens to one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from parallel.core import events as ev
from parallel.core.effects import Granted
from parallel.core.task import State
from slave.protocol import FAILURE, GIVEN_UP, STOPPED, TIME_LIMIT, TIMED_OUT, VALUE, Command, Ran, StopTasks
from tests.core.conftest import MakeEnv
from tests.core.fake import PID, Call, Env

SLOW, QUICK = 0, 1  # the two slaves, by their numbers


class Copied(NamedTuple):
    """Slave 0 runs the last task for longer than tasks take, and slave 1 runs it too."""

    env: Env
    task: int
    first: int  # the two leases
    second: int


def agent_of(env: Env, number: int) -> str:
    return env.record(number).agent


def new_env(make_env: MakeEnv, count: int = 2, setup: bytes | None = None, **options: Any) -> Env:
    """With one context that speculates, and slaves of which each has an agent of its own, that wait for nothing yet."""
    env = make_env(**options)
    assert env.context(setup, speculate=True) == 1
    for number in range(count):
        assert env.slave(str(number)) == number
    return env


def works(env: Env, number: int, seconds: float = 1.0) -> list[Ran]:
    """A slave has done a task; returns what it will say of that."""
    (task,) = env.fetched(number)
    env.pass_time(seconds)
    env.post(number, task)
    env.take_delivered(1)
    return [Ran(1, 1, seconds)]


def pending_commands(env: Env, number: int) -> list[Command]:
    return [command for _, command in env.state.roster.agents[agent_of(env, number)].commands]


def copied(make_env: MakeEnv, **options: Any) -> Copied:
    task_options = {name: options.pop(name) for name in ("retries", "timeout", "as_inputs") if name in options}
    env = new_env(make_env, **options)
    env.add(1)
    ran = works(env, QUICK)
    (task,) = env.add(1, **task_options)
    assert env.fetched(SLOW) == [task]
    call = env.fetch(QUICK, ran=ran)
    env.pass_time(1.4)
    env.nothing_left()
    env.pass_time(0.2)
    assert env.take_granted(call) == [task]
    env.scheduler.check()
    return Copied(env, task, env.lease_id(SLOW), env.lease_id(QUICK))


def held_by(env: Env, task: int) -> list[int]:
    return [number for number, lease in env.state.leases.by_slave.items() if task in lease.tasks]


# -- which, when, where


def test_the_task_that_runs_longest_is_started_once_more_when_a_slave_idles(make_env: MakeEnv) -> None:
    found = copied(make_env, watched=True)
    env, task = found.env, found.task
    assert held_by(env, task) == [SLOW, QUICK] and env.task(task).state is State.COPIED
    (event,) = env.events(ev.TaskCopied)
    assert (event.task, event.context, event.slave, event.other) == (task, 1, QUICK, SLOW)
    env.pass_time(9.0)
    assert env.state.copies == 1, "never more than two"


def test_nothing_is_started_twice_in_a_context_that_does_not_ask_for_it(env: Env) -> None:
    first, second = env.slave(), env.slave("b")
    env.add(1)
    ran = works(env, second)
    (task,) = env.add(1)
    assert env.fetched(first) == [task]
    call = env.fetch(second, ran=ran)
    env.pass_time(9.0)
    env.nothing_left()
    env.post(first, task)
    env.take_delivered(1)
    assert not env.state.copies and call is not None


def test_nothing_is_started_twice_before_a_task_is_known_to_be_done(make_env: MakeEnv) -> None:
    env = new_env(make_env, 2)
    env.add(1)
    assert env.fetched(SLOW) == [1]
    env.fetch(QUICK)
    env.pass_time(9.0)
    env.nothing_left()


def test_a_slave_known_to_be_slow_is_not_waited_for(make_env: MakeEnv) -> None:
    env = new_env(make_env)
    env.add(2)
    ran = works(env, SLOW, 4.0)
    quick = works(env, QUICK, 1.0)
    env.add(1)
    assert env.fetched(SLOW, ran=ran) == [3]
    call = env.fetch(QUICK, ran=quick)
    env.pass_time(0.05)
    env.nothing_left()  # whoever adds tasks as results come may do so just now
    env.pass_time(0.1)
    assert env.take_granted(call) == [3]


@pytest.mark.parametrize("no_more", [False, True])
def test_while_more_tasks_are_said_to_come_a_slave_waits_longer_before_it_gets_a_copy(
    make_env: MakeEnv, no_more: bool
) -> None:
    env = new_env(make_env)
    env.add(2)
    ran = works(env, SLOW, 4.0)
    quick = works(env, QUICK, 1.0)
    env.more_tasks()
    env.add(1)
    assert env.fetched(SLOW, ran=ran) == [3]
    call = env.fetch(QUICK, ran=quick)
    env.pass_time(0.45)
    env.nothing_left()
    if no_more:
        env.no_more_tasks()
        env.pass_time(0.0)
    else:
        env.pass_time(0.1)
    assert env.take_granted(call) == [3]


def test_of_several_that_idle_the_one_that_has_set_it_up_and_is_quick_gets_the_copy(make_env: MakeEnv) -> None:
    env = new_env(make_env, 4, setup=b"setup")
    env.add(3)
    rans = [works(env, number, seconds) for number, seconds in ((1, 3.0), (2, 1.0))]
    assert env.fetched(SLOW) == [3]
    env.fetch(3)  # which has not set it up
    env.fetch(1, ran=rans[0])
    call = env.fetch(2, ran=rans[1])
    env.pass_time(2.0)
    assert env.take_granted(call) == [3]


@pytest.mark.parametrize("why", ["setup_failed", "unfit_for", "lacks", "stopped"])
def test_a_slave_that_cannot_run_the_task_gets_no_copy(make_env: MakeEnv, why: str) -> None:
    env = new_env(make_env, 3)
    env.state.durations[1].learn(QUICK, 1, 1.0, env.now)
    env.add(1)
    assert env.fetched(SLOW) == [1]
    setattr(env.record(2), why, True if why == "stopped" else {1})
    env.fetch(2)
    env.pass_time(3.0)
    env.nothing_left()
    call = env.fetch(QUICK)
    env.pass_time(0.2)
    assert env.take_granted(call) == [1]


def test_a_slave_that_has_to_set_up_first_gets_a_copy_later(make_env: MakeEnv) -> None:
    env = new_env(make_env, 3, setup=b"setup")
    durations = env.state.durations[1]
    durations.begins(9, env.now - 5.0)
    durations.learn(9, 1, 1.0, env.now)  # 4 s went by with its setup
    env.add(1)
    assert env.fetched(SLOW) == [1]
    call = env.fetch(2)
    env.pass_time(7.4)
    env.nothing_left()
    env.pass_time(0.2)
    assert env.take_granted(call) == [1]


def test_nothing_is_started_twice_while_a_task_waits(make_env: MakeEnv) -> None:
    """Which the one that idles cannot run, or it would have it."""
    env = new_env(make_env, 3)
    env.add(1)
    ran = works(env, QUICK)
    env.add(2)
    assert env.fetched(SLOW) == [2] and env.fetched(2) == [3]
    env.cannot_rebuild(2, 3)
    env.state.roster.slaves[QUICK].setup_failed.add(1)
    call = env.fetch(QUICK, ran=ran)
    env.pass_time(3.0)
    env.nothing_left()
    env.state.roster.slaves[QUICK].setup_failed.clear()
    env.add(0)
    assert env.take_granted(call) == [3]


def test_what_a_paused_context_runs_is_not_started_twice(make_env: MakeEnv) -> None:
    env = new_env(make_env, result_bytes=1000)
    env.add(1)
    (task,) = env.fetched(QUICK)
    env.post(QUICK, task, data=bytes(2000))
    env.take_delivered(1)
    env.take_paused(1, True)
    env.results_taken(9999)
    env.take_paused(1, False)
    env.add(1)
    assert env.fetched(SLOW) == [2]
    env.state.backlog.pause(1)
    call = env.fetch(QUICK, ran=[Ran(1, 1, 1.0)])
    env.pass_time(3.0)
    env.nothing_left()
    env.state.backlog.resume(1)
    env.pass_time(1.0)
    assert env.take_granted(call) == [2]


def test_of_a_lease_of_several_what_stands_behind_is_called_back_first(make_env: MakeEnv) -> None:
    env = new_env(make_env)
    env.add(1)
    (task,) = env.fetched(QUICK)
    env.post(QUICK, task)
    env.take_delivered(1)
    env.state.pace.learn(1, 1, 0.001)
    env.state.durations[1].learn(QUICK, 1, 0.001, env.now)
    env.add(3, as_inputs=True)
    first = env.fetched(SLOW)
    assert len(first) == 2
    call = env.fetch(QUICK)
    assert env.take_granted(call) == [4]
    env.post(QUICK, 4)
    env.take_delivered(1)
    call = env.fetch(QUICK)
    env.pass_time(0.15)
    env.nothing_left()
    env.pass_time(0.1)
    (recall,) = pending_commands(env, SLOW)
    env.recalled(SLOW, recall.lease, first[0])  # type: ignore[union-attr]
    assert env.take_granted(call) == first[1:]
    env.post(QUICK, *first[1:])
    env.take_delivered(1)
    call = env.fetch(QUICK)
    env.pass_time(0.1)
    assert env.take_granted(call) == first[:1], "then what runs, which had to be taken out of its chunk"
    assert env.task(first[0]).tag == first[0], "and is known by its index"


def test_who_runs_a_copy_is_told_how_many_tasks_its_process_may_run(make_env: MakeEnv) -> None:
    env = make_env()
    assert env.context(speculate=True, most_tasks=7) == 1
    for number in range(2):
        env.slave(str(number))
    env.add(1)
    ran = works(env, QUICK)
    env.add(1)
    assert env.fetched(SLOW) == [2]
    call = env.fetch(QUICK, ran=ran)
    env.pass_time(2.0)
    granted = env.take_answer(call)
    assert isinstance(granted, Granted) and granted.most == {1: 7}


# -- the first outcome counts, and the other copy is ended


@pytest.mark.parametrize("kind", [VALUE, FAILURE])
@pytest.mark.parametrize("winner, loser", [(SLOW, QUICK), (QUICK, SLOW)])
@pytest.mark.parametrize("as_inputs", [False, True])
def test_the_first_outcome_counts_and_the_other_slave_is_stopped(
    make_env: MakeEnv, kind: int, winner: int, loser: int, as_inputs: bool
) -> None:
    env, task, first, second = copied(make_env, as_inputs=as_inputs)
    leases = {SLOW: first, QUICK: second}
    late = env.message(loser, task, kind)
    env.post(winner, task, kind=kind)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind) == (task, kind) and outcome.slave.startswith(f"slave {winner} ")
    assert pending_commands(env, loser) == [StopTasks(loser, leases[loser], [task])]
    assert pending_commands(env, winner) == []
    assert env.state.copies_first == (winner == QUICK)
    env.outcomes([late])
    env.nothing_left()
    env.runner_ended(loser, task, cause=STOPPED)
    (lost,) = env.events(ev.SlaveLost)
    assert lost.wanted and not lost.tasks and not lost.given_up and not env.record(loser).losses
    assert not env.state.leases.by_slave


def test_a_copy_that_raises_uses_up_a_retry_and_the_other_is_the_next_try(make_env: MakeEnv) -> None:
    env, task, _, _ = copied(make_env, retries=1)
    env.post(SLOW, task, kind=FAILURE)
    env.nothing_left()
    assert held_by(env, task) == [QUICK] and env.task(task).retries == 0 and not env.state.backlog.waiting
    assert not pending_commands(env, QUICK)
    env.post(QUICK, task, kind=FAILURE)
    (outcome,) = env.take_delivered(1)
    assert outcome.kind == FAILURE and outcome.tries == 2


def test_the_time_limit_is_each_copys_own_and_the_first_to_exceed_it_ends_the_task(make_env: MakeEnv) -> None:
    env, task, _, second = copied(make_env, timeout=3.0)
    env.runner_ended(SLOW, task, cause=TIME_LIMIT)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind, outcome.data) == (task, TIMED_OUT, 3.0)
    assert pending_commands(env, QUICK) == [StopTasks(QUICK, second, [task])]


# -- a copy that is lost leaves the task to the other one


@pytest.mark.parametrize("dies, lives", [(SLOW, QUICK), (QUICK, SLOW)])
def test_a_copys_death_counts_as_ever_and_the_other_goes_on(make_env: MakeEnv, dies: int, lives: int) -> None:
    env, task, _, _ = copied(make_env, watched=True, max_attempts=2)
    env.runner_ended(dies, task)
    assert held_by(env, task) == [lives] and env.task(task).ends is not None and not env.state.backlog.waiting
    (ended,) = env.events(ev.TaskAttemptEnded)
    assert (ended.task, ended.slave, ended.attempts) == (task, dies, 1)
    env.runner_ended(lives, task)
    (outcome,) = env.take_delivered(1)
    assert outcome.kind == GIVEN_UP and len(outcome.data) == 2


def test_the_last_death_that_is_allowed_gives_the_task_up_and_ends_the_other_copy(make_env: MakeEnv) -> None:
    env, task, first, _ = copied(make_env, max_attempts=1)
    env.runner_ended(QUICK, task)
    (outcome,) = env.take_delivered(1)
    assert outcome.kind == GIVEN_UP
    assert pending_commands(env, SLOW) == [StopTasks(SLOW, first, [task])] and not pending_commands(env, QUICK)
    assert not env.state.copies_first


def go_silent(found: Copied, number: int) -> None:
    other = SLOW + QUICK - number
    for _ in range(12):
        found.env.heartbeat(other, found.task, agent=agent_of(found.env, other))
        found.env.pass_time(1.0)


def leave(found: Copied, number: int) -> None:
    found.env.leave(agent_of(found.env, number))


def give_back(found: Copied, number: int) -> None:
    found.env.take_answer(found.env.give_back(number, found.env.lease_id(number), [found.task]))


def fail_setup(found: Copied, number: int) -> None:
    env = found.env
    env.take_answer(env.setup_failed(number, 1, env.lease_id(number), [found.task]))


def cannot_rebuild(found: Copied, number: int) -> None:
    found.env.cannot_rebuild(number, found.task)


def join_anew(found: Copied, number: int) -> None:
    """Its process has ended, and what it held has not arrived there."""
    found.env.joined(number, connection=2)


@pytest.mark.parametrize("number", [SLOW, QUICK])
@pytest.mark.parametrize("how", [go_silent, leave, give_back, fail_setup, cannot_rebuild, join_anew])
def test_a_copy_that_comes_back_is_not_enqueued_while_the_other_runs(make_env: MakeEnv, number: int, how: Any) -> None:
    found = copied(make_env)
    env, task, other = found.env, found.task, SLOW + QUICK - number
    how(found, number)
    assert held_by(env, task) == [other] and env.task(task).holder == other and not env.state.backlog.waiting
    assert not env.task(task).ends, "no attempt"
    env.scheduler.check()
    env.post(other, task)
    (outcome,) = env.take_delivered(1)
    assert outcome.task == task
    assert not any(isinstance(one, StopTasks) for one in pending_commands(env, other))


def test_when_both_copies_are_lost_the_task_waits_again_and_another_slave_gets_it(make_env: MakeEnv) -> None:
    env, task, _, _ = copied(make_env)
    leave(Copied(env, task, 0, 0), SLOW)
    leave(Copied(env, task, 0, 0), QUICK)
    assert env.state.backlog.waiting == 1 and env.task(task).state is State.WAITING
    other = env.slave("another")
    assert env.fetched(other) == [task]


def test_a_task_whose_copy_was_lost_may_be_started_twice_again(make_env: MakeEnv) -> None:
    env, task, _, _ = copied(make_env)
    env.runner_ended(QUICK, cause=STOPPED)
    env.joined(QUICK, pid=PID + 1)
    call = env.fetch(QUICK, pid=PID + 1)
    env.pass_time(0.2)
    assert env.take_granted(call) == [task] and env.state.copies == 2


@pytest.mark.parametrize("what", ["task", "context"])
def test_cancelling_ends_both(make_env: MakeEnv, what: str) -> None:
    env, task, first, second = copied(make_env)
    if what == "task":
        assert env.cancel_task(task)
    else:
        assert env.cancel() == 1
    assert pending_commands(env, SLOW) == [StopTasks(SLOW, first, [task])]
    assert pending_commands(env, QUICK) == [StopTasks(QUICK, second, [task])]
    assert not env.state.leases.by_slave and not env.state.table.races.second and not env.state.table.races.over


def test_a_context_that_is_dropped_leaves_nothing(make_env: MakeEnv) -> None:
    env, task, _, _ = copied(make_env)
    env.drop_context()
    assert not env.state.leases.by_slave and not env.state.table.races.second and not env.state.durations
    env.outcomes([(QUICK, 9, 1, task, VALUE, b"", ())])
    env.nothing_left()


def test_an_outcome_of_an_earlier_attempt_ends_both_copies(make_env: MakeEnv) -> None:
    env = new_env(make_env, 3)
    env.add(1)
    ran = works(env, QUICK)
    (task,) = env.add(1)
    assert env.fetched(2) == [task]
    late = env.message(2, task)
    env.runner_ended(2, task, cause=STOPPED)
    assert env.fetched(SLOW) == [task]
    call = env.fetch(QUICK, ran=ran)
    env.pass_time(2.0)
    assert env.take_granted(call) == [task]
    env.outcomes([late])
    env.take_delivered(1)
    assert [type(one) for number in (SLOW, QUICK) for one in pending_commands(env, number)] == [StopTasks, StopTasks]


def test_a_master_that_was_stopped_takes_nothing_for_slow(make_env: MakeEnv) -> None:
    env = new_env(make_env)
    env.add(1)
    ran = works(env, QUICK)
    (task,) = env.add(1)
    assert env.fetched(SLOW) == [task]
    call: Call = env.fetch(QUICK, ran=ran)
    env.stand_still(8.0)
    env.nothing_left()
    env.pass_time(2.0)
    assert env.take_granted(call) == [task]
