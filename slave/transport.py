"""Transports: a stream of bytes between two machines, as frames (wire.py) need it.

`SocketTransport` is a plain socket, `TlsTransport` one with TLS (RFC 8446), `SealedTransport` puts authenticated
records on any other.  Whatever can do what `Transport` lists can stand in their place; nothing above asks for a
socket's own tricks.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .errors import Intercepted

if TYPE_CHECKING:
    import ssl

_MOST_VECTORS = 512  # below every system's IOV_MAX
UNIX = "unix:"  # how the host of a Unix socket's address begins

_IN_ONE_GO = 1 << 20  # bytes that `write_some` of a slow transport writes at most: others wait for its thread
_TLS_RECORD = 16 * 1024  # bytes of payload: RFC 8446, section 5.1
_LONGEST_PROBE = 32_767  # seconds: tcp(7), MAX_TCP_KEEPIDLE
_LONGEST_TIMEOUT = (1 << 31) - 1  # milliseconds: the option is an int


class Transport(Protocol):
    """A stream of bytes.  One thread at a time; all sizes are in bytes.

    After `set_blocking` (False), ``read_some`` and ``write_some`` return None where they would have to wait.
    """

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        ...

    def read_some(self, into: memoryview) -> int | None:
        """Read what there is, at most what fits; 0 at the end of the stream."""
        ...

    def read_all(self, into: memoryview) -> None:
        """Fill ``into``, waiting as long as it takes.  Raises EOFError if the stream ends before."""
        ...

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """Write what can be written at once; returns how much that was.

        What was not written must come next, at the front of the next call's ``views``: a part of it may have left
        already in a record that is not complete.
        """
        ...

    def write(self, data: bytes) -> None:
        """Write all, waiting as long as it takes."""
        ...

    def write_all(self, views: Sequence[memoryview]) -> None:
        """The same of several parts."""
        ...

    def has_more(self) -> bool:
        """Whether bytes can be read of which a selector knows nothing, since they have left the socket already."""
        ...

    def set_blocking(self, blocking: bool) -> None:
        """Whether reading and writing wait."""
        ...

    def limit(self, seconds: float | None) -> None:
        """Let no single wait last longer (it raises socket.timeout then); None: no limit.  It blocks from then on."""
        ...

    def be_patient(self, seconds: float) -> None:
        """Take the other machine for gone after so many seconds in which it answers nothing at all."""
        ...

    @property
    def peer(self) -> tuple[str, int]:
        """The address at the other end; of a Unix socket ("unix:NAME", 0)."""
        ...

    @property
    def master(self) -> str:
        """The fingerprint of the master at one of its ends, in hexadecimal digits; '' if none was agreed upon."""
        ...

    def shut(self) -> None:
        """Wake whoever waits on this stream, in whatever thread: it sees the end of the stream."""
        ...

    def close(self) -> None:
        """Close it.  May be called twice."""
        ...


class SocketTransport:
    """A connected socket, of TCP or Unix."""

    def __init__(self, sock: socket.socket, master: str = "") -> None:
        self._sock, self.master = sock, master

    def fileno(self) -> int:
        """See `Transport`."""
        return self._sock.fileno()

    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`."""
        try:
            return self._sock.recv_into(into)
        except (BlockingIOError, InterruptedError):
            return None

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        have = 0
        while have < into.nbytes:
            got = self._sock.recv_into(into[have:])
            if not got:
                raise EOFError("the connection was closed in the middle of a message")
            have += got

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`."""
        try:
            if len(views) == 1 or not hasattr(self._sock, "sendmsg"):
                return self._sock.send(views[0])
            return self._sock.sendmsg(views[:_MOST_VECTORS])
        except (BlockingIOError, InterruptedError):
            return None

    def write(self, data: bytes) -> None:
        """See `Transport`."""
        self._sock.sendall(data)

    def write_all(self, views: Sequence[memoryview]) -> None:
        """See `Transport`."""
        if not hasattr(self._sock, "sendmsg"):  # Windows has none
            for view in views:
                self._sock.sendall(view)
            return
        left = list(views)
        while left:
            left = rest_of(left, self._sock.sendmsg(left[:_MOST_VECTORS]))

    def has_more(self) -> bool:
        """See `Transport`."""
        return False

    def set_blocking(self, blocking: bool) -> None:
        """See `Transport`."""
        self._sock.setblocking(blocking)

    def limit(self, seconds: float | None) -> None:
        """See `Transport`."""
        self._sock.settimeout(seconds)

    def be_patient(self, seconds: float) -> None:
        """See `Transport`."""
        tune(self._sock, seconds)

    @property
    def peer(self) -> tuple[str, int]:
        """See `Transport`."""
        return peer_of(self._sock)

    def shut(self) -> None:
        """See `Transport`."""
        try:
            # not SSLSocket's own, after which another thread that reads would get bytes that nobody has checked
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed or cut already

    def close(self) -> None:
        """See `Transport`."""
        try:
            self._sock.close()
        except OSError:
            pass  # a task has closed all descriptors of its process, this one among them


class TlsTransport(SocketTransport):
    """A socket with TLS, whose handshake is done.

    It says no goodbye: frames tell by themselves whether they are whole, and a connection's end proves nothing here.
    Of SSLSocket only ``read`` and ``write`` are used, which never fall back to plain bytes.
    """

    _sock: ssl.SSLSocket

    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`."""
        try:
            got: Any = self._sock.read(into.nbytes, into)  # typeshed knows `read` only without a buffer
        except (OSError, ValueError) as error:
            self._would_wait(error)
            return None
        return int(got)

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        _read_all(self, into)

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`.

        OpenSSL wants to be offered what it had to keep once more as it was (SSL_write(3)): cut in the same way, it is.
        """
        total = 0
        for piece in _pieces(views, _TLS_RECORD):
            try:
                total += self._sock.write(piece)
            except (OSError, ValueError) as error:
                self._would_wait(error)
                return total or None
            if total >= _IN_ONE_GO:
                break
        return total

    def write(self, data: bytes) -> None:
        """See `Transport`."""
        _write_all(self, [memoryview(data)])

    def write_all(self, views: Sequence[memoryview]) -> None:
        """See `Transport`."""
        _write_all(self, views)

    def has_more(self) -> bool:
        """See `Transport`."""
        return self._sock.pending() > 0

    def _would_wait(self, error: BaseException) -> None:
        """Return if ``error`` says only that; else raise what it means."""
        if not is_want(error):
            raise meaning_of(error) from None


