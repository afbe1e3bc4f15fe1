"""What came of many tasks as one message, made piece by piece: a pickle whose list grows at its end.

The message is ``("results", "values", (slave, lease, context, [task, data, task, data, ...]), {})``.  A runner that
gathers (gathering.py) puts each value where its agent sees it, so each is a piece of its own: `piece`, the opcodes of
two more members of the list.  Whoever sends, the runner or the agent, puts `head` in front and `END` behind.  Read, it
is one message: what costs the master a call for each costs it a fifth for a member of a list.
"""

from __future__ import annotations

import struct

_MOST = 1 << 31  # what fits a BININT
_NUMBER = struct.Struct("<ci")
_NUMBERS = struct.Struct("<cicici2s")
_LARGE_NUMBER = struct.Struct("<2sq")  # LONG1 of eight bytes
_SHORT = struct.Struct("<cicB")
_LONG = struct.Struct("<cicI")
_SMALL = 256  # bytes that a SHORT_BINBYTES has at most
_FRONT = b"\x80\x05(\x8c\x07results\x8c\x06values("  # PROTO, MARK, two texts, MARK
END = b"et}t."  # APPENDS, TUPLE (the arguments), EMPTY_DICT, TUPLE, STOP


def head(slave: int, lease: int, context: int) -> bytes:
    """What comes before the pieces: whose values they are."""
    if lease < _MOST and slave < _MOST and context < _MOST:
        return _FRONT + _NUMBERS.pack(b"J", slave, b"J", lease, b"J", context, b"](")
    return b"%b%b%b%b](" % (_FRONT, _number(slave), _number(lease), _number(context))  # EMPTY_LIST, MARK


def piece(task: int, data: bytes) -> bytes:
    """One task's pickled value."""
    size = len(data)
    if task >= _MOST:
        return _number(task) + piece(0, data)[_NUMBER.size :]
    if size < _SMALL:
        return _SHORT.pack(b"J", task, b"C", size) + data
    return _LONG.pack(b"J", task, b"B", size) + data


def _number(value: int) -> bytes:
    return _NUMBER.pack(b"J", value) if value < _MOST else _LARGE_NUMBER.pack(b"\x8a\x08", value)
