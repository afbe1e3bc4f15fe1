"""Slaves that find their masters by themselves, on hosts of a network of their own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from slave.discovery import PORT
from slave.keys import find_key
from tests.support.network import SUBNET, TwoHosts, possible
from tests.support.programs import Program
from tests.support.terminals import Terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not possible(), reason="making network namespaces needs root and iproute2")

MASTER = """
import functools, os, sys
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager(port=0, lease=5, announce=ANNOUNCE) as m:
        print('ready', *m.address, m.make_token(), flush=True)
        c = m.get_context()
        for n in range(2):
            c.add_task(functools.partial(tasks.wait_for, f'gate{n}{sys.argv[1]}'))
        for pid in c.get_results_unordered():
            print('done', flush=True)
"""


Start = Callable[..., Program]


@pytest.fixture
def start(own_folder: Path) -> Iterator[Start]:
    started: list[Program] = []

    def begin(*command: str, **options: object) -> Program:
        started.append(Program(*command, cwd=own_folder, **options))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def master(hosts: TwoHosts, start: Start, folder: Path, name: str = "one", announce: bool = True) -> Program:
    file = folder / f"{name}.py"
    file.write_text(MASTER.replace("ANNOUNCE", str(announce)))
    program = start(*hosts.on("master"), sys.executable, file.name, name)
    program.says("ready ")
    return program


def slave(hosts: TwoHosts, *arguments: str) -> tuple[str, ...]:
    return (*hosts.on("slave"), sys.executable, "-m", "slave", "-n", "1", *arguments)


def open_gates(folder: Path, name: str, *numbers: int) -> None:
    for number in numbers:
        (folder / f"gate{number}{name}").touch()


def test_a_slave_without_an_address_finds_the_master(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    began = master(hosts, start, own_folder)
    open_gates(own_folder, "one", 0, 1)
    program = start(*slave(hosts))
    program.says(r"connected: 1 slave for the master at " + re.escape(SUBNET + "1:"))
    assert began.ends() == 0 and program.ends() == 0


def test_one_that_is_started_first_looks_until_there_is_one(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    find_key(create=True)
    program = start(*slave(hosts, "--wait", "60"))
    program.says("no master of this key, or token, answers on the local network yet; looking for")
    open_gates(own_folder, "one", 0, 1)
    began = master(hosts, start, own_folder)
    assert began.ends() == 0 and program.ends() == 0


def test_by_a_token_and_no_address_from_another_home(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    began = master(hosts, start, own_folder)
    open_gates(own_folder, "one", 0, 1)
    shown = start(*hosts.on("master"), sys.executable, "-m", "parallel", "key", "--token")
    assert shown.ends() == 0 and re.fullmatch(r"[0-9a-z-]+\n", shown.out)
    command = " ".join(map(shlex.quote, slave(hosts, "--key-file", "-")))
    (own_folder / "elsewhere").mkdir()
    variables = {"HOME": str(own_folder / "elsewhere")}
    program = start("/bin/sh", "-c", f"echo {shown.out.strip()} | {command}", variables=variables)
    assert began.ends() == 0 and program.ends() == 0


@pytest.mark.slow
def test_a_token_for_once_of_a_master_that_runs(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    find_key(create=True)
    command = (*hosts.on("master"), sys.executable, "-m", "parallel", "key", "--token", "--once")
    none = start(*command)
    assert none.ends() == 4 and "no master of this key answers: start it first" in none.err
    began = master(hosts, start, own_folder)

    def asks() -> Program | None:
        """Who asks listens for a second, and a master on a busy machine may be late."""
        asker = start(*command)
        return asker if asker.ends() == 0 else None

    shown = eventually(asks, 60)
    assert shown is not None
    assert began.says(r"ready \S+ (\d+)").group(1) in shown.out
    token = next(one for one in shown.out.split())
    there = " ".join(map(shlex.quote, slave(hosts, "--key-file", "-", "--wait", "1")))
    (own_folder / "elsewhere").mkdir()
    variables = {"HOME": str(own_folder / "elsewhere")}
    program = start("/bin/sh", "-c", f"echo {token} | {there}", variables=variables)
    program.says("connected: ")
    eventually((own_folder / "gate0one.started").exists)
    again = start("/bin/sh", "-c", f"echo {token} | {there}", variables=variables)
    assert again.ends() in (3, 4) and "connected: " not in again.err
    open_gates(own_folder, "one", 0, 1)
    assert began.ends() == 0 and program.ends() == 0


@pytest.mark.slow
def test_strangers_hear_nothing(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    """Neither who holds another key nor who repeats what was asked before."""
    began = master(hosts, start, own_folder)
    ask = f"""
