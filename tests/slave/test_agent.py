"""The agent's own process handling: spawned runners, runners that die at once."""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.service import agent_service
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.cpu_clock import CpuClock
from slave.errors import Incompatible, WrongKey
from slave.gathering import Gatherer, Watch, new_shared_memory
from slave.handshake import TLS
from slave.pieces import head, piece
from slave.protocol import (
    CommandsReply,
    End,
    EnlistReply,
    StartRunner,
    encode_command,
)
from slave.wire import WINDOW, Connection
from tests.conftest import Make
from tests.slave.masters import SECONDS, channel, fingerprint
from tests.support import deaths, tasks
from tests.support.inside import cut_all
from tests.support.programs import script

KEY = b"the key of these tests"


def test_runners_that_are_spawned_work_as_forked_ones(own_folder: Path) -> None:
    """As on Windows and macOS.  In a process of its own: an agent needs its main thread."""
    program = script(
        own_folder / "script.py",
        """
import functools, sys, threading
import parallel
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager(port=0)
    c = m.get_context(functools.partial(tasks.give, 5))
    c.add_task(tasks.arguments_are)
    c.add_task(functools.partial(tasks.setup_log, 'log'))
    agent = Agent(AgentConfig('an agent', [('127.0.0.1', m.address[1])], find_key(), [(None, None)] * 2), 'spawn')
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
from slave import slave_state
from slave.runner import RunnerConfig
from slave.runner_pool import RunnerPool
slave_state._AT_ONCE = 1e9  # however long a busy machine takes for that
def configure(slave):
    return RunnerConfig(slave.number, 'run', [], b'k' * 16, 1.0, {}, '/no/such/folder/output')
if __name__ == '__main__':
    pool = RunnerPool('an agent', configure, lambda: (), socket.socketpair()[1])
    pool.add(7, None)
    pause = threading.Event()
    while not pool.slaves[7].hopeless:
        pool.start_missing()
        for ended in pool.reap():
            print(ended.slave, ended.exitcode, ended.task, flush=True)
        pause.wait(0.01)
    pool.kill()
""",
    )
    assert program.ends() == 0
    assert program.out == "7 1 0\n" * 5


def test_a_slave_whose_processes_die_at_once_is_told(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the file is there, whatever the agent forks ends at once."""
    (own_folder / "sitecustomize.py").write_text(
        "import os\nos.register_at_fork(after_in_child=lambda: os.path.exists('die') and os._exit(1))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{own_folder}:{os.environ.get('PYTHONPATH', '')}")
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 40)
    Path("die").touch()
    context.add_task(deaths.die)
    try:
        list(context.get_results_unordered())
        raise AssertionError("it gave a result")
    except parallel.NoMoreSlavesError as error:
        assert "its process ends right after the start, last with exit code 1" in str(error)


def test_the_agent_has_one_thread(make: Make) -> None:
    manager = make(2)
    manager.wait_for_slaves(2, 40)
    parent = Path(f"/proc/{manager.slaves[0].pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    for pid in (parent, *(str(info.pid) for info in manager.slaves)):
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_a_command_that_was_lost_with_its_connection_is_carried_out_after_all_and_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    given: list[Any] = []
    real = agent_service.commands_message

    def lost_the_first_time(found: Any, acknowledged: int) -> Any:
        message = real(found, acknowledged)
        commands = CommandsReply(*message).commands
        given.extend(commands)
        if len(given) == 1 and commands:
            connections: Any = manager.dispatcher.connections
            connections.shut()  # before the answer is sent
        return message

    monkeypatch.setattr(agent_service, "commands_message", lost_the_first_time)
    manager.wait_for_slaves(1, 40)
    manager.add_slave(parallel.LocalSlave())
    manager.wait_for_slaves(2, 40)
    assert [command[:2] for command in given] == [("start", 1)] * 2
    parent = Path(f"/proc/{manager.slaves[0].pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    runners = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert {info.pid for info in manager.slaves} < set(map(int, runners))
    assert len(runners) == 3, "two runners, and the agent's guard"


def test_a_command_that_comes_twice_is_carried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], b"k" * 16, []))
    monkeypatch.setattr(agent._pool, "start_missing", list)
    agent._supervisor.carry_out(StartRunner(5, None))
    slave = agent._pool.slaves[5]
    agent._supervisor.carry_out(StartRunner(5, None))
    assert agent._pool.slaves == {5: slave}
    agent.close()


def test_an_agent_that_was_asked_to_end_starts_nobody_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The master's command was on its way; nobody would end that slave."""
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], b"k" * 16, []))
    started: list[object] = []

    def start() -> list[str]:
        started.extend(agent._pool.slaves)
        return []

    monkeypatch.setattr(agent._pool, "start_missing", start)
    agent._master.session.drain()
    agent._supervisor.carry_out(StartRunner(5, None))
    assert not agent._pool.slaves and not started
    agent.close()


