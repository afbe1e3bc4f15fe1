"""Transports: what comes through, whole and in order, and what is noticed if it does not."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slave.errors import Intercepted
from slave.handshake import PLAIN, SEALED, TLS
from slave.records import _pieces
from slave.sealed import SealedTransport
from slave.transport import SocketTransport, Transport, rest_of, tune, unix_target
from slave.wire import WINDOW, Connection, Listener
from tests.slave.masters import SECONDS, Aside, channel, read_exactly, tcp_pair
from tests.support.waiting import eventually

ONE, TWO = b"1" * 32, b"2" * 32
MODES = pytest.mark.parametrize("mode", [PLAIN, TLS, SEALED], ids=["plain", "tls", "sealed"])
PATTERN = bytes(range(251)) * 80_000  # 20 MB


def read(transport: Transport, size: int) -> bytes:
    into = bytearray(size)
    transport.read_all(memoryview(into))
    return bytes(into)


@MODES
def test_large_and_small_parts_arrive_in_order(mode: int) -> None:
    sizes = [1, 0, 5, 16_384, 16_383, 7, 65_536, 65_535]
    views = [memoryview(PATTERN)[at : at + size] for at, size in enumerate(sizes)]
    views += [memoryview(b"%d" % number) for number in range(3000)] + [memoryview(PATTERN)]
    expected = b"".join(views)
    with channel(mode) as (near, far):
        writer = Aside(lambda: near.write_all(views))
        assert read(far, len(expected)) == expected
        assert writer.outcome is None
        far.write(b"back")
        assert read(near, 4) == b"back"


@MODES
def test_what_does_not_go_at_once_goes_later(mode: int) -> None:
    """As the master sends: at once what goes, the rest by another thread that may wait."""
    with channel(mode) as (near, far):
        near.set_blocking(False)
        left = [memoryview(b"head"), memoryview(PATTERN), memoryview(b"tail")]
        total = sum(view.nbytes for view in left)
        tries = 0
        for _ in range(1000):
            sent = near.write_some(left)
            if sent is None:
                tries += 1
                if tries == 3:
                    break
            left = rest_of(left, sent or 0)
        assert left and tries == 3
        near.set_blocking(True)
        writer = Aside(lambda: near.write_all(left))
        assert read(far, total) == b"head" + PATTERN + b"tail"
        assert writer.outcome is None


@MODES
def test_a_reader_that_does_not_wait_gets_all_in_small_portions(mode: int) -> None:
    with channel(mode) as (near, far):
        far.set_blocking(False)
        assert far.read_some(memoryview(bytearray(10))) is None and not far.has_more()
        near.write(PATTERN[:50_000])
        found, into = bytearray(), memoryview(bytearray(1000))
        far.set_blocking(True)
        while len(found) < 50_000:
            got = far.read_some(into)
            assert got
            found += into[:got]
            if mode != PLAIN and len(found) % 16_384 and len(found) < 50_000:
                assert far.has_more()
        assert bytes(found) == PATTERN[:50_000] and not far.has_more()


@MODES
def test_messages_that_select_does_not_see_are_told(mode: int) -> None:
    with channel(mode) as (near, far):
        sender, receiver = Connection(near), Connection(far)
        near.write(b"".join(struct.pack("!IQ", 0, 5) + b"\x80\x05K%c." % number for number in (1, 2)))
        receiver.limit(SECONDS)
        assert receiver.recv() == 1 and receiver.has_more
        assert receiver.receive_one() == 2 and not receiver.has_more
        sender.close()


@MODES
def test_one_message_is_received_when_it_is_whole(mode: int) -> None:
    with channel(mode) as (near, far):
        sender, receiver = Connection(near), Connection(far)
        assert receiver.receive_one() is None and not receiver.has_more
        frame = struct.pack("!IQ", 0, 9) + b"\x80\x05\x8c\x03one\x94."
        near.write(frame[:15])
        assert wait_for(receiver) is None
        near.write(frame[15:])
        assert wait_for(receiver) == "one"
        near.write(frame * 2)
        with pytest.raises(Exception, match="messages came for which nobody had asked"):
            while wait_for(receiver) is None:
                pass
        sender.close()


def wait_for(connection: Connection) -> Any:
    """What is here when something has come."""
    import select

    if not connection.has_more:
        assert select.select([connection], [], [], SECONDS)[0]
    return connection.receive_one()


@MODES
def test_a_large_message_that_has_begun_is_received_whole(mode: int) -> None:
    with channel(mode) as (near, far):
        large = bytes(3 * WINDOW)
        writer = Aside(lambda: Connection(near).send(large))
        receiver = Connection(far)
        found = None
        while found is None:
            found = wait_for(receiver)
        assert found == large and writer.outcome is None


@MODES
def test_the_end_of_the_stream(mode: int) -> None:
    with channel(mode) as (near, far):
        near.close()
        with pytest.raises(EOFError, match="the connection was closed"):
            read(far, 1)
        with pytest.raises(EOFError, match="the connection was closed"):
            Connection(far).recv()
        with pytest.raises((OSError, EOFError)):
            for _ in range(100):
                far.write(PATTERN)


@MODES
def test_what_was_closed_here_is_told_as_such(mode: int) -> None:
    with channel(mode) as (near, _):
        near.close()
        near.close()
        near.shut()
        with pytest.raises(OSError, match="Bad file descriptor"):
            near.read_some(memoryview(bytearray(1)))
        with pytest.raises(OSError, match="Bad file descriptor"):
            near.write(b"x")


@MODES
def test_whoever_waits_is_woken_and_gets_no_unchecked_byte(mode: int) -> None:
    """The bytes that are in the socket by then are not handed on as they are."""
    near_raw, far_raw = tcp_pair()
    near_raw.close()
    far_raw.close()
    with channel(mode) as (near, far):
        reader = Aside(lambda: read(far, 1))
        far.shut()
        assert type(reader.outcome) is EOFError
        descriptor = os.dup(near.fileno())
        with socket.socket(fileno=descriptor) as raw:
            try:
                raw.send(b"unchecked" * 10)
            except OSError:
                pass  # the other end is shut already
        if mode != PLAIN:
            with pytest.raises((EOFError, OSError, Intercepted)):
                read(far, 1)


@MODES
def test_no_wait_is_longer_than_the_limit(mode: int) -> None:
    with channel(mode) as (near, _):
        near.limit(0.02)
        with pytest.raises(socket.timeout):
            read(near, 1)
        near.limit(None)


BAD_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)


def inject(near: Transport) -> None:
    """What somebody in the network's path puts behind that which the near end has sent."""
    with socket.socket(fileno=os.dup(near.fileno())) as raw:
        raw.sendall(BAD_RECORD)


