"""Batch: what is to be written with one call; small results of many tasks go into one record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from .format import GROUP, MOST_GROUPED, RESULT, SMALL, Entry, Record

# under what a result is to be written; if it can stand in a group, its identity alone, and its origin is the context's
Name = Union[bytes, Entry]


class Batch:
    """See the module's text."""

    def __init__(self) -> None:
        self.size = 0  # bytes, about
        self._records: list[Record] = []
        self._small: dict[int, tuple[list[bytes], list[bytes]]] = {}  # by origin: identities, results

    def add(self, name: Name, origin: int, data: Any, buffers: Sequence[Any]) -> None:
        """One result.  ``origin``: of the context."""
        entry: Any = Entry(name, 0, origin) if type(name) is bytes else name
        self._records.append((RESULT, entry, data, buffers))

    def add_all(self, names: Sequence[Name], origin: int, data: Sequence[bytes]) -> None:
        """Results without buffers."""
        if set(map(type, names)) == {bytes} and max(map(len, data)) <= SMALL:
            self.add_small(origin, names, data)  # type: ignore[arg-type]
        else:
            for name, one in zip(names, data):
                self.add(name, origin, one, ())

    def add_small(self, origin: int, names: Sequence[bytes], data: Sequence[bytes]) -> None:
        """The same where each can stand in a group: of `SMALL` bytes at most."""
        if not names:
            return
        found = self._small.get(origin)
        if found is None:
            found = self._small[origin] = [], []
        found[0].extend(names)
        found[1].extend(data)

    def records(self) -> list[Record]:
        """What is to be appended to the file."""
        records = self._records.copy()
        for origin, (names, data) in self._small.items():
            entry = Entry(b"", 0, origin)
            for at in range(0, len(names), MOST_GROUPED):
                some = names[at : at + MOST_GROUPED]
                if len(some) == 1:
                    records.append((RESULT, Entry(some[0], 0, origin), data[at], ()))
                else:
                    records.append((GROUP, entry, some, data[at : at + MOST_GROUPED]))
        return records
