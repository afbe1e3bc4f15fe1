"""Starting runners when that is not possible just now; words to a master that get lost."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import parallel
from parallel.service.result_queue import ResultQueue
from slave import environment, machine, runner_pool
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.gathering import new_shared_memory
from slave.guard import Guard
from slave.protocol import EnlistReply, SetupFailure
from slave.runner import RunnerConfig
from slave.runner_pool import RunnerPool, Slave
from slave.shared_status import NAPS, TASK
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import script
from tests.support.waiting import eventually

KEY = b"the key of these tests"


class Unable:
    """A kind of process; the system has none to give for the first ``failing`` tries."""

    failing = 0
    pid, exitcode = 4711, None

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        if type(self).failing:
            type(self).failing -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_runner_that_cannot_be_started_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(runner_pool, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(runner_pool, "new_shared_status", lambda fork: [0] * 8)
    monkeypatch.setattr(runner_pool, "new_shared_memory", lambda fork: new_shared_memory(True))
    monkeypatch.setattr(Unable, "failing", 1)
    monkeypatch.setattr(Guard, "start", lambda guard, runners: None)
    config = RunnerConfig(0, "run", [], KEY, 1.0, {}, None)
    waker: Any = None
    pool = RunnerPool("an agent", lambda slave: config, lambda: (), waker, "spawn")
    monkeypatch.setattr(pool, "_context", SimpleNamespace(Process=Unable))
    pool.add(7, None)
    pool.add(8, None)
    assert [type(trouble) for trouble in pool.start_missing()] == [BlockingIOError]
    assert not pool.complete and [beat.slave for beat in pool.alive()] == [8]
    assert list(pool.reap()) == []
    assert pool.start_missing() == [] and not pool.complete, "not at once"
    clock.now += 10.0
    assert pool.start_missing() == [] and pool.complete


def test_a_runner_of_a_job_that_was_killed_may_be_the_first_of_many() -> None:
    """HTCondor, among others, kills a job's processes one after another: the agent, if it is next, has told nothing."""
    slave = Slave(7, None)
    slave.process = cast(Any, SimpleNamespace(exitcode=-9))
    assert not slave.may_be_of_many(100.0), "nobody but the system kills here"
    slave.shielded = True
    assert slave.may_be_of_many(100.0) and slave.may_be_of_many(100.2)
    assert not slave.may_be_of_many(100.4), "we live: it was this one alone"
    slave.dead_since = 0.0
    slave.stopped = "timed out", 3
    assert not slave.may_be_of_many(100.0), "we did it"
    slave.stopped, slave.process = None, cast(Any, SimpleNamespace(exitcode=-11))
    assert not slave.may_be_of_many(100.0), "a crash"


def test_a_slave_for_which_no_process_can_be_had_for_long_is_given_up_and_the_master_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(runner_pool, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(Unable, "failing", 1000)
    monkeypatch.setattr(runner_pool, "new_shared_status", lambda fork: [0] * 8)
    monkeypatch.setattr(runner_pool, "new_shared_memory", lambda fork: new_shared_memory(True))
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], KEY, []), "spawn")
    agent._master.session.enlisted(EnlistReply("run", 30.0, {}, [], False), ("127.0.0.1", 1), 0.0)
    told: list[Any] = []
    monkeypatch.setattr(agent._master.service, "slave_closed", lambda *word: told.append(word))
    monkeypatch.setattr(Guard, "start", lambda guard, runners: None)
    monkeypatch.setattr(agent._pool, "_context", SimpleNamespace(Process=Unable))
    agent._pool.add(7, None)
    for _ in range(100):
        agent._supervisor.start_runners()
        clock.now += 2.0
    ((name, number, why),) = told
    assert (name, number) == ("an agent", 7)
    assert "its process cannot be started: [Errno 11] Resource temporarily unavailable" in why and "ulimit -a" in why
    assert not agent._pool.slaves
    agent.close()


def test_a_slave_is_given_up_soon_if_its_agent_may_open_no_more_files() -> None:
    slave = runner_pool.Slave(1, None)
    slave.failed_starts, slave.trouble = 2, OSError(errno.EAGAIN, "no process")
    assert not slave.cannot_start
    slave.trouble = OSError(errno.EMFILE, "Too many open files")
    assert slave.cannot_start


