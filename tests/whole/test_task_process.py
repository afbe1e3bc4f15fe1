"""The process in which a task runs: what it forks, its standard streams, its logging, its threads."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.support import processes
from tests.support.programs import environment, script
from tests.support.waiting import eventually

KEY = "the key of these tests"


def outcomes(context: parallel.Context[Any]) -> list[Any]:
    """All of them, errors among the values."""
    found: list[Any] = []
    while True:
        try:
            found.extend(context.get_results_unordered())
            return found
        except parallel.RemoteError as error:
            found.append(error)


# -- what a task forks


@pytest.mark.parametrize("way", ["sys.exit", "a code", "a text", "an exception", "a failed exec", "a value"])
def test_a_forked_child_that_comes_back_leaves_and_the_parents_value_counts(make: Make, way: str) -> None:
    code = {"sys.exit": 0, "a code": 7, "a value": 0}.get(way, 1)
    context = make(1).get_context()
    for number in range(3):
        context.add_task(functools.partial(processes.fork_and_come_back, way, number))
    assert sorted(outcomes(context)) == [("parent", number, code) for number in range(3)]
    context.add_task(functools.partial(processes.fork_and_come_back, way, 3))
    assert outcomes(context) == [("parent", 3, code)]


def test_a_setup_that_forks_and_whose_child_comes_back(make: Make) -> None:
    for way in ("sys.exit", "an exception", "a value"):
        context = make(1).get_context(functools.partial(processes.fork_and_come_back, way, 5))
        context.add_task(processes.give)
        ((word, number, _),) = outcomes(context)
        assert (word, number) == ("parent", 5)


def test_a_child_that_comes_back_late_harms_nobody(make: Make, own_folder: Path) -> None:
    """Its parent's task has its outcome by then, and the runner runs others."""
    context = make(1).get_context()
    context.add_task(functools.partial(processes.fork_and_go_on, str(own_folder / "go"), str(own_folder / "code")))
    (runner,) = outcomes(context)
    (own_folder / "go").touch()
    eventually(lambda: (own_folder / "code").exists() and (own_folder / "code").read_text(), what="the child's end")
    assert (own_folder / "code").read_text() == "3"
    context.add_task(os.getpid)
    assert outcomes(context) == [runner]


# -- standard streams


def test_a_task_has_nothing_to_read(make: Make) -> None:
    context = make(1).get_context()
    context.add_task(processes.read_everything)
    assert outcomes(context) == [("", "", b"")]


