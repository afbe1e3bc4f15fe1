"""Introductions over real sockets: who is let in, and every way in which somebody in the middle is not."""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from slave import handshake, introduction, shared_memory
from slave.certificate import client_context, make_certificate, server_context
from slave.errors import Incompatible, Intercepted, ProtocolError, WrongKey, WrongMaster
from slave.handshake import PLAIN, SEALED, TLS
from slave.introduction import Refused
from slave.local_transport import LocalTransport
from slave.sealed import SealedTransport
from slave.tls import TlsTransport
from slave.transport import SocketTransport
from slave.wire import Connection
from tests.slave.masters import (
    KEY,
    OTHER,
    SECONDS,
    Relay,
    channel,
    context,
    fingerprint,
    master,
    read_exactly,
    receive,
    slave,
    tcp_pair,
)

KINDS = {
    PLAIN: LocalTransport if shared_memory.possible else SocketTransport,
    TLS: TlsTransport,
    SEALED: SealedTransport,
}
MODES = pytest.mark.parametrize("mode", KINDS, ids=["plain", "tls", "sealed"])


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay()
    yield made
    made.close()


def meet(near: socket.socket, far: socket.socket, mode: int, key: bytes = KEY, **options: Any) -> list[Any]:
    """What becomes of a slave, with these options, and a master."""
    asides = slave(near, key, **options), master(far, mode)
    return [aside.outcome for aside in asides]


@MODES
def test_both_sides_get_the_same_channel(mode: int) -> None:
    with channel(mode) as ends:
        assert all(type(end) is KINDS[mode] for end in ends)
        assert {end.master for end in ends} == {fingerprint(mode).hex()}
        slaves, masters = (Connection(end) for end in ends)
        for sender, receiver in ((slaves, masters), (masters, slaves)):
            sender.send(("some", 1))
            assert receiver.recv() == ("some", 1)
        assert ends[0].peer[0] == ("unix:" if mode == PLAIN else "127.0.0.1")


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@MODES
def test_what_a_slave_takes(mode: int, unix: bool) -> None:
    """TLS always; sealed records if it was told so; any of them on a Unix socket, where the peer's user is known."""
    for encrypt in (True, False):
        near, far = socket.socketpair() if unix else tcp_pair()
        at_slave, at_master = meet(near, far, mode, encrypt=encrypt)
        if unix or mode == TLS or (mode == SEALED and not encrypt):
            at_slave.close()
            at_master.close()
            continue
        assert type(at_slave) is Incompatible
        assert ("--no-encryption" if mode == SEALED else "without any protection") in str(at_slave)
        assert str(at_master) == "it hung up during the handshake" and type(at_master) is Refused


def test_a_mode_that_nobody_knows_is_refused() -> None:
    near, far = socket.socketpair()
    at_slave = slave(near)
    far.sendall(handshake.greeting(7, bytes(32)))
    assert type(at_slave.outcome) is Incompatible
    far.close()


@MODES
def test_another_key(mode: int) -> None:
    near, far = tcp_pair() if mode != PLAIN else socket.socketpair()
    at_slave, at_master = meet(near, far, mode, OTHER, encrypt=False)
    assert type(at_slave) is WrongKey and str(at_master) == "it holds another key"
    assert near.fileno() == far.fileno() == -1


def test_the_master_that_is_wanted_and_another() -> None:
    digits = fingerprint(TLS).hex()
    for wanted in (digits, digits[:16], digits[:16].upper()):
        for end in meet(*tcp_pair(), TLS, master=wanted):
            end.close()
    at_slave, at_master = meet(*tcp_pair(), TLS, master="0123456789abcdef")
    assert type(at_slave) is WrongMaster
    assert str(at_slave) == f"another master answers there: {digits[:16]}..., wanted 0123456789abcdef..."
    assert type(at_master) is Refused


def test_no_key_is_used_for_another_master() -> None:
    near, far = tcp_pair()
    at_slave = slave(near, master="ab" * 8)
    far.sendall(handshake.greeting(TLS, bytes(32)))
    assert type(at_slave.outcome) is WrongMaster
    assert far.recv(100) == b""
    far.close()


def test_another_version_is_told_by_the_first_bytes() -> None:
    """Of an older release the greeting is shorter, so that nothing more would come."""
    near, far = tcp_pair()
    at_slave = slave(near)
    far.sendall(struct.pack("!8sH", b"parallel", 2))
    assert "the master speaks protocol 2" in str(at_slave.outcome)
    far.close()
    near, far = tcp_pair()
    at_master = master(far)
    read_exactly(near, handshake.GREETING_SIZE)
    near.sendall(struct.pack("!8sH", b"parallel", 2))
    assert read_exactly(near, handshake.VERDICT_SIZE)[:1] == b"\x02"
    assert "it speaks protocol 2" in str(at_master.outcome)
    near.close()


