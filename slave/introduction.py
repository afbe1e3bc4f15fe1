"""Introductions: the handshake (handshake.py) over a socket, and the channel that it opens, from both sides.

`receive` is the master's side, `introduce` the slave's.  Both are generators, so that one thread can carry out many at
once, each with one deadline: they yield ``selectors.EVENT_READ`` or ``EVENT_WRITE`` when the socket, which is not
blocking, must become readable or writable before they can go on, and return a `Transport`.  `finish` drives one.

A generator that has begun owns the socket: when it fails or is closed, the socket is closed.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Callable, Protocol

from . import certificate, handshake, shared_memory
from .errors import Incompatible, Intercepted, SlaveError, WrongMaster
from .handshake import PLAIN, SEALED, TLS
from .keys import THE_KEY
from .local_transport import LocalTransport
from .sealed import SealedTransport
from .tls import TlsTransport
from .transport import SocketTransport, Transport, is_unix, rest_of

if TYPE_CHECKING:
    import ssl

HANDSHAKE_SECONDS = 10.0  # a peer that has not proved itself by then is hung up on

Steps = Generator[int, None, Transport]
_Until = Generator[int, None, None]

_UCRED = struct.Struct("=iII")  # of SO_PEERCRED, unix(7): process, user, group
# poll() where there is one: it takes descriptors of any number, and, unlike epoll and kqueue, none of its own
_Selector: Callable[[], selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Refused(Exception):
    """The master does not let a peer in; ``str()`` says why.  The peer was told as far as it can be."""


class OtherVersion(Refused):
    """The peer speaks another version of the protocol."""


class Fetched(Exception):
    """The peer came for slave.pyz, and has got it."""


# -- master


class Keys(Protocol):
    """What a master lets in."""

    def secret(self, ident: bytes) -> bytes | None:
        """The secret of that name (`keys.Key`); None if there is none."""

    def proved(self, ident: bytes) -> str:
        """A peer has proved that it holds that secret; returns why it is refused all the same, or ''."""


class OneKey:
    """One key, and no token."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def secret(self, ident: bytes) -> bytes | None:
        """See `Keys`."""
        return self._key if ident == THE_KEY else None

    def proved(self, ident: bytes) -> str:
        """See `Keys`."""
        return ""


def receive(
    sock: socket.socket,
    keys: Keys,
    *,
    mode: int,
    fingerprint: bytes,
    context: ssl.SSLContext | None = None,
    slave_file: Callable[[], bytes] | None = None,
) -> Steps:
    """The master's side.  ``context`` is for the mode TLS, and shows the certificate with this ``fingerprint``.

    ``slave_file``: the bytes to give to those who say `handshake.FETCH`.

    Raises `Refused` for whatever may be wrong with the peer, and `Fetched`.
    """
    stream = _Stream(sock, fingerprint.hex())
    try:
        _same_user(sock)
        greeted = handshake.greeting(mode, fingerprint)
        yield from stream.write(greeted)
        key, answered = yield from _hear_answer(stream, keys, greeted, slave_file)
        yield from stream.protect(mode, context, handshake.session_keys(key, greeted, answered), server=True)
        proof = yield from stream.read(handshake.PROOF_SIZE)
        if not handshake.inside_proof_holds(key, greeted, answered, proof):
            raise Refused("it holds no key: somebody relays another's handshake")
        return stream.transport
    except EOFError:
        stream.close()
        raise Refused("it hung up during the handshake") from None
    except (OSError, SlaveError) as error:
        stream.close()
        raise Refused(getattr(error, "strerror", None) or str(error)) from None
    except BaseException:
        stream.close()
        raise


def _hear_answer(
    stream: _Stream, keys: Keys, greeted: bytes, slave_file: Callable[[], bytes] | None
) -> Generator[int, None, tuple[bytes, bytes]]:
    """The secret that the peer holds, and its answer, to which the verdict was sent.  Raises `Refused`, `Fetched`."""
    answered = yield from stream.read(handshake.HEAD_SIZE)
    if answered == handshake.FETCH and slave_file is not None:
        yield from stream.write(slave_file())
        stream.close()
        raise Fetched()
    verdict, refusal = handshake.judge_head(answered)
    key = b""
    if not refusal:
        answered += yield from stream.read(handshake.ANSWER_SIZE - len(answered))
        ident = handshake.name_of(answered)
        key = keys.secret(ident) or os.urandom(handshake.PROOF_SIZE)  # nobody can have proved that one
        verdict, refusal = handshake.judge(key, greeted, answered)
        if not refusal:
            refusal = keys.proved(ident)
            verdict = handshake.used() if refusal else verdict
    try:
        yield from stream.write(verdict)
    except OSError:
        if not refusal:
            raise  # else it has said what it is, and gone
    if refusal:
        raise (OtherVersion if handshake.is_other_version(answered) else Refused)(refusal)
    return key, answered


# -- slave


