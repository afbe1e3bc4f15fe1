"""Slaves whose launcher has the last word: they leave, vanish, and are started again, as their engine pleases."""

from __future__ import annotations

import pytest

from parallel.core import events as ev
from parallel.core.slave import Contact, Life
from parallel.service.messages import how_all_ended, what_slaves_do
from slave.protocol import Drain
from tests.core.fake import PID, Env, Launched


def launched(env: Env, *, preemptible: bool = True) -> Env:
    """With one slave, number 0, that was launched and has joined."""
    assert env.expect(Launched(preemptible=preemptible)) == [0]
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
    verdict = job.scheduler.users.how_all_ended(0)
    assert how_all_ended(verdict).endswith("it was ended by SIGTERM; job 12.1 left the queue")


def test_a_slave_that_the_user_removed_has_ended_when_it_leaves(job: Env) -> None:
    job.dismiss(0)
    job.slave_closed(0, "it was asked to end")
    assert job.record(0).life is Life.ENDED


def test_what_vanishes_with_its_job_is_blamed_on_no_task(job: Env) -> None:
    job.add()
    assert job.fetched(0) == job.lease_of(0) == [1]
    job.heartbeat(0, 1)
    job.pass_time(10.0)
    assert job.record(0).contact is Contact.LOST
    job.launcher_says_ended()
    assert job.task(1).ends is None


def test_what_vanishes_after_it_was_asked_to_end_is_blamed_on_no_task(env: Env) -> None:
    launched(env, preemptible=False)
    env.add()
    assert env.fetched(0) == [1]
    env.heartbeat(0, 1)
    assert env.record(0).suspect == 1
    env.draining(0)
    env.launcher_says_ended("a", "it exited with code 1")
    assert env.record(0).life is Life.ENDED
    assert env.task(1).ends is None


def test_what_vanishes_of_itself_is_blamed_on_the_task_that_it_ran(env: Env) -> None:
    launched(env, preemptible=False)
    env.add()
    assert env.fetched(0) == [1]
    env.heartbeat(0, 1)
    env.launcher_says_ended("a", "it exited with code 1")
    assert env.task(1).ends == ["its agent ended: it exited with code 1 on here"]


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
