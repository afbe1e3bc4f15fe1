"""Transports: a stream of bytes between two machines, as frames (wire.py) need it.

`SocketTransport` is a plain socket; on top of it TlsTransport (tls.py) and SealedTransport (sealed.py) make records.
Whatever can do what `Transport` lists can stand in their place; nothing above asks for a socket's own tricks.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import Protocol

MOST_VECTORS = 512  # below every system's IOV_MAX
UNIX = "unix:"  # how the host of a Unix socket's address begins

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

    def write(self, data: bytes | memoryview) -> None:
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
            return self._receive(into)
        except (BlockingIOError, InterruptedError):
            return None

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        have = 0
        while have < into.nbytes:
            got = self._receive(into[have:])
            if not got:
                raise EOFError("the connection was closed in the middle of a message")
            have += got

    def _receive(self, into: memoryview) -> int:
        return self._sock.recv_into(into)

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`."""
        try:
            if len(views) == 1 or not hasattr(self._sock, "sendmsg"):
                return self._sock.send(views[0])
            return self._sock.sendmsg(views[:MOST_VECTORS])
        except (BlockingIOError, InterruptedError):
            return None

    def write(self, data: bytes | memoryview) -> None:
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
            left = rest_of(left, self._sock.sendmsg(left[:MOST_VECTORS]))

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
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed or cut already

    def close(self) -> None:
        """See `Transport`."""
        try:
            self._sock.close()
        except OSError:
            pass  # a task has closed all descriptors of its process, this one among them


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
