"""Strangers in numbers, and slow ones: they cost nobody anything, on slow links and with few descriptors either."""

from __future__ import annotations

import math
import os
import re
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

import parallel
from parallel.service import acceptor
from slave import handshake, introduction
from slave.dial import dial
from slave.errors import Unreachable
from tests.conftest import Make
from tests.support import relays
from tests.support.programs import Program, script, slave
from tests.support.relays import Relay
from tests.support.waiting import eventually

KEY = b"the key of these tests"
pytestmark = pytest.mark.slow  # they time what happens, on a machine that is to have little else to do
FLOOD = """
import resource, socket, sys, time
host, port, rate, most = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
most = min(most, hard - 100)
resource.setrlimit(resource.RLIMIT_NOFILE, (most + 100, hard))
kept, count, due, last = [], 0, 0.0, time.monotonic()
while True:
    now = time.monotonic()
    due, last = due + min(now - last, 0.02) * rate, now  # what it misses on a busy machine it does not make up for
    while count < due:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((host, 0))
        sock.connect_ex(("127.0.0.1", port))
        kept.append(sock)
        count += 1
        if len(kept) > most:
            kept.pop(0).close()
        if count % 100 == 0:
            print(count, flush=True)
    time.sleep(0.002)
"""


@contextmanager
def flood(port: int, rate: float, most: int = 4000, host: str = "127.0.0.1") -> Iterator[Program]:
    """So many silent connections a second from one address, of which he keeps the last ones open.

    More than the system holds ready for a master that is busy: else those are closed that it comes to accept.
    """
    program = Program(sys.executable, "-I", "-c", FLOOD, host, str(port), str(rate), str(most))
    try:
        program.says(r"\d+")
        yield program
        assert program.process.poll() is None, program.err
    finally:
        program.kill()


def at(manager: parallel.Manager) -> tuple[str, int]:
    return "127.0.0.1", manager.address[1]


def joins_after(manager: parallel.Manager, relay: Relay) -> float:
    """How long a slave program takes until it has joined."""
    began = time.monotonic()
    program = slave(relay.name, "-n", "1", "--wait", "60", PARALLEL_AUTHKEY=KEY.decode())
    try:
        manager.wait_for_slaves(1, 60)
        seconds = time.monotonic() - began
        manager.remove_slave(max(info.number for info in manager.slaves))
        assert program.ends() == 0
        return seconds
    finally:
        program.kill()


def admitted_after(relay: Relay) -> float:
    """How long one connection takes until the handshake is done and a call was answered."""
    began = time.monotonic()
    connection = dial([relay.address], KEY, 5.0)
    connection.send((None, "accept_connection", (("test", 0, "", 0, 1),), {}))
    assert connection.recv() == ("#RETURN", None)
    connection.close()
    return time.monotonic() - began


@pytest.fixture
def long_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is hung up on in this process since a busy machine has kept him waiting."""
    for module in (acceptor, introduction):
        monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 60.0)


@pytest.mark.usefixtures("long_handshakes")
@pytest.mark.parametrize(
    "join", [pytest.param(joins_after, id="program", marks=pytest.mark.slow), pytest.param(admitted_after, id="dial")]
)
def test_slave_on_a_slow_link_joins_while_many_knock(
    make: Make, caplog: pytest.LogCaptureFixture, join: Callable[..., float]
) -> None:
    """At a round trip of 400 ms: 1,500 a second leave each of 512 places for less time than a handshake takes."""
    manager = make(0, port=0, authkey=KEY)
    arguments = (manager,) if join is joins_after else ()
    with Relay(at(manager), relays.delayed(0.2), source="127.0.0.2") as relay:
        calm = join(*arguments, relay)
        assert calm > 0.8  # the line is as slow as it should be
        with flood(manager.address[1], 1500) as strangers:
            strangers.says(r"\b1000\b")
            eventually(lambda: "without having proved that they hold the key" in caplog.text, 60, "a line of them")
            flooded = join(*arguments, relay)
    print(f"calm {calm:.2f} s, flooded {flooded:.2f} s")
    assert flooded < 2 * calm + 30  # whoever is pushed out again and again does not come in at all
    assert caplog.text.count("without having proved that they hold the key") == 1


MASTER = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
import functools, os, subprocess, sys
import parallel


def rounds(context, until):
    count = 0
    while True:
        for number in range(20):
            context.add_task(functools.partial(pow, number, 2))
        assert sorted(context.get_results_unordered()) == [number * number for number in range(20)]
        count += 1
        if os.path.exists(until):
            return count


if __name__ == "__main__":
    with parallel.Manager(port=0, output=None, authkey=b"the key of these tests") as manager:
        manager.add_slave(parallel.LocalSlave())
        context = manager.get_context()
        manager.wait_for_slaves(1, 60)
        print("port", manager.address[1], "descriptors", len(os.listdir("/proc/self/fd")), flush=True)
        print("rounds", rounds(context, "flooded"), flush=True)
        manager.add_slave(parallel.LocalSlave())
        manager.wait_for_slaves(2, 60)
        print("a local slave has joined", flush=True)
        print(subprocess.run(["echo", "a process runs"], capture_output=True, text=True).stdout, flush=True)
        files = [open(os.devnull) for _ in range(15)]
        print("files are open", flush=True)
        for file in files:
            file.close()
        manager.wait_for_slaves(3, 60)
        print("a slave by hand has joined", flush=True)
        print("rounds", rounds(context, "flooded"), flush=True)
"""


