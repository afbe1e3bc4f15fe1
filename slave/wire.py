"""Frames and messages: everything that crosses the network after the handshake.

A message is a tuple of builtins, pickled with protocol 5 (plain.py).  A frame carries one message:

    number of buffers (4 bytes) | size of body (8) | size of each buffer (8 each) | body | buffers

All numbers are big-endian; the two highest bits of a buffer's size say that it is read-only, and that it
is lent (shared_memory.py) and does not follow.  The buffers are the
message's out-of-band parts (PEP 574): arrays and large payloads go from their own memory to the socket and from the
socket to fresh memory without a copy in between.  What users pickled travels inside messages as opaque bytes, so that
no class of theirs is ever rebuilt in the master's server threads.

`Listener` and `Client` are the pair that multiprocessing.managers knows as a serializer (mp_adapter.py).
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
from collections import deque
from typing import Any, Callable

from . import introduction, plain
from .errors import Oversized, ProtocolError
from .introduction import HANDSHAKE_SECONDS as HANDSHAKE_SECONDS  # callers look for it here too
from .local_transport import LocalTransport
from .memory import Memory, Unfit, filled
from .mp_adapter import register_serializer
from .pieces import END
from .protocol import Buffer, Parted
from .shared_memory import SHARED, Borrower, Lender
from .transport import UNIX, Transport, rest_of, unix_target

OUT_OF_BAND = 32 * 1024  # bytes from which a payload is worth a buffer of its own

_HEAD = struct.Struct("!IQ")
WINDOW = 256 * 1024  # bytes read ahead
_MOST_PARSED = WINDOW - _HEAD.size  # bytes of a body that is parsed in place
NOTHING = memoryview(b"")
_LONGEST_LIMIT = 1e6  # seconds; a lease may be longer than what a socket takes as a time limit
MOST_BODY = 8 << 20  # bytes; leases are cut far below, and large payloads are buffers
MOST_BUFFERS = 1 << 16
_MOST_BUFFER = 1 << 44  # bytes
_SCRAP = 1 << 20
_PAID = 256 * 1024  # bytes that must have come before memory for more than four times as many is taken
_FIXED = 1 << 63  # added to the size of a buffer that is read-only, and bytes for whoever gets it
_LENT = 1 << 62  # the same, of one that does not follow: a descriptor comes with the frame (shared_memory.py)
_RETURNED = 0xFFFF_FFFF  # in place of the number of buffers: what follows are numbers of such memory


def opaque(payload: Buffer | Parted) -> Any:
    """``payload`` as a part of a message: a large one as a buffer that is not copied into the frame."""
    if type(payload) is bytes and len(payload) < OUT_OF_BAND:
        return payload
    if isinstance(payload, Parted):
        return payload.message()
    return pickle.PickleBuffer(payload)


class Connection:
    """Messages over one transport whose peer has proved that it holds the key.

    Not for several threads at once.  After any exception but `Unfit`-ness the stream may stand in the middle of a
    frame: close it.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._view = NOTHING  # bytes were read into it; those from start to end are not parsed yet
        self._start = self._end = 0
        self._lender: Lender | None = None
        self._borrower = Borrower() if isinstance(transport, LocalTransport) else None
        self._returned: deque[int] | tuple[()] = () if self._borrower is None else self._borrower.returned

    def __repr__(self) -> str:
        return f"<Connection fd={self.transport.fileno()}>"

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self.transport.fileno()

    def limit(self, seconds: float | None) -> None:
        """Let no wait in ``send`` or ``recv`` last longer (they raise socket.timeout then); None: no limit."""
        self.transport.limit(None if seconds is None else min(seconds, _LONGEST_LIMIT))

    @property
    def peer(self) -> tuple[str, int]:
        """The address at the other end."""
        return self.transport.peer

    @property
    def master(self) -> str:
        """The fingerprint of the master, in hexadecimal digits, as the handshake has told it."""
        return self.transport.master

    def be_patient(self, seconds: float) -> None:
        """Change the time after which the other machine is taken for gone."""
        self.transport.be_patient(seconds)

    def lend(self, copying: bool = True) -> None:
        """Lend large parts from now on, and do not send their bytes, if it can be done here; see `Lender`."""
        if self._borrower is not None and self._lender is None:
            self._lender = Lender(copying)

    def borrow_lazily(self) -> None:
        """From now on large parts that were lent as bytes come as maps, for `as_sent`."""
        if self._borrower is not None:
            self._borrower.lazy = True

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()
        if self._lender is not None:
            self._lender.close()

    def shut(self) -> None:
        """Wake whoever waits on this connection, in whatever thread: its ``recv`` raises EOFError."""
        self.transport.shut()

    # -- sending

    def send(self, message: object, ahead: bytes = b"") -> None:
        """Send one message; blocks while the peer is slow.  Raises OSError when the connection is broken.

        ``ahead``: a frame to send before it, by the same write.
        """
        views = self._encoded(message)
        if self._returned:
            ahead += self._told_returned()
        if ahead:
            if isinstance(views, bytes):
                self.transport.write(ahead + views)
            else:
                self.transport.write_all([memoryview(ahead), *views])
        elif isinstance(views, bytes):
            self.transport.write(views)
        else:
            self.transport.write_all(views)

    def send_frame(self, frame: bytes) -> None:
        """Send a message that is a frame already (see `frame_of_pieces`); otherwise as ``send``."""
        self.transport.write(frame)

    def send_at_once(self, message: object) -> list[memoryview]:
        """Send what can be sent without waiting (see `Transport.set_blocking`); returns what is left to be sent."""
        frame = self._encoded(message)
        if self._returned:
            told = self._told_returned()
            frame = told + frame if isinstance(frame, bytes) else [memoryview(told), *frame]
        views = [frame] if isinstance(frame, bytes) else frame
        sent = self.transport.write_some(views) or 0
        return [] if sent == len(frame) and len(views) == 1 else rest_of([memoryview(view) for view in views], sent)

    def _encoded(self, message: object) -> bytes | list[memoryview]:
        """The message as a frame.  What of it is lent is attached to what is written next."""
        if self._lender is None:
            return _encode(message)
        views = _encode(message, self._lender.lend)
        if self._lender.descriptors:
            self.transport.attach(self._lender.descriptors)  # type: ignore[attr-defined]  # it is a LocalTransport
            self._lender.descriptors.clear()
        return views

    def _told_returned(self) -> bytes:
        """What tells the other end which memory that it has lent is not needed any more."""
        numbers = [self._returned.popleft() for _ in range(min(len(self._returned), MOST_BUFFERS))]  # type: ignore[union-attr]
        return _HEAD.pack(_RETURNED, 8 * len(numbers)) + struct.pack(f"!{len(numbers)}Q", *numbers)

    # -- receiving

    def recv(self) -> Any:
        """The next message; waits for it.

        Raises EOFError at the end of the stream, OSError when broken, `ProtocolError` on nonsense.
        """
        while True:
            have = self._end - self._start
            if have >= _HEAD.size:
                count, size = _HEAD.unpack_from(self._view, self._start)
                if count or size > _MOST_PARSED:
                    return self._recv_large(count, size)
                if have >= _HEAD.size + size:
                    begin = self._start + _HEAD.size
                    self._start = begin + size
                    return plain.loads(self._view[begin : self._start])
            self._fill()

    def receive_ready(self, window: memoryview) -> list[Any]:
        """The messages that are there, without waiting; one read at most, through ``window`` (`WINDOW` bytes).

        Raises as `recv`.  Stops before a large message: see `large_next`.
        """
        have = self._end - self._start
        window[:have] = self._view[self._start : self._end]
        got = self.transport.read_some(window[have:])
        if got is None:
            return []
        if not got:
            raise EOFError("the connection was closed")
        messages, at, end = [], 0, have + got
        while end - at >= _HEAD.size:
            count, size = _HEAD.unpack_from(window, at)
            if count or size > _MOST_PARSED or end - at < _HEAD.size + size:
                break
            begin = at + _HEAD.size
            at = begin + size
            messages.append(plain.loads(window[begin:at]))
        self._view, self._start, self._end = memoryview(bytes(window[at:end])), 0, end - at
        return messages

    def receive_one(self) -> Any:
        """The next message if it is here whole, else None; waits only for the rest of a large one.

        For an end that blocks otherwise and expects one message at most.  Raises as `recv`.
        """
        if not self._whole_here:
            window = memoryview(bytearray(WINDOW))
            self.transport.set_blocking(False)
            try:
                found = self.receive_ready(window)
                while self.transport.has_more() and not self.large_next:
                    found += self.receive_ready(window)
            finally:
                self.transport.set_blocking(True)
            if len(found) > 1 or (found and self.large_next):
                raise ProtocolError("messages came for which nobody had asked")
            if found or not self.large_next:
                return found[0] if found else None
        self.limit(HANDSHAKE_SECONDS)
        message = self.recv()
        self.limit(None)
        return message

    @property
    def has_more(self) -> bool:
        """Whether there is something to receive of which a selector knows nothing, since it was read already."""
        return self._whole_here or self.transport.has_more()

    @property
    def _whole_here(self) -> bool:
        have = self._end - self._start
        return have >= _HEAD.size and have >= _HEAD.size + _HEAD.unpack_from(self._view, self._start)[1]

    @property
    def large_next(self) -> bool:
        """Whether the next message has begun to arrive and is so large that ``recv`` had better wait for the rest."""
        if self._end - self._start < _HEAD.size:
            return False
        count, size = _HEAD.unpack_from(self._view, self._start)
        return bool(count or size > _MOST_PARSED)

    def _fill(self) -> None:
        """Read what there is into a window of our own, after moving the half frame to its front."""
        have = self._end - self._start
        if len(self._view) < WINDOW:
            window = memoryview(bytearray(WINDOW))
            window[:have] = self._view[self._start : self._end]
            self._view, self._start, self._end = window, 0, have
        elif self._start:
            self._view[:have] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, have
        got = self.transport.read_some(self._view[have:])
        if not got:
            raise EOFError("the connection was closed")
        self._end += got

    def _recv_large(self, count: int, size: int) -> Any:
        if count == _RETURNED and self._lender is not None and size <= 8 * MOST_BUFFERS:
            told = self._exactly(_HEAD.size + size)
            self._lender.take_back(struct.unpack_from(f"!{size // 8}Q", told, _HEAD.size))
            return self.recv()
        if count > MOST_BUFFERS or size > MOST_BODY:
            raise ProtocolError(f"a frame announces {count} buffers and a body of {size} bytes; that is no message")
        head = self._exactly(_HEAD.size + 8 * count)
        announced = struct.unpack_from(f"!{count}Q", head, _HEAD.size)
        sizes = [one & ~(_FIXED | _LENT) for one in announced]
        if any(one > _MOST_BUFFER for one in sizes):
            raise ProtocolError(f"a frame announces a buffer of {max(sizes)} bytes; that is no message")
        body = self._buffer(size, True)
        if isinstance(body, Unfit):
            raise MemoryError(f"no memory for a message of {size} bytes")
        buffers = [
            self._borrowed(one, bool(told & _FIXED)) if told & _LENT else self._buffer(one, bool(told & _FIXED))
            for told, one in zip(announced, sizes)
        ]
        return plain.loads(body, buffers)

    def _borrowed(self, size: int, fixed: bool) -> Any:
        """So many bytes whose descriptor has come."""
        if self._borrower is None or not isinstance(self.transport, LocalTransport):
            raise ProtocolError("a message tells of memory of this machine, and has come from another")
        return self._borrower.borrow(self.transport.take_descriptor(), size, fixed)

    def _buffer(self, size: int, fixed: bool) -> Memory | Unfit:
        """So many bytes.  What a peer merely announces costs nothing: the first part must come before there is room."""
        paid = memoryview(self._exactly(_PAID) if size > 4 * _PAID else b"")
        left, within = size, False

        def fill(view: memoryview) -> None:
            nonlocal paid, left, within
            within = True
            have = min(paid.nbytes, view.nbytes)
            view[:have], paid = paid[:have], paid[have:]
            self._read_into(view[have:])
            left -= view.nbytes
            within = False

        try:
            return filled(size, fixed, fill)
        except MemoryError:
            if within:
                raise
            scrap = memoryview(bytearray(_SCRAP))
            for more in range(left - paid.nbytes, 0, -_SCRAP):
                self._read_into(scrap[: min(more, _SCRAP)])
            return Unfit.of(size)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        self._read_into(memoryview(data))
        return data

    def _read_into(self, view: memoryview) -> None:
        have = min(self._end - self._start, view.nbytes)
        view[:have] = self._view[self._start : self._start + have]
        self._start += have
        if have < view.nbytes:
            self.transport.read_all(view[have:])


