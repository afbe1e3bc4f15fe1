"""One master at a time: a lock, and beside it who has it.

The lock is a file of its own, NAME.lock, locked with `fcntl`, which a network's file system keeps for all its machines,
and which ends with its process however that ends.  Its text says whose it is: the process, the machine, and when that
process began, since numbers of processes are used again.  Where a file system has no locks the text alone counts.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from slave import process_tree
from slave.private_files import NO_WAIT, PRIVATE_FILE

from ..errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TAKEN = errno.EACCES, errno.EAGAIN
_LONGEST = 4096  # bytes of its text
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Holder(NamedTuple):
    """Who has it, as its text says."""

    pid: int
    host: str
    began: str  # when the process did, in the system's units; '' where that is not told

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine that still runs."""
        if self.host != socket.gethostname() or not process_tree.exists(self.pid):
            return False
        return self.began in ("", _began(self.pid))


_held: set[tuple[int, str]] = set()  # by this process (a fork of it has none): the system would lock it twice for one


class Lock:
    """Held from now on.  Raises `CheckpointError` if another process has it, or another `Lock`, and OSError."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}.lock"
        if (os.getpid(), path) in _held:
            raise CheckpointError(
                f"{path} is in use by another manager of this program, process {os.getpid()} on "
                f"{socket.gethostname()}: two masters cannot write to one checkpoint; shut that one down, or name "
                f"another file"
            )
        self._file = -1
        while self._file < 0:
            self._file = self._open(path)
        me = f"{os.getpid()} {socket.gethostname()} {_began(os.getpid())}\n".encode()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, me)
        self._mine = os.getpid(), path
        _held.add(self._mine)

    def _open(self, path: str) -> int:
        """The locked file; -1 if somebody has just removed it."""
        flags = os.O_RDWR | os.O_CREAT | NO_WAIT | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0)
        file = os.open(self.path, flags, PRIVATE_FILE)
        try:
            known = self._lock(file)
            holder = _holder(os.read(file, _LONGEST))
            if known is False or (known is None and holder is not None and not self._is_over(holder)):
                raise CheckpointError(_in_use(path, holder, self.path, known is None))
            try:
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return -1

    def _lock(self, file: int) -> bool | None:
        """Whether it could be locked; None where there are no locks."""
        if fcntl is None:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in _TAKEN else None
        return True

    @staticmethod
    def _is_over(holder: Holder) -> bool:
        return holder.host == socket.gethostname() and not holder.is_here

    def release(self) -> None:
        """Let others have it.  May be called twice."""
        file, self._file = self._file, -1
        if file >= 0:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # the folder has vanished
            os.close(file)
            _held.discard(self._mine)


def holder_of(path: str) -> Holder | None:
    """Who has the lock of a file, as far as can be seen without touching it: for what only reads."""
    try:
        with open(f"{path}.lock", "rb") as file:
            holder = _holder(file.read(_LONGEST))
    except OSError:
        return None
    return holder if holder is not None and (holder.is_here or holder.host != socket.gethostname()) else None


def _holder(text: bytes) -> Holder | None:
    parts = text.decode("ascii", "replace").split(" ", 2)
    if len(parts) < 2 or not parts[0].isdigit():
        return None
    return Holder(int(parts[0]), parts[1].strip(), parts[2].strip() if len(parts) > 2 else "")


def _began(pid: int) -> str:
    """When a process of this machine began, in the system's units; '' where that is not told."""
    return str(process_tree.began(pid) or "")


def _in_use(path: str, holder: Holder | None, lock: str, by_text: bool) -> str:
    who = "another process" if holder is None else f"process {holder.pid} on {holder.host}"
    text = f"{path} is in use by {who}: two masters cannot write to one checkpoint; wait for its end, or name another"
    return f"{text}; if that process has ended, remove {lock}" if by_text else text