def test_few_descriptors_and_many_strangers(own_folder: Path) -> None:
    """With ``ulimit -n 256`` tasks, new slaves, new processes and files go on, and one line says why it is close."""
    master = script(own_folder / "master.py", MASTER)
    by_hand = None
    try:
        found = master.says(r"port (\d+) descriptors (\d+)")
        port, before = int(found[1]), int(found[2])
        with flood(port, 3000, 6000, "127.0.0.2") as strangers:
            strangers.says(r"\b[1-9]\d{3}\b")  # a thousand have come
            most, until = 0, math.inf  # a second after the master has let the first ones in

            def held() -> bool:
                nonlocal most, until
                most = max(most, len(os.listdir(f"/proc/{master.process.pid}/fd")))
                until = min(until, time.monotonic() + 1) if most > before + 1 else until
                return time.monotonic() > until

            eventually(held, 60)
            # an eighth, two of an acceptance that is under way, one of the listing in the first count
            assert before < most <= before + 256 // 8 + 3
            (own_folder / "flooded").touch()
            by_hand = slave(f"127.0.0.1:{port}", "-n", "1", "--wait", "60", PARALLEL_AUTHKEY=KEY.decode())
            assert master.ends(180) == 0, master.err
        assert by_hand.ends() == 0
    finally:
        master.kill()
        if by_hand is not None:
            by_hand.kill()
    for said in ("a local slave has joined", "a process runs", "files are open", "a slave by hand has joined"):
        assert said in master.out, master.err
    usual = r"slaves may join|it asks there for a token|\(started by hand on"
    lines = [line for line in master.complaints.splitlines() if not re.search(usual, line)]
    assert len(lines) == 1 and "without having proved that they hold the key" in lines[0], master.err


NARROW = """
import json, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
import functools, parallel

if __name__ == "__main__":
    with parallel.Manager(port=0, output=None, authkey=b"the key of these tests") as manager:
        manager.add_slave(parallel.LocalSlave())
        context = manager.get_context()
        manager.wait_for_slaves(1, 60)
        port, files = manager.address[1], []
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        while True:  # the user has all that there are
            try:
                files.append(open(os.devnull))
            except OSError:
                break
        print("port", port, flush=True)
        done = 0
        while done < 2 or not os.path.exists("over"):
            for number in range(20):
                context.add_task(functools.partial(pow, number, 2))
            assert sorted(context.get_results_unordered()) == [number * number for number in range(20)]
            done += 1
        print("rounds", done, flush=True)
        for file in files:
            file.close()
        manager.wait_for_slaves(2, 60)
        print("joined", flush=True)
"""


