"""``python3 -m parallel doctor``: why it does not run, from a slave's machine and from the master's."""

from __future__ import annotations

import calendar
import errno
import importlib.machinery
import platform
import re
import secrets
import socket
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.__main__ import main
from parallel.monitor import doctor
from parallel.monitor.controls import packages_of_program
from parallel.monitor.doctor import BAD, NOTE, OK, Finding
from parallel.monitor.firewall import evidence
from slave.errors import Unreachable
from slave.protocol import RELEASE
from tests.conftest import Make
from tests.support.tasks import give
from tests.support.waiting import eventually

from .fake_source import slave, status

KEY = "the key of these tests"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_AUTHKEY", KEY)


class FakeWatcher:
    """A master that answers what a test says."""

    def __init__(self, **told: Any) -> None:
        usual = {"release": RELEASE, "python": platform.python_version(), "clock": calendar.timegm(time.gmtime())}
        self._told = {**usual, "packages": {}, "ships": True, **told}
        self.loses_large_packets = False

    def surroundings(self) -> dict[str, Any]:
        return self._told

    def output(self, places: dict[str, int]) -> dict[str, Any]:
        if self.loses_large_packets:
            raise Unreachable("it does not answer")
        return {}


def found(findings: Iterator[Finding], kind: str) -> str:
    return "\n".join(one.text for one in findings if one.kind == kind)


def told(watcher: FakeWatcher, kind: str) -> str:
    return found(doctor.conversation(watcher), kind)  # type: ignore[arg-type]


# -- from a slave's machine


def test_all_is_well_on_the_way_to_a_master(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    manager = make(0, port=0, authkey=KEY.encode())
    assert main(["doctor", f"localhost:{manager.address[1]}"]) == 0
    out = capsys.readouterr().out
    assert "can be reached" in out and "the key is found: the variable PARALLEL_AUTHKEY" in out
    assert (
        f"release {RELEASE} on both sides" in out and "the clocks agree" in out and "large packets get through" in out
    )
    assert "!!" not in out


def test_another_key(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    manager = make(0, port=0, authkey=b"another key of 16 bytes")
    assert main(["doctor", f"127.0.0.1:{manager.address[1]}"]) == 3
    assert "  !!  " in capsys.readouterr().out


def test_nobody_listens_and_no_such_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor", "127.0.0.1:1"]) == 4
    assert "127.0.0.1:1 refuses: its machine is there, and nobody listens" in capsys.readouterr().out

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["doctor", "nowhere:5757"]) == 4
    assert "the name nowhere is not known here: Name or service not known" in capsys.readouterr().out


def test_what_no_host_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "a..b:5757"]) == 4
    assert "the name a..b is not known here: no host can have this name" in capsys.readouterr().out


def test_a_name_that_cannot_be_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", full)
    assert main(["doctor", "lab7:5757"]) == 9
    out = capsys.readouterr().out
    assert "the address of lab7 cannot be asked for: OSError: [Errno 24] Too many open files; on " in out
    assert "(ulimit -n)" in out and "not known" not in out


def test_no_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARALLEL_AUTHKEY")
    assert main(["doctor", "127.0.0.1:1"]) == 4
    out = capsys.readouterr().out
    assert "no key: " in out and "authkey does not exist" in out