def is_want(error: BaseException) -> bool:
    """Whether it only says that TLS has to wait for the socket."""
    import ssl

    return isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))


def meaning_of(error: BaseException) -> BaseException:
    """What an error of an `ssl.SSLSocket` means for the connection."""
    import ssl

    if isinstance(error, ValueError):  # it was closed here
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    if not isinstance(error, ssl.SSLError):
        return error
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if isinstance(error, ended) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return EOFError("the connection was closed")
    reason = str(error.reason or error).lower().replace("_", " ")
    return Intercepted(f"somebody between this machine and the other changes what goes over the connection ({reason})")


_MAC = 16  # bytes
_RECORD = struct.Struct(f"!I{_MAC}s")  # length of the payload, MAC
_MOST_PAYLOAD = 64 * 1024
_SMALL_BUFFER = 4096


class SealedTransport:
    """Authenticated records, not encrypted, over ``inner``: length (4 bytes) | MAC (16) | payload (64 KiB at most).

    The MAC is keyed BLAKE2b (RFC 7693) over the record's number in its direction, its length and its payload, under a
    key for each direction that belongs to this connection alone.  So nothing can be changed, left out, repeated,
    swapped, reflected or brought in from another connection.  No byte is handed on before its record's MAC was found
    right.
    """

    def __init__(self, inner: Transport, send_key: bytes, receive_key: bytes) -> None:
        self._inner, self.master = inner, inner.master
        self._send_mac = hashlib.blake2b(key=send_key, digest_size=_MAC)
        self._receive_mac = hashlib.blake2b(key=receive_key, digest_size=_MAC)
        self._sent = self._received = 0  # records
        self._unsent: list[memoryview] = []  # of the record that is under way
        self._under_way = 0  # bytes of payload in it
        self._buffer = memoryview(bytearray(_SMALL_BUFFER))  # those from start to end are not checked yet
        self._start = self._end = 0
        self._checked = memoryview(b"")  # what can be handed on

    # -- sending

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`."""
        total = 0
        if self._unsent:
            if not self._push():
                return None
            total = self._under_way
            views = rest_of([memoryview(view) for view in views], total)
        for piece in _pieces(views, _MOST_PAYLOAD):
            self._seal(piece)
            if not self._push():
                return total or None
            total += self._under_way
            if total >= _IN_ONE_GO:
                break
        return total

    def write(self, data: bytes) -> None:
        """See `Transport`."""
        _write_all(self, [memoryview(data)])

    def write_all(self, views: Sequence[memoryview]) -> None:
        """See `Transport`."""
        _write_all(self, views)

    def _seal(self, payload: memoryview) -> None:
        mac = _mac(self._send_mac, self._sent, payload)
        self._sent += 1
        self._unsent = [memoryview(_RECORD.pack(payload.nbytes, mac)), payload]
        self._under_way = payload.nbytes

    def _push(self) -> bool:
        """Send what can be sent of the record; whether that was all."""
        while self._unsent:
            sent = self._inner.write_some(self._unsent)
            if sent is None:
                self._unsent = [memoryview(b"".join(self._unsent))]  # its memory may be another's by the next try
                return False
            self._unsent = rest_of(self._unsent, sent)
        return True

    # -- receiving

    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`.  Raises `Intercepted` at a record that is not the other end's next one."""
        while not self._checked and not self._check():
            got = self._fill()
            if got is None:
                return None
            if not got:
                if self._end > self._start:
                    raise EOFError("the connection was closed in the middle of a record")
                return 0
        size = min(into.nbytes, self._checked.nbytes)
        into[:size] = self._checked[:size]
        self._checked = self._checked[size:]
        return size

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        _read_all(self, into)

    def has_more(self) -> bool:
        """See `Transport`."""
        return bool(self._checked) or self._end - self._start >= self._needed()

    def _needed(self) -> int:
        """The size of the record that comes next, as far as is known and if there can be such a one."""
        if self._end - self._start < _RECORD.size:
            return _RECORD.size
        length: int = _RECORD.unpack_from(self._buffer, self._start)[0]
        return _RECORD.size + (length if length <= _MOST_PAYLOAD else 0)

    def _check(self) -> bool:
        """Check the next record, if it is here whole."""
        needed = self._needed()
        if self._end - self._start < needed:
            return False
        begin, end = self._start + _RECORD.size, self._start + needed
        length, mac = _RECORD.unpack_from(self._buffer, self._start)
        payload = self._buffer[begin:end]
        if not length or length != payload.nbytes or not hmac.compare_digest(mac, self._expected(payload)):
            raise Intercepted(
                "somebody between this machine and the other tampers with the connection: a wrong record came"
            )
        self._received += 1
        self._checked, self._start = payload, end
        return True

    def _expected(self, payload: memoryview) -> bytes:
        return _mac(self._receive_mac, self._received, payload)

    def _fill(self) -> int | None:
        """Read what there is behind the piece of a record that is here, with room for the whole of it."""
        needed, rest = self._needed(), bytes(self._buffer[self._start : self._end])
        if len(self._buffer) < needed:
            self._buffer = memoryview(bytearray(_RECORD.size + _MOST_PAYLOAD))
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        got = self._inner.read_some(self._buffer[self._end :])
        self._end += got or 0
        return got

    # -- the rest is the inner one's

    def fileno(self) -> int:
        """See `Transport`."""
        return self._inner.fileno()

    def set_blocking(self, blocking: bool) -> None:
        """See `Transport`."""
        self._inner.set_blocking(blocking)

    def limit(self, seconds: float | None) -> None:
        """See `Transport`."""
        self._inner.limit(seconds)

    def be_patient(self, seconds: float) -> None:
        """See `Transport`."""
        self._inner.be_patient(seconds)

    @property
    def peer(self) -> tuple[str, int]:
        """See `Transport`."""
        return self._inner.peer

    def shut(self) -> None:
        """See `Transport`."""
        self._inner.shut()

    def close(self) -> None:
        """See `Transport`."""
        self._inner.close()


