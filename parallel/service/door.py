"""The door: one thread that accepts connections and carries out every stranger's handshake.

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

from .books import log

_MOST_STRANGERS = 512  # at the door at one time; the longest waiting is hung up on for a new one
_ACCEPTS_PER_TURN = 64  # so that a flood of new strangers does not keep those at the door from finishing
_BREATHER = 0.1  # seconds without accepting when this process has no descriptor left


class _Stranger:
    """A connection whose handshake is under way."""

    def __init__(self, sock: socket.socket, peer: str, deadline: float) -> None:
        self.sock, self.peer, self.deadline = sock, peer, deadline
        self.greeted = handshake.greeting()
        self.answered = b""


class Door(threading.Thread):
    """Accepts on ``listeners`` until closed."""

    def __init__(
        self, listeners: Sequence[socket.socket], key: bytes, admit: Callable[[socket.socket, str], None]
    ) -> None:
        super().__init__(name="parallel door", daemon=True)
        self._key, self._admit = key, admit
        self._selector = selectors.DefaultSelector()
        self._strangers: dict[socket.socket, _Stranger] = {}  # oldest first
        self._listeners: list[socket.socket] = []
        self._added: deque[socket.socket] = deque()  # listeners that the thread has not seen yet
        self._breather_ends = 0.0
        self._bell, self._bell_push = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closing = False
        self.add(listeners)

    def add(self, listeners: Sequence[socket.socket]) -> None:
        """Accept on these too, from now on."""
        self._added.extend(listeners)
        self._bell_push.send(b"!")

    def close(self) -> None:
        """End the thread and hang up on strangers; the listeners are the caller's to close.  May be called twice."""
        if self.is_alive() and not self._closing:
            self._closing = True
            try:
                self._bell_push.send(b"!")
            except OSError:
                pass  # somebody came just now, and the thread woke, saw that it is over and has ended already
        self.join()

    def sockets(self) -> Sequence[socket.socket]:
        """What a forked process must close; safe to call there."""
        return [*self._strangers, self._bell, self._bell_push]

    def run(self) -> None:
        """The thread's body."""
        while not self._closing:
            for key, _ in self._selector.select(self._patience()):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    self._attend(key.fileobj)
                except Exception as error:  # out of memory, say; the door must stay open for the others
                    log.warning("parallel: a connection could not be accepted: %s: %s", type(error).__name__, error)
            self._expire(time.monotonic())
        for stranger in list(self._strangers.values()):
            self._hang_up(stranger)
        self._selector.close()
        self._bell.close()
        self._bell_push.close()

    def _attend(self, sock: socket.socket) -> None:
        if sock in self._strangers:
            self._listen_to(self._strangers[sock])
        elif sock is self._bell:
            self._answer_bell()
        elif sock in self._listeners:
            self._accept(sock)

    def _answer_bell(self) -> None:
        self._bell.recv(4096)
        while self._added:
            listener = self._added.popleft()
            listener.setblocking(False)
            self._listeners.append(listener)
            if not self._breather_ends:
                self._selector.register(listener, selectors.EVENT_READ)

    def _patience(self) -> float:
        now = time.monotonic()
        times = [HANDSHAKE_SECONDS]
        if self._strangers:
            times.append(next(iter(self._strangers.values())).deadline - now)
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
        if len(self._strangers) >= _MOST_STRANGERS:
            self._hang_up(next(iter(self._strangers.values())), "too many strangers at the door")
        stranger = _Stranger(sock, peer, time.monotonic() + HANDSHAKE_SECONDS)
        try:
            sock.setblocking(False)
            sock.send(stranger.greeted)  # fits into the empty buffer of a new socket
        except OSError:
            sock.close()
            return
        self._strangers[sock] = stranger
        self._selector.register(sock, selectors.EVENT_READ)

    def _listen_to(self, stranger: _Stranger) -> None:
        try:
            more = stranger.sock.recv(handshake.ANSWER_SIZE - len(stranger.answered))
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(stranger, str(error))
            return
        stranger.answered += more
        if not more:
            self._hang_up(stranger, "it hung up during the handshake")
        elif len(stranger.answered) == handshake.ANSWER_SIZE:
            self._judge(stranger)

    def _judge(self, stranger: _Stranger) -> None:
        verdict, refusal = handshake.judge(self._key, stranger.greeted, stranger.answered)
        try:
            stranger.sock.send(verdict)
        except OSError as error:
            refusal = str(error)
        if refusal:
            self._hang_up(stranger, refusal)
            return
        self._forget(stranger)
        stranger.sock.setblocking(True)
        self._admit(stranger.sock, stranger.peer)

    def _expire(self, now: float) -> None:
        while self._strangers:
            oldest = next(iter(self._strangers.values()))
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
            log.warning(
                "parallel: no connection can be accepted for now (%s); raise the limit: ulimit -n", error.strerror
            )
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._breather_ends = time.monotonic() + _BREATHER
        if self._strangers:
            self._hang_up(next(iter(self._strangers.values())), "this process has no descriptor left")

    def _hang_up(self, stranger: _Stranger, why: str = "the master closes") -> None:
        log.info("parallel: a connection from %s was refused: %s", stranger.peer, why)
        self._forget(stranger)
        stranger.sock.close()

    def _forget(self, stranger: _Stranger) -> None:
        self._selector.unregister(stranger.sock)
        del self._strangers[stranger.sock]
