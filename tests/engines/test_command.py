"""CommandSlaveArray with a real mpirun, and with plain shells; PipedCommandSlave."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import parallel
from parallel.core import patience
from parallel.launch import calls, pipe, piped_program, process, program_array
from parallel.launch.command import shell_command
from parallel.launch.process import CommandProcess
from tests.conftest import Make
from tests.engines.conftest import WAIT
from tests.support import engines, processes, tasks
from tests.support.programs import script
from tests.support.waiting import eventually

MPIRUN = "mpirun --allow-run-as-root --oversubscribe -n {n} {command}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slave program at the other end of a pipe may clean up, on a busy machine too."""
    monkeypatch.setattr(piped_program, "_TO_END", 60.0)


def squares(manager: parallel.Manager) -> None:
    context = manager.get_context()
    for number in range(100):
        context.add_task(functools.partial(tasks.square, number))
    assert sorted(context.get_results_unordered()) == [number * number for number in range(100)]


def said_by(text: str) -> list[int]:
    """Processes whose command line has a text."""
    return [pid for pid, line in processes.of_all("cmdline") if text in line]


@pytest.mark.engines
def test_mpirun(make: Make, own_folder: Path) -> None:
    engines.need("openmpi")
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray(MPIRUN, 4))
    manager.wait_for_slaves(4, 60)
    squares(manager)
    for number in range(4):
        output = own_folder / f"slave{number}.output"
        eventually(lambda: "slave: connected: 1 slave" in output.read_text())  # noqa: B023 - it is called in this turn
    manager.shutdown()
    eventually(lambda: not said_by(str(own_folder)), what="the end of all processes")


@pytest.mark.engines
def test_a_slave_of_mpirun_that_dies_costs_no_task(make: Make, own_folder: Path) -> None:
    """mpirun ends all when one ends badly; their tasks go to others."""
    engines.need("openmpi")
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray(MPIRUN, 2))
    context = manager.get_context()
    for number in range(2):
        context.add_task(functools.partial(tasks.wait_for, f"gate{number}"))
    manager.begin()
    eventually(lambda: len(list(own_folder.glob("gate*.started"))) == 2, 60)
    agent = int(Path(f"/proc/{manager.slaves[0].pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(agent, signal.SIGKILL)
    eventually(lambda: [info.state for info in manager.slaves] == ["ended"] * 2, 60, f"their end: {manager.slaves}")
    manager.add_slave(parallel.LocalSlave())
    for number in range(2):
        (own_folder / f"gate{number}").touch()
    assert len(list(context.get_results_unordered())) == 2


@pytest.mark.engines
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_mpirun_ends_with_its_master(own_folder: Path, signum: int) -> None:
    engines.need("openmpi")
    program = script(own_folder / "script.py", WAIT.format(slave=f"parallel.CommandSlaveArray({MPIRUN!r}, 2)"))
    program.says("ready")
    eventually((own_folder / "gate.started").exists)
    program.process.send_signal(signum)
    program.ends()
    eventually(lambda: not said_by(str(own_folder)), 60, "the end of all processes")
    eventually(lambda: not list((own_folder / "home" / ".cache" / "parallel").iterdir()), 60)


def test_one_command_for_each_slave(make: Make, own_folder: Path) -> None:
    manager = make(0, output="out%d")
    manager.add_slave(parallel.CommandSlaveArray("NUMBER={i} OF={n} {command}", 3))
    manager.wait_for_slaves(3, 60)
    squares(manager)
    context = manager.get_context()
    for _ in range(12):
        context.add_task(functools.partial(os.getenv, "NUMBER"))
    assert set(context.get_results_unordered()) <= {"0", "1", "2"}
    assert all((own_folder / f"out{number}").exists() for number in range(3))


def test_a_command_that_hands_it_to_another_shell(make: Make) -> None:
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray("sh -c {quoted}", 1))
    squares(manager)


TIDY = """\
trap 'sleep 0.3; : >tidied; exit 0' TERM
: >begun
until [ -e go ]; do sleep 0.01; done
trap 'exit 1' TERM
[ $# -eq 0 ] || "$@"
: >tidied
"""


def test_a_command_that_is_told_to_end_may_clean_up(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mpirun must, behind the shell that runs the template."""
    monkeypatch.setattr(process, "_TO_END", 60.0)
    (own_folder / "tidy").write_text(TIDY)
    program = CommandProcess(shell_command("sh tidy; # {command}", "", 1, 0), None)
    eventually((own_folder / "begun").exists)
    program.stop()
    assert (own_folder / "tidied").exists()
    assert program.code == 143, "nothing that stands behind it in the template is run"


def test_a_command_that_has_not_started_its_slaves_ends_by_itself(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since they have nothing to do any more; and it may clean up too."""
    monkeypatch.setattr(program_array, "_TO_END", 60.0)
    monkeypatch.setattr(calls, "_STOP_SECONDS", 60.0)
    (own_folder / "tidy").write_text(TIDY)
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray("sh tidy {command}", 1))
    with pytest.raises(TimeoutError):
        manager.wait_for_slaves(1, 0.1)
    eventually((own_folder / "begun").exists)
    ends = threading.Thread(target=manager.shutdown)
    ends.start()
    orders = own_folder / "home" / ".cache" / "parallel"
    eventually(lambda: not list(orders.glob("*/1/*.orders")), what="the slave's orders to be withdrawn")
    (own_folder / "go").touch()
    ends.join(60)
    assert (own_folder / "tidied").exists()


def test_more_processes_than_slaves(make: Make, own_folder: Path) -> None:
    """Whoever starts one command many times gets as many slaves as were asked for."""
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray("{command} & {command} & {command} >said; wait", 2))
    manager.wait_for_slaves(2, 60)
    squares(manager)
    assert len(manager.slaves) == 2


