"""For the tests of the channel: both ends of sockets, masters that only introduce themselves, and relays."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from slave import handshake, introduction
from slave.certificate import Certificate, make_certificate, server_context
from slave.introduction import Steps
from slave.transport import Transport
from slave.wire import Connection, Listener

KEY, OTHER = b"k" * 32, b"o" * 32
SECONDS = 30.0  # within which everything here has happened, or failed


@functools.cache
def certificate() -> Certificate:
    return make_certificate()


@functools.cache
def context() -> ssl.SSLContext:
    return server_context(certificate())


def fingerprint(mode: int) -> bytes:
    return certificate().fingerprint if mode == handshake.TLS else bytes(range(32))


def receive(sock: socket.socket, mode: int = handshake.TLS, key: bytes = KEY, tickets: int = 0) -> Steps:
    """The master's side, with the certificate of these tests; ``tickets``: as a site's own context may send them."""
    shown = context()
    if tickets:
        shown = server_context(certificate())
        shown.num_tickets = tickets
    return introduction.receive(sock, introduction.OneKey(key), mode=mode, fingerprint=fingerprint(mode), context=shown)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, with a limit so that no test waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        sock.settimeout(SECONDS)
    return near, far


class Aside(threading.Thread):
    """A call in a thread of its own; `outcome` is what it returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._outcome = error

    @property
    def outcome(self) -> Any:
        self.join(2 * SECONDS)
        assert not self.is_alive()
        return self._outcome


def slave(sock: socket.socket, key: bytes = KEY, **options: Any) -> Aside:
    """A slave that introduces itself on ``sock``."""
    return Aside(lambda: introduction.finish(introduction.introduce(sock, key, **options), sock, SECONDS))


def master(sock: socket.socket, mode: int = handshake.TLS, key: bytes = KEY, tickets: int = 0) -> Aside:
    """A master that a slave introduces itself to on ``sock``."""
    return Aside(lambda: introduction.finish(receive(sock, mode, key, tickets), sock, SECONDS))


@contextmanager
def channel(mode: int, tickets: int = 0) -> Iterator[tuple[Transport, Transport]]:
    """The slave's and the master's end of a channel."""
    near, far = socket.socketpair() if mode == handshake.PLAIN else tcp_pair()
    asides = slave(near, encrypt=False), master(far, mode, tickets=tickets)
    ends = asides[0].outcome, asides[1].outcome
    assert not [end for end in ends if isinstance(end, BaseException)], ends
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, "the connection was closed"
        data += more
    return data


class Relay:
    """Somebody in the middle, who holds no key: a slave at one of his sockets, a master at the other.

    His steps are the tests' own; `pass_on` carries the three parts of the handshake through.
    """

    def __init__(self, mode: int = handshake.TLS, **options: Any) -> None:
        near, self.to_slave = tcp_pair()
        self.to_master, far = tcp_pair()
        self.slave, self.master = slave(near, **options), master(far, mode)

    def pass_on(self, change: Callable[[int, bytes], bytes] = lambda part, data: data) -> None:
        """Forward greeting, answer and verdict, as ``change`` would have them."""
        self.to_slave.sendall(change(0, read_exactly(self.to_master, handshake.GREETING_SIZE)))
        self.to_master.sendall(change(1, read_exactly(self.to_slave, handshake.ANSWER_SIZE)))
        self.to_slave.sendall(change(2, read_exactly(self.to_master, handshake.VERDICT_SIZE)))

    def close(self) -> None:
        for sock in (self.to_slave, self.to_master):
            sock.close()
        for end in (self.slave.outcome, self.master.outcome):
            if not isinstance(end, BaseException):
                end.close()


class SmallMaster:
    """Listens, and introduces itself to all who come; answers each message with itself."""

    def __init__(self, mode: int = handshake.TLS, key: bytes = KEY, host: str = "127.0.0.1") -> None:
        self._mode, self._key = mode, key
        context()  # made now: a test may take the module ssl away before somebody comes
        self.listener = Listener((host, 0))
        self.address = self.listener.address
        self.outcomes: list[Any] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.sockets[0].accept()
            except OSError:
                return
            try:
                transport = introduction.finish(receive(sock, self._mode, self._key), sock, SECONDS)
            except BaseException as error:
                self.outcomes.append(str(error))
                continue
            self.outcomes.append("")
            connection = Connection(transport)
            try:
                connection.limit(SECONDS)
                connection.send(connection.recv())
                connection.recv()  # until the other end hangs up
            except (EOFError, OSError):
                pass
            finally:
                connection.close()

    def close(self) -> None:
        self.listener.sockets[0].shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * SECONDS)
        self.listener.close()


class Drip:
    """Listens, accepts one after the other, and sends the beginning of a greeting, byte by byte, slowly."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drip, daemon=True)
        self._thread.start()

    def _drip(self) -> None:
        greeted = handshake.greeting(handshake.TLS, os.urandom(32))
        try:
            sock, _ = self._server.accept()
        except OSError:
            return
        with sock:
            for at in range(len(greeted) - 1):
                try:
                    sock.send(greeted[at : at + 1])
                except OSError:
                    return
                if self._over.wait(0.05):
                    return
            self._over.wait()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * SECONDS)
        self._server.close()