def test_what_is_not_of_this_protocol_is_told_at_once() -> None:
    near, far = tcp_pair()
    at_master = master(far)
    near.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert "it does not speak this protocol: it said b'GET / HT'" in str(at_master.outcome)
    near.close()
    near, far = tcp_pair()
    at_slave = slave(near)
    far.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    assert type(at_slave.outcome) is ProtocolError
    far.close()


@pytest.mark.parametrize("mode", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_a_process_of_another_user_is_refused_on_a_unix_socket(monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    near, far = socket.socketpair()
    at_slave, at_master = meet(near, far, mode)
    assert type(at_slave) is PermissionError and type(at_master) is Refused
    for error in (at_slave, at_master):
        assert "a process of another user (uid " in str(error)


def test_many_are_carried_out_by_one_thread_a_byte_at_a_time() -> None:
    """The generators alone, over sockets from which each read gets one byte."""

    class Slow(socket.socket):
        def recv_into(self, buffer: Any, *rest: Any) -> int:
            return super().recv_into(memoryview(buffer)[:1], *rest)

    running: dict[int, introduction.Steps] = {}
    ends = []
    with selectors.DefaultSelector() as selector:
        for _ in range(5):
            for sock, side in zip(socket.socketpair(), ("slave", "master")):
                slow = Slow(fileno=sock.detach())
                slow.setblocking(False)
                steps = receive(slow) if side == "master" else introduction.introduce(slow, KEY)
                running[slow.fileno()] = steps
                selector.register(slow.fileno(), selectors.EVENT_WRITE)
        while running:
            for key, _ in selector.select(SECONDS):
                try:
                    selector.modify(key.fd, next(running[key.fd]))
                except StopIteration as done:
                    ends.append(done.value)
                    del running[key.fd]
                    selector.unregister(key.fd)
    assert len(ends) == 10 and {end.master for end in ends} == {fingerprint(TLS).hex()}
    for end in ends:
        end.close()


def test_all_of_it_has_one_deadline() -> None:
    near, far = tcp_pair()
    with pytest.raises(socket.timeout, match=r"it did not complete the handshake within 0.05 s"):
        introduction.finish(introduction.introduce(near, KEY), near, 0.05)
    assert near.fileno() == -1
    far.close()


def test_whoever_hangs_up_or_is_hung_up_on_leaves_nothing() -> None:
    near, far = tcp_pair()
    near.setblocking(False)
    steps = introduction.introduce(near, KEY)
    next(steps)
    steps.close()
    assert near.fileno() == -1 and far.recv(1) == b""
    far.close()
    near, far = tcp_pair()
    near.close()
    assert str(master(far).outcome) == "it hung up during the handshake"


# -- somebody in the middle


def test_a_relay_that_passes_everything_on_is_a_cable(relay: Relay) -> None:
    """It sees nothing of what is said, and can only cut."""
    relay.pass_on()
    seen = []
    with selectors.DefaultSelector() as selector:
        selector.register(relay.to_slave, selectors.EVENT_READ, relay.to_master)
        selector.register(relay.to_master, selectors.EVENT_READ, relay.to_slave)
        while relay.slave.is_alive() or relay.master.is_alive():
            for key, _ in selector.select(0.05):
                assert isinstance(key.fileobj, socket.socket)
                seen.append(key.fileobj.recv(1 << 16))
                key.data.sendall(seen[-1])
    Connection(relay.slave.outcome).send("a secret text")
    seen.append(relay.to_slave.recv(1 << 16))
    relay.to_master.sendall(seen[-1])
    assert Connection(relay.master.outcome).recv() == "a secret text"
    assert b"a secret text" not in b"".join(seen)


def test_a_relay_that_ends_the_encryption_itself_is_found_out_by_the_slave(relay: Relay) -> None:
    relay.pass_on()
    own = server_context(make_certificate()).wrap_socket(relay.to_slave, server_side=True)
    assert own.recv(100) == b""  # not the last proof
    own.close()
    assert type(relay.slave.outcome) is Intercepted
    assert "somebody between this machine and the master relays the connection" in str(relay.slave.outcome)


def test_a_relay_that_opens_the_channel_itself_is_found_out_by_the_master(relay: Relay) -> None:
    relay.pass_on()
    own = client_context().wrap_socket(relay.to_master)
    own.sendall(bytes(handshake.PROOF_SIZE))
    assert own.recv(1) == b""
    own.close()
    assert str(relay.master.outcome) == "it holds no key: somebody relays another's handshake"


def test_a_relay_that_puts_plain_bytes_into_the_channel_is_not_heard(relay: Relay) -> None:
    relay.pass_on()
    relay.to_master.sendall(b"\x80\x05." + bytes(61))
    relay.to_slave.sendall(b"\x80\x05." + bytes(61))
    assert type(relay.master.outcome) is Refused and type(relay.slave.outcome) is Intercepted
    assert "changes what goes over the connection" in str(relay.master.outcome)


@pytest.mark.parametrize("encrypt", [True, False])
@pytest.mark.parametrize("mode", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_a_relay_that_strips_the_encryption_gets_nowhere(mode: int, encrypt: bool) -> None:
    relay = Relay(encrypt=encrypt)
    greeted = read_exactly(relay.to_master, handshake.GREETING_SIZE)
    relay.to_slave.sendall(greeted[:10] + bytes([mode]) + greeted[11:])
    answered = relay.to_slave.recv(100)
    if answered:  # the slave would do without, and yet says what it was offered
        assert mode == SEALED and not encrypt
        relay.to_master.sendall(answered)
        assert str(relay.master.outcome) == "it holds another key"
        relay.to_slave.close()
        assert type(relay.slave.outcome) is EOFError
    else:
        assert type(relay.slave.outcome) is Incompatible
    relay.close()


@pytest.mark.parametrize("mode", [TLS, SEALED], ids=["tls", "sealed"])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["greeting", "answer", "verdict"])
def test_a_relay_that_changes_a_part_is_no_worse_than_a_cut(mode: int, part: int) -> None:
    relay = Relay(mode, encrypt=False)

    def change(number: int, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if number == part else data

    relay.pass_on(change)
    assert type(relay.slave.outcome) is WrongKey
    relay.to_master.close()
    assert type(relay.master.outcome) is Refused
    relay.close()


@pytest.mark.parametrize("mode", [TLS, SEALED], ids=["tls", "sealed"])
def test_a_recorded_session_opens_nothing(mode: int) -> None:
    recorded: list[bytes] = []
    relay = Relay(mode, encrypt=False)
    relay.pass_on(lambda _, data: recorded.append(data) or data)  # type: ignore[func-returns-value]
    proof = read_exactly(relay.to_slave, 20 + handshake.PROOF_SIZE) if mode == SEALED else b""
    relay.close()
    near, far = tcp_pair()  # to a master
    at_master = master(far, mode)
    read_exactly(near, handshake.GREETING_SIZE)
    near.sendall(recorded[1] + proof)
    assert str(at_master.outcome) == "it holds another key"
    near.close()
    near, far = tcp_pair()  # and to a slave
    at_slave = slave(near, encrypt=False)
    far.sendall(recorded[0])
    read_exactly(far, handshake.ANSWER_SIZE)
    far.sendall(recorded[2])
    assert type(at_slave.outcome) is WrongKey
    far.close()


def test_what_is_reflected_opens_nothing() -> None:
    near, far = tcp_pair()
    at_master = master(far)
    greeted = read_exactly(near, handshake.GREETING_SIZE)
    near.sendall(greeted.ljust(handshake.ANSWER_SIZE, b"\0"))
    assert str(at_master.outcome) == "it holds another key"
    near.close()
    near, far = tcp_pair()
    at_slave = slave(near)
    far.sendall(handshake.greeting(TLS, fingerprint(TLS)))
    answered = read_exactly(far, handshake.ANSWER_SIZE)
    far.sendall(b"\x00" + answered[-32:])
    assert type(at_slave.outcome) is WrongKey
    far.close()


def test_the_halves_of_two_sessions_do_not_fit() -> None:
    """The slave's half of one and the master's of the other: of the handshake, and of what follows it."""
    one, other = Relay(SEALED, encrypt=False), Relay(SEALED, encrypt=False)
    one.to_slave.sendall(read_exactly(one.to_master, handshake.GREETING_SIZE))
    other.to_slave.sendall(read_exactly(other.to_master, handshake.GREETING_SIZE))
    other.to_master.sendall(read_exactly(one.to_slave, handshake.ANSWER_SIZE))
    assert str(other.master.outcome) == "it holds another key"
    for relay in (one, other):
        relay.close()

    one, other = Relay(SEALED, encrypt=False), Relay(SEALED, encrypt=False)
    for relay in (one, other):
        relay.pass_on()
    other.to_master.sendall(read_exactly(one.to_slave, 20 + handshake.PROOF_SIZE))
    assert "a wrong record came" in str(other.master.outcome)
    for relay in (one, other):
        relay.close()


def test_a_master_with_a_context_of_another_certificate_than_it_says_is_refused() -> None:
    near, far = tcp_pair()
    at_slave = slave(near)
    steps = introduction.receive(far, introduction.OneKey(KEY), mode=TLS, fingerprint=bytes(32), context=context())
    with pytest.raises(Refused, match="it hung up"):
        introduction.finish(steps, far, SECONDS)
    assert type(at_slave.outcome) is Intercepted
