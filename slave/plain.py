"""Plain pickles: nothing but builtins comes out of them, and they take no more memory than their bytes pay for.

`pickle.loads` does whatever a pickle says: it imports, calls, and reserves gigabytes for a memo or a bytearray that a
dozen bytes name.  What master and slaves say to each other needs none of that.  So each message is looked through
before it is loaded: it may hold None, bools, numbers, texts, bytes, tuples, lists, dicts and out-of-band buffers, as
pickle's protocol 5 writes them (the opcodes: pickletools).
"""

from __future__ import annotations

import mmap
import pickle
import re
import sys
from collections.abc import Iterable
from typing import Any, Union

from .errors import ProtocolError

_Data = Union[bytes, bytearray, memoryview, mmap.mmap]

_SHORT, _STEP = 64, 16  # bytes; texts and bytes below need no step of their own, by so many a branch
_COUNTED = {b"\x8c"[0]: 1, b"C"[0]: 1, b"X"[0]: 4, b"B"[0]: 4, b"\x8d"[0]: 8, b"\x8e"[0]: 8}  # size of their length
_STOP = b"."[0]
_AT_ONCE = 1000  # opcodes between two chances for other threads


def _counted() -> bytes:
    """A length in one byte, and so many bytes."""
    groups = []
    for low in range(0, _SHORT, _STEP):
        first, last = re.escape(bytes([low])), re.escape(bytes([low + _STEP - 1]))
        each = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(low, low + _STEP))
        groups.append(b"(?=[%b-%b])(?:%b)" % (first, last, each))
    return b"(?:" + b"|".join(groups) + b")"


def _opcodes() -> re.Pattern[bytes]:
    # MEMOIZE, MARK, the empty ones, TUPLE1 to 3, None, True, False, APPEND(S), SETITEM(S), TUPLE, buffers
    bare = rb"[\x94(\])}\x85-\x87N\x88\x89aesut\x97\x98]{0,%d}" % _AT_ONCE
    # short texts and bytes, LONG1; BININT1, BININT2, BININT; BINFLOAT; PROTO 5; FRAME; BINGET, LONG_BINGET
    longer = rb"[\x8cC\x8a]" + _counted() + rb"|K.|M..|J.{4}|G.{8}|\x80\x05|\x95.{8}|h.|j.{4}"
    # no way back is kept: each opcode begins with another byte.  Before 3.11.5 that went wrong (python/cpython#106052)
    only = b"+" if sys.version_info >= (3, 11, 5) else b""
    return re.compile(b"(?s)(?:%b%b(?:%b)){0,%d}%b%b%b" % (bare, only, longer, _AT_ONCE, only, bare, only))


_match = _opcodes().match


def loads(data: _Data, buffers: Iterable[Any] = ()) -> Any:
    """What a plain pickle says.  Raises `ProtocolError` if it is none."""
    end = len(data) - 1
    at = _match(data).end()  # type: ignore[union-attr]  # it matches nothing, too
    while at < end:
        at = _next(data, at)
    if at != end or data[end] != _STOP:
        raise ProtocolError("a message is no plain pickle: it does not end where it should")
    try:
        return pickle.loads(data, buffers=buffers)
    except Exception as error:
        raise ProtocolError(f"a message is no pickle: {error}") from None


def _next(data: _Data, at: int) -> int:
    """Where the opcodes end that begin at ``at``: a long one, or as many as are looked at in one go."""
    size = _COUNTED.get(data[at])
    if size is not None:
        at += 1 + size
        at += int.from_bytes(data[at - size : at], "little")
    at = min(at, len(data))
    found: int = _match(data, at).end()  # type: ignore[union-attr]
    if found == at and size is None:
        raise ProtocolError(f"a message is no plain pickle: it has opcode {data[at]:#04x}")
    return found
