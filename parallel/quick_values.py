"""QuickValues: what is left of a block of a map's values, rebuilt one by one as it is asked for, with no lock.

Where results need no order, giving one is then little more than rebuilding it.  Only the thread that began takes
values from here; under the map's lock any other takes all that are left.  A value leaves between two of the
interpreter's looks for signals (CPython 3.11 and later), so that Ctrl-C loses none.
"""

from __future__ import annotations

import operator
import pickle
import threading
from collections.abc import Iterator
from typing import Any

from .core.effects import Values


class QuickValues:
    """``first``: the place in the block where it begins."""

    __slots__ = ("_left", "_rest", "block", "first", "thread", "values")

    def __init__(self, block: Values, first: int) -> None:
        self.block, self.first, self.thread = block, first, threading.get_ident()
        self._rest = iter(block.data[first:] if first else block.data)
        kinds = set(map(type, block.data))
        rest: Iterator[Any] = self._rest
        self.values = rest if bytes not in kinds else map(pickle.loads if len(kinds) == 1 else _value, rest)
        self._left: list[Any] = []  # what was not given any more

    @property
    def place(self) -> int:
        """Where in the block the next one stands; if one could not be rebuilt just now, the one behind it."""
        return len(self.block.data) - operator.length_hint(self._rest) - len(self._left)

    def stop(self) -> int:
        """Give no more; returns the place of the first that was not given."""
        self._left.extend(self._rest)  # in one step: the thread that takes values may do so at any time
        return self.place


def _value(data: Any) -> Any:
    return pickle.loads(data) if type(data) is bytes else data


NO_VALUES = QuickValues(Values("", [], [], [], 0), 0)
