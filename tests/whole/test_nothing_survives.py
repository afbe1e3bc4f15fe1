"""Whatever ends an agent or a master, nothing that a task has started lives on."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import parallel
from parallel import closer
from slave.process_tree import running
from tests.conftest import Make
from tests.support import processes
from tests.support.programs import ROOT, Program, script, slave
from tests.support.waiting import eventually

WAYS = ["a program", "a session of its own", "a daemon", "a fork with a session of its own"]


def started(own_folder: Path, count: int = 1) -> list[int]:
    """The processes that tasks have started, by what they wrote down."""

    def look() -> list[int] | None:
        pids = [int(path.read_text() or 0) for path in own_folder.glob("*.pid")]
        return pids if len(pids) == count and all(pids) else None

    found = eventually(look, 60, "the processes that tasks start")
    assert found is not None
    return found


def all_gone(pids: list[int], seconds: float = 60.0) -> None:
    eventually(lambda: not [pid for pid in pids if pid in running()], seconds, f"the end of {pids}")


def parent_of(pid: int) -> int:
    return running()[pid].parent


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
@pytest.mark.parametrize("way", WAYS)
def test_what_tasks_started_ends_with_their_agent(make: Make, own_folder: Path, way: str, signum: int) -> None:
    manager = make(0, port=0)
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "2", "--grace", "0.1")
    try:
        context = manager.get_context()
        for name in "ab":
            context.add_task(functools.partial(processes.start, way, str(own_folder / name)))
        context.get_results_unordered()
        manager.wait_for_slaves(2, 60)
        pids = [*started(own_folder, 2), *(info.pid for info in manager.slaves)]
        program.process.send_signal(signum)
        all_gone(pids)
        assert program.ends() == (-signum if signum in (signal.SIGKILL, signal.SIGSEGV) else 128 + signum)
    finally:
        program.kill()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_task_started_ends_with_its_runner_and_nobody_elses_does(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(closer, "_STOP_SECONDS", 60.0)  # an agent that stands still is not to be killed for that
    manager = make(2)
    context = manager.get_context()
    for name in "ab":
        context.add_task(functools.partial(processes.start, way, str(own_folder / name), together=str(own_folder)))
    runners = dict(context.get_results_unordered())
    (first, of_first), (second, of_second) = runners.items()
    os.kill(first, signal.SIGKILL)
    all_gone([first, of_first])
    assert of_second in running() and second in running()
    agent = parent_of(second)
    manager.shutdown()
    all_gone([second, of_second, agent])


def test_a_guard_that_was_killed_is_replaced(make: Make, own_folder: Path) -> None:
    manager = make(1)
    manager.wait_for_slaves(1, 60)
    runner = manager.slaves[0].pid
    agent = parent_of(runner)

    def guard() -> int:
        return next((pid for pid, one in running().items() if one.parent == agent and pid != runner), 0)

    first = eventually(guard)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: guard() not in (0, first), what="another guard")
    started_one = start_one(manager, own_folder, "a daemon")
    os.kill(agent, signal.SIGKILL)
    all_gone([runner, started_one, agent])


def start_one(manager: parallel.Manager, own_folder: Path, way: str) -> int:
    """A task that has started a process and is done; which."""
    context = manager.get_context()
    context.add_task(functools.partial(processes.start, way, str(own_folder / "a"), done=True))
    ((_, pid),) = context.get_results_unordered()
    return int(pid)


# its guard looks for longer: on a busy machine what has been forked may take seconds to become a program
WATCHFUL = "from slave import cli, guard; guard._BEGINS, guard._MOST_SECONDS = 6.0, 30.0; cli.run()"


def test_what_was_just_being_started_when_the_agent_was_killed_ends(make: Make, own_folder: Path) -> None:
    """It has left its runner's session and lost its parent, and runs no program yet: nothing tells whose it is."""
    manager = make(0, port=0)
    agent = Program(sys.executable, "-c", WATCHFUL, f"127.0.0.1:{manager.address[1]}", "-n", "1")
    try:
        pid = start_one(manager, own_folder, "a daemon that takes its time")
        agent.process.kill()
        all_gone([pid, agent.process.pid])
    finally:
        agent.kill()


def test_programs_of_finished_tasks_that_have_ended_leave_no_zombies(make: Make, own_folder: Path) -> None:
    context = make(1).get_context()
    for number in range(20):
        context.add_task(functools.partial(processes.start_daemon_that_ends, str(own_folder / f"{number}.pid")))
    runner = set(context.get_results_unordered()).pop()
    pids = started(own_folder, 20)
    eventually(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 60, "the last of them to be buried")
    assert runner in running()


