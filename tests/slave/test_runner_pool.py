"""Starting runners when that is not possible just now; words to a master that get lost."""

from __future__ import annotations

import ctypes
import mmap
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import parallel
from parallel.service.result_queue import ResultQueue
from slave import environment, runner_pool
from slave.protocol import SetupFailure
from slave.runner import RunnerConfig
from slave.runner_pool import RunnerPool, Slave
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
    monkeypatch.setattr(runner_pool, "new_shared_status", lambda: [0, 0, 0])
    monkeypatch.setattr(Unable, "failing", 1)
    config: Any = SimpleNamespace(shielded=False)
    waker: Any = None
    pool = RunnerPool("an agent", lambda slave: config, lambda: (), waker)
    monkeypatch.setattr(pool, "_context", SimpleNamespace(Process=Unable))
    pool.add(7, None)
    pool.add(8, None)
    assert [type(trouble) for trouble in pool.start_missing()] == [BlockingIOError]
    assert not pool.complete and [beat.slave for beat in pool.alive()] == [8]
    assert list(pool.reap()) == []
    assert pool.start_missing() == [] and not pool.complete, "not at once"
    clock.now += 10.0
    assert pool.start_missing() == [] and pool.complete


def test_an_agent_that_could_not_fork_says_so_once_and_works(own_folder: Path) -> None:
    program = script(
        own_folder / "script.py",
        """
import functools, multiprocessing, sys, threading
import parallel
from parallel.core import agents, runners
from slave.agent import Agent, AgentConfig
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    # so neither an answer nor a heartbeat, but only the agent's own care wakes it
    agents.POLL_SECONDS = runners.POLL_SECONDS = 600
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
    assert program.err.count("a runner cannot be started for now: [Errno 11] no process to be had") == 1


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
    manager.wait_for_slaves(1, 15)
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
    assert [info.pid for info in manager.slaves] == [slave.pid] and manager.slaves[0].state in ("idle", "busy")
    output = Path("slave0.output")  # its agent is back too, and hears at once that the master ends
    eventually(lambda: "connected to the master again" in output.read_text(), 10)


def test_a_runner_that_finds_no_master_leaves_when_its_agent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner leaves as the master ends; its agent, which has not heard of that yet, starts another one."""
    cells = (ctypes.c_uint64 * 6).from_buffer(mmap.mmap(-1, 48))  # unlike those of multiprocessing, gone with the test
    monkeypatch.setattr(runner_pool, "new_shared_status", lambda: cells)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()  # nobody listens there any more below
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
    process.close()
    assert code == 0, "it had to be killed"
