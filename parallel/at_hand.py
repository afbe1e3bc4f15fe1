"""Inputs that are at hand: the next ones of a list, a tuple or a range, if they are numbers, texts and the like.

Nothing of the user's runs when they are taken and pickled, and nothing is waited for: so many are, in few steps.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from typing import Any

ATOMS = frozenset((int, float, bool, str, bytes, type(None)))  # of which a pickle has nothing but themselves
_RANGE = type(iter(range(1)))
_KINDS = frozenset((_RANGE, type(iter([])), type(iter(()))))
_TOGETHER = 128


def may_be(iterator: Iterator[Any]) -> bool:
    """Whether what the iterator gives may be such."""
    return type(iterator) in _KINDS


def pickled(iterator: Iterator[Any], count: int) -> list[bytes]:
    """The pickles of the next ones, ``count`` at the most; [] if there are none, or something else is among them.

    What is pickled here has left the iterator, and nothing else has.
    """
    count = min(count, _TOGETHER)
    if type(iterator) is not _RANGE:
        made_of: tuple[Any, ...] = iterator.__reduce__()  # type: ignore[assignment]  # and from where on it goes
        if len(made_of) < 3:
            return []
        coming = made_of[1][0][made_of[2] : made_of[2] + count]
        if not ATOMS.issuperset(map(type, coming)):
            return []
        count = len(coming)  # and not one step further: a list may grow until somebody has seen its end
    return list(map(pickle.dumps, itertools.islice(iterator, count), itertools.repeat(5)))
