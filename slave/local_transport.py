"""LocalTransport: a Unix socket by which descriptors travel with the bytes, as shared_memory.py needs it."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence

from .errors import ProtocolError
from .transport import MOST_VECTORS, SocketTransport, rest_of

MOST_DESCRIPTORS = 16  # that are sent with one frame
_MOST_ARRIVED = 4 * MOST_DESCRIPTORS  # that may wait to be taken: nobody sends so many ahead of their frames
_SIZE = array.array("i").itemsize
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * _SIZE) if hasattr(socket, "CMSG_SPACE") else 0


class LocalTransport(SocketTransport):
    """A Unix socket to a process of the same user, which has proved that it holds the key."""

    def __init__(self, sock: socket.socket, master: str = "") -> None:
        super().__init__(sock, master)
        self._arrived: deque[int] = deque()
        self._attached: list[int] = []

    def attach(self, descriptors: Sequence[int]) -> None:
        """Send these with the next byte that is written.  They stay the caller's, and open until then."""
        self._attached += descriptors

    def take_descriptor(self) -> int:
        """The next one that has come; it is the caller's then.  Raises `ProtocolError` if there is none."""
        if not self._arrived:
            raise ProtocolError("a message tells of memory whose descriptor did not come")
        return self._arrived.popleft()

    def _receive(self, into: memoryview) -> int:
        """Raises `ProtocolError`, too, if too many descriptors come."""
        got, ancillary, _, _ = self._sock.recvmsg_into([into], _ROOM, _CLOSED_ON_EXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._arrived.extend(array.array("i", data[: len(data) - len(data) % _SIZE]))
        if len(self._arrived) > _MOST_ARRIVED:
            raise ProtocolError("descriptors came for which there is no message")
        return got

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`."""
        if not self._attached:
            return super().write_some(views)
        try:
            return self._send(views)
        except (BlockingIOError, InterruptedError):
            return None

    def write_all(self, views: Sequence[memoryview]) -> None:
        """See `Transport`."""
        super().write_all(rest_of(views, self._send(views)) if self._attached else views)

    def _send(self, views: Sequence[bytes | memoryview]) -> int:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self._attached))]
        sent = self._sock.sendmsg(views[:MOST_VECTORS], rights)
        self._attached.clear()
        return sent

    def close(self) -> None:
        """See `Transport`."""
        while self._arrived:
            os.close(self._arrived.popleft())
        super().close()
