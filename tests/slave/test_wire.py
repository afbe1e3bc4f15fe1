"""Frames on a real socket pair."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slave import memory, wire
from slave.errors import Oversized, ProtocolError
from slave.transport import SocketTransport, tune


class Pair:
    """Two connected ends; what one sends is read by the other in the meantime, as large frames need."""

    def __init__(self) -> None:
        self.a_sock, self.b_sock = socket.socketpair()
        self.a = wire.Connection(SocketTransport(self.a_sock))
        self.b = wire.Connection(SocketTransport(self.b_sock))

    def through(self, *messages: object) -> list[Any]:
        def send() -> None:
            for message in messages:
                self.a.send(message)

        sender = threading.Thread(target=send)
        sender.start()
        received = [self.b.recv() for _ in messages]
        sender.join()
        return received

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(),
            st.integers(),
            st.sampled_from([0, 1, 100, 32_767, 32_768, 262_131, 262_132, 262_133, 262_144, 700_000]),
        ),
        max_size=8,
    )
)
def test_messages_arrive_whole_and_in_order(parts: list[tuple[str, int, int]]) -> None:
    pair = Pair()
    try:
        messages = [(text, number, wire.opaque(b"z" * size), b"q" * (size // 3)) for text, number, size in parts]
        for (text, number, size), got in zip(parts, pair.through(*messages)):
            assert got[:2] == (text, number)
            assert bytes(got[2]) == b"z" * size and got[3] == b"q" * (size // 3)
    finally:
        pair.close()


def test_small_payloads_stay_bytes_and_large_ones_are_buffers() -> None:
    assert wire.opaque(b"small") == b"small"
    assert isinstance(wire.opaque(bytes(wire.OUT_OF_BAND)), pickle.PickleBuffer)


@pytest.mark.parametrize("size", [0, 40_000, 2_000_000])
def test_what_is_read_only_arrives_as_bytes_and_what_is_not_can_be_written(pair: Pair, size: int) -> None:
    ((fixed, free),) = pair.through((pickle.PickleBuffer(b"z" * size), pickle.PickleBuffer(bytearray(b"y" * size))))
    assert type(fixed) is bytes and fixed == b"z" * size
    free[:] = b"x" * size
    assert free == b"x" * size


def test_memory_may_be_filled_in_steps(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_steps(size: int, fixed: bool, fill: Callable[[memoryview], object]) -> memory.Memory:
        made = memoryview(bytearray(size))
        for at in range(0, size, 700_000):
            fill(made[at : at + 700_000])
            if at and size == 3_000_001:
                raise MemoryError
        return made.tobytes()

    monkeypatch.setattr(wire, "filled", in_steps)
    data = os.urandom(3_000_000)
    got, unfit, after = pair.through(wire.opaque(data), wire.opaque(bytes(3_000_001)), "after")
    assert got == data and isinstance(unfit, memory.Unfit) and after == "after"


def test_many_buffers_in_one_message(pair: Pair) -> None:
    buffers = [bytearray(b"%d" % number) for number in range(2000)]
    (got,) = pair.through([pickle.PickleBuffer(buffer) for buffer in buffers])
    assert got == buffers


def test_the_end_of_a_stream_is_told(pair: Pair) -> None:
    pair.a.close()
    with pytest.raises(EOFError, match="closed"):
        pair.b.recv()


def test_an_end_in_the_middle_of_a_frame_is_told(pair: Pair) -> None:
    pair.a_sock.sendall(struct.pack("!IQ", 0, 1 << 20) + b"some")
    pair.a.close()
    with pytest.raises(EOFError, match="in the middle of a message"):
        pair.b.recv()


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("!IQ", 0, 1 << 63),
        struct.pack("!IQ", 1 << 31, 10),
        struct.pack("!IQQ", 1, 10, 1 << 61),
        struct.pack("!IQ", 0, wire.MOST_BODY + 1),
        struct.pack("!IQ", wire.MOST_BUFFERS + 1, 10),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_frame_that_announces_too_much_is_refused(pair: Pair, head: bytes) -> None:
    pair.a_sock.sendall(head)
    with pytest.raises(ProtocolError, match="that is no message"):
        pair.b.recv()


def test_what_the_other_end_would_refuse_is_not_sent(pair: Pair) -> None:
    for message in ("x" * wire.MOST_BODY, [pickle.PickleBuffer(b"x")] * (wire.MOST_BUFFERS + 1)):
        with pytest.raises(Oversized, match="more than anybody takes"):
            pair.a.send(message)
        with pytest.raises(Oversized):
            pair.a.send_at_once(message)
    largest = "x" * (wire.MOST_BODY - 100)
    assert pair.through(largest) == [largest]


def test_what_is_announced_takes_no_memory_before_it_comes(pair: Pair) -> None:
    pair.a_sock.sendall(struct.pack("!IQQ", 1, 10, 60 << 20) + b"\x80\x05\x97\x94" + b"0" * 5 + b".")
    tracemalloc.start()

    def send() -> None:
        pair.a_sock.sendall(bytes(200_000))
        pair.a_sock.close()

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(EOFError):
        pair.b.recv()
    sender.join()
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_a_buffer_that_finds_no_memory_is_skipped(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = memory.filled

    def poor(size: int, fixed: bool, fill: Callable[[memoryview], object]) -> memory.Memory:
        if size == 3_000_000:
            raise MemoryError
        return real(size, fixed, fill)

    monkeypatch.setattr(wire, "filled", poor)
    got, after = pair.through(("big", wire.opaque(bytes(3_000_000))), "after")
    assert got[0] == "big" and after == "after"
    assert isinstance(got[1], memoryview) or got[1].size == 3_000_000
    assert isinstance(got[1], memory.Unfit)


def test_what_is_here_already_is_received_without_waiting(pair: Pair) -> None:
    window = memoryview(bytearray(wire.WINDOW))
    pair.b.transport.set_blocking(False)
    assert pair.b.receive_ready(window) == []
    pair.a.send("one")
    pair.a.send("two")
    assert pair.b.receive_ready(window) == ["one", "two"]
    assert pair.b.receive_ready(window) == []
    three = struct.pack("!IQ", 0, len(pickle.dumps("three", 5))) + pickle.dumps("three", 5)
    pair.a_sock.sendall(three[:15])
    assert pair.b.receive_ready(window) == [] and not pair.b.large_next
    pair.a_sock.sendall(three[15:] + struct.pack("!IQ", 0, wire.WINDOW))
    assert pair.b.receive_ready(window) == ["three"] and pair.b.large_next
    pair.a.close()
    with pytest.raises(EOFError):
        pair.b.receive_ready(window)


def test_a_silent_peer_does_not_hold_the_slave_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_SECONDS", 0.05)
    a, b = socket.socketpair()
    with a, b, pytest.raises(socket.timeout):
        wire.introduce(a, b"k" * 32, patience=1.0)


def test_the_options_that_every_connection_needs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        tune(sock, patience=8.0)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
        server.accept()[0].close()


def test_a_connection_whose_descriptor_was_closed_behind_its_back_can_be_closed() -> None:
    near, far = socket.socketpair()
    connection = wire.Connection(SocketTransport(near))
    os.close(near.fileno())
    connection.close()
    far.close()
