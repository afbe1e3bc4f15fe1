"""Pickles whose large parts stand beside them, as out-of-band buffers (PEP 574); parallel/large.py makes them.

Those of a task are buffers of their own on their way, too.  Those of a setup stand in one piece with it:

    the pickle | parts | offset (8 bytes) and size (8) of each part | size of the pickle (8) | number of parts (4) | 0

All numbers are little-endian; the highest bit of a part's size says that it is read-only.  A pickle ends with a dot.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any, Union

from .memory import Unfit
from .protocol import Buffer

LARGE = 1 << 20  # bytes of a part that is worth it

PART, END = struct.Struct("<QQ"), struct.Struct("<QIB")
READ_ONLY = 1 << 63

Arrived = Union[Buffer, "tuple[Any, Sequence[Any]]"]  # a payload in a slave: a pickle, or one and its parts


class OutOfBand:
    """Pickles bytes, which pickle itself would copy, by reference to their memory."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._data), (pickle.PickleBuffer(self._data),)


def arrived(payload: Any) -> Arrived:
    """A setup as it has come, in one piece.  Its parts are that memory, and can be written if it can."""
    if payload[-1:] == b".":
        return payload  # type: ignore[no-any-return]
    whole = memoryview(payload)
    size, count, _ = END.unpack_from(whole, whole.nbytes - END.size)
    parts = []
    for offset, told in PART.iter_unpack(whole[whole.nbytes - END.size - count * PART.size : whole.nbytes - END.size]):
        part = whole[offset : offset + (told & ~READ_ONLY)]
        parts.append(part.toreadonly() if told & READ_ONLY else part)
    return whole[:size], parts


def loads(payload: Arrived) -> Any:
    """What a payload was made of.  Raises what that raises."""
    if type(payload) is tuple:
        return pickle.loads(payload[0], buffers=payload[1])
    return pickle.loads(payload)  # type: ignore[arg-type]  # bytes, since it has come


def pickle_of(payload: Arrived) -> Any:
    """The pickle alone."""
    return payload[0] if type(payload) is tuple else payload


def pieces_of(payload: Arrived) -> list[Any]:
    """The pickle and its parts, as they have come; `Unfit` is one for which there was no memory."""
    return [payload[0], *payload[1]] if type(payload) is tuple else [payload]


def missing(payload: Arrived) -> int:
    """For how many bytes of it there was no memory here."""
    return sum(one.size for one in pieces_of(payload) if isinstance(one, Unfit))