def frame_of_pieces(pieces: bytes) -> bytes:
    """A message as it is sent that was made in pieces, its head in front (pieces.py)."""
    return _HEAD.pack(0, len(pieces) + len(END)) + pieces + END


def _encode(message: object, lend: Callable[[memoryview], bool] | None = None) -> bytes | list[memoryview]:
    """A message as a frame: in one piece if it is small, else with its large parts in their own memory.

    ``lend``: whether a part was lent, and so is not to follow.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, 5, buffer_callback=buffers.append)
    if not buffers and len(body) < WINDOW:
        return _HEAD.pack(0, len(body)) + body
    if len(body) > MOST_BODY or len(buffers) > MOST_BUFFERS:  # the peer would hang up, and never get it
        raise Oversized(f"a message of {len(body)} bytes with {len(buffers)} buffers is more than anybody takes")
    views = [buffer.raw() for buffer in buffers]
    lent = [lend is not None and view.nbytes >= SHARED and lend(view) for view in views]
    sizes = [view.nbytes + _FIXED * view.readonly + _LENT * gone for view, gone in zip(views, lent)]
    head = _HEAD.pack(len(views), len(body)) + struct.pack(f"!{len(views)}Q", *sizes)
    return [memoryview(head), memoryview(body), *(view for view, gone in zip(views, lent) if view and not gone)]


def introduce(
    sock: socket.socket, key: bytes, patience: float, *, master: str | None = None, encrypt: bool = True
) -> Connection:
    """The slave's half of the handshake on a connected socket, then the connection.

    Raises what `introduction.introduce` raises, and socket.timeout if the peer does not complete it in time.
    """
    steps = introduction.introduce(sock, key, master=master, encrypt=encrypt)
    connection = Connection(introduction.finish(steps, sock, HANDSHAKE_SECONDS))
    connection.be_patient(patience)
    return connection


def Client(address: tuple[str, int], authkey: bytes | None = None) -> Connection:  # noqa: N802 - the name managers calls
    """What multiprocessing.managers calls to dial a server."""
    if authkey is None:
        raise ValueError("a connection needs the key: pass authkey=")
    return introduce(_connect(address), authkey, patience=30.0)


def _connect(address: tuple[str, int]) -> socket.socket:
    host, _ = address
    if not host.startswith(UNIX):
        return socket.create_connection(address, HANDSHAKE_SECONDS)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(HANDSHAKE_SECONDS)
        sock.connect(unix_target(host))
    except BaseException:
        sock.close()
        raise
    return sock


class Listener:
    """The sockets on which a master can be reached.

    ``address`` is ``(host, port)``: host '' means every interface, by IPv4 and IPv6, and "unix:NAME" a Unix socket (see
    `transport.unix_target`).  Accepting and the handshake are the server's affair (parallel/service/acceptor.py), where
    one thread does it for all strangers at once.
    """

    def __init__(self, address: tuple[str, int], backlog: int = 128) -> None:
        host, port = address
        if host.startswith(UNIX):
            self.sockets = [_bind_unix(host)]
            self.address: tuple[str, int] = (host, 0)
            return
        self.sockets = [_bind(host, port)]
        self.address = (host, self.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        for sock in self.sockets:
            sock.close()
        host, _ = self.address
        if host.startswith(UNIX) and isinstance(unix_target(host), str):
            try:
                os.unlink(unix_target(host))
            except OSError:
                pass  # closed before, or the folder has gone


def _bind_unix(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(unix_target(host))
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


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


register_serializer(Listener, Client)
