"""Large parts of messages between processes of one machine: the memory itself is handed over, by its descriptor.

Whoever sends writes a part into a memfd (memfd_create(2)) and sends its descriptor with the frame that announces it
(SCM_RIGHTS, unix(7)).  The receiver maps it privately: what it writes is its own.  When it has no use for the memory
any more it says so, and the sender writes the next part into it: on many machines fresh memory costs more than what is
written into it.

    sender    `Lender`     lends out parts, in the order of their frames; takes back those whose numbers it is told
              `Shared`     memory in which a part stands already: it is lent to several, and not copied
    receiver  `Borrower`   gets them; `returned` has the numbers to be told

It is done on Unix sockets alone, whose other end is a process of the same user that holds the key.  The receiver
takes what was announced if it can be neither shrunk nor smaller than announced: reading it cannot fault.  Where a
process has no descriptor to spare for a map it copies what is in it, and where there is no memfd the bytes are sent.
After a fork nothing is given back that was borrowed before: the other process may still look at it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Callable

from .errors import ProtocolError
from .local_transport import MOST_DESCRIPTORS
from .memory import Memory, Unfit, filled

SHARED = 1 << 20  # bytes from which a part is shared: a descriptor costs as much as sending a few hundred KB
_MOST_IDLE, _MOST_IDLE_BYTES = 4, 64 << 20  # memory that a lender keeps for the next part
_MOST_LENT = 64  # parts that it expects back; a receiver that keeps more keeps them for good
STEP = 1 << 20  # memory is of a multiple of so many bytes
_BY_MAP = 32 << 20  # bytes that are written by way of a map, at most
_POPULATE = 23  # MADV_POPULATE_WRITE, of Linux 5.14: all pages at once

try:
    import fcntl

    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    possible = hasattr(os, "memfd_create")
except (ImportError, AttributeError):  # another system
    possible = False

_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else a map has a descriptor
_forks = 0


def _forking() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking, after_in_parent=_forking)


def make() -> int:
    """The descriptor of fresh memory, of no size yet.  Raises OSError."""
    return os.memfd_create("parallel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(descriptor: int) -> None:
    """Nobody changes that memory any more.  Raises OSError."""
    for seals in (fcntl.F_SEAL_WRITE, _SEALS):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)


class Shared(mmap.mmap):
    """Memory of this process of which it has the descriptor: it can be lent as it is."""

    descriptor = -1
    lent: set[tuple[object, int]]  # by whom, and as which number; what does not come back stays there
    _used = _populated = False

    @classmethod
    def of(cls, descriptor: int, size: int, private: bool = True) -> Shared:
        """All of a memfd, whose descriptor becomes its own; ``private``: a write stays in this map.  Raises OSError."""
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        self = cls(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, **_UNTRACKED)
        self.descriptor, self.lent = descriptor, set()
        return self

    @classmethod
    def fresh(cls, size: int) -> Shared:
        """So many bytes, to be written by `put`.  Raises OSError."""
        descriptor = make()
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls.of(descriptor, size, private=False)
        except BaseException:
            os.close(descriptor)
            raise

    def put(self, view: memoryview) -> None:
        """Write to its beginning.  Raises OSError.

        Fresh memory by a call, since the system would zero it first for the map.  By the map when it is used again,
        all of whose pages are there then; but not what is very large, since nobody else runs meanwhile.
        """
        if self._used and view.nbytes <= _BY_MAP:
            if not self._populated:
                self._populated = True
                with suppress(OSError):
                    self.madvise(_POPULATE)
            self[: view.nbytes] = view
            return
        self._used = True
        at = 0
        while at < view.nbytes:
            at += os.pwrite(self.descriptor, view[at:], at)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            with suppress(OSError):  # a task has closed all descriptors of its process
                os.close(self.descriptor)


class Lender:
    """The sender's side of one connection.  Not for several threads at once.

    ``copying``: whether it lends what is in no `Shared` memory, too, as a copy.
    """

    def __init__(self, copying: bool = True) -> None:
        self._copying, self._name = copying, object()
        self._numbers = itertools.count()
        self._lent: dict[int, Shared] = {}
        self._mine: set[Shared] = set()  # of those
        self._idle: list[Shared] = []
        self.descriptors: list[int] = []  # to be sent with the frame

    def lend(self, view: memoryview) -> bool:
        """Whether memory with the same bytes was lent, by a descriptor that is to be sent."""
        if len(self.descriptors) == MOST_DESCRIPTORS:
            return False
        owner = view.obj
        while type(owner) is memoryview:
            owner = owner.obj
        segment = owner if isinstance(owner, Shared) else self._copied(view) if self._copying else None
        if segment is None:
            return False
        self.descriptors.append(segment.descriptor)
        number = next(self._numbers)
        self._lent[number] = segment  # which has its descriptor open until it is sent
        segment.lent.add((self._name, number))
        if len(self._lent) > _MOST_LENT:
            self._mine.discard(self._lent.pop(next(iter(self._lent))))
        return True

    def _copied(self, view: memoryview) -> Shared | None:
        """None: there is no descriptor, or no memory, and the bytes can be sent."""
        try:
            segment = self._fitting(view.nbytes)
            segment.put(view)
        except OSError:
            return None
        self._mine.add(segment)
        return segment

    def take_back(self, numbers: Iterable[int]) -> None:
        """The receiver has no use any more for these.  Others than were lent, or are expected, do not matter."""
        for number in numbers:
            segment = self._lent.pop(number, None)
            if segment is None:
                continue
            segment.lent.discard((self._name, number))
            if segment in self._mine:
                self._mine.remove(segment)
                self._idle.append(segment)
        while len(self._idle) > _MOST_IDLE or sum(map(len, self._idle)) > _MOST_IDLE_BYTES:
            self._idle.pop(0)

    def close(self) -> None:
        """Nothing more is lent.  What the receiver has stays its own."""
        for table in (self._lent, self._mine, self._idle):
            table.clear()

    def _fitting(self, size: int) -> Shared:
        fitting = [segment for segment in self._idle if len(segment) >= size]
        if not fitting:
            return Shared.fresh(-(-size // STEP) * STEP)
        best = min(fitting, key=len)
        self._idle.remove(best)
        return best


class Borrower:
    """The receiver's side of one connection.

    ``lazy``: what was sent as bytes is not copied when it comes, but by `as_sent`, when it is wanted.
    """

    def __init__(self, lazy: bool = False) -> None:
        self.lazy = lazy
        self._numbers = itertools.count()
        self.returned: deque[int] = deque()  # numbers to be told; any thread appends

    def borrow(self, descriptor: int, size: int, fixed: bool) -> Memory | mmap.mmap:
        """What the part is, of so many bytes.  ``fixed``: as bytes.  The descriptor is closed.

        Raises `ProtocolError` if it is not what a lender lends.
        """
        number = next(self._numbers)
        try:
            _check(descriptor, size)
            if (self.lazy or not fixed) and len(_View.live) < most_views():
                try:
                    return _View.of(descriptor, size, fixed, self.returned, number)
                except OSError:
                    pass  # no descriptor or map to be had
            try:
                copied: Memory = filled(size, fixed, _reader(descriptor))
            except MemoryError:
                copied = Unfit.of(size)
            self.returned.append(number)
            return copied
        finally:
            os.close(descriptor)


def _check(descriptor: int, size: int) -> None:
    try:
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:  # it is no memfd
        sealed = 0
    if not sealed or os.fstat(descriptor).st_size < size:
        raise ProtocolError(f"what came is no memory of {size} bytes that stays")


def _reader(descriptor: int) -> Callable[[memoryview], None]:
    """What fills memory with the bytes of a descriptor, step by step."""
    at = 0

    def fill(into: memoryview) -> None:
        nonlocal at
        have = 0
        while have < into.nbytes:
            have += os.preadv(descriptor, [into[have:]], at + have)
        at += have

    return fill


def as_sent(part: Any) -> Any:
    """A part as whoever sent it had it: of a map that stands for bytes, the bytes.  Raises MemoryError."""
    owner = part.obj if type(part) is memoryview else part  # pickle makes a view of it that nobody can write to
    if type(owner) is not _View or not owner.fixed:
        return part
    at = 0

    def fill(into: memoryview) -> None:
        nonlocal at
        for begin in range(0, into.nbytes, STEP):  # between two of them other threads may run
            piece = into[begin : begin + STEP]
            piece[:] = view[at : at + piece.nbytes]
            at += piece.nbytes

    with memoryview(part) as view:
        return filled(view.nbytes, True, fill)


def most_views() -> int:
    """How many maps this process may have: each needs a descriptor before Python 3.13, and always one of its maps."""
    if _UNTRACKED:
        return 16_000  # of 65,530 (vm.max_map_count)
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4000 if soft == resource.RLIM_INFINITY else min(4000, soft // 4)


class _View(mmap.mmap):
    """A private map of borrowed memory, which is given back when nobody refers to it any more."""

    live: set[int] = set()  # noqa: RUF012 - of the process
    fixed = False
    _returned: deque[int]
    _number = 0
    _borrowed = -1

    @classmethod
    def of(cls, descriptor: int, size: int, fixed: bool, returned: deque[int], number: int) -> _View:
        """Raises OSError."""
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self = cls(descriptor, size, flags=mmap.MAP_PRIVATE, prot=protection, **_UNTRACKED)
        cls.live.add(id(self))
        self.fixed, self._returned, self._number, self._borrowed = fixed, returned, number, _forks
        return self

    def __del__(self) -> None:
        self.live.discard(id(self))
        if self._borrowed == _forks:
            self._returned.append(self._number)