def test_a_machine_that_drops_what_comes_is_told_as_a_firewall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full drops what comes, as a firewall does."""
    monkeypatch.setattr(doctor, "_CONNECT_SECONDS", 0.1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        try:
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                waiting.append(one)
            assert "does not answer within 0.1 s: a firewall is likely" in found(doctor.reach(address), BAD)
        finally:
            for one in waiting:
                one.close()


def test_another_python_release_and_clock() -> None:
    assert "Python " in told(FakeWatcher(), OK) and told(FakeWatcher(), BAD) == ""
    assert "3.5.1 on the master: they work together" in told(FakeWatcher(python="3.5.1"), NOTE)
    assert "the master is of release 9.9" in told(FakeWatcher(release="9.9"), NOTE)
    late = FakeWatcher(clock=calendar.timegm(time.gmtime()) - 3600)
    assert re.search(r"the master's clock is 3,60\d s behind this one", told(late, NOTE))  # and it goes on


def test_large_packets_that_do_not_arrive() -> None:
    watcher = FakeWatcher()
    watcher.loses_large_packets = True
    assert "perhaps large packets are lost on the way (the MTU" in told(watcher, BAD)


def test_packages_that_the_program_uses() -> None:
    watcher = FakeWatcher(packages={"pytest": "0.1", "no_such_package_here": "2.5"})
    assert "the package no_such_package_here is missing here" in told(watcher, BAD)
    assert "python3 -m pip install no_such_package_here==2.5 (or Manager(ship=['no_such" in told(watcher, BAD)
    assert f"packages of other versions here: pytest {pytest.__version__} (the master: 0.1)" in told(watcher, NOTE)
    assert "are here: pytest" in told(FakeWatcher(packages={"pytest": pytest.__version__}), OK)
    assert told(FakeWatcher(packages=["nonsense"]), BAD) == ""


# -- from the master


def test_slaves_that_are_missing_and_what_their_launchers_say() -> None:
    slaves = [
        slave(0),
        slave(1, "expected", name="SSHSlave('node1')", words="ssh: connect to host node1 port 22: No route"),
        slave(2, "lost", heard=42.0, host="node2"),
        slave(3, "ended", words="it exited with code 1;\n  Permission denied"),
    ]
    findings = list(doctor.missing(status(*slaves)))
    notes, bad = found(iter(findings), NOTE), found(iter(findings), BAD)
    assert "slave 1 (SSHSlave('node1') on here) has not come yet: ssh: connect to host node1 port 22: No route" in notes
    assert "slave 3 (LocalSlave()) has ended: it exited with code 1; Permission denied" in notes
    assert "slave 2 (LocalSlave() on node2) is lost, heard last 42 s ago" in bad
    many = list(doctor.missing(status(*[slave(n, "expected") for n in range(1000)])))
    assert len(many) < 20 and "988 more slaves are missing" in found(iter(many), NOTE)
    assert found(doctor.missing(status(slave(0))), OK).startswith("1 slave is connected, none is missing")
    assert "it has no slaves" in found(doctor.missing(status()), NOTE)


def test_addresses_and_firewalls() -> None:
    local = {"addresses": ["unix:parallel-1"], "firewall": ["never told"]}
    assert "for slaves of this machine only; Manager(port=0)" in found(doctor.offers(local), NOTE)
    assert "this machine only" in found(doctor.offers({"addresses": ["127.0.0.1:5", "[::1]:5"]}), NOTE)
    lan = {"addresses": ["192.0.2.1:5757", "[fd00::2]:5757"], "firewall": ["the firewall ufw is on: do this"]}
    assert found(doctor.offers(lan), OK) == "slaves elsewhere find it at 192.0.2.1:5757, [fd00::2]:5757"
    assert found(doctor.offers(lan), BAD).endswith("out: the firewall ufw is on: do this")


def test_the_masters_of_this_machine(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(give, 1)
    assert list(context.get_results_unordered()) == [1]
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "for slaves of this machine only" in out and "1 slave is connected, none is missing" in out


class _Waits(parallel.Slave):
    """One that its engine does not start."""

    doing = "waits in the queue"

    def start(self, job: Any) -> None:
        pass

    def poll(self) -> str | None:
        return None

    def stop(self) -> None:
        pass


def test_status_says_why_it_does_not_run(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    manager = make(0)
    manager.add_slave(_Waits())
    context = manager.get_context()
    context.add_task(give, 1)
    manager.begin()
    eventually(lambda: manager.status().slaves[0].words, what="the launcher's words")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "why it does not run (python3 -m parallel doctor):" in out and "has not come yet: waits in the queue" in out
    manager.shutdown()


def test_without_a_master_others_are_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallel.commands import doctor as command

    monkeypatch.setattr(command, "_LOOK_SECONDS", 0.05)
    monkeypatch.setenv("PARALLEL_AUTHKEY", secrets.token_hex(16))  # other tests' masters answer to theirs
    assert main(["doctor"]) == 4
    assert "no master of this key answers on the local network" in capsys.readouterr().out


# -- firewalls


def test_ufw(tmp_path: Path) -> None:
    (tmp_path / "etc/ufw").mkdir(parents=True)
    conf = tmp_path / "etc/ufw/ufw.conf"
    conf.write_text("# ENABLED=yes\nENABLED=no\n")
    assert evidence(5757, tmp_path, lambda command: "") == []
    conf.write_text("ENABLED=yes\nLOGLEVEL=low\n")
    assert evidence(5757, tmp_path, lambda command: "") == ["the firewall ufw is on: sudo ufw allow 5757/tcp"]


@pytest.mark.parametrize(
    ("program", "says", "sign"),
    [
        ("firewall-cmd", "running\n", "firewalld is running: sudo firewall-cmd --add-port=5757/tcp"),
        ("firewall-cmd", "not running\n", ""),
        ("iptables", "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n", "rules of this machine drop what comes in"),
        (
            "iptables",
            "-P INPUT ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n",
            "rules of this machine",
        ),
        ("iptables", "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j DROP\n", ""),
        ("nft", "chain input {\n type filter hook input priority 0; policy drop;\n}\n", "rules of this machine"),
        ("nft", "chain forward {\n type filter hook forward priority 0; policy drop;\n}\n", ""),
    ],
)
def test_what_the_systems_programs_say(program: str, says: str, sign: str, tmp_path: Path) -> None:
    signs = evidence(5757, tmp_path, lambda command: says if command[0] == program else "")
    assert (len(signs) == 1 and signs[0].startswith(sign)) if sign else signs == []


def test_this_machine_can_be_asked() -> None:
    assert isinstance(evidence(5757), list)


def test_the_programs_objects_are_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module holds may answer any question with an error, or do something."""

    class Sly:
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError(f"asked for {name}")

    class Late(types.ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError(f"loaded for {name}")

    module = types.ModuleType("a_users_module")
    module.__spec__ = importlib.machinery.ModuleSpec("a_users_module", None, origin="/home/somebody/a_users_module.py")
    module.__dict__.update(sly=Sly(), late=Late("late"), tests=pytest, function=pytest.importorskip)
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    monkeypatch.setitem(sys.modules, "late", Late("late"))
    monkeypatch.setitem(sys.modules, "sly", Sly())
    assert packages_of_program()["pytest"] == pytest.__version__