def test_an_agent_that_could_not_fork_says_so_once_and_works(own_folder: Path) -> None:
    program = script(
        own_folder / "script.py",
        """
import functools, multiprocessing, sys, threading
import parallel
from parallel.core import agents, runners
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    # so neither an answer nor a heartbeat, but only the agent's own care wakes it
    agents.POLL_SECONDS = runners.IDLE_SECONDS = 600
    m = parallel.Manager(port=0, lease=3600)
    c = m.get_context()
    c.add_task(functools.partial(tasks.give, 5))
    kind = multiprocessing.get_context('fork').Process
    start, failures = kind.start, [BlockingIOError(11, 'no process to be had')]
    def start_late(self):
        if failures:
            raise failures.pop()
        start(self)
    kind.start = start_late
    agent = Agent(AgentConfig('an agent', [('127.0.0.1', m.address[1])], find_key(), [(None, None)]), 'fork')
    agent.enlist()
    def read():
        print(list(c.get_results_unordered()), flush=True)
        m.shutdown()
    threading.Thread(target=read).start()
    agent.serve()
""",
        PYTHONWARNINGS="ignore",  # this process has threads and forks, which an agent's never has
    )
    assert program.ends() == 0, program.err
    assert program.out == "[5]\n"
    assert program.err.count("a slave's process cannot be started for now: [Errno 11] no process to be had") == 1


def test_a_failed_setup_is_told_again_when_the_word_was_lost_with_its_connection(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    told: list[int] = []
    real = ResultQueue.setup_failed

    def lost_the_first_time(self: ResultQueue, call: Any, failure: Any) -> None:
        told.append(SetupFailure(*failure).slave)
        if len(told) > 1:
            real(self, call, failure)
            return
        connections: Any = manager.dispatcher.connections
        connections.shut()

    monkeypatch.setattr(ResultQueue, "setup_failed", lost_the_first_time)
    manager.wait_for_slaves(1, 40)
    (slave,) = manager.slaves
    context = manager.get_context(tasks.failing_setup)
    context.add_task(tasks.pid_of)
    with pytest.raises(
        parallel.RemoteError, match="LookupError: no such data set"
    ):  # the only slave is out for that context
        list(context.get_results_unordered())
    assert told == [slave.number, slave.number]
    other = manager.get_context()
    other.add_task(tasks.pid_of)
    assert list(other.get_results_unordered()) == [slave.pid], "the same process is there for others"
    assert [info.pid for info in manager.slaves] == [slave.pid]
    output = Path("slave0.output")  # its agent is back too, and hears at once that the master ends
    eventually(lambda: "connected to the master again" in output.read_text(), 60)
    eventually(lambda: manager.slaves[0].state in ("idle", "busy"), 60, f"a slave that is there, not {manager.slaves}")


def test_a_runner_that_finds_no_master_leaves_when_its_agent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner leaves as the master ends; its agent, which has not heard of that yet, starts another one."""
    monkeypatch.setattr(runner_pool, "_TO_LEAVE", 30.0)  # on a busy machine it takes its time to begin
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))  # nobody listens there
    address = taken.getsockname()
    waker: Any = None

    def configure(slave: Slave) -> RunnerConfig:
        return RunnerConfig(slave.number, "run", [address], KEY, 1.0, environment.describe(), None)

    pool = RunnerPool("an agent", configure, lambda: (), waker)
    pool.add(0, None)
    assert pool.start_missing() == []
    process = pool.slaves[0].process
    assert process is not None
    pool.end()
    code = process.exitcode
    del process
    taken.close()
    assert code == 0, "it had to be killed"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> RunnerPool:
    """An agent's pool of one slave, whose process does nothing."""
    waker: Any = None
    found = RunnerPool("an agent", lambda slave: cast(RunnerConfig, None), lambda: (), waker, "spawn")
    found.add(7, None)
    found.slaves[7].process = cast(Any, Unable())
    found.slaves[7].begin([0] * 10, 0.0)
    return found


def test_the_memory_of_a_runner_that_idles_is_not_looked_up_with_each_heartbeat(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    used = [0]
    slave = pool.slaves[7]
    slave.clock = cast(Any, SimpleNamespace(read=lambda: used[0]))

    def look_at(pid: int) -> tuple[int, int]:
        looks.append(pid)
        return len(looks), 0

    monkeypatch.setattr(machine, "look_at", look_at)

    def told() -> int:
        (beat,) = pool.alive(anew=False)
        return beat.memory

    assert (told(), told()) == (1, 1)
    slave.status[TASK] = 3
    assert (told(), told()) == (2, 3), "it runs a task"
    slave.status[TASK] = 0
    used[0] += 10_000_000
    assert (told(), told()) == (4, 4), "it has run one since"
    (beat,) = pool.alive(anew=True)
    assert beat.memory == 5, "a process was stopped, perhaps this one"
    monkeypatch.setattr(runner_pool, "_LOOK_AT_IDLE", 0.0)
    pool.alive()
    assert (told(), told()) == (7, 8), "long ago"


def test_an_agent_that_limits_memory_naps_while_nobody_runs_anything(pool: RunnerPool) -> None:
    status = pool.slaves[7].status
    assert pool.patience() > 1.0, "there is no limit"
    pool.max_memory = 1
    assert pool.patience() <= 0.1, "it may begin before it sees that it is to wake the agent"
    assert pool.patience() > 1.0 and status[NAPS] == 1
    status[TASK] = 3
    assert pool.patience() <= 0.1 and status[NAPS] == 0