def introduce(sock: socket.socket, key: bytes, *, master: str | None = None, encrypt: bool = True) -> Steps:
    """The slave's side.  ``master``: with what the fingerprint must begin, if it is to be a certain one's.

    Without ``encrypt`` a channel that is only authenticated will do too; on a Unix socket, the peer's user will.
    Raises `WrongMaster`, `Intercepted`, `ProtocolError`, and as `handshake.accept`; EOFError and OSError.
    """
    stream = _Stream(sock)
    try:
        _same_user(sock)
        greeted = yield from stream.read(handshake.HEAD_SIZE)
        try:
            handshake.check_head(greeted)
        except Incompatible:
            yield from stream.write(handshake.own_head())  # so that the master can say it too
            raise
        greeted += yield from stream.read(handshake.GREETING_SIZE - len(greeted))
        offer = handshake.read_greeting(greeted)
        _check_offer(offer, master, encrypt, is_unix(sock))
        answered = handshake.answer(key, greeted)
        yield from stream.write(answered)
        verdict = yield from stream.read(handshake.VERDICT_SIZE)
        handshake.accept(key, greeted, answered, verdict)
        stream.master = offer.fingerprint.hex()
        context = certificate.client_context() if offer.mode == TLS else None
        keys = handshake.session_keys(key, greeted, answered)
        yield from stream.protect(offer.mode, context, keys, server=False)
        stream.check_certificate(offer.fingerprint)
        yield from stream.write(handshake.inside_proof(key, greeted, answered))
        return stream.transport
    except BaseException:
        stream.close()
        raise


def _check_offer(offer: handshake.Offer, master: str | None, encrypt: bool, unix: bool) -> None:
    """See whether a greeting is one to answer.  Raises `WrongMaster` or `Incompatible`."""
    fingerprint = offer.fingerprint.hex()
    if master is not None and not fingerprint.startswith(master.lower()):
        raise WrongMaster(f"another master answers there: {fingerprint[:16]}..., wanted {master[:16]}...")
    if offer.mode == TLS:
        certificate.need_tls()
    elif offer.mode == SEALED:
        if encrypt and not unix:
            raise Incompatible(
                "the master, or somebody between, offers no encryption; a slave takes that only if started with "
                "--no-encryption"
            )
    elif offer.mode != PLAIN or not unix:
        raise Incompatible("the master, or somebody between, offers a connection without any protection")


# -- both


class _Stream:
    """A socket on which a handshake is under way, and the transport on it."""

    def __init__(self, sock: socket.socket, master: str = "") -> None:
        self._sock, self.master = sock, master
        self.transport: Transport = SocketTransport(sock, master)

    def close(self) -> None:
        self._sock.close()

    def read(self, size: int) -> Generator[int, None, bytes]:
        """So many bytes, and none beyond them."""
        data, have = bytearray(size), 0
        while have < size:
            got = self.transport.read_some(memoryview(data)[have:])
            if got is None:
                yield selectors.EVENT_READ
            elif got:
                have += got
            else:
                raise EOFError("the connection was closed during the handshake")
        return bytes(data)

    def write(self, data: bytes) -> _Until:
        """All of ``data``."""
        left = [memoryview(data)]
        while left:
            sent = self.transport.write_some(left)
            if sent is None:
                yield selectors.EVENT_WRITE
            else:
                left = rest_of(left, sent)

    def protect(
        self, mode: int, context: ssl.SSLContext | None, keys: handshake.SessionKeys, *, server: bool
    ) -> _Until:
        """Go on by TLS, in sealed records, or as before."""
        if mode == TLS:
            assert context is not None
            yield from self._wrap(context, server)
            return
        plain = LocalTransport if mode == PLAIN and shared_memory.possible else SocketTransport
        self.transport = plain(self._sock, self.master)
        if mode == SEALED:
            mine, other = (keys.master, keys.slave) if server else (keys.slave, keys.master)
            self.transport = SealedTransport(self.transport, mine, other)

    def _wrap(self, context: ssl.SSLContext, server: bool) -> _Until:
        tls = TlsTransport(self._sock, context, server=server, master=self.master)
        event = tls.shake_hands()
        while event is not None:
            yield event
            event = tls.shake_hands()
        self.transport = tls

    def check_certificate(self, fingerprint: bytes) -> None:
        """With TLS: see that the certificate at the other end is the master's.  Raises `Intercepted`."""
        tls = self.transport
        if isinstance(tls, TlsTransport) and hashlib.sha256(tls.certificate).digest() != fingerprint:
            raise Intercepted("somebody between this machine and the master relays the connection: not its certificate")


def _same_user(sock: socket.socket) -> None:
    """See that the other end of a Unix socket is a process of this user's, where the system tells.

    Raises PermissionError.
    """
    if not is_unix(sock) or not hasattr(socket, "SO_PEERCRED"):
        return
    _, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if user != os.geteuid():
        raise PermissionError(
            f"a process of another user (uid {user}) is at the other end; this one's uid is {os.geteuid()}"
        )


def finish(steps: Steps, sock: socket.socket, seconds: float) -> Transport:
    """Carry out one introduction, within so many seconds in all; the transport is blocking then.

    Raises what it raises, and socket.timeout.
    """
    deadline = time.monotonic() + seconds
    try:
        sock.setblocking(False)
        descriptor = sock.fileno()
        while True:
            event = next(steps)
            with _Selector() as selector:
                selector.register(descriptor, event)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise socket.timeout(f"it did not complete the handshake within {seconds:g} s")
    except StopIteration as done:
        transport: Transport = done.value
        transport.set_blocking(True)
        return transport
    except BaseException:
        steps.close()
        sock.close()
        raise