MASTER = """
import functools, os, sys
import parallel
from tests.support import processes
if __name__ == '__main__':
    m = parallel.Manager(port=0, lease=30) if {port} else parallel.Manager(lease=30)
    m.add_slave(parallel.LocalSlave())
    c = m.get_context()
    c.add_task(functools.partial(processes.start, 'a session of its own', 'a'))
    if {fork} and not os.fork():
        os.execv('/bin/sleep', ['sleep', '20']) if {fork} == 2 else os.read(os.pipe()[0], 1)
    c.get_results_unordered()
    m.wait_for_slaves(1)
    print(m.address[1], m.slaves[0].pid, flush=True)
    list(c.get_results_unordered())
"""


@pytest.mark.parametrize("port", [False, True])
@pytest.mark.parametrize("taken", [False, True])
def test_local_slaves_end_with_a_master_that_was_killed_whoever_takes_its_port(
    own_folder: Path, port: bool, taken: bool
) -> None:
    master = script(own_folder / "master.py", MASTER.format(port=port, fork=0))
    with socket.socket() as server:
        try:
            where, runner = map(int, master.says(r"^(\d+) (\d+)$|\n(\d+) (\d+)\n").group(0).split())
            pids = [runner, parent_of(runner), *started(own_folder)]
            master.process.send_signal(signal.SIGKILL)
            master.process.wait()
            if port and taken:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                eventually(lambda: bound(server, where), 60, "the port")
            all_gone(pids)
        finally:
            kill_group(master)


def bound(server: socket.socket, port: int) -> bool:
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    server.listen(1000)
    return True


def kill_group(program: Program) -> None:
    try:
        os.killpg(program.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    program.kill()


def test_a_blocked_sigchld_does_not_hold_up_the_word_of_a_death(own_folder: Path) -> None:
    """A program may have it blocked when it makes its manager: its children inherit that."""
    master = script(
        own_folder / "master.py",
        """
import functools, signal, time
import parallel
from tests.support import deaths
if __name__ == '__main__':
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
    with parallel.Manager(lease=3600) as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        m.wait_for_slaves(1)
        for n in range(3):
            c.add_task(functools.partial(deaths.die_once, f'mark{n}'))
        print(list(c.get_results_unordered()), flush=True)
""",
    )
    assert master.ends(60) == 0, master.err
    assert master.out == "['survived', 'survived', 'survived']\n"


@pytest.mark.slow
def test_slaves_that_die_between_tasks_again_and_again_work_on(make: Make) -> None:
    manager = make(1)
    context = manager.get_context()
    for number in range(8):
        context.add_task(functools.partial(processes.give_with_pid, number))
        ((same, pid),) = context.get_results_unordered()
        assert same == number
        os.kill(pid, signal.SIGALRM)
        all_gone([pid])


@pytest.mark.slow
def test_agents_that_are_killed_again_and_again_are_replaced_as_long_as_work_gets_done(make: Make) -> None:
    manager = make(1)
    context = manager.get_context()
    for number in range(7):
        context.add_task(functools.partial(processes.give, number))
        assert list(context.get_results_unordered()) == [(number,)]
        manager.wait_for_slaves(1, 60)
        runner = manager.slaves[0].pid
        os.kill(parent_of(runner), signal.SIGKILL)
        wait_for_another(manager, runner)


def wait_for_another(manager: parallel.Manager, runner: int) -> None:
    """Until the master knows that it is gone: then nobody is there, or the next one already."""
    eventually(lambda: manager.slaves[0].pid != runner, what="word of the agent's end")


@pytest.mark.slow
def test_more_runners_than_descriptors(make: Make, own_folder: Path) -> None:
    manager = make(0, port=0)
    port = manager.address[1]
    program = Program("sh", "-c", f"ulimit -n 256; exec python3 -m slave 127.0.0.1:{port} -n 300", cwd=own_folder)
    try:
        manager.wait_for_slaves(300, 300)
        context = manager.get_context()
        for number in range(600):
            context.add_task(functools.partial(processes.give, number))
        assert len(list(context.get_results_unordered())) == 600
        manager.shutdown()
        assert program.ends(120) == 0, program.err
    finally:
        program.kill()


def test_without_ctypes_and_proc_nothing_hangs(own_folder: Path) -> None:
    """Then what has a session of its own may live on; the rest is ended all the same."""
    (own_folder / "ctypes.py").write_text("raise ImportError('no _ctypes')\n")
    master = script(own_folder / "master.py", MASTER.format(port=True, fork=0), PYTHONPATH=f"{own_folder}:{ROOT}")
    try:
        _, runner = map(int, master.says(r"^(\d+) (\d+)$|\n(\d+) (\d+)\n").group(0).split())
        pids = [runner, parent_of(runner), *started(own_folder)]
        os.kill(pids[1], signal.SIGKILL)
        all_gone(pids)
    finally:
        kill_group(master)
