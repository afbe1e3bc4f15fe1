"""Reaching the master at one of several addresses."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from slave import by_hand, cli, dial, find_master, introduction, limits, name_service, wire
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.errors import Incompatible, Intercepted, OutOfResources, Unreachable, WrongKey
from slave.handshake import PLAIN, SEALED, TLS
from tests.slave.masters import KEY, OTHER, SECONDS, Drip, SmallMaster, fingerprint

NAME = f"unix:parallel-test-{os.getpid()}"

Start = Callable[..., SmallMaster]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts masters that only introduce themselves."""
    made: list[SmallMaster] = []

    def begin(*arguments: Any, **options: Any) -> SmallMaster:
        one = SmallMaster(*arguments, **options)
        made.append(one)
        return one

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def drip() -> Iterator[Drip]:
    made = Drip()
    yield made
    made.close()


def echoes(connection: wire.Connection) -> bool:
    """Whether a master answers, as `SmallMaster` does."""
    connection.limit(SECONDS)
    connection.send("hello")
    answer = connection.recv()
    connection.close()
    return bool(answer == "hello")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:5757", ("host", 5757)),
        ("10.1.2.3:1", ("10.1.2.3", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1]:80", ("fe80::1", 80)),
    ],
)
def test_addresses_as_text(text: str, address: tuple[str, int]) -> None:
    assert dial.parse_address(text) == address
    assert dial.format_address(address) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":5757", "host:x", "::1:5757", "[]:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        dial.parse_address(text)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(ValueError, match=f"there is no port {port}; ports are 1 to 65535"):
        dial.parse_address(f"host:{port}")


@pytest.fixture
def port() -> Iterator[int]:
    """Where nobody listens, nor can while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_every_address_is_told_with_its_error(port: int) -> None:
    with pytest.raises(Unreachable) as caught:
        dial.dial([("127.0.0.1", port), ("no.such.host.invalid", port)], KEY, 1.0)
    text = str(caught.value)
    assert f"127.0.0.1:{port}: connection refused" in text
    assert f"no.such.host.invalid:{port}: unknown host" in text
    assert caught.value.refused == {("127.0.0.1", port)} and caught.value.others


def test_a_refusal_everywhere_is_recognised(port: int) -> None:
    with pytest.raises(Unreachable) as caught:
        dial.dial([("127.0.0.1", port)], KEY, 1.0)
    assert len(caught.value.refused) == 1 and not caught.value.others


class NameService:
    """Stands in for `socket.getaddrinfo`."""

    def __init__(self, port: int) -> None:
        self.port, self.asked, self.dead = port, 0, False

    def __call__(self, host: str, port: int, **more: Any) -> list[Any]:
        self.asked += 1
        if self.dead:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]


def test_a_name_is_asked_for_once_a_minute_and_an_answer_outlives_a_dead_name_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, now = NameService(5757), [1000.0]
    monkeypatch.setattr(name_service, "_patiently", service)
    names = name_service.Names(lambda: now[0])
    service.dead = True
    for _ in range(2):
        with pytest.raises(OSError, match="Temporary failure"):
            names.answers("lab7", 5757)
    service.dead = False
    found = [names.answers("lab7", 5757) for _ in range(3)]
    assert service.asked == 3 and found[0] == found[2]
    service.dead, now[0] = True, 1061.0
    assert [names.answers("lab7", 5757) for _ in range(3)] == found and service.asked == 4
    service.dead, service.port, now[0] = False, 7, 1122.0
    assert names.answers("lab7", 5757)[0][4] == ("127.0.0.1", 7), "it has moved"


@pytest.mark.parametrize(
    ("error", "said", "ends"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", True),
        (OSError(errno.ENFILE, "Too many open files in system"), "Too many open files in system", False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory", True),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), os.strerror(errno.ENOMEM), True),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied", False),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "lab7"])
def test_a_name_that_cannot_be_asked_for_is_not_unknown(
    monkeypatch: pytest.MonkeyPatch, host: str, error: OSError, said: str, ends: bool
) -> None:
    """What this process lacks, no waiting brings back."""

    def fail(*_: object, **__: object) -> None:
        raise error

    most = {"RLIMIT_AS": 7 << 20}  # the other one cannot be read without a descriptor
    monkeypatch.setattr(limits, "_limit", lambda name: most.get(name, 0))
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Unreachable) as caught:
        dial.dial([(host, 5757)], KEY, 1.0)
    assert str(caught.value) == f"{host}:5757: its address cannot be asked for: {said}"
    assert (caught.value.exhausted is not None) == ends
    most["RLIMIT_NOFILE"] = 7
    config = AgentConfig("an agent", [(host, 5757)], KEY, [])
    with pytest.raises(OutOfResources if ends else Unreachable, match=f"cannot be asked for: {said}") as ended:
        find_master.find_master(config, 1e9 if ends else 0.0)
    assert ("raise that limit" in str(ended.value)) == ends


def test_a_name_is_not_unknown_where_no_socket_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library says so all the same."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    class Full(socket.socket):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror):
        name_service.look_up("lab7", 5757)
    monkeypatch.setattr(socket, "socket", Full)
    with pytest.raises(OSError, match="Too many open files") as caught:
        name_service.look_up("lab7", 5757)
    assert name_service.is_shortage(caught.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_what_no_host_can_be_called_is_unknown(host: str) -> None:
    with pytest.raises(Unreachable, match="unknown host: no host can have this name"):
        dial.dial([(host, 5757)], KEY, 1.0)


def test_what_hangs_up_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.accept()[0].close()).start()
        with pytest.raises(Unreachable, match="connected, but it did not complete the handshake: the connection was"):
            dial.dial([("127.0.0.1", port)], KEY, 1.0)


def test_a_family_of_addresses_that_this_machine_does_not_know_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with pytest.raises(Unreachable, match=f"::1.*not supported by protocol; 127.0.0.1:{port}: connection refused"):
        dial.dial([("::1", port), ("127.0.0.1", port)], KEY, 1.0)


# -- the handshakes side by side


@pytest.mark.parametrize("mode", [TLS, SEALED, PLAIN], ids=["tls", "sealed", "plain"])
def test_a_master_on_this_machine_or_another(start: Start, mode: int) -> None:
    master = start(mode, host=NAME if mode == PLAIN else "127.0.0.1")
    connection = dial.dial([master.address], KEY, 5.0, encrypt=False)
    assert connection.master == fingerprint(mode).hex() and connection.peer == master.address
    assert echoes(connection)


def test_the_stock_way_to_dial(start: Start) -> None:
    for master in (start(), start(PLAIN, host=NAME)):
        assert echoes(wire.Client(master.address, KEY))


def test_an_address_that_drips_holds_nobody_up(start: Start, drip: Drip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its handshake has begun, and would never end."""
    monkeypatch.setattr(dial, "_STAGGER", 0.02)
    master = start()
    assert echoes(dial.dial([drip.address, master.address], KEY, 5.0))