def test_an_agent_with_more_descriptors_than_select_takes_comes_back_after_its_connections_broke(
    make: Make, own_folder: Path
) -> None:
    """As with some 520 runners, each of which costs its agent two descriptors."""
    manager = make(0, port=0, authkey=KEY)
    context = manager.get_context()
    agent = script(
        own_folder / "many.py",
        f"""
import os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
taken = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]
from slave.cli import main
main(['127.0.0.1:{manager.address[1]}', '-n', '2'])
""",
        PARALLEL_AUTHKEY=KEY.decode(),
    )
    try:
        manager.wait_for_slaves(2, 40)
        pids = {info.pid for info in manager.slaves}
        cut_all(manager)
        agent.says("connected to the master again")
        for _ in range(20):
            context.add_task(tasks.pid_of)
        assert set(context.get_results_unordered()) <= pids
        assert {info.pid for info in manager.slaves} == pids
        manager.shutdown()
        assert agent.ends() == 0, agent.err
        assert "Traceback" not in agent.err
    finally:
        agent.kill()


# -- with TLS a socket may be readable and hold no message, or hold one and not be readable


@pytest.fixture
def enlisted() -> Iterator[tuple[Agent, Connection, Connection]]:
    """An agent whose master is this test, and the master's ends of its reports and commands."""
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], KEY, [], stays=True))
    with channel(TLS, tickets=2) as reports, channel(TLS, tickets=2) as commands:
        master = agent._master
        master._reports._connection, master._commands._connection = Connection(reports[0]), Connection(commands[0])
        master.session.enlisted(EnlistReply("run", 30.0, {}, [], False), ("127.0.0.1", 1), time.monotonic())
        yield agent, Connection(reports[1]), Connection(commands[1])
        agent.close()


def frame(message: object) -> bytes:
    body = pickle.dumps(message, 5)
    return struct.pack("!IQ", 0, len(body)) + body


@pytest.mark.slow
def test_session_tickets_of_a_sites_own_context_are_not_taken_for_the_masters_end(enlisted: Any) -> None:
    agent, reports, _ = enlisted
    for _ in range(3):
        assert agent._step() is None and agent._master.session.connected
    reports.send(("#RETURN", None))
    while agent._master.session.connected:
        assert agent._step() is None


def test_a_command_that_comes_in_pieces_is_waited_for_without_standing_still(enlisted: Any) -> None:
    agent, reports, commands = enlisted
    whole = frame(("#RETURN", (3, [encode_command(End())])))
    for at in range(len(whole) - 1):
        commands.transport.write(whole[at : at + 1])
        assert agent._step() is None and agent._master.session.connected
    commands.transport.write(whole[-1:])
    end = None
    while end is None:  # a byte may be slower than a step
        end = agent._step()
    assert end == "the master is done"
    reports.limit(SECONDS)
    assert reports.recv()[:2] == ("agents", "heartbeat")  # said in the meantime


def test_a_command_that_was_read_already_is_not_waited_for(enlisted: Any) -> None:
    agent, _, commands = enlisted
    commands.transport.write(frame("an answer") + frame(("#RETURN", (3, [encode_command(End())]))))
    connection = agent._master._commands.connection
    connection.limit(SECONDS)
    assert connection.recv() == "an answer" and connection.has_more
    agent._master.session.next_heartbeat = time.monotonic() + 1000
    assert agent._step() == "the master is done"


@pytest.mark.parametrize("done", [True, False])
def test_the_masters_word_that_it_is_done_is_heard_though_the_other_connection_broke(enlisted: Any, done: bool) -> None:
    """It waits only so long for an agent that has much to do: 300 runners that end together, on a busy machine."""
    agent, reports, commands = enlisted
    if done:
        commands.transport.write(frame(("#RETURN", (3, [encode_command(End())]))))
    reports.close()
    commands.close()
    agent._master.session.next_heartbeat = time.monotonic() + 1000
    while agent._master.session.connected:  # the first report after that finds it out, or the second
        agent._master.report(lambda: agent._master.service.draining("an agent", [1]))
    ends = []
    agent._master.come_back = lambda: ends.append("tries again")
    ends += [agent._step()]
    assert ends == (["the master is done"] if done else ["tries again", None])