def test_a_changed_byte_in_tls_is_told_on_both_sides() -> None:
    changes = "somebody between .* changes what goes over the connection"
    with channel(TLS) as (near, far):
        inject(near)
        with pytest.raises(Intercepted, match=f"{changes} .*(bad record|record layer failure)"):
            read(far, 1)
        with pytest.raises(Intercepted, match=f"{changes} .*alert bad record"):
            read(near, 1)
        with pytest.raises(EOFError):  # neither end goes on
            near.write(b"later")
        with pytest.raises(Intercepted, match=changes):
            read(far, 1)


def test_what_tls_has_checked_is_handed_on_before_what_is_wrong_is_told() -> None:
    with channel(TLS) as (near, far):
        near.write(b"good")
        inject(near)
        await_bytes(far, 4 + RECORD + len(BAD_RECORD))
        far.set_blocking(False)
        into = memoryview(bytearray(100))
        assert far.read_some(into) == 4 and bytes(into[:4]) == b"good"
        assert far.has_more()  # no selector sees it any more
        for _ in range(2):
            with pytest.raises(Intercepted, match="bad record|record layer failure"):
                far.read_some(into)


RECORD = 22  # bytes that TLS 1.3 adds to a small record


def await_bytes(transport: Transport, count: int) -> None:
    """Wait until so many bytes can be received."""
    with socket.socket(fileno=os.dup(transport.fileno())) as raw:
        eventually(lambda: len(raw.recv(count, socket.MSG_PEEK)) == count, SECONDS)


def test_tls_records_that_are_here_are_read_at_once() -> None:
    with channel(TLS) as (near, far):
        for number in range(100):
            near.write(b"%05d" % number)
        await_bytes(far, 100 * (5 + RECORD))
        into = memoryview(bytearray(1000))
        assert far.read_some(into) == 500 and not far.has_more()
        assert bytes(into[:500]) == b"".join(b"%05d" % number for number in range(100))


def test_half_a_tls_record_is_waited_for_and_not_looked_for_again_and_again() -> None:
    """Bytes of it are here that no selector sees; there is nothing to read all the same."""
    with channel(TLS) as (near, far):
        passed, raw = tcp_pair()
        with passed, raw:
            near._inner._sock, sock = passed, near._inner._sock  # type: ignore[attr-defined]
            near.write(b"whole")
            near.write(b"split")
            near._inner._sock = sock  # type: ignore[attr-defined]
            stream = read_exactly(raw, 2 * (5 + RECORD))
            far.set_blocking(False)
            into = memoryview(bytearray(100))
            sock.sendall(stream[:-1])
            await_bytes(far, len(stream) - 1)
            assert far.read_some(into) == 5
            far.has_more()
            assert far.read_some(into) is None and not far.has_more()
            sock.sendall(stream[-1:])
            await_bytes(far, 1)
            assert far.read_some(into) == 5 and bytes(into[:5]) == b"split" and not far.has_more()


# -- sealed records


@contextmanager
def seal() -> Iterator[tuple[Transport, socket.socket]]:
    """A sealed transport, and the raw other end of its socket."""
    near, far = socket.socketpair()
    far.settimeout(SECONDS)
    with near, far:
        yield SealedTransport(SocketTransport(near), ONE, TWO), far


