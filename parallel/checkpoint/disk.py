"""Disk: the file of a checkpoint, as bytes at offsets.  Everything that asks the system for something is here."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from slave.private_files import NO_WAIT, PRIVATE_FILE, kind, owner

from ..errors import CheckpointError
from .format import MAGIC, size_of

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_MOST_PIECES = 512  # that are written with one call; systems allow 1024
_COPIED = 1 << 20  # bytes at a time


def is_checkpoint(path: str) -> bool:
    """Whether a file begins as a checkpoint does: then nothing else is to be written there."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NO_WAIT)) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class Disk:
    """An open file of this user's, which nobody else may read or write.

    ``path``: with all links followed.  ``write``: to write too; then it is made if it is missing.  Raises
    `CheckpointError` where the file is somebody else's, or none, and OSError as the system does.
    """

    def __init__(self, path: str, write: bool) -> None:
        self.path, self.writes = path, write
        self._facts: os.stat_result
        facts = _status(path)
        if facts is not None:
            _check(path, facts)  # before it is opened: to open a device may do something
        flags = (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | NO_WAIT | _NO_FOLLOW
        self._file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), PRIVATE_FILE)
        try:
            facts = self._facts = os.fstat(self._file)
            _check(path, facts)
            if write and os.name == "posix" and stat.S_IMODE(facts.st_mode) != PRIVATE_FILE:
                os.fchmod(self._file, PRIVATE_FILE)
        except BaseException:
            os.close(self._file)
            raise

    def read(self, offset: int, size: int) -> bytes:
        """Up to so many bytes from there; fewer only at the end.  Also when it was closed, if it is still there."""
        with self._opened() as file:
            data = _pread(file, size, offset)
            while data and len(data) < size:
                more = _pread(file, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def read_into(self, offset: int, into: bytearray) -> bool:
        """Fill it with what stands there; False if the file ends before.  Also when it was closed."""
        view, at = memoryview(into), 0
        with self._opened() as file:
            while at < len(into):
                data = _pread(file, min(_COPIED, len(into) - at), offset + at)
                if not data:
                    return False
                view[at : at + len(data)] = data
                at += len(data)
        return True

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if self._file >= 0:
            yield self._file
            return
        file = os.open(self.path, os.O_RDONLY | NO_WAIT | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0))
        try:
            if not os.path.samestat(os.fstat(file), self._facts):
                raise FileNotFoundError(f"another file stands at {self.path} now")
            yield file
        finally:
            os.close(file)

    def write(self, offset: int, pieces: Sequence[Any]) -> int:
        """Write them, one behind the other, from there on; returns how many bytes.  Raises OSError with a part done."""
        views = [memoryview(piece).cast("B") for piece in pieces if size_of(piece)]
        done = 0
        while views:
            done += (wrote := _pwritev(self._file, views[:_MOST_PIECES], offset + done))
            while views and wrote >= views[0].nbytes:
                wrote -= views.pop(0).nbytes
            if wrote:
                views[0] = views[0][wrote:]
        return done

    def size(self) -> int:
        """Of the file now."""
        return os.fstat(self._file).st_size

    def cut(self, size: int) -> None:
        """Cut it off there."""
        os.ftruncate(self._file, size)

    def sync(self) -> None:
        """What was written is on the disk when this returns; unless it was closed, be it by another thread just now."""
        file = self._file
        if file >= 0:
            getattr(os, "fdatasync", os.fsync)(file)

    def in_place(self) -> bool:
        """Whether the file still stands where it was opened."""
        facts = _status(self.path)
        return facts is not None and os.path.samestat(facts, os.fstat(self._file))

    def put_back(self, end: int) -> None:
        """Write the file, up to there, where it was and is not any more, and go on with that one.  Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_WAIT | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0)
        new = os.open(self.path, flags, PRIVATE_FILE)
        try:
            at = 0
            while at < end:
                data = memoryview(self.read(at, min(_COPIED, end - at)))
                if not data:
                    raise OSError("the file that has vanished cannot be read any more")
                while data:
                    wrote = _pwritev(new, [data], at)
                    at, data = at + wrote, data[wrote:]
            os.dup2(new, self._file, inheritable=False)
        except BaseException:
            os.unlink(self.path)
            raise
        finally:
            os.close(new)

    def close(self) -> None:
        """Write it no more, and keep it open no longer than for each time that it is read.  May be called twice."""
        file, self._file = self._file, -1
        if file >= 0:
            self._facts = os.fstat(file)
            os.close(file)


if hasattr(os, "pread") and hasattr(os, "pwritev"):
    _pread, _pwritev = os.pread, os.pwritev
else:  # Windows, and macOS before 11
    _seeking = threading.Lock()  # held between a seek and what it is for

    def _pread(file: int, size: int, offset: int, /) -> bytes:
        with _seeking:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, size)

    def _pwritev(file: int, buffers: Any, offset: int, /) -> int:  # type: ignore[misc]
        with _seeking:
            os.lseek(file, offset, os.SEEK_SET)
            return os.write(file, buffers[0])


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _check(path: str, facts: os.stat_result) -> None:
    if kind(facts.st_mode):
        raise CheckpointError(f"{path} is {kind(facts.st_mode)}, and no file for a checkpoint")
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        raise CheckpointError(
            f"{path} belongs to {owner(facts)}: loading its results would run whatever code that one has put there; "
            f"name another file"
        )


def now() -> int:
    """The time of day, to tell when a result was made: us since 1970."""
    return time.time_ns() // 1000
