"""ModuleCache: what the master has sent, once for each machine and user: ``~/.cache/parallel/modules/HASH/``.

Nobody else can look into it.  A folder appears there whole (it is renamed to its name), and is compared with its hash
whenever a process begins to use it.  Who uses one holds a lock on ``HASH.lock``, shared; who fetches one, alone: so of
all runners of a machine one fetches, and the others wait for it.  ``HASH.files`` lists what was sent.  When all
together are larger than `MOST`, the ones that nobody has begun to use for the longest time go, if nobody uses them.

Where there are no such locks (Windows, some network disks) each process fetches for itself, and nothing is removed.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable
from typing import Any, Callable

from . import archive
from .errors import ProtocolError
from .named import NamedTuple
from .private_files import PRIVATE_FILE, make_folder, user_folder, write_new
from .protocol import Buffer

MOST = 2 << 30  # bytes of all that is kept

_ELSEWHERE = "name another folder for such things, XDG_CACHE_HOME"
_ANOTHER = "what the master sent is not what it had announced"
_LOOK = 0.02  # seconds between two tries to get a lock
_LONGEST_REPAIR = 2.0  # seconds for others to stop using a folder that is not what it was; then another one is made
_LONGEST_WAIT = 600.0  # seconds for another process that fetches; then this one does it itself

Fetch = Callable[[], Buffer]
IsWhole = Callable[[str, str], bool]  # whether what was sent is in the folder, as it was; by its hash
Write = Callable[[str], "list[Any]"]


class _Used(NamedTuple):
    """A folder that this process uses, and the descriptor of its lock, if there is one."""

    folder: str
    lock: int | None


class ModuleCache:
    """See the module's text.  ``folder``: where, if not there."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._held: dict[str, _Used] = {}  # by hash: what this process uses

    def folder_of(self, digest: str, fetch: Fetch) -> str:
        """The folder with the files of that hash; ``fetch`` brings their archive if nobody has done so before.

        Raises `ProtocolError` if what came is something else, OSError if it cannot be written, and what ``fetch`` does.
        """
        return self._used(digest, _is_same, lambda new: _unpack(new, digest, fetch()))

    def setup(self, digest: str, fetch: Callable[[], Iterable[Buffer]]) -> memoryview:
        """The memory of a context's pickled setup with that hash, whose pages are this process's own when it writes.

        ``fetch`` brings it, in pieces.  Raises as `folder_of`.
        """
        folder = self._used(digest, _is_same_setup, lambda new: _write_setup(new, digest, fetch()))
        with open(os.path.join(folder, archive.SETUP), "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def _used(self, digest: str, is_whole: IsWhole, write: Write) -> str:
        """The folder with that hash.

        ``write`` puts it into a new one if nobody has done so, and returns what is to be noted of it.
        """
        if digest not in self._held:
            self._held[digest] = self._begin(os.path.join(self._place(), digest), digest, is_whole, write)
        return self._held[digest].folder

    def _begin(self, folder: str, digest: str, is_whole: IsWhole, write: Write) -> _Used:
        """Begin to use a folder, which is written if it is not there or not what it was."""
        until = None
        while True:
            shared = self._lock(folder, False)  # waits for who is fetching
            if is_whole(folder, digest):
                try:
                    os.utime(folder)  # it is in use: others go first
                except OSError:
                    pass
                return _Used(folder, shared)
            _unlock(shared)
            alone = _try_lock(f"{folder}.lock", _EXCLUSIVE) if shared is not None else None
            if shared is None or alone is not None:
                break
            until = until or time.monotonic() + _LONGEST_REPAIR
            if os.path.isdir(folder) and time.monotonic() > until:  # somebody has changed it, and others use it
                folder = f"{folder}-{secrets.token_hex(4)}"
                alone = self._lock(folder, True)
                break
            time.sleep(_LOOK * (1 + random.random()))
        try:
            self._write(folder, digest, is_whole, write)
            self._make_room(os.path.basename(folder))
            if alone is not None and _flock is not None:
                _flock(alone, _SHARED)
        except BaseException:
            _unlock(alone)
            raise
        return _Used(folder, alone)

    def close(self) -> None:
        """Use nothing of it any more."""
        while self._held:
            _unlock(self._held.popitem()[1].lock)

    def _place(self) -> str:
        if self._folder is None:
            self._folder = _default_folder()
        return self._folder

    def _write(self, folder: str, digest: str, is_whole: IsWhole, write: Write) -> None:
        new = os.path.join(self._place(), f"new-{secrets.token_hex(8)}")
        make_folder(new)
        try:
            write_new(f"{new}-files", json.dumps(write(new)).encode())
            os.replace(f"{new}-files", f"{folder}.files")
            if os.path.lexists(folder):  # somebody has changed it, or wrote it at the same time without a lock
                os.rename(folder, f"{new}-old")
            try:
                os.rename(new, folder)
            except OSError:
                if not is_whole(folder, digest):
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(f"{new}-old", ignore_errors=True)

    # -- room

    def _make_room(self, but: str) -> None:
        """Remove what nobody uses, the oldest first, until the rest is small enough."""
        place = self._place()
        listed = []
        for name in os.listdir(place):
            path = os.path.join(place, name)
            if os.path.isdir(path):
                listed.append((os.stat(path).st_mtime_ns, _size_of(path), name))
        total = sum(size for _, size, _ in listed)
        for _, size, name in sorted(listed):
            if total <= MOST:
                return
            if name not in (but, *self._held) and self._remove(os.path.join(place, name)):
                total -= size

    def _remove(self, folder: str) -> bool:
        """Remove one if nobody uses it; whether it is gone."""
        lock = _try_lock(f"{folder}.lock", _EXCLUSIVE)
        if lock is None:
            return False
        try:
            shutil.rmtree(folder, ignore_errors=True)
            for name in (f"{folder}.files", f"{folder}.lock"):
                try:
                    os.unlink(name)
                except OSError:
                    pass
        finally:
            os.close(lock)
        return True

    def _lock(self, folder: str, alone: bool) -> int | None:
        """The lock of a folder, a descriptor; None where it cannot be had."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while time.monotonic() < deadline:
            try:
                lock = _try_lock(f"{folder}.lock", _EXCLUSIVE if alone else _SHARED)
            except OSError:
                return None  # a disk without locks
            if lock is not None or _flock is None:
                return lock
            time.sleep(_LOOK)
        return None


def _noted(folder: str) -> list[Any]:
    """What was noted of it.  Raises OSError, ValueError."""
    with open(f"{folder}.files", encoding="utf-8") as file:
        return list(json.load(file))


def _is_same(folder: str, digest: str) -> bool:
    """A package's files, by name; it may have added others."""
    try:
        found = [archive.Found(name, os.path.join(folder, name)) for name in _noted(folder)]
        return archive.content_hash(archive.read(found)) == digest
    except (OSError, ValueError, TypeError):
        return False


def _unpack(new: str, digest: str, packed: Buffer) -> list[str]:
    files = archive.unpack(packed)
    if archive.content_hash(files) != digest:
        raise ProtocolError(_ANOTHER)
    archive.write(files, new)
    return [file.name for file in files]


def _is_same_setup(folder: str, digest: str) -> bool:
    """One file.  Whether anybody has touched it since its hash was made is told by its times."""
    path = os.path.join(folder, archive.SETUP)
    try:
        if _noted(folder)[1:] == [_stamp(path)]:
            return True
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as payload:
            return archive.setup_hash(payload) == digest
    except (OSError, ValueError, TypeError):
        return False


def _write_setup(new: str, digest: str, pieces: Iterable[Buffer]) -> list[Any]:
    path, hashed, size = os.path.join(new, archive.SETUP), hashlib.sha256(), 0
    with open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE)) as file:
        for piece in pieces:
            view = memoryview(piece)
            hashed.update(view)
            size += view.nbytes
            while view:
                view = view[file.write(view) :]
    if archive.setup_digest(size, hashed.hexdigest()) != digest:
        raise ProtocolError(_ANOTHER)
    return [archive.SETUP, _stamp(path)]


