"""What users see of the scheduler: results that wait to be read, waiting, the end, the slaves."""

from __future__ import annotations

from typing import Any

from parallel.core import events as ev
from parallel.core.effects import AllDone, Closed, News, NoSlaves, SetupFailed, TasksWanted
from slave.protocol import Drain
from tests.core.conftest import MakeEnv
from tests.core.fake import PID, Env, Launched


# -- too much waits to be read
def full(make_env: MakeEnv) -> tuple[Env, int, Any]:
    """A context of which two results of 600 bytes wait to be read, and a slave that is held up because of that."""
    env = make_env(result_bytes=1000)
    env.context()
    number = env.slave()
    env.state.pace.learn(1, 1, 0.001)
    env.add(4)
    assert env.fetched(number) == [1, 2, 3, 4]
    env.post(number, 1, data=bytes(300))
    env.take_delivered(1)
    held_up = env.post_and_wait(env.message(number, 2, data=bytes(300)))
    env.take_delivered(1)
    env.take_paused(1, True)
    env.nothing_left()
    return env, number, held_up


def test_a_slave_is_held_up_until_half_of_what_waits_is_read(make_env: MakeEnv) -> None:
    env, _, held_up = full(make_env)
    env.results_taken(600)
    env.nothing_left()
    env.results_taken(600)
    env.take_paused(1, False)
    assert env.take_answer(held_up) is None


def test_nothing_of_a_full_context_is_granted_and_of_others_it_is(make_env: MakeEnv) -> None:
    env, number, held_up = full(make_env)
    other = env.slave("b")
    env.context()
    env.give_back(number, env.lease_id(number), [3, 4])
    env.effects.popleft()
    waiting = env.fetch(other)
    env.nothing_left()
    (task,) = env.add(1, 2)
    assert env.take_granted(waiting) == [task]
    env.post(other, task)
    env.take_delivered(2)
    waiting = env.fetch(other)
    env.results_taken(1200)
    env.take_paused(1, False)
    assert env.take_answer(held_up) is None
    assert env.take_granted(waiting) == [3]


def test_no_slave_is_held_up_while_somebody_waits_for_another_context(make_env: MakeEnv) -> None:
    env, number, held_up = full(make_env)
    env.context()
    env.add(1, 2)
    env.read(2)
    assert env.take_answer(held_up) is None
    call = env.post_and_wait(env.message(number, 3, data=bytes(300)))
    env.take_delivered(1)
    assert env.take_answer(call) is None


def test_a_full_context_that_is_dropped_holds_nobody_up(make_env: MakeEnv) -> None:
    env, number, held_up = full(make_env)
    env.drop_context()
    assert env.take_answer(held_up) is None
    assert not env.state.backlog.paused and env.lease_of(number) == []


def test_a_reader_that_has_more_tasks_to_add_is_told_when_few_are_left(env: Env) -> None:
    number = env.slave()
    assert env.more_tasks() == 2, "for each slave the one that runs, and the next"
    env.add(2)
    env.enter()
    reader = env.read(for_tasks=True)
    env.nothing_left()
    for task in (1, 2):
        assert env.fetched(number) == [task]
        env.post(number, task)
        env.take_delivered(1)
        if task == 1:
            assert env.take_answer(reader) == News()
    env.take_tasks_wanted(1)
    assert env.take_answer(env.read(for_tasks=True)) == TasksWanted()
    env.no_more_tasks()
    assert env.take_answer(env.read(for_tasks=True)) == AllDone()


# -- who waits for slaves or results that cannot come
def test_a_reader_is_told_when_the_last_slave_has_ended_and_how_each_did(env: Env) -> None:
    number = env.slave()
    env.add(3)
    reader = env.read()
    env.slave_closed(number, "its process ends right after the start")
    verdict = env.take_answer(reader)
    assert isinstance(verdict, NoSlaves) and verdict.left == 3 and verdict.all_ended
    assert verdict.ends == [(str(env.record(number)), "its process ends right after the start")]
    env.slave("b")
    env.read()
    env.nothing_left()


def test_a_master_that_others_may_join_waits_on(make_env: MakeEnv) -> None:
    env = make_env(may_join=True)
    env.context()
    env.add()
    env.leave("a")
    env.read()
    env.wait_for_slaves(1)
    env.nothing_left()


def test_a_reader_is_told_when_setup_has_failed_on_every_slave_that_there_is(env: Env) -> None:
    first, second = env.slave(), env.slave("b")
    env.add()
    reader = env.read()
    assert env.fetched(first) == [1]
    assert env.take_answer(env.setup_failed(first, 1, env.lease_id(first), [1], b"no such data")) is None
    waiting = env.fetch(first)
    env.nothing_left()
    assert env.fetched(second) == [1]
    env.runner_ended(second, 1, setup=1)
    verdict = env.take_answer(reader)
    assert isinstance(verdict, SetupFailed) and verdict.tried == 2
    assert verdict.data == b"no such data" and verdict.slave == str(env.record(first))
    assert env.task(1).ends is None, "the task is not to blame"
    env.runner_disconnected(first)
    assert env.take_granted(waiting) == []


def test_who_waits_for_slaves_is_told_when_they_are_there_or_cannot_come(env: Env) -> None:
    two, three = env.wait_for_slaves(0), env.wait_for_slaves(1)
    assert env.take_answer(two) is None
    assert isinstance(env.take_answer(three), NoSlaves)
    numbers = env.enlist([None, None]).numbers
    two = env.wait_for_slaves(2)
    env.joined(numbers[0])
    env.nothing_left()
    assert env.take_answer(env.join(numbers[1])) is True
    assert env.take_answer(two) is None
    gone = env.wait_for_slaves(9)
    assert isinstance(env.take_answer(gone), NoSlaves)


