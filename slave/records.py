"""RecordTransport: what transports that send records of their own on top of another transport have in common."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from .transport import Transport, rest_of

_IN_ONE_GO = 1 << 20  # bytes that `write_some` writes at most: others wait for its thread


class RecordTransport(ABC):
    """Records over ``inner``.  A subclass makes them (`_seal`) and reads them (`read_some`, `has_more`)."""

    MOST = 0  # bytes of payload that are sealed at a time

    def __init__(self, inner: Transport) -> None:
        self._inner, self.master = inner, inner.master
        self._unsent: list[memoryview] = []  # of what was sealed last
        self._under_way = 0  # bytes of payload in it

    # -- sending

    @abstractmethod
    def _seal(self, payload: memoryview) -> None:
        """Put the records for this payload, all of it, into `_unsent`."""

    def write_some(self, views: Sequence[bytes | memoryview]) -> int | None:
        """See `Transport`."""
        total = 0
        if self._unsent:
            if not self._push():
                return None
            total = self._under_way
            views = rest_of([memoryview(view) for view in views], total)
        for piece in _pieces(views, self.MOST):
            self._seal(piece)
            self._under_way = piece.nbytes
            if not self._push():
                return total or None
            total += piece.nbytes
            if total >= _IN_ONE_GO:
                break
        return total

    def write(self, data: bytes | memoryview) -> None:
        """See `Transport`."""
        self.write_all([memoryview(data)])

    def write_all(self, views: Sequence[memoryview]) -> None:
        """See `Transport`."""
        left = [view for view in views if view.nbytes]
        while left:
            sent = self.write_some(left)
            if sent is None:
                raise would_wait()
            left = rest_of(left, sent)

    def _push(self) -> bool:
        """Send what can be sent of the records; whether that was all."""
        while self._unsent:
            try:
                sent = self._inner.write_some(self._unsent)
            except (BrokenPipeError, ConnectionResetError):
                self._hear_why()
                raise
            if sent is None:
                self._unsent = [memoryview(b"".join(self._unsent))]  # its memory may be another's by the next try
                return False
            self._unsent = rest_of(self._unsent, sent)
        return True

    def _hear_why(self) -> None:
        """The other end has hung up: if it found that somebody tampers, it said so.  Raises `Intercepted` then."""
        self._unsent.clear()
        scrap = memoryview(bytearray(self.MOST))
        try:
            while self.read_some(scrap):
                pass
        except (OSError, EOFError):
            pass

    # -- receiving

    @abstractmethod
    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`."""

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        have = 0
        while have < into.nbytes:
            got = self.read_some(into[have:])
            if got is None:
                raise would_wait()
            if not got:
                raise EOFError("the connection was closed in the middle of a message")
            have += got

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


def would_wait() -> OSError:
    """What to raise where a transport that is not to wait would have to."""
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _pieces(views: Sequence[bytes | memoryview], most: int) -> Iterator[memoryview]:
    """``views`` cut and joined into pieces of ``most`` bytes; only the last is smaller."""
    if len(views) == 1 and len(views[0]) <= most:
        if views[0]:
            yield memoryview(views[0])
        return
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