def test_a_changed_record_costs_the_connection_and_not_the_agent(enlisted: Any) -> None:
    agent, _, commands = enlisted
    with socket.socket(fileno=os.dup(commands.fileno())) as raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    while agent._master.session.connected:
        assert agent._step() is None


# -- what runners have gathered

NOW = 10**12  # nanoseconds


class Runner:
    """Stands for a runner's process."""

    pid = 999_999_999  # above every process id there can be
    exitcode: int | None = None

    def kill(self) -> None:
        self.exitcode = -9

    def join(self) -> None:
        assert self.exitcode is not None


@pytest.fixture
def gathering(enlisted: Any) -> Iterator[tuple[Agent, Runner, Gatherer, Connection]]:
    """The same with a runner that has two outcomes in its memory; the agent has been asked to look."""
    agent, reports, _ = enlisted
    agent._pool.add(1, None)
    slave = agent._pool.slaves[1]
    memory = new_shared_memory(fork=True)
    runner = Runner()
    slave.process, slave.watch, slave.clock = runner, Watch(memory), CpuClock(os.getpid())
    slave.begin([0] * 8, time.monotonic())
    agent._master.session.next_heartbeat = time.monotonic() + 1000
    gatherer = Gatherer(memory, lambda: agent._signals.waker.send(b"!"))
    gatherer.begin(1, 1, head(1, 1, 1))
    for number in (1, 2):
        assert gatherer.put(piece(number, b"value"), NOW)
        assert not gatherer.may_wait(NOW)
    reports.limit(SECONDS)
    yield agent, runner, gatherer, reports


def test_what_a_runner_does_not_send_its_agent_sends(gathering: Any) -> None:
    agent, _, gatherer, reports = gathering
    found: list[Any] = []
    while not found:
        agent._master.session.next_heartbeat = time.monotonic() + 0.01
        assert agent._step() is None
        while readable(reports):
            found += reports.receive_ready(memoryview(bytearray(WINDOW)))
        found = [one for one in found if one[1] != "heartbeat"]
    assert [one[1:3] for one in found] == [("values", (1, 1, 1, [1, b"value", 2, b"value"]))]
    gatherer.clear()
    later = NOW + 10**9
    gatherer.may_wait(later), gatherer.may_wait(later)  # it asks once more
    assert agent._pool.watches()
    gatherer.put(piece(3, b"value"), later)
    assert gatherer.may_wait(later), "the agent looks"
    agent._master.lose(OSError("cut"))
    assert not gatherer.may_wait(later), "without a master it does not"
    assert not agent._pool.slaves[1].watch.on


def readable(connection: Connection) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_what_a_dead_runner_had_gathered_is_told_before_its_end(gathering: Any) -> None:
    agent, runner, _, reports = gathering
    runner.exitcode = -11
    agent._pool.start_missing = list
    agent._supervisor.reap()
    found = [reports.recv() for _ in range(2)]
    assert found[0][2] == (1, 1, 1, [1, b"value", 2, b"value"])
    assert found[1][1] == "runner_ended"


def test_whoever_answers_without_proof_does_not_end_an_agent_that_looks_for_its_master(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He may say "wrong key" or "another version" when the master's machine has been away for a while."""
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], KEY, [], stays=True))
    agent._master.session.enlisted(EnlistReply("run", 30.0, {}, [], False), ("127.0.0.1", 1), time.monotonic())
    agent._master.session.lost(time.monotonic())
    for error in (WrongKey("wrong key"), Incompatible("another version")):

        def connect(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(agent._master._reports, "connect", connect)
        agent._master.come_back()
    assert agent._master.session.looks_for_master
    agent.close()


def test_an_agent_stays_with_the_master_that_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(AgentConfig("an agent", [("127.0.0.1", 1)], KEY, [], encrypt=False))
    with channel(TLS) as (near, _):

        def connect() -> None:
            agent._master._reports._connection = Connection(near)

        def refuse() -> None:
            raise ConnectionError("no more")

        monkeypatch.setattr(agent._master._reports, "connect", connect)
        monkeypatch.setattr(agent._master._commands, "connect", refuse)
        reply = EnlistReply("run", 30.0, {}, [], False)
        monkeypatch.setattr(agent._master.service, "enlist", lambda _: reply)
        with pytest.raises(ConnectionError):
            agent.enlist()
        digits = fingerprint(TLS).hex()
        assert agent._master._reports.master == agent._master._commands.master == digits
        agent._master.session.enlisted(reply, ("127.0.0.1", 1), time.monotonic())
        agent._pool.add(1, None)
        config = agent._runner_config(agent._pool.slaves[1])
        assert (config.master, config.encrypt) == (digits, False)
        agent.close()
