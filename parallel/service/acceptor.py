"""The acceptor: one thread that accepts connections and carries out every stranger's handshake.

A stranger gets no thread, at most 74 bytes read and one HMAC computed, and a limited time.  So silent, slow, garbled
and numerous ones cost next to nothing and nobody else has to wait for them.  Who proved that it holds the key is let
in: `admit` gets the socket, blocking again.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Callable

from slave import handshake
from slave.wire import HANDSHAKE_SECONDS

from ..core import events as ev

_MOST_PENDING = 512  # at one time; the longest waiting is hung up on for a new one
_ACCEPTS_PER_TURN = 64  # so that a flood of new ones does not keep those that wait from finishing
_BREATHER = 0.1  # seconds without accepting when this process has no descriptor left


class _PendingConnection:
    """A connection whose handshake is under way."""

    def __init__(self, sock: socket.socket, peer: str, deadline: float) -> None:
        self.sock, self.peer, self.deadline = sock, peer, deadline
        self.greeted = handshake.greeting()
        self.answered = b""


class Acceptor(threading.Thread):
    """Accepts on ``listeners`` until closed."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        key: bytes,
        admit: Callable[[socket.socket, str], None],
        tell: Callable[[ev.Event], None],
        died: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="parallel acceptor", daemon=True)
        self._key, self._admit, self._tell, self._died = key, admit, tell, died
        self._selector = selectors.DefaultSelector()
        self._pending: dict[socket.socket, _PendingConnection] = {}  # oldest first
        self._listeners: list[socket.socket] = []
        self._added: deque[socket.socket] = deque()  # listeners that the thread has not seen yet
        self._breather_ends = 0.0
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._closing = False
        self.add(listeners)

    def add(self, listeners: Sequence[socket.socket]) -> None:
        """Accept on these too, from now on."""
        self._added.extend(listeners)
        self._wake.send(b"!")

    def close(self) -> None:
        """End the thread and hang up on strangers; the listeners are the caller's to close.  May be called twice."""
        if self.is_alive() and not self._closing:
            self._closing = True
            try:
                self._wake.send(b"!")
            except OSError:
                pass  # somebody came just now, and the thread woke, saw that it is over and has ended already
        self.join()

    def sockets(self) -> Sequence[socket.socket]:
        """What a forked process must close; safe to call there."""
        return [*self._pending, self._waker, self._wake]

    def run(self) -> None:
        """The thread's body."""
        try:
            self._accept_until_closed()
        except BaseException as error:
            self._died(error)
        finally:
            for pending in list(self._pending.values()):
                self._hang_up(pending)
            self._selector.close()
            self._waker.close()
            self._wake.close()

    def _accept_until_closed(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._patience()):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    self._attend(key.fileobj)
                except Exception as error:  # out of memory, say; the others must be accepted all the same
                    why = f"a connection could not be accepted: {type(error).__name__}: {error}"
                    self._tell(ev.CannotAccept(time.monotonic(), why))
            self._expire(time.monotonic())

    def _attend(self, sock: socket.socket) -> None:
        if sock in self._pending:
            self._listen_to(self._pending[sock])
        elif sock is self._waker:
            self._woken()
        elif sock in self._listeners:
            self._accept(sock)

    def _woken(self) -> None:
        self._waker.recv(4096)
        while self._added:
            listener = self._added.popleft()
            listener.setblocking(False)
            self._listeners.append(listener)
            if not self._breather_ends:
                self._selector.register(listener, selectors.EVENT_READ)

    def _patience(self) -> float:
        now = time.monotonic()
        times = [HANDSHAKE_SECONDS]
        if self._pending:
            times.append(next(iter(self._pending.values())).deadline - now)
        if self._breather_ends:
            times.append(self._breather_ends - now)
        return max(0.0, min(times))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._breathe(error)
                    return
                continue  # that peer hung up before it was accepted
            self._greet(sock, f"{address[0]}:{address[1]}")

    def _greet(self, sock: socket.socket, peer: str) -> None:
        if len(self._pending) >= _MOST_PENDING:
            self._hang_up(next(iter(self._pending.values())), "too many strangers")
        pending = _PendingConnection(sock, peer, time.monotonic() + HANDSHAKE_SECONDS)
        try:
            sock.setblocking(False)
            sock.send(pending.greeted)  # fits into the empty buffer of a new socket
        except OSError:
            sock.close()
            return
        self._pending[sock] = pending
        self._selector.register(sock, selectors.EVENT_READ)

    def _listen_to(self, pending: _PendingConnection) -> None:
        try:
            more = pending.sock.recv(handshake.ANSWER_SIZE - len(pending.answered))
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(pending, str(error))
            return
        pending.answered += more
        if not more:
            self._hang_up(pending, "it hung up during the handshake")
        elif len(pending.answered) == handshake.ANSWER_SIZE:
            self._judge(pending)

    def _judge(self, pending: _PendingConnection) -> None:
        verdict, refusal = handshake.judge(self._key, pending.greeted, pending.answered)
        try:
            pending.sock.send(verdict)
        except OSError as error:
            refusal = str(error)
        if refusal:
            self._hang_up(pending, refusal)
            return
        self._forget(pending)
        pending.sock.setblocking(True)
        self._admit(pending.sock, pending.peer)

    def _expire(self, now: float) -> None:
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if oldest.deadline > now:
                break
            self._hang_up(oldest, f"no handshake within {HANDSHAKE_SECONDS:g} s")
        if self._breather_ends and self._breather_ends <= now:
            self._breather_ends = 0.0
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ)

    def _breathe(self, error: OSError) -> None:
        """No descriptor left: accept nothing for a moment instead of spinning, and let the oldest stranger go."""
        if not self._breather_ends:
            why = f"no connection can be accepted for now ({error.strerror}); raise the limit: ulimit -n"
            self._tell(ev.CannotAccept(time.monotonic(), why))
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._breather_ends = time.monotonic() + _BREATHER
        if self._pending:
            self._hang_up(next(iter(self._pending.values())), "this process has no descriptor left")

    def _hang_up(self, pending: _PendingConnection, why: str = "the master closes") -> None:
        self._tell(ev.ConnectionRefused(time.monotonic(), pending.peer, why))
        self._forget(pending)
        pending.sock.close()

    def _forget(self, pending: _PendingConnection) -> None:
        self._selector.unregister(pending.sock)
        del self._pending[pending.sock]
