"""A value or a failure, as data.

Packed, an outcome is ``(kind, data, buffers)``, the last parts of an outcome message: kind VALUE with the pickled value
and its out-of-band buffers, or kind FAILURE with a pickled tuple of strings and bytes, so that a failure can be read
where none of the classes in it exist.  The exception itself travels inside as bytes, to be rebuilt where that is
possible.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from . import by_value, plain
from .errors import ProtocolError
from .foreign import exact, message_of, traceback_of
from .missing import remedy
from .moved import is_moved
from .named import NamedTuple
from .parted import OutOfBand
from .pickling import explain
from .protocol import FAILURE, VALUE, Buffer
from .session import KEEP_UNASKED
from .signals import came_from_handler
from .whole_exception import pickled
from .wire import MOST_BUFFERS, OUT_OF_BAND

_MOST_BUFFERS = MOST_BUFFERS - 1  # out of band; the rest stays in the pickle, which may be one itself
_MOST_TEXT = 50_000  # characters of a message or a traceback

Packed = tuple[int, Buffer, Sequence[Buffer]]


class Failure(NamedTuple):
    """An exception, as far as it can be told without its class."""

    type_name: str
    message: str
    traceback: str
    pickled: bytes | None

    def exception(self) -> BaseException | None:
        """The exception itself, or None where it cannot be rebuilt."""
        if self.pickled is None:
            return None
        try:
            found = pickle.loads(self.pickled)
        except BaseException as error:
            if came_from_handler(error):
                raise
            if is_moved(error):
                return self.exception()
            return None  # its class is not importable here, or its constructor refuses; type_name and message remain
        return found if isinstance(found, BaseException) else None


def pack_value(value: object) -> Packed:
    """The outcome of a task that returned ``value``; a failure if that cannot be pickled."""
    if type(value) in _PLAIN:  # they have no parts, and there is no class that could refuse
        return VALUE, pickle.dumps(value, 5), ()
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Take a large contiguous buffer out of band; tell pickle to keep any other in band."""
        try:
            large = buffer.raw().nbytes >= OUT_OF_BAND
        except BufferError:
            return True
        large = large and len(buffers) < _MOST_BUFFERS
        if large:
            buffers.append(buffer)
        return not large

    large = type(value) in (bytes, bytearray) and len(value) >= KEEP_UNASKED  # type: ignore[arg-type]
    try:
        return VALUE, pickle.dumps(OutOfBand(value) if large else value, 5, buffer_callback=keep), buffers
    except Exception as error:
        buffers.clear()
        data = by_value.dumps(value, keep)
        if data is not None:
            return VALUE, data, buffers
        reason = explain(value, "the result", error)
        unsent = pickle.PicklingError(f"the task's result cannot be sent: {reason}")
        unsent.unsent = _shown(value), _shown(error)  # type: ignore[attr-defined]  # for pools, whose users ask for it
        return pack_failure(unsent)


def _shown(value: object) -> str:
    """Its repr, if it has one, and not all of a long one."""
    try:
        return _clipped(exact(repr(value)))
    except Exception:
        return f"<{type(value).__name__}>"


_PLAIN = {int, float, bool, str, type(None)}


def pack_failure(error: BaseException) -> Packed:
    """The outcome of a task or setup that raised ``error``.  Does not raise, whatever the exception's class does."""
    try:
        failure = _describe(error)
    except BaseException as trouble:
        text = f"<the exception could not be described: {type(trouble).__name__}>"
        failure = Failure(type(error).__qualname__, text, text + "\n", None)
    return FAILURE, pickle.dumps(tuple(failure), 5), ()


def _describe(error: BaseException) -> Failure:
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__", "__mp_main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    help = remedy(error)
    told = _clipped(traceback_of(error)) + (f"{help}\n" if help else "")
    return Failure(exact(name), _clipped(message_of(error)), told, pickled(error))


def _clipped(text: str) -> str:
    """The beginning and the end of a text that is too long for anybody to read."""
    if len(text) <= _MOST_TEXT:
        return text
    half = _MOST_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters are left out ...]\n{text[-half:]}"


def unpack_failure(data: Buffer) -> Failure:
    """The inverse of `pack_failure`; of data that are none, a failure that says so."""
    try:
        failure = Failure(*plain.loads(data))  # type: ignore[arg-type]  # no PickleBuffer arrives
        if all(type(text) is str for text in failure[:3]) and type(failure.pickled) in (bytes, type(None)):
            return failure
    except (ProtocolError, TypeError):
        pass
    return Failure("ProtocolError", "the slave reported a failure that cannot be read", "", None)
