"""Somebody between a slave and a master, on real sockets, who holds no key; and what he may do there.

A `Relay` listens where a slave dials and connects to the master.  A *meddle* is what he does with one such pair of
sockets.  Most are made from *changes*: the stream of one direction is cut into its parts (those of the handshake,
then one record after the other), and a change says what goes on in the place of each part.
"""

from __future__ import annotations

import os
import pickle
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Callable

from slave import handshake
from slave.certificate import client_context, make_certificate, server_context
from slave.handshake import TLS

Meddle = Callable[[socket.socket, socket.socket], None]  # to the slave, to the master
Change = Callable[[int, bytes], Iterable[bytes]]  # number of the part, and what it is

SECONDS = 30.0  # longer than anything here takes
UP = (handshake.ANSWER_SIZE,)  # sizes of the handshake's parts from the slave to the master
DOWN = (handshake.GREETING_SIZE, handshake.VERDICT_SIZE)  # and from the master to the slave
_CHUNK = 1 << 16
_TLS_HEAD, _SEALED_HEAD = 5, 20  # type, version, length (2); length (4), MAC (16)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes.  Raises EOFError if the stream ends before."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("the connection was closed")
        data += more
    return data


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def frame(message: object) -> bytes:
    """A message as the protocol frames it."""
    body = pickle.dumps(message, 5)
    return struct.pack("!IQ", 0, len(body)) + body


# -- one direction


def as_it_is(number: int, part: bytes) -> Iterable[bytes]:
    """No change."""
    return [part]


def flip(position: int, bit: int = 0) -> Change:
    """One bit of the stream's byte ``position`` is changed."""
    seen = 0

    def change(number: int, part: bytes) -> Iterable[bytes]:
        nonlocal seen
        begin, seen = seen, seen + len(part)
        if begin <= position < seen:
            changed = bytearray(part)
            changed[position - begin] ^= 1 << bit
            part = bytes(changed)
        return [part]

    return change


def drop(which: int) -> Change:
    """Part ``which`` does not arrive."""
    return lambda number, part: [] if number == which else [part]


def repeat(which: int) -> Change:
    """Part ``which`` arrives twice."""
    return lambda number, part: [part, part] if number == which else [part]


def swap(which: int) -> Change:
    """Part ``which`` arrives after the one that follows it."""
    kept: list[bytes] = []

    def change(number: int, part: bytes) -> Iterable[bytes]:
        if number == which:
            kept.append(part)
            return []
        return [part, kept.pop()] if kept else [part]

    return change


def offer(mode: int) -> Change:
    """For the master's stream: the greeting offers another protection."""

    def change(number: int, part: bytes) -> Iterable[bytes]:
        return [part[: handshake.HEAD_SIZE] + bytes([mode]) + part[handshake.HEAD_SIZE + 1 :]] if not number else [part]

    return change


def then_say(words: bytes, after: int) -> Change:
    """``words`` are put into the stream behind part ``after``."""
    return lambda number, part: [part, words] if number == after else [part]


class Recorder:
    """Keeps what goes by."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def __call__(self, number: int, part: bytes) -> Iterable[bytes]:
        self.parts.append(part)
        return [part]

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


class _Parts:
    """Cuts a stream into parts."""

    def __init__(self, sizes: Collection[int], mode: int) -> None:
        self._sizes, self._mode, self._buffer, self._number = list(sizes), mode, b"", 0

    def cut(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        self._buffer += data
        while True:
            size = self._next_size()
            if len(self._buffer) < size:
                return
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            self._number += 1
            yield self._number - 1, part

    def _next_size(self) -> int:
        if self._number < len(self._sizes):
            return self._sizes[self._number]
        if self._mode == TLS:
            if len(self._buffer) < _TLS_HEAD:
                return _TLS_HEAD
            return _TLS_HEAD + int.from_bytes(self._buffer[3:5], "big")
        if len(self._buffer) < _SEALED_HEAD:
            return _SEALED_HEAD
        return _SEALED_HEAD + int.from_bytes(self._buffer[:4], "big")


def pump(source: socket.socket, sink: socket.socket, parts: _Parts | None, change: Change) -> None:
    """Carry one direction to its end; the other one may have something to say yet."""
    try:
        while True:
            data = source.recv(_CHUNK)
            if not data:
                break
            if parts is None:
                sink.sendall(data)
                continue
            for number, part in parts.cut(data):
                for piece in change(number, part):
                    sink.sendall(piece)
    except OSError:
        pass
    for sock, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
        try:
            socket.socket.shutdown(sock, how)
        except OSError:
            pass


def shut(*socks: socket.socket) -> None:
    """Have whoever reads there see the end."""
    for sock in socks:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass


def both_ways(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side hangs up."""
    down = threading.Thread(target=pump, args=(other, one, None, as_it_is), daemon=True)
    down.start()
    pump(one, other, None, as_it_is)
    down.join()


# -- meddles


def carry(mode: int, up: Change = as_it_is, down: Change = as_it_is) -> Meddle:
    """Carry all, with changes."""

    def meddle(to_slave: socket.socket, to_master: socket.socket) -> None:
        parts = _Parts(DOWN, mode)
        thread = threading.Thread(target=pump, args=(to_master, to_slave, parts, down), daemon=True)
        thread.start()
        pump(to_slave, to_master, _Parts(UP, mode), up)
        thread.join()

    return meddle


def pass_handshake(to_slave: socket.socket, to_master: socket.socket) -> None:
    """Carry the parts that are not protected by the channel."""
    to_slave.sendall(read_exactly(to_master, handshake.GREETING_SIZE))
    to_master.sendall(read_exactly(to_slave, handshake.ANSWER_SIZE))
    to_slave.sendall(read_exactly(to_master, handshake.VERDICT_SIZE))


