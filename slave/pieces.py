"""What came of many tasks as one message, made piece by piece: a pickle whose list grows at its end.

The message is ``("results", "values", (slave, lease, context, [task, value, task, value, ...]), {})``.  A value is as
protocol.py says at `ATOMS`.  A runner that gathers (gathering.py) puts each value where its agent sees it, so each is a
piece of its own: the opcodes of two more members of the list.  Whoever sends, the runner or the agent, puts `head` in
front and `END` behind.  Read, it is one message: what costs the master a call for each costs it a fifth for a member of
a list.
"""

from __future__ import annotations

import pickle
import struct
from array import array
from collections.abc import Sequence
from typing import Any

from .protocol import OutcomeMessage, outcomes_of

MOST = 1 << 31  # what fits a BININT
_NUMBER = struct.Struct("<ci")
INT, FLOAT = struct.Struct("<cici"), struct.Struct(">cIcd")  # BININT and BININT, or BINFLOAT, which is big-endian
SINGLE = struct.Struct("<cic")  # BININT and one of:
SINGLES = {None: b"N", True: b"\x88", False: b"\x89"}
_NUMBERS = struct.Struct("<cicici2s")
_LARGE_NUMBER = struct.Struct("<2sq")  # LONG1 of eight bytes
_SHORT = struct.Struct("<cicB")
_LONG = struct.Struct("<cicI")
_SMALL = 256  # bytes that a SHORT_BINBYTES has at most
_FRONT = b"\x80\x05(\x8c\x07results\x8c\x06values("  # PROTO, MARK, two texts, MARK
END = b"et}t."  # APPENDS, TUPLE (the arguments), EMPTY_DICT, TUPLE, STOP


def head(slave: int, lease: int, context: int) -> bytes:
    """What comes before the pieces: whose values they are."""
    if lease < MOST and slave < MOST and context < MOST:
        return _FRONT + _NUMBERS.pack(b"J", slave, b"J", lease, b"J", context, b"](")
    return b"%b%b%b%b](" % (_FRONT, _number(slave), _number(lease), _number(context))  # EMPTY_LIST, MARK


def piece(task: int, data: bytes) -> bytes:
    """One task's pickled value.  `ATOMS` may be packed as `INT`, `FLOAT`, `SINGLE` instead."""
    size = len(data)
    if task >= MOST:
        return _number(task) + piece(0, data)[_NUMBER.size :]
    if size < _SMALL:
        return _SHORT.pack(b"J", task, b"C", size) + data
    return _LONG.pack(b"J", task, b"B", size) + data


def turned(tasks: Sequence[int]) -> Sequence[int]:
    """Numbers of tasks, below `MOST`, as a big-endian struct is to pack them so that they can be read as BININTs."""
    numbers = array("I", tasks)
    numbers.byteswap()
    return numbers


def outcomes(message: bytes) -> list[OutcomeMessage]:
    """What a message says that is whole but for its `END`."""
    found: Any = pickle.loads(message + END)
    return outcomes_of(found[2])


def _number(value: int) -> bytes:
    return _NUMBER.pack(b"J", value) if value < MOST else _LARGE_NUMBER.pack(b"\x8a\x08", value)
