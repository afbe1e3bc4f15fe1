"""Pickles whose large parts stand beside them, as out-of-band buffers (PEP 574), on their way through the master.

What is put into a pickle is copied, and copied once more when it is rebuilt.  A part of a task that is an array is
copied once, when the task is added, since it may be changed later; bytes cannot be, and are not copied at all.
"""

from __future__ import annotations

import functools
import operator
import pickle
from collections.abc import Sequence
from typing import Any, Union

from .memory import Unfit
from .protocol import Buffer, Parted, Payload

LARGE = 1 << 20  # bytes of a part that is worth it
_MOST_PARTS = 1000  # the rest stays in the pickle

Arrived = Union[Buffer, "tuple[Any, Sequence[Any]]"]  # a payload in a slave: a pickle, or one and its parts


class OutOfBand:
    """Pickles bytes, which pickle itself would copy, by reference to their memory."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._data), (pickle.PickleBuffer(self._data),)


def dumps(value: object) -> Payload:
    """The pickle of a task or an input, parted if there is anything large in it.  Raises what pickling raises."""
    parts: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Take a large contiguous buffer out of band; tell pickle to keep any other in band."""
        try:
            view = buffer.raw()
        except BufferError:
            return True
        if view.nbytes < LARGE or len(parts) >= _MOST_PARTS:
            return True
        parts.append(view if type(view.obj) is bytes else _copy_of(view))
        return False

    pickled = pickle.dumps(_bytes_aside(value, {}), 5, buffer_callback=keep)
    return Parted(pickled, parts) if parts else pickled


def _copy_of(view: memoryview) -> memoryview:
    """Which is read-only if it is."""
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