def test_everybody_is_answered_when_the_manager_ends(make_env: MakeEnv) -> None:
    env, number, held_up = full(make_env)
    agent, joins = env.slave("b"), env.join(number, PID + 1)
    waiting, commands = env.fetch(agent), env.commands()
    env.close()
    assert env.take_answer(joins) is True
    assert env.take_answer(waiting) is None and env.take_answer(commands) is None
    assert env.take_answer(held_up) is None
    assert env.take_answer(env.fetch(number, PID + 1)) is None
    assert env.take_answer(env.commands()) is None
    assert env.enlist(agent="c").done
    env.close()
    assert len(env.events(ev.ManagerClosed)) == 1


def test_who_waits_for_results_or_slaves_is_told_that_the_manager_ends(make_env: MakeEnv) -> None:
    env = make_env(may_join=True)
    env.context()
    env.add()
    reader, waiter = env.read(), env.wait_for_slaves(1)
    env.close()
    assert env.take_answer(reader) == Closed() and env.take_answer(waiter) == Closed()
    assert env.take_answer(env.read()) == Closed() and env.take_answer(env.wait_for_slaves(1)) == Closed()


def test_a_reader_that_has_gone_is_not_answered_and_its_news_go_to_the_others(env: Env) -> None:
    number = env.slave()
    env.state.pace.learn(1, 1, 0.001)
    env.add(2)
    env.fetched(number)
    gone, stays = env.read(), env.read()
    env.post(number, 1)
    env.take_delivered(1)
    assert env.take_answer(gone) == News()
    env.stop_reading(gone)
    assert env.take_answer(stays) == News()
    waits = env.read()
    env.stop_reading(waits)
    env.post(number, 2)
    env.take_delivered(1)


# -- slaves
def test_a_slave_that_is_removed_gets_no_more_tasks_and_its_agent_is_commanded_to_end_it(env: Env) -> None:
    number = env.slave()
    waiting, commands = env.fetch(number), env.commands()
    env.dismiss(number, 5.0)
    assert env.take_answer(waiting) is None
    assert env.take_answer(commands) == (1, [Drain(number, 5.0)])
    env.add()
    assert env.take_answer(env.fetch(number)) is None
    env.dismiss(99)


def test_what_is_shown_of_slaves(env: Env) -> None:
    _, idle, busy, draining, lost, ended = env.enlist([None] * 6).numbers
    for number in (idle, busy, draining, ended):
        env.joined(number)
    env.add()
    assert env.fetched(busy) == [1]
    env.draining(draining)
    env.slave_closed(ended)
    env.record(lost).due = env.now
    env.pass_time(1.0)
    shown = {info.number: info.state for info in env.do(env.scheduler.users.infos)}
    assert [shown[number] for number in sorted(shown)] == ["expected", "idle", "busy", "draining", "lost", "ended"]


def test_a_launcher_sees_what_became_of_its_slaves(env: Env) -> None:
    here, gone = env.expect(Launched("job 7.1"), Launched("job 7.2"))
    env.enlist([here, gone])
    env.joined(here)
    env.launcher_says_ended(numbers=[gone])
    env.do(env.scheduler.launches.started, "a", [here], {here: "job 7.1 on node1"}, "it runs")
    views = {view.number: view for view in env.do(env.scheduler.launches.describe, "a")}
    assert views[here].text == f"slave 0 (job 7.1 on node1 on here, pid {PID})" and views[here].output == "out0"
    assert (views[here].came, views[here].lost, views[here].ended) == (True, False, False)
    assert views[gone].ended
    assert env.do(env.scheduler.launches.describe, "nobody") == []


def test_slaves_move_to_the_agent_that_is_to_take_over(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    assert env.launcher_says_ended(why="it was killed", successor="b") == [number]
    assert env.lease_of(number) == [] and list(env.state.roster.agents) == ["b"]
    env.enlist([number], agent="b")
    env.joined(number, PID + 1)
    assert env.fetched(number, PID + 1) == [1]


# -- questions that can wait
def test_a_readers_question_can_wait_while_a_slave_holds_its_tasks_and_only_then(env: Env) -> None:
    can_wait = env.scheduler.users.readers.can_wait
    env.add(2)
    assert not can_wait(1, False), "no slave has any of it"
    number = env.slave()
    env.state.pace.learn(1, 1, 0.001)
    assert env.fetched(number) == [1, 2]
    assert can_wait(1, True)
    env.more_tasks(seconds=10.0)
    assert can_wait(1, False) and not can_wait(1, True), "there are fewer than a map wants"
    env.post(number, 1, 2)
    env.take_delivered(1)
    env.take_tasks_wanted(1)
    assert not can_wait(1, False), "none is left"
    assert not can_wait(77, False), "there is no such context"


def test_a_readers_question_cannot_wait_if_setup_failed_or_results_are_to_be_read_first(make_env: MakeEnv) -> None:
    env, number, held_up = full(make_env)
    assert not env.scheduler.users.readers.can_wait(1, False), "slaves are held up"
    env.results_taken(1200)
    env.take_paused(1, False)
    assert env.take_answer(held_up) is None
    assert env.scheduler.users.readers.can_wait(1, False)
    env.setup_failed(number, 1, env.lease_id(number), [])
    env.effects.popleft()
    assert not env.scheduler.users.readers.can_wait(1, False), "no slave may be left"
