"""Frames and messages: everything that crosses the network after the handshake.

A message is a tuple of builtins, pickled with protocol 5.  A frame carries one message:

    number of buffers (4 bytes) | size of body (8) | size of each buffer (8 each) | body | buffers

All numbers are big-endian.  The buffers are the message's out-of-band parts (PEP 574): arrays and large payloads go
from their own memory to the socket and from the socket to fresh memory without a copy in between.  What users pickled
travels inside messages as opaque bytes, so that no class of theirs is ever rebuilt in the master's server threads.

`Listener` and `Client` are the pair that multiprocessing.managers knows as the serializer ``SERIALIZER``.
"""

from __future__ import annotations

import errno
import pickle
import socket
import struct
from multiprocessing import managers
from typing import Any, Union

from . import handshake
from .errors import ProtocolError

SERIALIZER = "parallel"
OUT_OF_BAND = 32 * 1024  # bytes from which a payload is worth a buffer of its own
HANDSHAKE_SECONDS = 10.0  # a peer that has not proved itself by then is hung up on

_HEAD = struct.Struct("!IQ")
_WINDOW = 256 * 1024  # bytes read ahead; also the largest body that is parsed in place
_MOST_BODY = 256 << 20  # bytes; leases are cut far below, and large payloads are buffers
_MOST_BUFFERS = 1 << 20
_MOST_BUFFER = 1 << 44  # bytes
_MOST_VECTORS = 512  # below every system's IOV_MAX
_SCRAP = 1 << 20
_LONGEST_PROBE = 32_767  # seconds: tcp(7), MAX_TCP_KEEPIDLE
_LONGEST_TIMEOUT = (1 << 31) - 1  # milliseconds: the option is an int

Buffer = Union[bytes, bytearray, memoryview, pickle.PickleBuffer]


class Unfit(bytes):
    """Stands for a buffer that this process had no memory for; its bytes were read and dropped."""

    size: int

    @classmethod
    def of(cls, size: int) -> Unfit:
        """In the place of ``size`` bytes."""
        self = cls()
        self.size = size
        return self


def opaque(payload: Buffer) -> Buffer:
    """``payload`` as a part of a message: a large one as a buffer that is not copied into the frame."""
    if isinstance(payload, bytes) and len(payload) < OUT_OF_BAND:
        return payload
    return pickle.PickleBuffer(payload)