def test_an_address_that_drips_is_given_up_in_time(drip: Drip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introduction, "HANDSHAKE_SECONDS", 0.3)
    with pytest.raises(Unreachable, match=r"connected, but it did not complete the handshake: not within 0.3 s"):
        dial.dial([drip.address], KEY, 5.0)


def test_a_wrong_key_alone_is_told_as_such(start: Start) -> None:
    masters = start(key=OTHER), start(key=OTHER)
    with pytest.raises(WrongKey) as caught:
        dial.dial([master.address for master in masters], KEY, 5.0)
    for master in masters:
        assert f"{dial.format_address(master.address)}: wrong key: the master holds another one" in str(caught.value)


def test_a_wrong_key_at_one_address_does_not_hide_the_others(start: Start, port: int) -> None:
    master = start(key=OTHER)
    with pytest.raises(Unreachable) as caught:
        dial.dial([master.address, ("127.0.0.1", port)], KEY, 5.0)
    assert f"127.0.0.1:{port}: connection refused" in str(caught.value) and "wrong key" in str(caught.value)
    assert caught.value.refused == {("127.0.0.1", port)} and caught.value.others


def test_a_wrong_key_at_one_address_does_not_keep_the_slave_out(start: Start) -> None:
    assert echoes(dial.dial([start(key=OTHER).address, start().address], KEY, 5.0))


def test_another_master_is_one_failed_address(start: Start) -> None:
    """One with the same key: that of another run, or of another user with whom it is shared."""
    other, mine = start(SEALED), start()
    wanted = fingerprint(TLS).hex()[:16]
    assert echoes(dial.dial([other.address, mine.address], KEY, 5.0, master=wanted, encrypt=False))
    with pytest.raises(Unreachable, match=f"another master answers there: .*, wanted {wanted}") as caught:
        dial.dial([other.address], KEY, 5.0, master=wanted, encrypt=False)
    assert caught.value.refused == {other.address} and not caught.value.others  # where it was, it is not any more


def test_a_master_without_encryption_is_refused_unless_wanted(start: Start) -> None:
    master = start(SEALED)
    with pytest.raises(Incompatible, match="offers no encryption; a slave takes that only if started with --no-encr"):
        dial.dial([master.address], KEY, 5.0)