def _mac(keyed: hashlib.blake2b, number: int, payload: memoryview) -> bytes:
    mac = keyed.copy()
    mac.update(struct.pack("!QI", number, payload.nbytes))
    mac.update(payload)
    return mac.digest()


def _read_all(transport: Transport, into: memoryview) -> None:
    """`Transport.read_all` by ``read_some``."""
    have = 0
    while have < into.nbytes:
        got = transport.read_some(into[have:])
        if got is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not got:
            raise EOFError("the connection was closed in the middle of a message")
        have += got


def _write_all(transport: Transport, views: Sequence[memoryview]) -> None:
    """`Transport.write_all` by ``write_some``."""
    left = [view for view in views if view.nbytes]
    while left:
        sent = transport.write_some(left)
        if sent is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = rest_of(left, sent)


def _pieces(views: Sequence[bytes | memoryview], most: int) -> Iterator[memoryview]:
    """``views`` cut and joined into pieces of ``most`` bytes; only the last is smaller."""
    small: list[memoryview] = []
    room = most
    for one in views:
        view, at = memoryview(one), 0
        if small:
            at = min(room, view.nbytes)
            small.append(view[:at])
            room -= at
            if not room:
                yield memoryview(b"".join(small))
                small, room = [], most
        while view.nbytes - at >= most:
            yield view[at : at + most]
            at += most
        if at < view.nbytes:
            small.append(view[at:])
            room -= view.nbytes - at
    if small:
        yield small[0] if len(small) == 1 else memoryview(b"".join(small))


