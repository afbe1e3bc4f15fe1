"""The agent's own process handling: spawned runners, runners that die at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.service.desk import AgentDesk
from slave.agent import Agent, Post
from tests.conftest import Make
from tests.support import deaths
from tests.support.programs import script


def test_runners_that_are_spawned_work_as_forked_ones(own_folder: Path) -> None:
    """As on Windows and macOS.  In a process of its own: an agent needs its main thread."""
    program = script(
        own_folder / "script.py",
        """
import functools, sys, threading
import parallel
from slave.agent import Agent, Post
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager(port=0)
    c = m.get_context(functools.partial(tasks.give, 5))
    c.add_task(tasks.arguments_are)
    c.add_task(functools.partial(tasks.setup_log, 'log'))
    agent = Agent(Post('an agent', [('127.0.0.1', m.address[1])], find_key(), [(None, None)] * 2), 'spawn')
    agent.enlist()
    def read():
        print(sorted(map(str, c.get_results_unordered())), flush=True)
        m.shutdown()
    threading.Thread(target=read).start()
    agent.serve()
""",
    )
    assert program.ends() == 0, program.err
    assert program.out == "['(5,)', '5']\n"


def test_a_runner_that_dies_at_once_is_not_started_for_ever(own_folder: Path) -> None:
    """Its output file cannot be opened."""
    program = script(
        own_folder / "script.py",
        """
import socket, threading
from slave.crew import Crew
from slave.runner import Assignment
def assign(slot):
    return Assignment(slot.number, 'run', [], b'k' * 16, 1.0, {}, '/no/such/folder/output')
if __name__ == '__main__':
    crew = Crew(assign, lambda: (), socket.socketpair()[1])
    crew.add(7, None)
    pause = threading.Event()
    while not crew.hopeless(7):
        crew.start_missing()
        for ended in crew.reap():
            print(ended.number, ended.exitcode, ended.task, flush=True)
        pause.wait(0.01)
    crew.kill()
""",
    )
    assert program.ends() == 0
    assert program.out == "7 1 0\n" * 5


def test_a_slave_whose_processes_die_at_once_is_told(make: Make, own_folder: Path) -> None:
    """Its output file is replaced by a folder once the agent is up, so that no runner can open it."""
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 10)
    Path("slave0.output").unlink()
    Path("slave0.output").mkdir()
    context.add_task(deaths.die)
    try:
        list(context.get_results_unordered())
        raise AssertionError("it gave a result")
    except parallel.NoMoreSlavesError as error:
        assert "its process ends right after the start, last with exit code 1" in str(error)


def test_the_agent_has_one_thread(make: Make) -> None:
    manager = make(2)
    manager.wait_for_slaves(2, 10)
    parent = Path(f"/proc/{manager.slaves[0].pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    for pid in (parent, *(str(info.pid) for info in manager.slaves)):
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_an_order_that_was_lost_with_its_connection_is_carried_out_after_all_and_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    given: list[Any] = []
    real = AgentDesk.orders

    def lost_the_first_time(self: AgentDesk, agent: str, acknowledged: int) -> tuple[int, list[Any]]:
        last, orders = real(self, agent, acknowledged)
        given.extend(orders)
        if len(given) == 1 and orders:
            server = manager._reach._server
            assert server is not None
            for connection in list(server._connections):
                connection.shut()
        return last, orders

    monkeypatch.setattr(AgentDesk, "orders", lost_the_first_time)
    manager.wait_for_slaves(1, 15)
    manager.add_slave(parallel.LocalSlave())
    manager.wait_for_slaves(2, 15)
    assert [order[:2] for order in given] == [("start", 1)] * 2
    parent = Path(f"/proc/{manager.slaves[0].pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    runners = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert sorted(map(int, runners)) == sorted(info.pid for info in manager.slaves)


def test_an_order_that_comes_twice_is_carried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(Post("an agent", [("127.0.0.1", 1)], b"k" * 16, []))
    monkeypatch.setattr(agent._crew, "start_missing", list)
    agent._obey("start", 5, None)
    slot = agent._crew.slots[5]
    agent._obey("start", 5, None)
    assert agent._crew.slots == {5: slot}
    agent.close()
