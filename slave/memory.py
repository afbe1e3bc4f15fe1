"""Memory for the large parts of messages: taken when the bytes come, filled in place, and touched once.

To make a bytearray is to zero it first, and to make bytes of it is to copy it.  Both cost as much as to receive it.
pickle knows another way: it makes bytes, or a bytearray, and has its file fill them.
"""

from __future__ import annotations

import io
import mmap
import struct
from typing import Any, Callable, Union

Memory = Union[bytes, bytearray, mmap.mmap]

LARGE = 32 << 20  # bytes from which memory is the system's; below, that which is used again is quicker (mallopt(3))
_SIZE = struct.Struct("<Q")
_BYTES, _BYTEARRAY, _STOP = b"\x8e", b"\x96", b"."  # BINBYTES8, BYTEARRAY8


def filled(size: int, fixed: bool, fill: Callable[[memoryview], object]) -> Memory:
    """So many bytes, which ``fill`` puts in.  ``fixed``: as bytes, and not as memory that can be written.

    Raises MemoryError, before ``fill`` is called, and whatever that raises.
    """
    if size < LARGE or fixed or not hasattr(mmap, "MAP_PRIVATE"):  # Windows has none
        return _Filled(_BYTES if fixed else _BYTEARRAY, size, fill).load()
    memory = system_memory(size)
    fill(memoryview(memory))
    return memory


def system_memory(size: int) -> mmap.mmap:
    """Zeroed memory of the system's, which is there page by page as it is used.  Raises MemoryError.

    Large pages where the system has them: a page costs more than what fits into it.
    """
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # not shared with forked processes
    except (OSError, OverflowError, ValueError):
        raise MemoryError(f"no memory for {size} bytes") from None
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except (AttributeError, OSError):
        pass  # another system, or a kernel without them
    return memory


class _Filled(io.BytesIO):
    """The file of a pickle of bytes, of which their head and the pickle's end are here."""

    def __init__(self, opcode: bytes, size: int, fill: Callable[[memoryview], object]) -> None:
        super().__init__(opcode + _SIZE.pack(size) + _STOP)
        self._fill = fill

    def readinto(self, into: Any) -> int:
        """Pickle wants the bytes."""
        self._fill(into)
        return len(into)

    def load(self) -> Memory:
        import pickle

        found: Memory = pickle.Unpickler(self).load()
        return found