@pytest.mark.slow
def test_a_command_that_starts_too_few_is_told(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WORD", 2.5)
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray("exec {command}", 2))

    def told() -> bool:
        with pytest.raises(TimeoutError):
            manager.wait_for_slaves(2, 5)
        said = r"its command was started \d+ s ago and runs, but has not started it"
        return re.search(said, caplog.text) is not None

    eventually(told, 60, "the word of what its command does")


def test_a_command_that_fails_is_told_once_for_all(make: Make) -> None:
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray("echo 'no more nodes' >&2; exit 7; {command}", 3))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        list(context.get_results_unordered())
    text = str(caught.value)
    assert "the command that started it has ended: it exited with code 7; its last words:\n    | no more nodes" in text
    assert text.count("no more nodes'") == 3 and text.count("| no more nodes") == 1


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("mpirun -n {n}", r"starts no slave: where should \{command\} stand in it"),
        ("mpirun {command} {what}", r"has \{what\}; there are \{command\}, \{quoted\}, \{n\} and \{i\}"),
        ("mpirun {command", "cannot be read: .*; braces of its own are doubled"),
        (3, "the command must be text such as"),
    ],
)
def test_a_template_that_cannot_be_right(template: object, said: str) -> None:
    with pytest.raises(parallel.InputError, match=said):
        parallel.CommandSlaveArray(template, 2)  # type: ignore[arg-type]


def test_a_command_that_is_not_there(make: Make) -> None:
    with pytest.raises(parallel.InputError, match="^no-such-launcher: command not found; this program's PATH is"):
        make(0).add_slave(parallel.CommandSlaveArray("no-such-launcher {command}", 2))


def test_a_slave_behind_a_pipe(make: Make, own_folder: Path, temporary_folder: Path) -> None:
    """As in a container that shares nothing: another folder, an empty environment."""
    manager = make(0)
    template = "env -i -C / PATH=$PATH {command}"
    manager.add_slave(parallel.PipedCommandSlave(template, 2, python=sys.executable))
    squares(manager)
    context = manager.get_context()
    for number in range(8):
        context.add_task(functools.partial(tasks.say, f"said {number}"))
    list(context.get_results_unordered())
    eventually(lambda: sum(path.read_text().count("said ") for path in own_folder.glob("slave*.output")) == 8)
    manager.shutdown()
    assert not list(temporary_folder.iterdir())


def test_much_output_behind_a_pipe_arrives_whole(make: Make, own_folder: Path) -> None:
    manager = make(0)
    manager.add_slave(parallel.PipedCommandSlave("{command}", 1, python=sys.executable))
    context = manager.get_context()
    for _ in range(5):
        context.add_task(functools.partial(tasks.say, "x" * 3_000_000))
    list(context.get_results_unordered())
    output, line = own_folder / "slave0.output", "x" * 3_000_000 + "\n"
    eventually(lambda: output.stat().st_size > 15_000_000 and output.read_text().count(line) == 5, 60)


def test_a_command_that_reads_nothing_does_not_hold_up_the_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ssh to a machine that does not answer; and more is to be said than fits into a pipe."""
    monkeypatch.setattr(pipe, "payload", lambda orders, runners: b"x" * 1_000_000)
    manager = make(0)
    manager.add_slave(parallel.PipedCommandSlave("exec sleep 600; {command}", 1))
    manager.begin()
    began = time.monotonic()
    manager.shutdown()
    assert time.monotonic() - began < 100, "it waited for the command"


def test_a_greeting_of_the_login_shell_is_output_like_any_other(make: Make, own_folder: Path) -> None:
    manager = make(0)
    greeting = "echo; echo 'Welcome to node7'; echo '3 new'; exec {command}"
    manager.add_slave(parallel.PipedCommandSlave(greeting, 2, python=sys.executable))
    squares(manager)
    said = "\nWelcome to node7\n3 new\nslave: connected: 2 slaves"
    output = own_folder / "slave0.output"
    eventually(lambda: output.read_text().startswith(said), what=f"{said!r} at the beginning of {output.read_text()!r}")


def test_a_full_disk_under_the_output_of_a_piped_slave_is_told(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(piped_program.PipedProgram, "_write", write)
    manager = make(0)
    manager.add_slave(parallel.PipedCommandSlave("{command}", 1, python=sys.executable))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    assert list(context.get_results_unordered()) == [9]
    eventually(lambda: "a slave's output cannot be written any more: [Errno 28] No space left" in caplog.text)
