"""The server's port, as strangers and as key holders find it."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.service import acceptor as acceptor_module
from slave import handshake
from slave.dial import dial
from tests.conftest import Make, ours
from tests.slave.masters import read_exactly
from tests.support import tasks
from tests.support.programs import script
from tests.support.waiting import eventually

KEY = b"the key of these tests"


def address(manager: parallel.Manager) -> tuple[str, int]:
    return "127.0.0.1", manager.address[1]


def works(manager: parallel.Manager) -> bool:
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, "works"))
    return list(context.get_results_unordered()) == ["works"]


def knock(manager: parallel.Manager) -> socket.socket:
    sock = socket.create_connection(address(manager), 30)
    read_exactly(sock, handshake.GREETING_SIZE)
    return sock


def hung_up(sock: socket.socket) -> bool:
    """Whether the server closes the connection without another word but a verdict."""
    sock.settimeout(30)
    try:
        rest = sock.recv(1000)
        return rest == b"" or (len(rest) <= handshake.VERDICT_SIZE and sock.recv(1000) == b"")
    except ConnectionResetError:
        return True
    finally:
        sock.close()


@pytest.fixture
def manager(make: Make) -> parallel.Manager:
    made = make(1, authkey=KEY, port=0)
    made.wait_for_slaves(1, 40)
    return made


class Bomb:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "first_words",
    [
        b"GET / HTTP/1.1\r\nHost: there\r\n\r\n".ljust(handshake.ANSWER_SIZE),
        os.urandom(handshake.ANSWER_SIZE),
        pickle.dumps(Bomb(), 5).ljust(handshake.ANSWER_SIZE),
        b"\x00" * handshake.ANSWER_SIZE,
        (1 << 63).to_bytes(8, "big") * 10,
    ],
    ids=["http", "random", "pickle", "zeros", "lengths"],  # the same in each process that runs tests
)
def test_noise_is_hung_up_on_and_not_unpickled(manager: parallel.Manager, first_words: bytes) -> None:
    sock = knock(manager)
    sock.sendall(first_words)
    assert hung_up(sock)
    assert works(manager)
    assert not Path("exploded").exists()


def test_a_wrong_key_and_a_replayed_handshake_are_refused(manager: parallel.Manager) -> None:
    sock = knock(manager)
    sock.sendall(handshake.answer(b"another key altogether", bytes(handshake.greeting(handshake.TLS, bytes(32)))))
    assert hung_up(sock)
    with socket.create_connection(address(manager)) as good:
        greeted = read_exactly(good, handshake.GREETING_SIZE)
        recorded = handshake.answer(KEY, greeted)
        good.sendall(recorded)
        verdict = read_exactly(good, handshake.VERDICT_SIZE)
        handshake.accept(KEY, greeted, recorded, verdict)
    replayed = knock(manager)
    replayed.sendall(recorded)
    assert hung_up(replayed)


def test_silent_and_halting_strangers_are_hung_up_on_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make(1, authkey=KEY, port=0)
    assert works(manager)
    monkeypatch.setattr(acceptor_module, "HANDSHAKE_SECONDS", 0.3)  # the slave, which is in, may have taken longer
    silent, halting = knock(manager), knock(manager)
    halting.sendall(b"half an answer")
    assert works(manager)
    assert hung_up(silent) and hung_up(halting)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as a thousand connections take, of which both ends are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4000:
        pytest.skip(f"this user may open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_strangers_do_not_keep_a_slave_out(make: Make) -> None:
    manager = make(0, port=0, authkey=KEY)
    strangers = [socket.create_connection(address(manager)) for _ in range(1000)]
    try:
        threads = len(ours())
        manager.add_slave(parallel.LocalSlave())
        assert works(manager)
        assert len(ours()) < threads + 10
    finally:
        for stranger in strangers:
            stranger.close()


def call(manager: parallel.Manager, *message: object, slave: int = 0) -> Any:
    connection = dial([address(manager)], KEY, 5.0)
    try:
        connection.send((None, "accept_connection", (("test", slave, "", 0, 1),), {}))
        assert connection.recv() == ("#RETURN", None)
        connection.send(message)
        return connection.recv()
    finally:
        connection.close()


@pytest.mark.parametrize("ident", ["tasks", "results", "agents", "0", "nothing", None])
@pytest.mark.parametrize("method", ["__class__", "_agents", "ended", "shutdown", "ident", "__init__", "create"])
def test_key_holders_reach_only_what_is_exposed(manager: parallel.Manager, ident: object, method: str) -> None:
    kind, text = call(manager, ident, method, (), {})
    assert kind == "#TRACEBACK" and "for slaves" in text
    assert works(manager)


@pytest.mark.parametrize("function", ["shutdown", "create", "debug_info", "number_of_objects", "incref", "serve"])
def test_key_holders_cannot_use_the_stock_servers_functions(manager: parallel.Manager, function: str) -> None:
    connection = dial([address(manager)], KEY, 5.0)
    connection.send((None, function, (), {}))
    assert connection.recv() == ("#TRACEBACK", f"{function!r} is not for slaves")
    with pytest.raises((EOFError, OSError)):
        connection.recv()
    connection.close()
    assert works(manager)


def test_a_call_that_fails_is_answered_with_its_reason(manager: parallel.Manager) -> None:
    assert call(manager, "tasks", "fetch", ((99, 1, 1, []),), {}, slave=99) == (
        "#ERROR",
        "UnknownSlave: slave 99 with process 1 is not known here",
    )
    kind, text = call(manager, "tasks", "fetch", (), {})
    assert kind == "#ERROR" and "TypeError" in text


@pytest.mark.parametrize("message", ["nonsense", (1, 2), ("tasks", "fetch", 7, {}), (b"x" * 300_000,)])
def test_key_holders_that_make_no_sense_are_cut_off(
    manager: parallel.Manager, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    connection = dial([address(manager)], KEY, 5.0)
    connection.send((None, "accept_connection", (("test", 0, "", 0, 1),), {}))
    connection.recv()
    connection.send(message)
    try:
        kind, _ = connection.recv()
        assert kind in ("#ERROR", "#CUT")
    except (EOFError, OSError):
        eventually(lambda: "made no sense" in caplog.text, 30)
    connection.close()
    assert works(manager)


def test_one_way_calls_that_make_no_sense_cost_only_their_connection(manager: parallel.Manager) -> None:
    connection = dial([address(manager)], KEY, 5.0)
    connection.send((None, "accept_connection", (("test", 0, "", 0, 1),), {}))
    connection.recv()
    connection.send(("results", "post", ("no", "such", "post"), {}))
    assert connection.recv()[0] == "#CUT"
    with pytest.raises((EOFError, OSError)):
        connection.recv()
    connection.close()
    assert works(manager)


def test_nobody_listens_at_a_port_unless_slaves_may_come_from_elsewhere(make: Make) -> None:
    assert works(make(1))
    assert listening() == set()
    open_manager = make(0, port=0)
    assert listening(open_manager.address[1]) in ({"::"}, {"0.0.0.0"}, {"::", "0.0.0.0"})


def test_a_manager_of_the_loopback_listens_there_and_nowhere_else(make: Make) -> None:
    manager = make(0, port=0, host="127.0.0.1")
    assert listening(manager.address[1]) == {"127.0.0.1"}


def listening(port: int | None = None) -> set[str]:
    """Addresses where this process or one that it started listens by TCP; without a port: all, with their ports."""
    ours, found = sockets(os.getpid()), set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            host, _, hex_port = fields[1].partition(":")
            if fields[3] == "0A" and fields[9] in ours and port in (None, int(hex_port, 16)):
                raw = bytes.fromhex(host)
                words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                name = socket.inet_ntop(family, b"".join(words))
                found.add(name if port is not None else f"{name} {int(hex_port, 16)}")
    return found


def sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process and its descendants have open."""
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed just now
                kind, _, inode = os.readlink(entry).partition(":[")
                if kind == "socket":
                    found.add(inode.rstrip("]"))
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found |= sockets(int(child))
    except OSError:
        pass  # it ended
    return found