def records(*payloads: bytes) -> list[bytes]:
    """What is sent for each."""
    found = []
    with seal() as (transport, raw):
        for payload in payloads:
            transport.write(payload)
            found.append(raw.recv(1 << 17, socket.MSG_WAITALL if len(payload) > 1 << 17 else 0))
    return found


def opened(stream: bytes) -> bytes:
    """What is handed on of it before the end, or before it raises (then the exception is raised)."""
    found, into = b"", memoryview(bytearray(100))
    with seal() as (transport, raw):
        receiver = SealedTransport(transport._inner, TWO, ONE)  # type: ignore[attr-defined]
        raw.sendall(stream)
        raw.shutdown(socket.SHUT_WR)
        while True:
            got = receiver.read_some(into)
            if not got:
                return found
            found += into[:got]


MESSAGES = records(b"first", b"second", b"x" * 5000)


def test_records_are_opened() -> None:
    assert opened(b"".join(MESSAGES)) == b"firstsecond" + b"x" * 5000


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "dropped": lambda sent: sent[1:],
    "one in the middle dropped": lambda sent: [sent[0], sent[2]],
    "repeated": lambda sent: [sent[0], sent[0]],
    "swapped": lambda sent: [sent[1], sent[0]],
    "too long": lambda sent: [struct.pack("!I", 65_537) + bytes(70_000)],
    "enormous": lambda sent: [b"\xff" * 20],
    "empty": lambda sent: [bytes(20)],
    "without its beginning": lambda sent: [sent[0][1:], *sent[1:]],
    "joined": lambda sent: [struct.pack("!I", 11) + sent[0][4:] + sent[1][20:]],
    "shortened": lambda sent: [struct.pack("!I", 4) + sent[0][4:24]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_of_records_goes_unnoticed(change: Callable[[list[bytes]], list[bytes]]) -> None:
    with pytest.raises(Intercepted, match="tampers with the connection: a wrong record came"):
        opened(b"".join(change(MESSAGES)))


def test_a_record_of_the_other_direction_is_refused() -> None:
    with seal() as (transport, raw):
        transport.write(b"payload")
        raw.sendall(raw.recv(100))
        assert not transport.has_more()
        with pytest.raises(Intercepted):
            read(transport, 7)
        with pytest.raises(Intercepted):  # and nothing after it is handed on
            read(transport, 7)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * len(b"".join(MESSAGES[:2])) - 1))
def test_no_flipped_bit_is_handed_on(bit: int) -> None:
    stream = bytearray(b"".join(MESSAGES[:2]))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Intercepted, EOFError)):
        opened(bytes(stream))
    if bit // 8 >= len(MESSAGES[0]):
        assert opened(bytes(stream[: len(MESSAGES[0])])) == b"first"


def test_a_stream_that_ends_in_a_record_is_told() -> None:
    with pytest.raises(EOFError, match="in the middle of a record"):
        opened(MESSAGES[0][:-1])


def test_a_wrong_record_that_has_only_been_seen_raises_when_it_is_read() -> None:
    with seal() as (transport, raw):
        raw.sendall(b"\xff" * 20)
        with pytest.raises(Intercepted):
            transport.read_some(memoryview(bytearray(1)))
        assert transport.has_more()


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 20))
def test_pieces_are_all_there_and_of_one_size(parts: list[bytes], most: int) -> None:
    pieces = list(_pieces(parts, most))
    assert b"".join(pieces) == b"".join(parts)
    assert all(piece.nbytes == most for piece in pieces[:-1]) and all(pieces)


# -- Unix sockets


@pytest.mark.parametrize("kind", ["name", "path"])
def test_a_unix_socket_listens_and_leaves_nothing(own_folder: Any, kind: str) -> None:
    host = f"unix:{own_folder}/socket" if kind == "path" else f"unix:parallel-test-{os.getpid()}"
    assert isinstance(unix_target(host), str) == (kind == "path")
    listener = Listener((host, 0))
    assert listener.address == (host, 0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(unix_target(host))
        transport = SocketTransport(sock)
        assert transport.peer == (host, 0)
        transport.be_patient(5.0)
        tune(sock, 5.0)
    assert (own_folder / "socket").exists() == (kind == "path")
    listener.close()
    listener.close()
    assert not (own_folder / "socket").exists()


def test_a_wrong_sealed_record_is_told_on_both_sides() -> None:
    tampers = "somebody between .* tampers with the connection: a wrong record came"
    with channel(SEALED) as (near, far):
        inject(near)
        with pytest.raises(Intercepted, match=f"{tampers}$"):
            read(far, 1)
        for _ in range(2):
            with pytest.raises(Intercepted, match=f"{tampers} to the other$"):
                read(near, 1)


@pytest.mark.parametrize("mode", [TLS, SEALED])
def test_who_writes_to_an_end_that_hung_up_hears_why(mode: int) -> None:
    with channel(mode) as (near, far):
        inject(near)
        with pytest.raises(Intercepted):
            read(far, 1)
        far.close()
        with pytest.raises(Intercepted):
            for _ in range(1000):
                near.write(b"x" * 1000)
