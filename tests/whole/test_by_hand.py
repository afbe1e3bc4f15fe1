"""Slaves that somebody starts by hand: python3 -m slave HOST:PORT."""

from __future__ import annotations

import functools
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.ports import unused_port
from tests.support.programs import Program, pyenv, pythons, slave
from tests.support.waiting import eventually

OTHER_PYTHONS = pythons()


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Starts slave programs, and ends them after the test."""
    started: list[Program] = []

    def begin(*arguments: str, **options: Any) -> Program:
        started.append(slave(*arguments, **options))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


Start = Callable[..., Program]


def at(manager: parallel.Manager, host: str = "127.0.0.1") -> str:
    return f"{host}:{manager.address[1]}"


def results(manager: parallel.Manager, n: int = 10) -> list[int]:
    context = manager.get_context()
    for number in range(n):
        context.add_task(functools.partial(tasks.square, number))
    return sorted(context.get_results_unordered())


SQUARES = [number * number for number in range(10)]


def test_slave_joins_works_and_ends_with_the_master(make: Make, start: Start) -> None:
    manager = make(0, port=0)
    address = at(manager)
    program = start(address, "-n", "2")
    manager.wait_for_slaves(2, 60)
    assert results(manager) == SQUARES
    names = {info.name for info in manager.slaves}
    assert names == {"started by hand"} and len(manager.slaves) == 2
    manager.shutdown()
    assert program.ends() == 0
    said = f"slave: connected: 2 slaves for the master at {address}\nslave: the master is done\n"
    assert program.err == said and program.out == ""


def test_the_join_command_is_what_starts_a_slave(make: Make, start: Start, own_folder: Path) -> None:
    manager = make(0, port=0)
    words = shlex.split(manager.join_command)
    assert words[-2] == "--master" and words[-3].endswith(f":{manager.address[1]}")
    program = Program("/bin/sh", "-c", manager.join_command + " -n 1")
    try:
        assert results(manager) == SQUARES
        manager.shutdown()
        assert program.ends() == 0
    finally:
        program.kill()


def test_number_of_runners_is_that_of_usable_cpus(make: Make, start: Start) -> None:
    manager = make(0, port=0)
    start(at(manager))
    cpus = len(os.sched_getaffinity(0))
    manager.wait_for_slaves(cpus, 60)
    assert len(manager.slaves) == cpus


def test_slave_that_is_started_first_waits_for_the_master(make: Make, start: Start) -> None:
    port = unused_port()
    parallel.Manager(port=0).shutdown()  # makes the key
    program = start(f"127.0.0.1:{port}", "--wait", "120", "-n", "1")
    program.says("no master yet")
    assert results(make(0, port=port)) == SQUARES


def test_keep_serves_one_master_after_the_other(make: Make, start: Start) -> None:
    first = make(0, port=0)
    port = first.address[1]
    program = start(at(first), "--keep", "-n", "1")
    assert results(first) == SQUARES
    first.shutdown()
    program.says("the master is done")
    second = eventually(lambda: manager_at(make, port), 60, f"port {port}")
    assert results(second) == SQUARES
    assert program.process.poll() is None


def manager_at(make: Make, port: int, **more: Any) -> Any:
    try:
        return make(0, port=port, **more)
    except parallel.NetworkError:
        return None


def test_wrong_key(make: Make, start: Start) -> None:
    manager = make(0, port=0)
    program = start(at(manager), "--wait", "0", PARALLEL_AUTHKEY="another key altogether")
    assert program.ends() == 3
    assert program.err == (
        f"slave: {at(manager)}: wrong key: the master holds another one; use the same key file on both machines\n"
    )


def test_key_file_by_option(make: Make, start: Start, own_folder: Path) -> None:
    manager = make(0, port=0, authkey=b"a key in another place")
    file = own_folder / "the key"
    file.write_text("a key in another place\n")
    file.chmod(0o600)
    start(at(manager), "-n", "1", "--key-file", str(file))
    assert results(manager) == SQUARES


def test_no_key_and_a_key_that_others_may_read(start: Start, own_folder: Path) -> None:
    program = start("127.0.0.1:5757")
    assert program.ends() == 7 and "slave: no key: " in program.err
    file = own_folder / "key"
    file.write_text("x" * 64)
    file.chmod(0o644)
    program = start("127.0.0.1:5757", "--key-file", str(file))
    assert program.ends() == 7 and f"chmod 600 {file}" in program.err


def test_master_out_of_reach(start: Start) -> None:
    port = unused_port()
    program = start(f"127.0.0.1:{port}", f"no.such.host.invalid:{port}", "--wait", "0", PARALLEL_AUTHKEY="x" * 20)
    assert program.ends() == 4
    (line,) = [one for one in program.err.splitlines() if "the name service has not answered yet" not in one]
    for part in ("cannot reach the master at", f"127.0.0.1:{port}: connection refused", "unknown host"):
        assert part in line


def test_master_that_vanishes(start: Start, own_folder: Path) -> None:
    text = "import parallel; m = parallel.Manager(port=0); print('port', m.address[1]); m.wait_for_slaves(99)"
    master = Program(sys.executable, "-u", "-c", text)
    port = master.says(r"port (\d+)").group(1)
    program = start(f"127.0.0.1:{port}", "-n", "2")
    program.says("connected")
    master.kill()
    assert program.ends() == 5
    assert "slave: the master has been gone for" in program.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["host"], "'host' is not HOST:PORT"),
        (["host:1", "-n", "0"], "'0' is not a whole number from 1 on"),
        (["host:1", "--wait", "x"], "'x' is not a number of seconds"),
    ],
)
def test_wrong_command_lines(start: Start, arguments: list[str], message: str) -> None:
    program = start(*arguments)
    assert program.ends() == 2 and message in program.err


def test_another_protocol(start: Start) -> None:
    from slave import handshake
    from slave.protocol import VERSION

    with socket.create_server(("127.0.0.1", 0)) as server:
        program = start(f"127.0.0.1:{server.getsockname()[1]}", "--wait", "0", PARALLEL_AUTHKEY="x" * 20)
        server.settimeout(60)
        peer, _ = server.accept()
        with peer:
            peer.sendall(handshake.greeting(handshake.TLS, bytes(32))[:8] + b"\x00\x63" + bytes(65))
            assert program.ends() == 6
    assert f"the master speaks protocol 99, this slave {VERSION}: use the same release on both" in program.err


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_by_name_and_by_ipv6(make: Make, start: Start, host: str) -> None:
    if host == "[::1]" and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    manager = make(0, port=0)
    start(at(manager, host), "-n", "1")
    assert results(manager) == SQUARES


def test_task_output_of_a_hand_started_slave_goes_to_its_terminal(make: Make, start: Start) -> None:
    manager = make(0, port=0)
    program = start(at(manager), "-n", "1", "-q")
    context = manager.get_context()
    context.add_task(functools.partial(tasks.say, "hello from a task"))
    assert list(context.get_results_unordered()) == [None]
    program.says("hello from a task")


@pytest.mark.parametrize(("version", "python"), OTHER_PYTHONS, ids=[version for version, _ in OTHER_PYTHONS])
def test_slaves_of_every_python_version(make: Make, start: Start, version: str, python: str) -> None:
    manager = make(1, port=0)
    start(at(manager), "-n", "1", python=python)
    manager.wait_for_slaves(2, 60)
    context = manager.get_context(functools.partial(tasks.give, (1, 2)))
    both = {sys.version_info[:2], tuple(int(part) for part in version.split("."))}
    found: set[Any] = set()

    def run_more() -> set[Any]:
        for _ in range(5):
            context.add_task(tasks.version_slowly)
        found.update(context.get_results_unordered())
        assert manager.slaves[0].state != "ended"
        return both & found if both <= found else set()

    eventually(run_more, 60, f"results of {both}")  # one of them may come late
    assert found == both
    context.add_task(functools.partial(tasks.blob_with, 300_000))
    context.add_task(tasks.raise_particular_with)
    seen: list[Any] = []
    with pytest.raises(parallel.RemoteError) as caught:
        while True:
            seen.extend(context.get_results_unordered())
    seen.extend(context.get_results_unordered())
    assert isinstance(caught.value.exc, tasks.Particular)
    assert [len(one) for one in seen if isinstance(one, bytes)] == [300_000]


def test_a_python_that_is_too_old_says_so(make: Make) -> None:
    old = [path for version in ("2.7", "3.6", "3.7", "3.8") for path in pyenv(version)]
    if not old:
        pytest.skip("no Python older than 3.9 on this machine")
    for python in old:
        program = slave("127.0.0.1:1", python=python, PYTHONWARNINGS="")
        assert program.ends() == 6
        assert "a slave needs 3.9 or newer" in program.err


def test_keep_outlasts_a_wrong_key(make: Make, start: Start) -> None:
    """It may be somebody's on the way, or of a master that is about to go."""
    first = make(0, port=0, authkey=b"another key altogether")
    port = first.address[1]
    program = start(at(first), "--keep", "--wait", "0", "-n", "1", PARALLEL_AUTHKEY="the key of the second")
    program.says("no master yet .*wrong key")
    first.shutdown()
    second = eventually(lambda: manager_at(make, port, authkey=b"the key of the second"), 60, f"port {port}")
    assert results(second) == SQUARES
