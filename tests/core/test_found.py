"""What test_scheduler_model.py has found, or what was found while it was written; by name."""

from __future__ import annotations

import pickle
from typing import Any, Callable

import pytest

from parallel.core import events as ev
from parallel.core.effects import AllDone, Granted, News, NoSlaves
from parallel.core.slave import Contact, Life
from slave.contexts import Contexts, SetupFailed
from slave.environment import Environment, describe
from slave.mapped import Mapped
from tests.core import planted_bugs
from tests.core.driver import Driver
from tests.core.fake import PID, RUN, Env, Launched


def test_a_context_can_be_dropped_that_a_slave_knew_whose_process_was_replaced_before_it_ended(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.post(number, 1)
    env.take_delivered(1)
    env.runner_ended(number)
    env.joined(number, PID + 1)
    env.draining(number)
    env.slave_closed(number)
    assert not env.state.contexts[1].known_by
    env.drop_context()


def test_no_task_of_a_context_that_was_dropped_before_its_setup_was_asked_for_runs_without_it(env: Env) -> None:
    """The task was on its way to a slave; its setup fails there, which nobody hears of."""
    context = env.context(setup=pickle.dumps(list))
    number = env.slave()
    env.add(context=context)
    assert env.fetched(number) == [1]
    env.drop_context(context)
    setups = {context: env.scheduler.runners.setup_of(number, context), 99: pickle.dumps(Mapped(id, False, context))}
    contexts = Contexts(Environment(describe()), setups.get)
    for one in setups:
        with pytest.raises(SetupFailed):
            contexts.arguments(one)
        assert not contexts.ready(one)
    assert env.take_answer(env.setup_failed(number, context, 1, [1])) is None
    assert not env.events(ev.SetupRaised)


def test_a_slave_that_its_agent_gives_up_leaves_no_lease_behind(env: Env) -> None:
    """Its runner's end was told while the connection was broken."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.slave_closed(number, "its process ends right after the start")
    assert env.lease_of(number) == [] and env.state.backlog.waiting == 1
    env.pass_time(20.0)


def test_a_reader_has_the_last_outcome_before_it_is_told_that_all_is_done(env: Env) -> None:
    number = env.slave()
    env.add(2)
    assert env.fetched(number) == [1]
    reader = env.read()
    with env.one_turn():
        env.post(number, 1)
        env.cancel()
    assert [outcome.task for outcome in env.take_delivered(1)] == [1]
    assert env.take_answer(reader) in (News(), AllDone())


def test_an_agent_whose_launcher_said_that_it_has_ended_is_sent_away_when_it_comes_back(env: Env) -> None:
    number = env.slave()
    env.add()
    env.launcher_says_ended(why="job 12.1 left the queue")
    reply = env.enlist([number], run=RUN, connection=2, runners={number: PID})
    assert reply.done and not reply.numbers
    assert env.take_answer(env.commands()) is None
    assert not env.state.roster.slaves and not env.state.roster.agents
    assert isinstance(env.take_answer(env.read()), NoSlaves)


def test_a_lease_that_an_idle_slave_gets_begins_when_it_gets_it(env: Env) -> None:
    numbers = env.enlist([None, None]).numbers
    for number in numbers:
        env.joined(number)
    env.state.pace.learn(1, 1, 0.001)
    first, second = [env.fetch(number) for number in numbers]
    env.pass_time(0.0)
    env.now += 0.75
    env.add(4)
    assert env.take_granted(first) == [1, 2] and env.take_granted(second) == [3, 4]
    assert env.state.leases.by_slave[0].granted == env.now and env.state.leases.by_slave[0].deadline == env.now + 10
    env.pass_time(5.0)
    assert not env.events(ev.MasterWasStopped)


def test_idle_slaves_that_begin_together_get_equal_shares(env: Env) -> None:
    numbers = env.enlist([None, None, None]).numbers
    for number in numbers:
        env.joined(number)
    env.state.pace.learn(1, 1, 0.001)
    calls = [env.fetch(number) for number in numbers]
    env.add(7)
    assert [env.take_granted(call) for call in calls] == [[1, 2, 3], [4, 5, 6], [7]]


def test_who_waits_for_more_slaves_than_an_agent_brings_learns_it_when_it_comes(env: Env) -> None:
    env.expect(Launched("SSHSlave('node1')", open_ended=True))
    waiter = env.wait_for_slaves(3)
    env.nothing_left()
    env.enlist([0, None])
    verdict = env.take_answer(waiter)
    assert isinstance(verdict, NoSlaves) and len(verdict.ends) == 2 and not verdict.all_ended


def test_tasks_that_were_just_added_count_among_those_that_are_left(env: Env) -> None:
    number = env.slave()
    env.add(1)
    assert env.fetched(number) == [1]
    env.add(4)
    reader = env.read()
    env.pass_time(5.0)
    (waiting,) = env.events(ev.Waiting)
    assert waiting.left == 5
    env.add(2)
    env.leave()
    assert env.take_answer(reader).left == 7


@pytest.mark.parametrize("late", [False, True])
def test_a_fetch_that_waits_when_its_connection_ends_is_forgotten(env: Env, late: bool) -> None:
    number = env.slave()
    waiting = env.fetch(number)
    env.runner_disconnected(number, connection=0 if late else 1)
    if not late:
        assert env.take_answer(waiting) == Granted(None, [])
    assert (number in env.state.idle) == late
    env.add()
    if late:
        assert env.take_granted(waiting) == [1]


def test_a_lost_slave_is_not_lost_again_and_may_end_as_such(env: Env) -> None:
    number = env.slave()
    env.pass_time(30.0)
    assert len(env.events(ev.SlaveLost)) == 1 and env.record(number).contact is Contact.LOST
    env.leave()
    assert env.record(number).life is Life.ENDED and not env.state.roster.lost


# The model has to know of these, too: the driver holds what comes out of the scheduler against it.


def driver_with_a_slave_that_knows_context_1() -> Driver:
    """And waits for more to do."""
    driver = Driver(8.0, 2, False, float("inf"))
    driver.make_context()
    driver.make_context()
    driver.enlist_new(1)
    slave = driver.judge.slaves[0]
    driver.join(slave, driver.new_pid(), 1)
    driver.add(1, 1, 0)
    for _ in range(3):
        driver.work(slave)
    assert slave.knows == {1} and slave.call is not None
    return driver


@pytest.mark.parametrize("then", ["is told again", "had the answer", "is another process"])
def test_the_model_knows_that_an_answer_with_contexts_to_forget_may_be_lost(then: str) -> None:
    driver = driver_with_a_slave_that_knows_context_1()
    slave = driver.judge.slaves[0]
    driver.drop_context(1)
    if then == "had the answer":
        driver.fetch(slave, slave.pid, 1, ())
    pid = driver.new_pid() if then == "is another process" else slave.pid
    driver.join(slave, pid, 2)
    driver.pass_time(2.0)
    driver.add(2, 1, 0)
    assert slave.forget == ([1] if then == "is told again" else [])
    driver.work(slave)
    assert slave.held == [2] and not slave.forget
    driver.wind_down()


def test_the_model_knows_that_a_runners_word_on_an_older_connection_is_no_join() -> None:
    driver = driver_with_a_slave_that_knows_context_1()
    slave = driver.judge.slaves[0]
    driver.join(slave, slave.pid, 3)
    driver.join(slave, slave.pid, 2)
    assert slave.connection == 3
    driver.close()


@pytest.mark.parametrize("text, plant", planted_bugs.BUGS, ids=[text for text, _ in planted_bugs.BUGS])
def test_the_bugs_that_show_what_the_model_finds_can_be_planted(text: str, plant: Callable[[], Any]) -> None:
    """The methods that they stand in for are there, under these names."""
    with plant() as planted:
        assert callable(planted), text
