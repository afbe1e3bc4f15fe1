"""Memory for the large parts of messages: taken when the bytes come, filled in place, and touched once.

To make a bytearray is to zero it first, and to make bytes of it is to copy it.  Both cost as much as to receive it.
pickle knows another way: it makes bytes, or a bytearray, and has its file fill them.  So memory is there page by page
as the bytes come: what a peer merely announces costs nothing, and nobody waits while a gigabyte is zeroed.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any, Callable, Union

Memory = Union[bytes, bytearray]

_SIZE = struct.Struct("<Q")
_BYTES, _BYTEARRAY, _STOP = b"\x8e", b"\x96", b"."  # BINBYTES8, BYTEARRAY8


class Unfit(bytes):
    """Stands for a buffer that this process had no memory for; its bytes were read and dropped."""

    size: int

    @classmethod
    def of(cls, size: int) -> Unfit:
        """In the place of ``size`` bytes."""
        self = cls()
        self.size = size
        return self


def filled(size: int, fixed: bool, fill: Callable[[memoryview], object]) -> Memory:
    """So many bytes, which ``fill`` puts in, at once or in steps.  ``fixed``: as bytes, which nobody changes.

    Raises MemoryError, before ``fill`` is called or between two steps, and whatever that raises.
    """
    found: Memory = pickle.Unpickler(_Filled(_BYTES if fixed else _BYTEARRAY, size, fill)).load()
    return found


class _Filled(io.BytesIO):
    """The file of a pickle of bytes, of which their head and the pickle's end are here."""

    def __init__(self, opcode: bytes, size: int, fill: Callable[[memoryview], object]) -> None:
        super().__init__(opcode + _SIZE.pack(size) + _STOP)
        self._fill = fill

    def readinto(self, into: Any) -> int:
        """Pickle wants the bytes."""
        self._fill(into)
        return len(into)
