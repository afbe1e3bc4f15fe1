"""Peer: one connection of a slave, read and written by the dispatcher's thread, which never waits for it.

What may block is done aside, by another thread (side_threads.py): receiving or sending a large message, reading a file.
Meanwhile nothing more is heard of that peer, so that what it says later does not overtake it.
"""

from __future__ import annotations

import socket
import traceback
from collections import deque
from typing import Any, Callable, Protocol

from slave.errors import Intercepted, Oversized, ProtocolError
from slave.protocol import (
    ANSWERED,
    GATHERED,
    WATCHER,
    OutcomeMessage,
    Role,
    ValuesMessage,
    checked_outcome,
    checked_values,
)
from slave.wire import Connection

from ..core import events as ev
from . import checked
from .dispatcher import Dispatcher
from .keyring import Keyring
from .lock_free import Once

_LONGEST_WAIT = 1e6  # seconds; more is no time limit for a socket
_SHOWN = 100  # characters of what a peer said

_CHECKS: dict[str, Callable[[Any], OutcomeMessage | ValuesMessage]] = {
    "post": checked_outcome,
    "values": checked_values,
}

NOBODY = Role("", 0, "", 0, 0)


class Host(Protocol):
    """What a peer knows of the server that it is connected to."""

    dispatcher: Dispatcher
    window: memoryview  # through which all peers read
    keyring: Keyring
    patience: float  # seconds without a byte after which a peer in the middle of a message is given up
    objects: dict[str, Any]
    kinds: dict[tuple[Any, Any], str]  # by id and method
    gathered: list[OutcomeMessage | ValuesMessage]
    calls: list[tuple[Peer, str, str, str, Any]]

    def carry_out(self, now: float) -> None:
        """Call the scheduler with what was read."""

    def tell(self, event: ev.Event) -> None:
        """Something happened to a connection."""

    def cut(self, name: str, why: str) -> None:
        """A connection is cut."""

    def named(self, peer: Peer) -> None:
        """A connection has said whose it is."""

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""


class Call:
    """A call of a slave's that waits for its answer."""

    __slots__ = ("_peer", "encode", "now")

    def __init__(self, peer: Peer, now: float) -> None:
        self._peer, self.now = peer, now
        self.encode: Callable[[Any], Any] | None = None  # makes of the answer what goes over the wire

    @property
    def ident(self) -> bytes:
        """The name of the secret that the caller has proved."""
        return self._peer.ident

    @property
    def accepted(self) -> int:
        """Which of all connections that were accepted it is made on."""
        return self._peer.accepted

    def own_slave(self, number: int) -> None:
        """Raises `ProtocolError` if the connection is not that slave's."""
        if self._peer.role is None or number != self._peer.role.slave:
            raise ProtocolError("it speaks for another slave than the one that it is")

    def by_watcher(self) -> None:
        """Raises `ProtocolError` if the connection is not a watcher's."""
        if self._peer.role is None or self._peer.role.kind != WATCHER:
            raise ProtocolError("it is no watcher")

    def own_agent(self, agent: str) -> None:
        """Raises `ProtocolError` if the connection is not that agent's."""
        if self._peer.role is None or agent != self._peer.role.agent:
            raise ProtocolError("it speaks for another slave program than the one that it is")

    def answer(self, value: object) -> None:
        """Send what the call waits for."""
        self._peer.send(("#RETURN", value if self.encode is None else self.encode(value)))

    def refuse(self, reason: str) -> None:
        """Tell the caller that the call failed."""
        self._peer.send(("#ERROR", reason))

    def aside(self, work: Callable[[], Any], then: Callable[[Any, float], None]) -> None:
        """Have ``then(work(), now)`` called when ``work``, which may block, is done by another thread.

        Meanwhile nothing more is heard of this peer, so that what it says later does not overtake it.
        """
        self._peer.aside(work, then)


def _call(message: Any) -> tuple[str, str, tuple[Any, ...]]:
    """The service, method and arguments of a call.  Raises `ProtocolError`."""
    if type(message) is not tuple or len(message) != 4 or message[3]:
        raise ProtocolError("what came is no call")
    ident, method, args, _ = message
    if type(method) is not str or type(args) is not tuple or not (ident is None or type(ident) is str):
        raise ProtocolError("what came is no call")
    return ident or "", method, args