import socket, sys
from slave import discovery
from slave.keys import find_key
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def answered(asked, seconds):
    sock.settimeout(seconds)
    sock.sendto(asked, ("{SUBNET}1", {PORT}))
    try:
        return len(sock.recv(1000))
    except OSError:
        return 0
mine = discovery.question(find_key())
print(answered(discovery.question(b"another key altogether"), 1), answered(bytes(400), 0.3), answered(b"", 0.3),
      answered(mine[:399], 0.3), bool(answered(mine, 60)), answered(mine, 1))
"""
    asker = start(*hosts.on("slave"), sys.executable, "-c", ask)
    assert asker.ends() == 0 and asker.out == "0 0 0 0 True 0\n", asker.err
    program = start(*slave(hosts, "--wait", "0"), variables={"PARALLEL_AUTHKEY": "another key altogether"})
    assert program.ends() == 4 and "no master of this key, or token, answers on the local network" in program.err
    began.kill()


def test_a_master_that_does_not_announce_itself(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    master(hosts, start, own_folder, announce=False)
    program = start(*slave(hosts, "--wait", "0"))
    assert program.ends() == 4 and "has announce=False" in program.err
    listening = subprocess.run([*hosts.on("master"), "ss", "-lun"], capture_output=True, text=True, check=False)
    assert f":{PORT} " not in listening.stdout


PATIENT = """
import sys
from slave import cli, look_around
look_around._LISTEN = 10.0  # a master on a busy machine may be late
sys.argv[1:] = ["-n", "1"]
sys.exit(cli.run())
"""


@pytest.mark.slow
def test_several_masters_are_listed(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    first, second = (master(hosts, start, own_folder, name) for name in ("one", "two"))
    patient = (*hosts.on("slave"), sys.executable, "-c", PATIENT)
    program = start(*patient)
    assert program.ends() == 4
    lines = program.err.splitlines()
    assert lines[0] == "slave: 2 masters answer; name one by its address:"
    where = {name: next(line.split()[1] for line in lines[1:] if f"{name}.py of" in line) for name in ("one", "two")}
    for began, name in ((first, "one"), (second, "two")):
        port = began.says(r"ready \S+ (\d+)").group(1)
        assert where[name] == f"{SUBNET}1:{port}"
    open_gates(own_folder, "two", 0, 1)
    with Terminal(patient) as terminal:
        shown = terminal.shows(r"(?s)2 masters answer:.* (\d)  \S+  two\.py of.*which one\? \[1-2\] ")
        terminal.type(shown.group(1) + "\n")
        assert second.ends() == 0 and terminal.ends() == 0
    assert first.process.poll() is None


@pytest.mark.slow
def test_keep_serves_several_masters_in_turn(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    first, second = (master(hosts, start, own_folder, name) for name in ("one", "two"))
    program = start(*slave(hosts, "--keep"))
    eventually(lambda: list(own_folder.glob("gate0*.started")))
    (began,) = own_folder.glob("gate0*.started")
    order = ["one", "two"] if "one" in began.name else ["two", "one"]
    for name in order:
        eventually((own_folder / f"gate0{name}.started").exists)
        open_gates(own_folder, name, 0, 1)
        assert {"one": first, "two": second}[name].ends() == 0
    third = master(hosts, start, own_folder, "three")
    open_gates(own_folder, "three", 0, 1)
    assert third.ends() == 0 and program.process.poll() is None


@pytest.mark.slow
def test_a_master_with_another_address_is_found_again(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    began = master(hosts, start, own_folder)
    program = start(*slave(hosts))
    eventually((own_folder / "gate0one.started").exists)
    name = hosts.names["master"]
    for change in (("del", f"{SUBNET}1/24"), ("add", f"{SUBNET}77/24")):
        subprocess.run(["ip", "-n", name, "addr", *change, "dev", "eth0"], check=True)
    if Path("/proc/net/if_inet6").exists():
        subprocess.run(["ip", "-n", name, "-6", "addr", "flush", "dev", "eth0"], check=True)
    program.says(f"the master answers from another address now: {SUBNET}77:")
    program.says("connected to the master again")
    open_gates(own_folder, "one", 0, 1)
    assert began.ends() == 0 and program.ends() == 0
    assert began.out.count("done") == 2


def test_the_port_for_datagrams_may_be_another_program_s(hosts: TwoHosts, start: Start, own_folder: Path) -> None:
    text = f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', {PORT})); print('up'); s.recv(9)"
    start(*hosts.on("master"), sys.executable, "-u", "-c", text).says("up")
    began = master(hosts, start, own_folder)
    open_gates(own_folder, "one", 0, 1)
    _, port = began.says(r"ready (\S+) (\d+)").groups()
    assert start(*slave(hosts, f"{SUBNET}1:{port}")).ends() == 0
    assert began.ends() == 0