def test_no_descriptor_is_left(own_folder: Path) -> None:
    """The user's own files have taken all: nobody can come, tasks go on, and who waits gets in when they are closed."""
    master = script(own_folder / "master.py", NARROW)
    by_hand = None
    try:
        port = int(master.says(r"port (\d+)")[1])
        by_hand = slave(f"127.0.0.1:{port}", "-n", "1", "--wait", "60", PARALLEL_AUTHKEY=KEY.decode())
        with flood(port, 200, 100) as strangers:
            strangers.says(r"\b[2-9]00\b")
            master.says("no connection can be accepted for now|few descriptors left")
        (own_folder / "over").touch()
        assert master.ends(60) == 0, master.err
        assert "joined" in master.out and int(master.says(r"rounds (\d+)")[1]) > 1
        assert by_hand.ends() == 0
        assert len(master.complaints.splitlines()) <= 4, master.err
    finally:
        master.kill()
        if by_hand is not None:
            by_hand.kill()


class Drip:
    """Listens, accepts all who come, and sends each a greeting, one byte a second."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        self.sent: list[int] = []  # bytes, to each who has hung up
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._drip, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _drip(self, sock: socket.socket) -> None:
        with sock:
            for count, byte in enumerate(handshake.greeting(handshake.TLS, bytes(32))):
                try:
                    sock.send(bytes([byte]))
                except OSError:
                    self.sent.append(count)
                    return
                if self._over.wait(1):
                    return

    def close(self) -> None:
        self._over.set()
        relays.shut(self._server)
        for thread in self._threads:
            thread.join(30)
        self._server.close()


@pytest.fixture
def drip() -> Iterator[Drip]:
    made = Drip()
    yield made
    made.close()


def test_false_address_that_drips_holds_nobody_up(make: Make, drip: Drip, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make(0, port=0, authkey=KEY)
    monkeypatch.setattr(introduction, "HANDSHAKE_SECONDS", 60.0)
    began = time.monotonic()
    dial([drip.address, at(manager)], KEY, 5.0).close()
    assert time.monotonic() - began < 50  # side by side
    monkeypatch.setattr(introduction, "HANDSHAKE_SECONDS", 2.0)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="not within 2 s"):
        dial([drip.address], KEY, 60.0)
    assert 1.5 < time.monotonic() - began < 30


PATIENT_SLAVE = """
from slave import introduction
from slave.cli import run
introduction.HANDSHAKE_SECONDS = 600.0
run()
"""


def test_slave_program_with_a_dripping_address(make: Make, drip: Drip) -> None:
    manager = make(0, port=0, authkey=KEY)
    names = [f"{host}:{port}" for host, port in (drip.address, at(manager))]
    words = [*names, "-n", "1", "--wait", "0"]
    program = Program(sys.executable, "-c", PATIENT_SLAVE, *words, variables={"PARALLEL_AUTHKEY": KEY.decode()})
    try:
        manager.wait_for_slaves(1, 60)
        eventually(lambda: drip.sent, 60, "the end of a connection that drips, since another one was better")
        manager.shutdown()
        assert program.ends() == 0
    finally:
        program.kill()


@pytest.fixture
def few_places(long_handshakes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (400, hard))


@pytest.mark.usefixtures("few_places")
def test_who_comes_from_elsewhere_keeps_the_place(make: Make) -> None:
    """Whoever fills the places pushes himself out, not the one that waits at another address."""
    manager = make(0, port=0, authkey=KEY)
    with socket.create_connection(at(manager), 30, source_address=("127.0.0.3", 0)) as patient:
        greeted = relays.read_exactly(patient, handshake.GREETING_SIZE)
        crowd = [socket.create_connection(at(manager), 30) for _ in range(120)]
        try:
            eventually(lambda: sum(map(gone, crowd)) >= 120 - 49, 30)
            patient.sendall(handshake.answer(KEY, greeted))
            verdict = relays.read_exactly(patient, handshake.VERDICT_SIZE)
            assert verdict[0] == 0
        finally:
            for sock in crowd:
                sock.close()


def gone(sock: socket.socket) -> bool:
    """Whether the other end has hung up; the greeting is left where it is."""
    sock.setblocking(False)
    try:
        data = sock.recv(1000, socket.MSG_PEEK)
        if len(data) == handshake.GREETING_SIZE:
            sock.recv(1000)
            data = sock.recv(1000, socket.MSG_PEEK)
        return not data
    except BlockingIOError:
        return False
    except OSError:
        return True