def test_a_slave_without_tls_is_told_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    master = start()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ssl", None)
        with pytest.raises(Incompatible, match="has no module ssl"):
            dial.dial([master.address], KEY, 5.0, encrypt=False)


def test_nobody_at_a_unix_socket(own_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(f"{NAME}-none", 0), (f"unix:{own_folder}/none", 0)]
    with pytest.raises(Unreachable, match="connection refused; unix:/.*: no such file") as caught:
        dial.dial(addresses, KEY, 5.0)
    assert caught.value.refused == set(addresses) and not caught.value.others
    assert [dial.format_address(address) for address in addresses] == [host for host, _ in addresses]
    with pytest.raises(Unreachable, match="path too long"):
        dial.dial([("unix:/" + "x" * 200, 0)], KEY, 5.0)
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(Unreachable, match=f"{NAME}: this system has no Unix sockets"):
        dial.dial([(NAME, 0)], KEY, 5.0)


def test_a_process_of_another_user_is_not_served(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    master = start(PLAIN, host=NAME)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(Unreachable, match=f"{NAME}: .*a process of another user"):
        dial.dial([master.address], KEY, 5.0)


def test_no_attempt_is_left_when_one_has_won(start: Start, drip: Drip, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nothing_left` counts the descriptors."""
    monkeypatch.setattr(dial, "_STAGGER", 0.0)
    addresses = [drip.address, *(start().address for _ in range(3))]
    for _ in range(3):
        assert echoes(dial.dial(addresses, KEY, 5.0))


# -- which master the command line means


@pytest.mark.parametrize("text", ["", "0123456789abcde", "0123456789abcdeg", "a" * 65])
def test_what_is_no_fingerprint(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["host:1", "--master", text])
    assert "is not a master's fingerprint: 16 to 64 hexadecimal digits" in capsys.readouterr().err


def configured(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> AgentConfig:
    """The config with which the command line looks for a master."""
    found: list[AgentConfig] = []

    def look(config: AgentConfig, *_: float, **more: object) -> Agent:
        found.append(config)
        raise Unreachable("nobody")

    for module in (by_hand, cli):
        monkeypatch.setattr(module, "find_master", look)
    run()
    return found[0]


def test_the_command_line_names_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_AUTHKEY", KEY.decode())
    config = configured(monkeypatch, lambda: cli.main(["host:1", "--master", "0123456789ABCDEF", "--no-encryption"]))
    assert (config.master, config.encrypt) == ("0123456789abcdef", False)
    assert "PARALLEL_AUTHKEY" not in os.environ and config.key == KEY
    monkeypatch.setenv("PARALLEL_AUTHKEY", KEY.decode())
    config = configured(monkeypatch, lambda: cli.main(["host:1"]))
    assert (config.master, config.encrypt) == (None, True)


@pytest.mark.parametrize("more, expected", [("", (None, True)), (', "master": "ab", "encrypt": false', ("ab", False))])
def test_the_orders_of_a_launched_slave_name_the_master(
    monkeypatch: pytest.MonkeyPatch, more: str, expected: tuple[str | None, bool]
) -> None:
    import io

    orders = '{"agent": "a", "addresses": [["unix:x", 0]], "key": "00", "slots": [], "wait": 1, "wait_refused": 1'
    orders += f', "stays": false, "shielded": false{more}}}'
    monkeypatch.setattr(cli, "open", lambda *_, **more: io.BytesIO(orders.encode()), raising=False)  # of descriptor 0
    config = configured(monkeypatch, lambda: cli.main(["--launched"]))
    assert (config.master, config.encrypt) == expected and config.addresses == [("unix:x", 0)]
    assert repr(config.key) == "<key>"


@pytest.mark.parametrize("error", [Intercepted("relayed"), Unreachable("nobody")])
def test_a_master_is_looked_for_again_after_what_may_pass(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def enlist(agent: Agent) -> None:
        tries.append(agent)
        if len(tries) < 3:
            raise error

    monkeypatch.setattr(Agent, "enlist", enlist)
    monkeypatch.setattr(find_master, "_PAUSE", 0.0)
    agent = find_master.find_master(AgentConfig("an agent", [("host", 1)], KEY, []), 60.0)
    assert len(tries) == 3
    agent.close()


def test_another_program_at_the_masters_port_counts_as_nobody_who_listens() -> None:
    """The master was killed, and its port is taken: its slaves are to leave soon."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.0 400 Bad request\r\n\r\n")

        other = threading.Thread(target=answer)
        other.start()
        with pytest.raises(Unreachable, match="what listens there is not a master") as caught:
            dial.dial([address], KEY, 5.0)
        other.join()
    assert caught.value.refused == {address} and not caught.value.others