def inject(words: bytes) -> Meddle:
    """Carry the handshake, then say ``words`` to both and keep the rest to oneself."""

    def meddle(to_slave: socket.socket, to_master: socket.socket) -> None:
        pass_handshake(to_slave, to_master)
        to_master.sendall(words)
        to_slave.sendall(words)
        for sock in (to_slave, to_master):
            swallow(sock)

    return meddle


def swallow(sock: socket.socket) -> None:
    """Read until the other end hangs up."""
    try:
        while sock.recv(_CHUNK):
            pass
    except OSError:
        pass


def terminate_tls(words: bytes = b"") -> Meddle:
    """Carry the handshake, then be a TLS server to the slave and a client to the master, and say ``words`` to each."""
    own = server_context(make_certificate())

    def meddle(to_slave: socket.socket, to_master: socket.socket) -> None:
        pass_handshake(to_slave, to_master)
        master = client_context().wrap_socket(to_master)
        slave: ssl.SSLSocket | None = None
        try:
            slave = own.wrap_socket(to_slave, server_side=True)
            if words:
                master.sendall(words)
                slave.sendall(words)
            both_ways(slave, master)
        finally:
            for sock in (master, slave):
                if sock is not None:
                    shut(sock)
                    sock.close()

    return meddle


def reflect(to_slave: socket.socket, to_master: socket.socket) -> None:
    """Carry the handshake, then give each side its own bytes back."""
    pass_handshake(to_slave, to_master)

    def echo(sock: socket.socket) -> None:
        pump(sock, sock, None, as_it_is)
        shut(to_slave, to_master)

    thread = threading.Thread(target=echo, args=(to_slave,), daemon=True)
    thread.start()
    echo(to_master)
    thread.join()


class Crossing:
    """Joins the halves of two sessions: after part ``stage`` of the handshake each slave has the other's master.

    ``stage``: 1 when each has its greeting, 3 when each has its verdict.
    """

    def __init__(self, stage: int) -> None:
        self._stage, self._pairs = stage, dict[int, socket.socket]()
        self._lock, self._met, self._over = threading.Lock(), threading.Barrier(2), threading.Barrier(2)

    def __call__(self, to_slave: socket.socket, to_master: socket.socket) -> None:
        with self._lock:
            number = len(self._pairs)
            self._pairs[number] = to_master
        to_slave.sendall(read_exactly(to_master, handshake.GREETING_SIZE))
        if self._stage > 1:
            to_master.sendall(read_exactly(to_slave, handshake.ANSWER_SIZE))
            to_slave.sendall(read_exactly(to_master, handshake.VERDICT_SIZE))
        self._met.wait(SECONDS)
        both_ways(to_slave, self._pairs[1 - number])
        self._over.wait(SECONDS)  # only then may the sockets be closed


def delayed(seconds: float) -> Meddle:
    """Carry all, each byte so much later."""

    def meddle(to_slave: socket.socket, to_master: socket.socket) -> None:
        lines = [_Line(to_slave, to_master, seconds), _Line(to_master, to_slave, seconds)]
        for line in lines:
            line.join()

    return meddle


class _Line(threading.Thread):
    """One direction of a long line; its other thread reads."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        super().__init__(daemon=True)
        self._source, self._sink, self._seconds = source, sink, seconds
        self._under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.start()

    def _read(self) -> None:
        data = b"!"
        while data:
            try:
                data = self._source.recv(_CHUNK)
            except OSError:
                data = b""
            self._under_way.put((time.monotonic() + self._seconds, data))

    def run(self) -> None:
        pause = threading.Event()
        while True:
            due, data = self._under_way.get()
            pause.wait(max(0.0, due - time.monotonic()))
            if not data:
                break
            try:
                self._sink.sendall(data)
            except OSError:
                break
        shut(self._source, self._sink)
        self._reader.join()


# -- the relay


class Relay:
    """Listens at ``address`` and connects to ``target`` for whoever comes.

    ``meddle``: done with the connections whose numbers, from 1 on, are in ``which``; the others are carried as they
    are.  ``source``: the address that he comes from.
    """

    def __init__(
        self,
        target: tuple[str, int] | bytes,
        meddle: Meddle,
        which: Collection[int] = range(1, 1000),
        source: str = "127.0.0.1",
    ) -> None:
        self._target, self._meddle, self._which, self._source = target, meddle, which, source
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        self.count = 0  # of connections
        self.meddled = 0  # of those that are over and were meddled with
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    @property
    def name(self) -> str:
        """The address, for a command line."""
        return f"{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on all."""
        shut(self._server)
        self._threads[0].join(SECONDS)
        self._server.close()
        shut(*self._socks)
        for thread in self._threads:
            thread.join(2 * SECONDS)
            assert not thread.is_alive()
        for sock in self._socks:
            sock.close()

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.count += 1
            self._socks.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock, self.count), daemon=True))
            self._threads[-1].start()

    def _serve(self, to_slave: socket.socket, number: int) -> None:
        try:
            to_master = self._connect()
        except OSError:
            shut(to_slave)
            return
        self._socks.append(to_master)
        try:
            if number in self._which:
                self._meddle(to_slave, to_master)
            else:
                both_ways(to_slave, to_master)
        except (OSError, EOFError, ValueError, threading.BrokenBarrierError):
            pass  # somebody has hung up on him
        finally:
            shut(to_slave, to_master)
            self.meddled += number in self._which

    def _connect(self) -> socket.socket:
        if isinstance(self._target, bytes):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(self._target)
        else:
            sock = socket.create_connection(self._target, SECONDS, source_address=(self._source, 0))
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
