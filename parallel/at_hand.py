"""Inputs that are at hand: the next ones of a list, a tuple or a range, if they are numbers, texts and the like.

Nothing of the user's runs when they are taken, and pickled if need be, and nothing is waited for: so many are, in few
steps.
"""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Iterator
from typing import Any

from slave.protocol import ATOMS

PICKLED = frozenset((*ATOMS, str, bytes))  # of which a pickle has nothing but themselves
_RANGE = type(iter(range(1)))
_KINDS = frozenset((_RANGE, type(iter([])), type(iter(()))))
_TOGETHER = 128
_LARGEST = 64  # bytes of memory of a number that is not to be pickled


def may_be(iterator: Iterator[Any]) -> bool:
    """Whether what the iterator gives may be such."""
    return type(iterator) in _KINDS


def stands_for_itself(item: Any) -> bool:
    """Whether an input is one of `ATOMS` and no very large number: then it need not be pickled."""
    return type(item) in ATOMS and sys.getsizeof(item) <= _LARGEST


def taken(iterator: Iterator[Any], count: int) -> list[Any]:
    """The next ones, ``count`` at the most, as protocol.py says at `ATOMS`; [] if there are none, or one is another.

    What is returned has left the iterator, and nothing else has.
    """
    count = min(count, _TOGETHER)
    if type(iterator) is _RANGE:  # whose numbers are small: large ones are given by another class
        return list(itertools.islice(iterator, count))
    made_of: tuple[Any, ...] = iterator.__reduce__()  # type: ignore[assignment]  # and from where on it goes
    if len(made_of) < 3:
        return []
    coming = made_of[1][0][made_of[2] : made_of[2] + count]
    kinds = set(map(type, coming))
    if not kinds <= PICKLED:
        return []
    # and not one step further: a list may grow until somebody has seen its end
    items = itertools.islice(iterator, len(coming))
    if kinds <= ATOMS and max(map(sys.getsizeof, coming), default=0) <= _LARGEST:
        return list(items)
    return list(map(pickle.dumps, items, itertools.repeat(5)))
