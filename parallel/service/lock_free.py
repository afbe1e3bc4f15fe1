"""What several threads may do at once without a lock, since each step is one of a deque.

So a signal's handler may be among them, in the middle of what it has interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Once:
    """What is to be done once, by whichever thread comes first."""

    def __init__(self) -> None:
        self._left = deque([True])

    def first(self) -> bool:
        """Whether nobody has asked this before."""
        try:
            return self._left.pop()
        except IndexError:
            return False


def drained(left: deque[T]) -> Iterator[T]:
    """What is taken out of it until nothing is left; other threads may do the same."""
    while True:
        try:
            one = left.popleft()
        except IndexError:
            return
        yield one
