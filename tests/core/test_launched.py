"""Slaves whose launcher has the last word: they leave, vanish, and are started again, as their engine pleases."""

from __future__ import annotations

import signal
from typing import Callable

import pytest

from parallel.core import events as ev
from parallel.core.slave import Life
from parallel.service.messages import how_all_ended, what_slaves_do
from slave.protocol import Drain
from tests.core.fake import PID, Env, Launched


def launched(env: Env) -> Env:
    """With one slave, number 0, that was launched and has joined."""
    assert env.expect(Launched()) == [0]
    assert env.enlist([0]).numbers == [0]
    env.joined(0)
    return env


@pytest.fixture
def job(env: Env) -> Env:
    return launched(env)


def test_a_slave_that_leaves_has_ended_when_its_launcher_says_so(job: Env) -> None:
    job.leave("a", "it was ended by SIGTERM")
    assert job.record(0).life is Life.PARTED and len(job.state.roster.slaves) == 1
    job.launcher_says_ended("a", "job 12.1 left the queue")
    assert job.record(0).life is Life.ENDED
    verdict = job.scheduler.users.readers.how_all_ended(0)
    assert how_all_ended(verdict).endswith("it was ended by SIGTERM; job 12.1 left the queue")


def test_a_slave_that_the_user_removed_has_ended_when_it_leaves(job: Env) -> None:
    job.dismiss(0)
    job.slave_closed(0, "it was asked to end")
    assert job.record(0).life is Life.ENDED


def cut_off(env: Env) -> None:
    env.agent_disconnected(env.state.roster.agents["a"].connection)
    env.pass_time(1.0)


ENDS: dict[str, Callable[[Env], object]] = {
    "silence": lambda env: env.pass_time(10.0),
    "the connection": lambda env: cut_off(env),
    "the agent": lambda env: env.launcher_says_ended("a", "it exited with code 1", successor="a"),
    "the job again": lambda env: env.enlist([0], connection=7),
    "it leaves": lambda env: env.leave("a", "it was ended by SIGHUP"),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_the_machine_the_network_or_the_queue_does_is_never_counted(env: Env, how: str) -> None:
    """Ten times, with three attempts, and each time the agent had said that the task runs."""
    assert env.expect(Launched()) == [0]
    env.add()
    for time in range(10):
        pid = PID + time
        env.enlist([0], connection=1 + time)
        env.joined(0, pid)
        assert env.fetched(0, pid) == [1]
        env.heartbeat(0, 1, pid)
        assert env.record(0).running == 1
        ENDS[how](env)
        assert env.lease_of(0) == [] and env.task(1).ends is None
    env.events(ev.SlaveLost)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_process_that_is_asked_to_end_together_with_its_agent_is_not_counted(env: Env, signum: int) -> None:
    """A machine is switched off: all of its processes get the signal."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.draining(number)
    env.runner_ended(number, 1, exitcode=-signum)
    assert env.task(1).ends is None


def test_a_process_that_gets_such_a_signal_alone_or_crashes_while_it_drains_is_counted(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.runner_ended(number, 1, exitcode=-signal.SIGTERM)
    assert len(env.task(1).ends or ()) == 1
    env.joined(number, PID + 1)
    assert env.fetched(number, PID + 1) == [1]
    env.draining(number)
    env.runner_ended(number, 1, pid=PID + 1, exitcode=-signal.SIGSEGV)
    assert len(env.task(1).ends or ()) == 2


def test_a_job_that_starts_again_brings_the_same_slave_with_another_process(job: Env) -> None:
    job.add(3)
    held = job.fetched(0)
    assert held
    assert job.enlist([0], connection=1).numbers == [0], "a new process, which knows nothing of the run"
    assert job.record(0).life is Life.EXPECTED and job.lease_of(0) == []
    job.joined(0, PID + 1)
    assert job.record(0).life is Life.READY
    assert job.fetched(0, PID + 1)[0] == held[0]


def test_a_removed_slave_whose_job_starts_again_is_told_to_end_again(job: Env) -> None:
    job.dismiss(0)
    job.enlist([0])
    assert Drain(0, 0.0) in [command for _, command in job.state.roster.agents["a"].commands]


def test_nobody_knows_how_many_slaves_an_agent_brings_before_it_has_come(env: Env) -> None:
    env.expect(Launched("SSHSlave('node1')", open_ended=True))
    assert env.state.roster.open_ended()
    assert env.enlist([0, None, None]).numbers == [0, 1, 2]
    assert not env.state.roster.open_ended()
    others = [env.record(number) for number in (1, 2)]
    assert [(one.name, one.output, one.has_launcher) for one in others] == [
        ("SSHSlave('node1')", "out1", True),
        ("SSHSlave('node1')", "out2", True),
    ]


def test_slaves_that_do_the_same_are_told_of_together(env: Env) -> None:
    for number in range(9):
        env.expect(Launched(f"job 12.{number}"), agent=str(number))
        env.record(number).doing = "queued (qw): full" if number != 3 else "held (hqw)"
    env.wait_for_slaves(9)
    env.pass_time(5.0)
    (waiting,) = env.events(ev.Waiting)
    assert what_slaves_do(waiting) == (
        "not connected yet: slave 0 (job 12.0), slave 1 (job 12.1), slave 2 (job 12.2), slave 4 (job 12.4), 4 more: "
        "queued (qw): full; slave 3 (job 12.3): held (hqw)"
    )
