"""A user's own way to start slaves, and the launching as such."""

from __future__ import annotations

import functools
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import parallel
from parallel.launch.job import Job, as_line, interpreter_flags, slave_command, slave_orders
from parallel.launch.local import LocalAgent
from tests.conftest import Make
from tests.support import tasks
from tests.support.waiting import eventually


class PipeSlave(parallel.Slave):
    """Runs the job as a child."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = 0

    def __repr__(self) -> str:
        return f"PipeSlave({self.name!r})"

    def start(self, job: parallel.Job) -> None:
        assert job.output is not None
        with open(job.output, "ab") as output:
            self.process = subprocess.Popen(job.command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(job.stdin)

    def poll(self) -> str | None:
        assert self.process is not None
        code = self.process.poll()
        return None if code is None else f"its program exited with {code}"

    def stop(self) -> None:
        self.stopped += 1
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class LateSlave(PipeSlave):
    """Its job never starts."""

    def start(self, job: parallel.Job) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])


def results(manager: parallel.Manager) -> list[int]:
    context = manager.get_context()
    for number in range(10):
        context.add_task(functools.partial(tasks.square, number))
    return sorted(context.get_results_unordered())


SQUARES = [number * number for number in range(10)]


def test_a_slave_of_ones_own_works_beside_local_ones(make: Make) -> None:
    manager = make(1)
    slaves = [PipeSlave("one"), PipeSlave("two")]
    manager.add_slave(parallel.SlaveArray(slaves))
    manager.wait_for_slaves(3, 60)
    assert results(manager) == SQUARES
    assert [info.name for info in manager.slaves] == ["LocalSlave()", "PipeSlave('one')", "PipeSlave('two')"]
    manager.shutdown()
    for slave in slaves:
        assert slave.process is not None
        slave.stop()
        assert slave.process.wait() in (0, -9)


def test_a_slave_of_ones_own_added_to_a_run_that_listened_on_the_loopback(make: Make) -> None:
    manager = make(1)
    assert results(manager) == SQUARES
    slave = PipeSlave("late")
    manager.add_slave(slave)
    manager.wait_for_slaves(2, 60)
    manager.shutdown()
    slave.stop()


def test_its_end_is_told_with_its_output(make: Make) -> None:
    manager = make(0)
    slave = PipeSlave("doomed")
    manager.add_slave(slave)
    manager.wait_for_slaves(1, 60)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, "never"))
    assert slave.process is not None
    # which it says when its slave's process has been started, and may have come already
    eventually(lambda: "slave: connected" in Path("slave0.output").read_text(), 60, "its own word")
    slave.process.kill()
    slave.process.wait()
    with pytest.raises(
        parallel.NoMoreSlavesError, match=r"(?s)PipeSlave\('doomed'\).*its program exited with -9; the end of"
    ):
        list(context.get_results_unordered())


def test_a_slave_that_does_not_connect_is_given_up_after_the_connect_timeout(make: Make) -> None:
    manager = make(0)
    manager.connect_timeout = 0.5
    slave = LateSlave("late")
    manager.add_slave(slave)
    context = manager.get_context()
    context.add_task(dict)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"did not connect within 0.5 s \(connect_timeout\)"):
        list(context.get_results_unordered())
    eventually(lambda: slave.stopped)


def test_a_program_that_cannot_be_started(make: Make) -> None:
    class Missing(PipeSlave):
        def start(self, job: parallel.Job) -> None:
            super().start(job._replace(command=("/no/such/program",)))

    manager = make(0)
    manager.add_slave(Missing("x"))
    context = manager.get_context()
    context.add_task(dict)
    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        list(context.get_results_unordered())


def test_an_array_lists_each_slave_once(make: Make) -> None:
    slave = PipeSlave("x")
    manager = make(0)
    manager.add_slave(parallel.SlaveArray([slave]))
    with pytest.raises(parallel.InputError, match=r"PipeSlave\('x'\) was added before"):
        manager.add_slave(slave)


def test_the_key_is_on_stdin_and_not_on_the_command_line() -> None:
    key = bytes(range(32))
    command = slave_command(None, "/the/root")
    orders = as_line(slave_orders("agent", [("::1", 5757)], key, [(0, "out")], 60.0, 3.0, stays=False))
    assert key.hex() in orders.decode() and key.hex() not in " ".join(command)
    assert orders.endswith(b"\n") and json.loads(orders)["addresses"] == [["::1", 5757]]


def test_python_may_be_a_shell_fragment(make: Make) -> None:
    shell, option, line = slave_command("nice python3", "/a root/with 'quotes'")
    assert (shell, option) == ("/bin/sh", "-c")
    words = shlex.split(line)
    assert words[:2] == ["nice", "python3"] and words[2 : words.index("-c")] == interpreter_flags()
    assert results(make(1, python=f"cd / && nice {sys.executable}")) == SQUARES


def test_a_manager_that_ends_before_its_slaves_came_does_not_wait_for_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their agent, which finds nobody, would look for the master for seconds.  This one comes to nobody in any case."""
    waited: list[float] = []
    stop = LocalAgent.stop

    def note(self: LocalAgent, grace: float) -> None:
        waited.append(grace)
        stop(self, grace)

    monkeypatch.setattr(LocalAgent, "stop", note)
    manager = make(1, python=f"sleep 600; {sys.executable}")
    assert list(manager.get_context().get_results_unordered()) == []
    manager.shutdown()
    assert waited == [0.0]


class InterruptedThread(threading.Thread):
    """Its start is interrupted when it runs already."""

    def start(self) -> None:
        super().start()
        raise KeyboardInterrupt


@pytest.mark.parametrize("output", [None, "its.output"])
def test_nobody_hears_of_the_end_of_an_agent_whose_start_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str | None
) -> None:
    """Else its slaves, which the next call is to start, would have ended with it."""
    ends: list[str] = []
    agent = LocalAgent(ends.append, False)
    job = Job((sys.executable, "-c", "input()"), b"", (0,), None if output is None else str(tmp_path / output))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("parallel.launch.local.threading.Thread", InterruptedThread)
        agent.start(job)
    eventually(lambda: not [one for one in threading.enumerate() if isinstance(one, InterruptedThread)])
    assert ends == []