class Peer:
    """One connection of a slave, served by the dispatcher's thread."""

    def __init__(self, server: Host, connection: Connection, name: str, ident: bytes, accepted: int) -> None:
        self.connection, self.name = connection, name
        self.accepted = accepted  # which of all connections this is
        self.ident = ident  # the name of the secret that it has proved
        self.role: Role | None = None
        self._server, self._dispatcher = server, server.dispatcher
        self._deferred: deque[tuple[str, str, str, Any]] = deque()  # calls that wait until we listen again
        self._unread: deque[Any] = deque()  # messages that have arrived and wait until we listen again
        self._unsent: deque[object] = deque()  # messages to send when we listen again
        self._aside = False  # another thread has the connection, or has had it and this one does not know yet
        self._held = False  # the former; that thread says when it is not so any more
        self._found: Any = None  # what it has done there, until this thread takes it
        self._closed = False
        self._closing = Once()  # whoever is first closes it
        self.call: Call | None = None  # the last one that waits for its answer

    @property
    def transfers(self) -> bool:
        """Whether another thread has the connection."""
        return self._aside

    def readable(self, now: float) -> None:
        """Read what there is."""
        try:
            messages = self.connection.receive_ready(self._server.window)
            while self.connection.transport.has_more() and not self.connection.large_next:
                messages += self.connection.receive_ready(self._server.window)
            large = self.connection.large_next
        except Exception as error:
            self._broken(error)
            return
        if self._unread:
            self._unread.extend(messages)
        else:
            self._hear(messages, now)
        if large and not self._aside and not self._closed:
            self._receive_large()

    def _listen(self, now: float) -> None:
        """Take in what has arrived before and was left."""
        messages = list(self._unread)
        self._unread.clear()
        self._hear(messages, now)

    def _hear(self, messages: list[Any], now: float) -> None:
        """Take in messages, until something is to be done aside first."""
        gathered, heard = self._server.gathered, 0
        try:
            for message in messages:
                if self._aside or self._closed:
                    self._unread.extend(messages[heard:])
                    return
                heard += 1
                if type(message) is tuple and len(message) == 4 and message[1] == "values" and self.role is not None:
                    gathered.append(checked_values(message[2]))  # the hot one; all others by their lists
                else:
                    self._take(message, now)
        except ProtocolError as error:
            self._cut(str(error))
        except Exception:
            self._cut("\n" + traceback.format_exc())

    def _take(self, message: Any, now: float) -> None:
        ident, method, args = _call(message)
        if self.role is None:
            self._introduce(method, args)
            return
        kind = self._server.kinds.get((ident, method))
        if kind == GATHERED:
            self._server.gathered.append((_CHECKS[method])(args))
        elif kind is None:
            self.send(("#TRACEBACK", f"there is no {method[:_SHOWN]!r} of {ident[:_SHOWN]!r} for slaves"))
        else:
            self._server.calls.append((self, kind, ident, method, args))

    def _introduce(self, function: str, args: Any) -> None:
        """The first message says whose connection this is."""
        if function != "accept_connection":
            self.send(("#TRACEBACK", f"{function[:_SHOWN]!r} is not for slaves"))
            self.hang_up()
            return
        (role,) = args
        found = checked.message(Role, role)
        if not self._server.keyring.may(self.ident, found.kind):
            raise ProtocolError(f"what it came with does not make it a {found.kind[:_SHOWN]}")
        self.role = found
        self._server.named(self)
        self.connection.borrow_lazily()  # the reader's thread copies, when it is its turn, and not the dispatcher's
        if found.connection == 1:  # if that breaks, for whatever reason, what is large is sent as any other bytes
            self.connection.lend(copying=False)
        self.send(("#RETURN", None))

    def carry_out(self, kind: str, ident: str, method: str, args: Any, now: float) -> None:
        """Make one call; later, if something is done aside that it must not overtake."""
        if self._aside:
            self._deferred.append((kind, ident, method, args))
            return
        call = Call(self, now)
        if kind == ANSWERED:
            self.call = call
        try:
            getattr(self._server.objects[ident], method)(call, *args)
        except ProtocolError as error:
            if kind == ANSWERED:
                call.refuse(str(error))
            self._cut(f"{method}: {error}", told=kind == ANSWERED)
        except Exception as error:
            text = traceback.format_exc()
            if kind == ANSWERED:
                self._server.tell(ev.CallFailed(now, self.name, method, text))
                call.refuse(f"{type(error).__name__}: {error}")
            else:
                self._cut("\n" + text)

    # -- sending

    def send(self, message: object) -> None:
        """Send a message without waiting; what does not go at once is sent by another thread."""
        if self._closed:
            return
        if self._aside:
            self._unsent.append(message)
            return
        try:
            left = self.connection.send_at_once(message)
        except Oversized as error:
            self._server.cut(self.name, f"gets no answer to a call: {error}")
            self.send(("#ERROR", str(error)))
            return
        except Exception as error:
            self._broken(error)
            return
        if left:
            self.aside(lambda: self.connection.transport.write_all(left), lambda _, now: None, transfer=True)

    # -- what may block

    def _receive_large(self) -> None:
        self.aside(self.connection.recv, lambda message, now: self._unread.append(message), transfer=True)

    def aside(self, work: Callable[[], Any], then: Callable[[Any, float], None], transfer: bool = False) -> None:
        """Have ``work`` done by another thread and then ``then(result, now)`` called; meanwhile hear nothing here.

        ``transfer``: the work is to send or receive here, and may wait for that.
        """
        self._aside = self._held = True
        self._dispatcher.unwatch(self.connection)
        if transfer:
            self.connection.limit(min(_LONGEST_WAIT, self._server.patience))  # else a thread would wait for ever

        def whole() -> None:
            told: tuple[Any, ...] = self._back, then
            try:
                self._found = work()
            except BaseException as error:
                told = self._failed_aside, error
            self._held = False
            if self._closed:
                self._close()  # at once: the dispatcher may have ended, and hears nothing any more
            else:
                self._dispatcher.tell(*told)

        try:
            self._dispatcher.side_threads.run(whole)
        except RuntimeError as error:  # can't start new thread: the slave comes again, and says again what it said
            self._server.cut(self.name, f"cannot be served: {error}")
            self._held = False
            self._failed_aside(EOFError(), 0.0)

    def _failed_aside(self, error: BaseException, now: float) -> None:
        self._aside = False
        if not self._closed:
            self._dispatcher.watch(self.connection, self.readable)
            self._broken(error)

    def _back(self, then: Callable[[Any, float], None], now: float) -> None:
        """Listen again."""
        self._aside = False
        if self._closed:
            return
        result, self._found = self._found, None
        self.connection.transport.set_blocking(False)
        self._dispatcher.watch(self.connection, self.readable)
        then(result, now)
        while self._unsent and not self._aside and not self._closed:
            self.send(self._unsent.popleft())
        while self._deferred and not self._aside and not self._closed:
            self.carry_out(*self._deferred.popleft(), now)
        self._listen(now)
        self._server.carry_out(now)

    # -- the end

    def _broken(self, error: BaseException) -> None:
        if is_our_limit(error):
            self._server.cut(self.name, f"is cut: nothing came for {self._server.patience:g} s inside a message")
        elif isinstance(error, Intercepted):
            self._server.cut(self.name, f"is cut: {error}")
        elif isinstance(error, ProtocolError) or not isinstance(error, (EOFError, OSError)):
            self._cut(str(error))
        self.hang_up()

    def _cut(self, why: str, told: bool = False) -> None:
        if not told:
            self.send(("#CUT", f"the master has cut this connection, since what came made no sense: {why}"))
        self._server.cut(self.name, f"is cut, since it made no sense: {why}")
        self.hang_up()

    def hang_up(self) -> None:
        """Close it.  May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.connection.shut()
        if not self._aside:
            self._dispatcher.unwatch(self.connection)
        if not self._held:  # else the other thread wakes now, and closes it
            self._close()
        self._unread.clear()
        self._unsent.clear()
        self._server.gone(self)

    def _close(self) -> None:
        """It is hung up, and no thread has the connection: this is called by whichever comes last."""
        self._found = None  # it may be a large message
        if self._closing.first():
            self.connection.close()


def is_our_limit(error: BaseException) -> bool:
    """Whether the time that we have set for a transfer is over: not the system's word that the other machine is gone.

    That one, ETIMEDOUT, is of the same class since Python 3.10.
    """
    return isinstance(error, socket.timeout) and error.errno is None
