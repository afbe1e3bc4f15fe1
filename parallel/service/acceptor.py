"""The acceptor: one thread that accepts connections and carries out every stranger's handshake.

A stranger gets no thread, some hundred bytes read and two HMACs computed, TLS only when it has proved that it holds the
key, and a limited time.  So silent, slow, garbled and numerous ones cost next to nothing, and nobody else has to wait
for them; who has to go when there are too many is decided in core/admission.py.  Who proved that it holds the key is
let in: `admit` gets the transport, not blocking, and the name of the secret that was proved.

Whoever asks for slave.pyz is given it, as long as not too many ask.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

from slave.dial import format_address
from slave.introduction import Fetched, OtherVersion, Refused, receive
from slave.transport import Transport
from slave.wire import HANDSHAKE_SECONDS

from ..core import events as ev
from ..core.admission import RESERVE, Admission, Ration, places, unmapped
from .identity import Identity
from .keyring import Guest, Keyring

if TYPE_CHECKING:
    from .announcer import Announcer

_ACCEPTS_PER_TURN = 64  # so that a flood of new ones does not keep those that wait from finishing
_PAUSE = 0.1  # seconds without accepting when this process has no descriptor left
_FILES_PER_SECOND, _FILES_AT_ONCE = 50.0, 200.0  # of slave.pyz that are given away
_NO_LIMIT = 1e9  # descriptors, on a system that tells of none


class _PendingConnection:
    """A connection whose handshake is under way."""

    def __init__(self, sock: socket.socket, peer: str, deadline: float, steps: Iterator[int], guest: Guest) -> None:
        self.fd, self.sock, self.peer, self.deadline = sock.fileno(), sock, peer, deadline
        self.guest = guest
        self.steps: Any = steps  # a generator: see slave/introduction.py
        self.waits_for = 0  # for which events the selector watches it


class Acceptor(threading.Thread):
    """Accepts on ``listeners`` until closed."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        keyring: Keyring,
        identity: Identity,
        admit: Callable[[Transport, str, bytes], None],
        tell: Callable[[ev.Event], None],
        died: Callable[[BaseException], None],
        slave_file: Callable[[], bytes] | None = None,
    ) -> None:
        super().__init__(name="parallel acceptor", daemon=True)
        self._keyring, self._identity, self._admit, self._tell, self._died = keyring, identity, admit, tell, died
        self._slave_file, self._files = slave_file, Ration(_FILES_PER_SECOND, _FILES_AT_ONCE)
        self._selector = selectors.DefaultSelector()
        self._admission: Admission[_PendingConnection] = Admission(places(_descriptors()))
        self._pending: dict[int, _PendingConnection] = {}  # by descriptor, oldest first
        self._listeners: list[socket.socket] = []
        self._added: deque[socket.socket] = deque()  # listeners that the thread has not seen yet
        self._announcer: Announcer | None = None
        self._announcing = False  # its sockets are watched
        self._pause_ends = 0.0
        self._told: set[str] = set()  # what is said once
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._closing = False
        self.add(listeners)

    def add(self, listeners: Sequence[socket.socket]) -> None:
        """Accept on these too, from now on."""
        self._added.extend(listeners)
        self._wake.send(b"!")

    def announce(self, announcer: Announcer) -> None:
        """Answer those too who look for this master, from now on."""
        self._announcer = announcer
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

    def abandon(self) -> None:
        """End it; it may be that its thread has not been started, or is just being started."""
        self._closing = True
        try:
            self._wake.send(b"!")
        except OSError:
            pass  # it has ended already
        if self.is_alive():
            self.join()
        self._release()

    def sockets(self) -> Sequence[socket.socket]:
        """What a forked process must close; safe to call there."""
        announcer = self._announcer
        datagrams = announcer.sockets if announcer is not None else []
        return [*(pending.sock for pending in list(self._pending.values())), self._waker, self._wake, *datagrams]

    def run(self) -> None:
        """The thread's body."""
        try:
            self._accept_until_closed()
        except BaseException as error:
            if not self._closing:
                self._died(error)
        finally:
            for pending in list(self._pending.values()):
                self._hang_up(pending)
            self._release()

    def _release(self) -> None:
        self._selector.close()
        if self._announcer is not None:
            self._announcer.close()
        self._waker.close()
        self._wake.close()

    def _accept_until_closed(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._patience()):
                try:
                    self._attend(key.fileobj)
                except Exception as error:  # out of memory, say; the others must be accepted all the same
                    why = f"a connection could not be accepted: {type(error).__name__}: {error}"
                    self._say_once(type(error).__name__, why)
            self._expire(time.monotonic())

    def _attend(self, ready: object) -> None:
        if isinstance(ready, int):
            if ready in self._pending:
                self._advance(self._pending[ready])
        elif ready is self._waker:
            self._woken()
        elif self._announcer is not None and ready in self._announcer.sockets:
            assert isinstance(ready, socket.socket)
            self._announcer.readable(ready)
        elif ready in self._listeners:
            assert isinstance(ready, socket.socket)
            self._accept(ready)

    def _woken(self) -> None:
        self._waker.recv(4096)
        if self._announcer is not None and not self._announcing:
            self._announcing = True
            for sock in self._announcer.sockets:
                self._selector.register(sock, selectors.EVENT_READ)
        while self._added:
            listener = self._added.popleft()
            listener.setblocking(False)
            self._listeners.append(listener)
            if not self._pause_ends:
                self._selector.register(listener, selectors.EVENT_READ)

    def _patience(self) -> float:
        now = time.monotonic()
        times = [HANDSHAKE_SECONDS]
        if self._pending:
            times.append(next(iter(self._pending.values())).deadline - now)
        if self._pause_ends:
            times.append(self._pause_ends - now)
        return max(0.0, min(times))

    # -- somebody comes

    def _accept(self, listener: socket.socket) -> None:
        most = _descriptors() - RESERVE
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                    return
                continue  # that peer hung up before it was accepted
            if sock.fileno() >= most:  # the lowest free one is given: so few are left
                self._make_place("this process has few descriptors left")
            self._greet(sock, listener, address)

    def _greet(self, sock: socket.socket, listener: socket.socket, address: Any) -> None:
        unix = not isinstance(address, tuple)
        host = "" if unix else unmapped(str(address[0]))
        peer = "this machine" if unix else format_address((host, address[1]))
        sock.setblocking(False)
        identity, guest = self._identity, Guest(self._keyring)
        steps = receive(
            sock,
            guest,
            mode=identity.mode(unix),
            fingerprint=identity.fingerprint(unix),
            context=None if unix else identity.context(),
            slave_file=None if unix or self._slave_file is None else self._give_file,
        )
        pending = _PendingConnection(sock, peer, time.monotonic() + HANDSHAKE_SECONDS, steps, guest)
        goes = self._admission.come(pending, host)
        if goes is not None:
            self._say_once(
                "crowd",
                f"more than {self._admission.most} connections wait without having proved that they hold the key; the "
                f"longest waiting ones of whatever address has most are hung up on",
            )
            self._hang_up(goes, "too many strangers")
        self._pending[pending.fd] = pending
        self._advance(pending)

    def _advance(self, pending: _PendingConnection) -> None:
        """Go on with a handshake as far as it goes without waiting."""
        try:
            wanted = next(pending.steps)
        except StopIteration as done:
            self._forget(pending)
            self._admit(done.value, pending.peer, pending.guest.ident)
        except Fetched:
            self._forget(pending)
            self._tell(ev.SlaveFileGiven(time.monotonic(), pending.peer))
        except Refused as error:
            self._hang_up(pending, str(error), isinstance(error, OtherVersion))
        except Exception:
            self._hang_up(pending, "the handshake failed here")
            raise
        else:
            if not pending.waits_for:
                self._selector.register(pending.fd, wanted)
            elif wanted != pending.waits_for:
                self._selector.modify(pending.fd, wanted)
            pending.waits_for = wanted

    def _give_file(self) -> bytes:
        if self._slave_file is None or not self._files.take(time.monotonic()):
            raise Refused("too many ask for the slave program")
        return self._slave_file()

    # -- somebody goes

    def _expire(self, now: float) -> None:
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if oldest.deadline > now:
                break
            self._hang_up(oldest, f"no handshake within {HANDSHAKE_SECONDS:g} s")
        if self._pause_ends and self._pause_ends <= now:
            self._pause_ends = 0.0
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ)

    def _pause(self, error: OSError) -> None:
        """No descriptor left: accept nothing for a moment instead of spinning, and let a stranger go."""
        if not self._pause_ends:
            why = f"no connection can be accepted for now ({error.strerror}); raise the limit: ulimit -n"
            self._say_once("none left", why)
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._pause_ends = time.monotonic() + _PAUSE
        self._make_place("this process has no descriptor left")

    def _make_place(self, why: str) -> None:
        goes = self._admission.make_place()
        if goes is not None:
            self._say_once("descriptors", f"{why}; connections that do not prove that they hold the key are hung up on")
            self._hang_up(goes, why)

    def _say_once(self, what: str, why: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(ev.CannotAccept(time.monotonic(), why))

    def _hang_up(self, pending: _PendingConnection, why: str = "the master closes", ours: bool = False) -> None:
        self._tell(ev.ConnectionRefused(time.monotonic(), pending.peer, why, ours))
        self._forget(pending)
        pending.steps.close()  # which closes what it has made of the socket, if it has begun
        pending.sock.close()

    def _forget(self, pending: _PendingConnection) -> None:
        self._admission.leave(pending)
        if pending.waits_for:
            self._selector.unregister(pending.fd)
            pending.waits_for = 0
        self._pending.pop(pending.fd, None)


def _descriptors() -> float:
    """How many descriptors this process may have."""
    try:
        import resource
    except ImportError:  # Windows
        return _NO_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NO_LIMIT if soft == resource.RLIM_INFINITY else soft