def rest_of(views: Sequence[memoryview], sent: int) -> list[memoryview]:
    """What is left of ``views`` when ``sent`` bytes of it have gone."""
    at = 0
    while at < len(views) and sent >= views[at].nbytes:
        sent -= views[at].nbytes
        at += 1
    rest = list(views[at:])
    if sent:
        rest[0] = rest[0][sent:]
    return rest


def tune(sock: socket.socket, patience: float) -> None:
    """Set the options that every TCP connection needs; on another socket none.

    TCP_NODELAY, since a frame may be two writes (40 ms each otherwise).  The kernel, not the program, finds out that
    the other machine is gone, within ``patience`` seconds: it keeps answering for a process that is stopped or busy, so
    that only a dead machine or a cut cable counts as silence.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe = int(min(max(1.0, patience / 4), _LONGEST_PROBE))
    options = {"TCP_KEEPIDLE": probe, "TCP_KEEPALIVE": probe, "TCP_KEEPINTVL": probe, "TCP_KEEPCNT": 3}
    options["TCP_USER_TIMEOUT"] = int(min(patience * 1000, _LONGEST_TIMEOUT))
    for name, value in options.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_unix(sock: socket.socket) -> bool:
    """Whether it is a Unix socket, whose other end is on this machine."""
    return hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX


def unix_target(host: str) -> bytes | str:
    """What to bind or connect a Unix socket to for the host "unix:NAME" of an address.

    On Linux an abstract name, which leaves nothing in the file system (unix(7)); else, and if NAME begins with a slash,
    a path.
    """
    name = host[len(UNIX) :]
    if sys.platform == "linux" and not name.startswith("/"):
        return b"\0" + os.fsencode(name)
    return name


def peer_of(sock: socket.socket) -> tuple[str, int]:
    """The address of the socket's other end, as `Transport.peer` has it."""
    address = sock.getpeername()
    if is_unix(sock):
        return UNIX + os.fsdecode(address).lstrip("\0"), 0
    return address[0], address[1]