def tune(sock: socket.socket, patience: float) -> None:
    """Set the options that every connection needs.

    TCP_NODELAY, since a frame may be two writes (40 ms each otherwise).  The kernel, not the program, finds out that
    the other machine is gone, within ``patience`` seconds: it keeps answering for a process that is stopped or busy, so
    that only a dead machine or a cut cable counts as silence.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe = int(min(max(1.0, patience / 4), _LONGEST_PROBE))
    options = {"TCP_KEEPIDLE": probe, "TCP_KEEPALIVE": probe, "TCP_KEEPINTVL": probe, "TCP_KEEPCNT": 3}
    options["TCP_USER_TIMEOUT"] = int(min(patience * 1000, _LONGEST_TIMEOUT))
    for name, value in options.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection:
    """Messages over one socket whose peer has proved that it holds the key.

    Not for several threads at once.  After any exception but `Unfit`-ness the stream may stand in the middle of a
    frame: close it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._window = bytearray(_WINDOW)
        self._view = memoryview(self._window)
        self._start = self._end = 0  # the bytes read and not yet parsed

    def __repr__(self) -> str:
        return f"<Connection fd={self._sock.fileno()}>"

    def fileno(self) -> int:
        """The socket's descriptor, for select."""
        return self._sock.fileno()

    def limit(self, seconds: float | None) -> None:
        """Let no wait in ``send`` or ``recv`` last longer (they raise socket.timeout then); None: no limit."""
        self._sock.settimeout(seconds)

    @property
    def peer(self) -> tuple[str, int]:
        """The address at the other end."""
        host, port = self._sock.getpeername()[:2]
        return host, port

    def be_patient(self, seconds: float) -> None:
        """Change the time after which the other machine is taken for gone."""
        tune(self._sock, seconds)

    def close(self) -> None:
        """Close the socket."""
        try:
            self._sock.close()
        except OSError:
            pass  # a task has closed all descriptors of its process, this one among them

    def shut(self) -> None:
        """Wake whoever waits on this connection, in whatever thread: its ``recv`` raises EOFError."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed or cut already

    def send(self, message: object) -> None:
        """Send one message; blocks while the peer is slow.  Raises OSError when the connection is broken."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, 5, buffer_callback=buffers.append)
        if not buffers and len(body) < _WINDOW:
            self._sock.sendall(_HEAD.pack(0, len(body)) + body)
            return
        views = [buffer.raw() for buffer in buffers]
        sizes = struct.pack(f"!{len(views)}Q", *[view.nbytes for view in views])
        self._send_vectors([memoryview(_HEAD.pack(len(views), len(body)) + sizes), memoryview(body), *views])

    def recv(self) -> Any:
        """The next message.

        Raises EOFError at the end of the stream, OSError when broken, `ProtocolError` on nonsense.
        """
        while True:
            have = self._end - self._start
            if have >= _HEAD.size:
                count, size = _HEAD.unpack_from(self._window, self._start)
                if count or size > _WINDOW - _HEAD.size:
                    return self._recv_large(count, size)
                if have >= _HEAD.size + size:
                    begin = self._start + _HEAD.size
                    self._start = begin + size
                    return pickle.loads(self._view[begin : self._start])
            self._fill()

    def pending(self) -> bool:
        """Whether a whole small message has been read already, so that ``recv`` would not touch the socket."""
        have = self._end - self._start
        if have < _HEAD.size:
            return False
        count, size = _HEAD.unpack_from(self._window, self._start)
        return bool(count == 0 and have >= _HEAD.size + size)

    def _fill(self) -> None:
        """Read what there is into the window, after moving the half frame in it to the front."""
        have = self._end - self._start
        if self._start:
            self._window[:have] = self._window[self._start : self._end]
            self._start, self._end = 0, have
        got = self._sock.recv_into(self._view[have:])
        if not got:
            raise EOFError("the connection was closed")
        self._end += got

    def _recv_large(self, count: int, size: int) -> Any:
        if count > _MOST_BUFFERS or size > _MOST_BODY:
            raise ProtocolError(f"a frame announces {count} buffers and a body of {size} bytes; that is no message")
        head = self._exactly(_HEAD.size + 8 * count)
        sizes = struct.unpack_from(f"!{count}Q", head, _HEAD.size)
        if any(one > _MOST_BUFFER for one in sizes):
            raise ProtocolError(f"a frame announces a buffer of {max(sizes)} bytes; that is no message")
        body = self._exactly(size)
        return pickle.loads(body, buffers=[self._buffer(one) for one in sizes])

    def _buffer(self, size: int) -> bytearray | Unfit:
        try:
            return self._exactly(size)
        except MemoryError:
            scrap = memoryview(bytearray(_SCRAP))
            for left in range(size, 0, -_SCRAP):
                self._read_into(scrap[: min(left, _SCRAP)])
            return Unfit.of(size)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)  # a MemoryError must come from here, before a byte of it is read
        self._read_into(memoryview(data))
        return data

    def _read_into(self, view: memoryview) -> None:
        have = min(self._end - self._start, view.nbytes)
        view[:have] = self._view[self._start : self._start + have]
        self._start += have
        while have < view.nbytes:
            got = self._sock.recv_into(view[have:], 0, socket.MSG_WAITALL)
            if not got:
                raise EOFError("the connection was closed in the middle of a message")
            have += got

    def _send_vectors(self, views: list[memoryview]) -> None:
        if not hasattr(self._sock, "sendmsg"):  # Windows
            for view in views:
                self._sock.sendall(view)
            return
        at = 0
        while at < len(views):
            sent = self._sock.sendmsg(views[at : at + _MOST_VECTORS])
            while at < len(views) and sent >= views[at].nbytes:
                sent -= views[at].nbytes
                at += 1
            if sent:
                views[at] = views[at][sent:]


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes from a socket with a timeout.  Raises EOFError if it ends before."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("the connection was closed during the handshake")
        data += more
    return data


def introduce(sock: socket.socket, key: bytes, patience: float) -> Connection:
    """The slave's half of the handshake on a connected socket, then the connection.

    Raises what `handshake.answer` and `handshake.accept` raise, EOFError, and OSError (a timeout if the peer is
    silent).
    """
    sock.settimeout(HANDSHAKE_SECONDS)
    greeted = read_exactly(sock, handshake.GREETING_SIZE)
    answered = handshake.answer(key, greeted)
    sock.sendall(answered)
    handshake.accept(key, greeted, answered, read_exactly(sock, handshake.VERDICT_SIZE))
    sock.settimeout(None)
    tune(sock, patience)
    return Connection(sock)


def Client(address: tuple[str, int], authkey: bytes | None = None) -> Connection:  # noqa: N802 - the name managers calls
    """What multiprocessing.managers calls to dial a server."""
    if authkey is None:
        raise ValueError("a connection needs the key: pass authkey=")
    sock = socket.create_connection(address, HANDSHAKE_SECONDS)
    try:
        return introduce(sock, authkey, patience=30.0)
    except BaseException:
        sock.close()
        raise


class Listener:
    """The sockets on which a master can be reached.

    ``address`` is ``(host, port)``: host '' means every interface, by IPv4 and IPv6.  Accepting and the handshake are
    the server's affair (parallel/service/door.py), where one thread does it for all strangers at once.
    """

    def __init__(self, address: tuple[str, int], backlog: int = 128) -> None:
        host, port = address
        self.sockets = [_bind(host, port)]
        self.address: tuple[str, int] = (host, self.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        for sock in self.sockets:
            sock.close()


def _bind(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
            # IPv6 is compiled in but switched off on this machine: IPv4 alone will do
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


managers.listener_client[SERIALIZER] = (Listener, Client)  # type: ignore[attr-defined]  # typeshed leaves it out
