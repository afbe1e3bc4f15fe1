"""Starting runners when that is not possible just now; words to a master that get lost."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parallel.core.roster import SlaveState
from parallel.service.queues import ResultQueue
from slave import crew as crew_module
from slave import home
from slave.crew import Crew
from slave.runner import Assignment, Runner
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import script

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
    monkeypatch.setattr(crew_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(crew_module, "new_mark", lambda: [0, 0, 0])
    monkeypatch.setattr(Unable, "failing", 1)
    assignment: Any = SimpleNamespace(shielded=False)
    bell: Any = None
    crew = Crew(lambda slot: assignment, lambda: (), bell)
    monkeypatch.setattr(crew, "_context", SimpleNamespace(Process=Unable))
    crew.add(7, None)
    crew.add(8, None)
    assert [type(trouble) for trouble in crew.start_missing()] == [BlockingIOError]
    assert not crew.complete and [number for number, _, _ in crew.alive()] == [8]
    assert list(crew.reap()) == []
    assert crew.start_missing() == [] and not crew.complete, "not at once"
    clock.now += 10.0
    assert crew.start_missing() == [] and crew.complete


def test_an_agent_that_could_not_fork_says_so_once_and_works(own_folder: Path) -> None:
    program = script(
        own_folder / "script.py",
        """
import functools, multiprocessing, sys, threading
import parallel
from parallel.service import desk
from slave.agent import Agent, Post
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    desk.POLL_SECONDS = 600  # then neither an answer nor a heartbeat, but only the agent's own care wakes it
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
    agent = Agent(Post('an agent', [('127.0.0.1', m.address[1])], find_key(), [(None, None)]), 'fork')
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
    manager = make(0, port=0, authkey=KEY)
    told: list[int] = []
    real = ResultQueue.setup_failed

    def lost_the_first_time(self: ResultQueue, *args: Any) -> None:
        told.append(args[0])
        if len(told) > 1:
            real(self, *args)
            return
        server = manager._reach._server
        assert server is not None
        for connection in list(server._connections):
            connection.shut()

    monkeypatch.setattr(ResultQueue, "setup_failed", lost_the_first_time)
    context = manager.get_context(tasks.failing_setup)
    with manager.books.lock:
        number = manager.books.roster.new_number()
        slave = manager.books.roster.expect(number, "test", "agent")
    address = ("127.0.0.1", manager.address[1])
    surroundings = manager.surroundings
    bell: Any = None
    runner = Runner(Assignment(number, manager.books.run, [address], KEY, 5.0, surroundings, None), [0, 0, 0], bell)
    try:
        assert not runner._set_up(context._tray.id, [])
    finally:
        runner._link.drop()
    assert told == [number, number]
    assert slave.barred == {context._tray.id} and slave.pid == os.getpid() and slave.state is SlaveState.READY


def test_a_runner_that_finds_no_master_leaves_when_its_agent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner leaves as the master ends; its agent, which has not heard of that yet, starts another one."""
    cells = (ctypes.c_uint64 * 5).from_buffer(mmap.mmap(-1, 40))  # unlike those of multiprocessing, gone with the test
    monkeypatch.setattr(crew_module, "new_mark", lambda: cells)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()  # nobody listens there any more below
    bell: Any = None
    crew = Crew(
        lambda slot: Assignment(slot.number, "run", [address], KEY, 1.0, home.describe(), None), lambda: (), bell
    )
    crew.add(0, None)
    assert crew.start_missing() == []
    process = crew.slots[0].process
    assert process is not None
    crew.end()
    code = process.exitcode
    process.close()
    assert code == 0, "it had to be killed"