def _stamp(path: str) -> list[int]:
    facts = os.stat(path)
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _is_there(handle: int, path: str) -> bool:
    """Whether an open file still has its name: who makes room removes locks, too."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(path: str, how: int) -> int | None:
    """Its descriptor if it is to be had; None if others have it.  Raises OSError."""
    if _flock is None:
        return None
    handle, locked = _open(path), False
    try:
        _flock(handle, how)
        locked = _is_there(handle, path)
    except BlockingIOError:
        pass
    finally:
        if not locked:
            os.close(handle)
    return handle if locked else None


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _size_of(folder: str) -> int:
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def _default_folder() -> str:
    """Where this user's caches are; else, if there is no home or it cannot be written, where temporary files are."""
    home = os.path.expanduser("~")
    bases = [os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if os.path.isdir(home) else "")]
    trouble: OSError | None = None
    for base in [*filter(os.path.isabs, bases), tempfile.gettempdir()]:
        try:
            folder = os.path.join(user_folder(base, _ELSEWHERE), "modules")
            make_folder(folder)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError as error:
            trouble = error
    raise trouble or OSError(f"no folder for what the master sends: {_ELSEWHERE}")


try:
    import fcntl
except ImportError:
    _flock: Callable[[int, int], object] | None = None
    _EXCLUSIVE = _SHARED = 0
else:
    _flock = fcntl.flock
    _EXCLUSIVE, _SHARED = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB
