"""Pickles of what is large: their large parts, such as arrays, stand beside them (slave/parted.py).

What is put into a pickle is copied, and copied once more when it is rebuilt.  A part of a task that is an array is
copied once, when the task is added, since it may be changed later; bytes cannot be, and are not copied at all.

A large setup is written once, into memory that slaves on this machine map (slave/shared_memory.py): what they write
there is their own, and only that takes memory.  Where there is no such memory it is a pickle as any other.
"""

from __future__ import annotations

import functools
import operator
import os
import pickle
from collections.abc import Sequence
from typing import Any

from slave import shared_memory
from slave.parted import END, LARGE, PART, READ_ONLY, OutOfBand
from slave.protocol import Buffer, Parted, Payload, Setup
from slave.shared_memory import Shared

from .part_memory import PartMemory

_MOST_PARTS = 1000  # the rest stays in the pickle
_ALIGNED = 64  # bytes, as much as arrays ask for


def dumps(value: object, memory: PartMemory | None) -> Payload:
    """The pickle of a task or an input, parted if there is anything large in it.  Raises what pickling raises.

    ``memory``: where arrays are copied to, if there is room.
    """
    parts: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Take a large contiguous buffer out of band; tell pickle to keep any other in band."""
        view = _large(buffer, parts)
        if view is None:
            return True
        parts.append(view if type(view.obj) is bytes else _copy_of(view, memory))
        return False

    pickled = pickle.dumps(_bytes_aside(value, {}), 5, buffer_callback=keep)
    return Parted(pickled, parts) if parts else pickled


def without_parts(value: object) -> tuple[bytes, bool]:
    """The same pickle with no part copied, and whether there is none beside it.  Raises what pickling raises."""
    parts: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(_bytes_aside(value, {}), 5, buffer_callback=parts.append)
    return pickled, not parts


def _large(buffer: pickle.PickleBuffer, parts: Sequence[Buffer]) -> memoryview | None:
    """What is in it, if that is large and contiguous, and these are not too many parts already."""
    try:
        view = buffer.raw()
    except BufferError:
        return None
    return view if view.nbytes >= LARGE and len(parts) < _MOST_PARTS else None


def _copy_of(view: memoryview, memory: PartMemory | None) -> memoryview:
    """Which is read-only if it is."""
    found = None if memory is None else memory.copy_of(view)
    if found is not None:
        return found
    copy = memoryview(bytearray(view))
    return copy.toreadonly() if view.readonly else copy


def _bytes_aside(value: Any, known: dict[int, OutOfBand]) -> Any:
    """The value with large bytes in it out of band, as far as no list or dict that others may know is touched."""
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return known.setdefault(id(value), OutOfBand(value)) if len(value) >= LARGE else value
    if kind is tuple:
        made = tuple([_bytes_aside(one, known) for one in value])
        return value if all(map(operator.is_, made, value)) else made
    if kind is functools.partial and not value.__dict__:
        old = value.args, tuple(value.keywords.values())
        args, named = new = _bytes_aside(old[0], known), _bytes_aside(old[1], known)
        if not all(map(operator.is_, old, new)):
            return functools.partial(value.func, *args, **dict(zip(value.keywords, named)))
    return value


# -- setups


class _NoMemory(Exception):
    """There is none that could be shared."""


class _Stream:
    """Takes a pickle in: into a list of its pieces while it is small, and then into a memfd."""

    def __init__(self) -> None:
        self.size = 0
        self.pieces: list[bytes] = []
        self._descriptor = -1

    def write(self, piece: bytes | memoryview) -> int:
        """As pickle calls it.  Raises `_NoMemory`."""
        view = memoryview(piece)
        if self._descriptor < 0 and self.size + view.nbytes < LARGE:
            self.pieces.append(bytes(view))
        else:
            self._write(view, self.size)
        self.size += view.nbytes
        return view.nbytes

    @property
    def is_large(self) -> bool:
        """Whether it is in a memfd."""
        return self._descriptor >= 0

    def with_parts(self, views: Sequence[memoryview]) -> Shared:
        """All of it as memory that can be lent, with the parts behind it if there are any.  Raises `_NoMemory`."""
        end, told = self.size, b""
        for view in views:
            begin = -(-end // _ALIGNED) * _ALIGNED
            self._write(view, begin)
            end = begin + view.nbytes
            told += PART.pack(begin, view.nbytes | READ_ONLY * view.readonly)
        if views:
            told += END.pack(self.size, len(views), 0)
            self._write(memoryview(told), end)
        try:
            shared_memory.seal(self._descriptor)
            made = Shared.of(self._descriptor, end + len(told))
        except (OSError, ValueError) as error:
            raise _NoMemory from error
        self._descriptor = -1
        return made

    def close(self) -> None:
        """Have nothing left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, view: memoryview, at: int) -> None:
        """Raises `_NoMemory`."""
        try:
            if self._descriptor < 0:
                self._descriptor = shared_memory.make()
                self._write(memoryview(b"".join(self.pieces)), 0)
            done = 0
            while done < view.nbytes:
                done += os.pwrite(self._descriptor, view[done:], at + done)
        except OSError as error:
            raise _NoMemory from error


def setup_dumps(value: object) -> Setup:
    """The pickle of a setup, in `Shared` memory if it is large.  Raises what pickling raises."""
    if not shared_memory.possible:
        return pickle.dumps(value, 5)
    stream = _Stream()
    parts: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Take a large array aside; bytes, for which their class may ask, stay."""
        view = _large(buffer, parts)
        if view is None or type(view.obj) is bytes:
            return True
        parts.append(view)
        return False

    try:
        pickle.Pickler(stream, 5, buffer_callback=keep).dump(value)
        return stream.with_parts(parts) if parts or stream.is_large else b"".join(stream.pieces)
    except _NoMemory:
        return pickle.dumps(value, 5)
    finally:
        stream.close()


def shared(payload: bytes) -> Setup:
    """The same payload in `Shared` memory, if it is large and that is to be had."""
    if len(payload) < LARGE or not shared_memory.possible:
        return payload
    stream = _Stream()
    try:
        stream.write(payload)
        return stream.with_parts(())
    except _NoMemory:
        return payload
    finally:
        stream.close()
