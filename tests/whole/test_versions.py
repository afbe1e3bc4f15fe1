"""A slave program of another release, or another protocol, meets a master: both say it in one line."""

from __future__ import annotations

import functools
import logging
import re
import sys
from pathlib import Path

import pytest

from parallel.launch.slave_file import pack
from slave.protocol import RELEASE, VERSION
from tests.conftest import Make
from tests.support.programs import ROOT, Program
from tests.support.waiting import eventually


def other_slave(folder: Path, was: str, is_now: str) -> str:
    """A slave.pyz whose protocol.py says something else."""
    sources = {path.name: path.read_bytes() for path in (ROOT / "slave").glob("*.py")}
    text = sources["protocol.py"].decode()
    assert text.count(was) == 1
    sources["protocol.py"] = text.replace(was, is_now).encode()
    file = folder / "other.pyz"
    file.write_bytes(pack(sources))
    return str(file)


@pytest.mark.parametrize("other", [VERSION + 1, VERSION - 1])
def test_another_protocol_is_refused(
    make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture, other: int
) -> None:
    manager = make(0, port=0)
    address = f"127.0.0.1:{manager.address[1]}"
    file = other_slave(own_folder, f"\nVERSION = {VERSION} ", f"\nVERSION = {other} ")
    program = Program(sys.executable, file, address, "--wait", "0")
    assert program.ends() == 6
    remedy = "use the same release on both"
    (line,) = program.err.splitlines()
    assert line == f"slave: {address}: the master speaks protocol {VERSION}, this slave {other}: {remedy}"
    assert list(manager.slaves) == []
    said = rf"a slave program at \S+ was refused: it speaks protocol {other}, this master {VERSION}: {remedy}"
    eventually(lambda: len(re.findall(said, caplog.text)) == 1, 60, "one line of the master")


def test_the_master_says_so_too(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A slave that does not look at the greeting first, or is of a release that answers all the same."""
    import socket
    import struct

    manager = make(0, port=0)
    with socket.create_connection(("127.0.0.1", manager.address[1]), 10) as sock:
        sock.sendall(b"parallel" + struct.pack("!H", 99) + bytes(64))
        line = f"was refused: it speaks protocol 99, this master {VERSION}: use the same release on both"
        eventually(lambda: line in caplog.text, 60, "the line")
    assert [one.levelno for one in caplog.records if line in one.getMessage()] == [logging.WARNING]


def test_another_release_works_and_is_told(make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(0, port=0)
    file = other_slave(own_folder, f'RELEASE = "{RELEASE}"', 'RELEASE = "99.1"')
    program = Program(sys.executable, file, f"127.0.0.1:{manager.address[1]}", "-n", "2")
    context = manager.get_context()
    context.add_task(functools.partial(pow, 2, 2))
    assert list(context.get_results_unordered()) == [4]
    manager.shutdown()
    assert program.ends() == 0
    told = [line for line in program.err.splitlines() if "release" in line]
    same = "they speak the same protocol and work together"
    assert told == [f"slave: the master is of release {RELEASE}, this slave program of 99.1; {same}"]
    eventually(lambda: "release 99.1" in caplog.text, what="the line of the master")
    lines = [one.getMessage() for one in caplog.records if "release 99.1" in one.getMessage()]
    assert len(lines) == 1 and lines[0].endswith(f"this master of {RELEASE}; {same}")


def test_the_same_release_is_not_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)
    assert "of release" not in caplog.text