IN_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if {nohup}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, '-m', 'slave', *sys.argv[1:]])
"""


@contextlib.contextmanager
def in_terminal(*arguments: str, nohup: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], io.FileIO]]:
    """The slave program in a terminal of its own, and the other end of that."""
    near, far = pty.openpty()
    terminal = open(near, "r+b", buffering=0)  # noqa: SIM115 - closed below, or by the test
    try:
        program = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL.format(nohup=nohup), *arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            env=environment(PARALLEL_AUTHKEY=KEY),
        )
        os.close(far)
        try:
            yield program, terminal
        finally:
            program.kill()
            program.wait()
    finally:
        terminal.close()


@pytest.fixture
def master(make: Make) -> parallel.Manager:
    return make(0, port=0, authkey=KEY.encode())


def test_what_is_typed_in_a_slaves_terminal_is_not_for_its_tasks(master: parallel.Manager) -> None:
    with in_terminal(f"127.0.0.1:{master.address[1]}", "-n", "1") as (program, terminal):
        master.wait_for_slaves(1, 60)
        terminal.write(b"typed\n")
        context = master.get_context()
        context.add_task(processes.read_everything)
        assert outcomes(context) == [("", "", b"")]
        master.shutdown()
        assert program.wait(60) == 0


def test_a_slave_whose_terminal_has_gone_works_on_if_it_was_started_with_nohup(master: parallel.Manager) -> None:
    with in_terminal(f"127.0.0.1:{master.address[1]}", "-n", "1", nohup=True) as (program, terminal):
        master.wait_for_slaves(1, 60)
        terminal.close()
        context = master.get_context()
        for number in range(10):
            context.add_task(functools.partial(processes.print_in_many_ways, number))
        assert sorted(outcomes(context)) == list(range(10))
        master.shutdown()
        assert program.wait(60) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full 2>&1"])
def test_standard_streams_that_are_closed_or_full_at_the_slaves_start(master: parallel.Manager, closed: str) -> None:
    command = f"exec {sys.executable} -m slave 127.0.0.1:{master.address[1]} -n 2 -v {closed}"
    program = subprocess.Popen(command, shell=True, env=environment(PARALLEL_AUTHKEY=KEY), start_new_session=True)
    context = master.get_context()
    for number in range(10):
        context.add_task(functools.partial(processes.print_in_many_ways, number, closed.endswith("1")))
    assert sorted(outcomes(context)) == list(range(10))
    master.shutdown()
    assert program.wait(60) == 0


def test_the_reader_of_a_slaves_output_may_end_before_it(master: parallel.Manager) -> None:
    """As with | tee and Ctrl-C: the slave ends in order, with the exit code that says how."""
    command = [sys.executable, "-m", "slave", f"127.0.0.1:{master.address[1]}", "-n", "1", "-v"]
    program = subprocess.Popen(
        command,
        env=environment(PARALLEL_AUTHKEY=KEY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert program.stdout is not None
    master.wait_for_slaves(1, 60)
    program.stdout.close()
    context = master.get_context()
    for number in range(10):
        context.add_task(functools.partial(processes.print_in_many_ways, number))
    assert sorted(outcomes(context)) == list(range(10))
    program.send_signal(signal.SIGINT)
    assert program.wait(60) == 128 + signal.SIGINT


@pytest.mark.parametrize(
    "replaced",
    [
        "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)",
        "sys.stdin = sys.stdout = None",
        "sys.stdout = sys.stderr = object()",
        "sys.stdin = sys.stdout = io.StringIO()",
    ],
)
def test_a_sitecustomize_that_replaces_the_standard_streams(own_folder: Path, replaced: str) -> None:
    (own_folder / "sitecustomize.py").write_text(
        f"import codecs, io, sys\nif '--launched' in open('/proc/self/cmdline').read():\n    {replaced}\n"
    )
    program = script(
        own_folder / "main.py",
        """
import functools
import parallel
from tests.support import processes
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(functools.partial(processes.print_in_many_ways, 4))
        print(list(c.get_results_unordered()))
""",
        PYTHONPATH=f"{own_folder}:{environment()['PYTHONPATH']}",
    )
    assert program.ends() == 0, program.err
    assert program.out == "[4]\n"
    assert "working on 4 \u2192" in (own_folder / "slave0.output").read_text(encoding="utf-8")


# -- logging, threads


def test_the_first_to_configure_logging_is_the_users_setup(make: Make, own_folder: Path) -> None:
    context = make(1).get_context(functools.partial(processes.configure_logging, str(own_folder / "worker.log")))
    context.add_task(processes.log_a_step)
    assert outcomes(context) == [logging.INFO]
    assert (own_folder / "worker.log").read_text() == "step done\n"
    assert "step done" not in (own_folder / "slave0.output").read_text()


@pytest.fixture
def no_thread_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS")):
            monkeypatch.delenv(name)
    yield


def test_libraries_start_the_share_of_threads_of_their_runner(make: Make, no_thread_variables: None) -> None:
    cpus = len(os.sched_getaffinity(0))
    for slaves in (1, cpus + 1):
        context = make(slaves).get_context()
        context.add_task(functools.partial(os.getenv, "OMP_NUM_THREADS"))
        (threads,) = outcomes(context)
        assert 1 <= int(threads) <= max(1, cpus // slaves)


def test_the_users_number_of_threads_stays(
    make: Make, no_thread_variables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    context = make(2).get_context()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        context.add_task(functools.partial(os.getenv, name))
    assert sorted(outcomes(context), key=str) == ["17", None]