WITHOUT_DESCRIPTORS = """
import os, resource
import parallel

KEY = b"the key of these tests"
parallel.Manager(port=0, authkey=KEY).shutdown()  # all is imported that will be
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def outcome(left, use):
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    for descriptor in held[len(held) - left :]:
        os.close(descriptor)
    try:
        return use()
    except parallel.NetworkError as error:
        return str(error)
    finally:
        for descriptor in held[: len(held) - left]:
            os.close(descriptor)


def new():
    with parallel.Manager(port=0, authkey=KEY):
        return "works"


with parallel.Manager(port=0, authkey=KEY) as manager:
    for left in range(20):
        print("address", left, outcome(left, lambda: manager.address and "works"))
for left in (0, 1, 2, 3, 5, 7, 9, 19):
    print("new", left, outcome(left, new))
"""


def test_without_descriptors_the_error_says_what_to_do(own_folder: Path) -> None:
    program = script(own_folder / "program.py", WITHOUT_DESCRIPTORS)
    try:
        assert program.ends(60) == 0, program.err
    finally:
        program.kill()
    lines = program.out.splitlines()
    assert len(lines) == 28
    for line in lines:
        assert "this process has no descriptor left; close files, or raise the limit (ulimit -n)" in line or (
            line.endswith(" works") and line.split()[1] != "0"
        )
    assert lines[19].endswith("works") and lines[27].endswith("works")
