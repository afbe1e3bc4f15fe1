"""PartMemory: where a master that has slaves on its machine keeps the arrays of tasks: they map them, and copy nothing.

An array is copied here once, when its task is added.  When the task is done with, and each slave that had it has given
it back, the memory is used again: on many machines fresh memory costs more than what is written into it.
"""

from __future__ import annotations

import weakref
from collections import deque

from slave.shared_memory import STEP, Shared

_MOST_FREE, _MOST_FREE_BYTES = 8, 64 << 20  # memory that waits for the next task, or for a slave to give it back
_MOST = 500  # descriptors, or an eighth of those that this process may have
_MUCH_TOO_LARGE = 4  # times as large as what is to be put in


class PartMemory:
    """See the module's text.  For any thread, and without a lock: a signal handler may add tasks."""

    def __init__(self) -> None:
        self._free: deque[Shared] = deque()  # whose tasks are done with; the one that was used last stands last
        self._all: weakref.WeakSet[Shared] = weakref.WeakSet()
        self._most, self._closed = _most(), False

    def copy_of(self, view: memoryview) -> memoryview | None:
        """A copy that can be lent as it is; None where there is no memory, or descriptor, for it."""
        try:
            segment = self._fitting(view.nbytes)
            if segment is None:
                return None
            segment.put(view)
        except OSError:
            return None
        part = memoryview(segment)[: view.nbytes]
        if view.readonly:
            part = part.toreadonly()
        weakref.finalize(part, self._keep, segment).atexit = False
        return part

    def close(self) -> None:
        """Keep nothing for further tasks."""
        self._closed = True
        self._free.clear()

    def _fitting(self, size: int) -> Shared | None:
        """Memory for so many bytes that nobody looks at any more, or fresh.  Raises OSError."""
        for _ in range(len(self._free)):
            try:
                segment = self._free.pop()
            except IndexError:
                break
            if not segment.lent and size <= len(segment) <= _MUCH_TOO_LARGE * size:
                return segment
            self._free.appendleft(segment)
        if self._closed or len(self._all) >= self._most:
            return None
        segment = Shared.fresh(-(-size // STEP) * STEP)
        self._all.add(segment)
        return segment

    def _keep(self, segment: Shared) -> None:
        """Its task is done with."""
        self._free.append(segment)
        while self._free and (
            self._closed or len(self._free) > _MOST_FREE or sum(map(len, list(self._free))) > _MOST_FREE_BYTES
        ):
            try:
                self._free.popleft()
            except IndexError:
                break


def _most() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft // 8)
