"""TaskMap: tasks by their ids; those of a chunk stand in one place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from typing import Union

from .chunk import Chunk, ids_of
from .task import Task

Part = Union[Task, Chunk]


class TaskMap(Mapping[int, Part]):
    """To whoever looks, a chunk stands there for each of its tasks.

    ``parts``: what there is, a task by its id and a chunk by its `Chunk.key`.  Single tasks may be put in and deleted
    there.  Whatever changes a chunk says so here.  ``ordered``: what a chunk becomes stays where that stood.
    """

    __slots__ = ("_keys", "_more", "_ordered", "parts")

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self.parts: dict[int, Part] = {}
        self._keys: list[int] = []  # of the chunks, in their order
        self._more = 0  # tasks beyond one for each part

    def __len__(self) -> int:
        return len(self.parts) + self._more

    def __iter__(self) -> Iterator[int]:
        for part in self.parts.values():
            yield from ids_of(part)

    def __getitem__(self, id: int) -> Part:
        part = self.parts.get(id)
        if part is not None and part.id == id:
            return part
        keys = self._keys
        at = bisect_right(keys, id)
        if at:
            part = self.parts[keys[at - 1]]
            if part.id <= id < part.end:  # type: ignore[union-attr]  # by its key it is a chunk
                return part
        raise KeyError(id)

    def first(self) -> Part:
        """The part that came first."""
        return next(iter(self.parts.values()))

    # -- chunks come, change and go

    def add(self, chunk: Chunk) -> None:
        """A chunk comes."""
        keys = self._keys
        self.parts[chunk.key] = chunk
        if keys and chunk.key < keys[-1]:
            insort(keys, chunk.key)
        else:
            keys.append(chunk.key)
        self._more += len(chunk) - 1

    def shorten(self, count: int) -> None:
        """So many tasks of a chunk, not all of them, have left it."""
        self._more -= count

    def remove(self, chunk: Chunk) -> None:
        """A chunk goes."""
        del self.parts[chunk.key]
        del self._keys[bisect_left(self._keys, chunk.key)]
        self._more -= len(chunk) - 1

    def add_behind(self, chunk: Chunk, rest: Chunk) -> None:
        """``rest`` was split off from ``chunk``."""
        last = next(reversed(self.parts))
        self._more -= len(rest)
        self.add(rest)
        if self._ordered and last != chunk.key:
            self._lay_out([one for part in self.parts.values() for one in ((part, rest) if part is chunk else (part,))])

    def replace(self, chunk: Chunk, task: Task) -> None:
        """In place of a chunk of one task there is that."""
        del self._keys[bisect_left(self._keys, chunk.key)]
        if chunk.key == task.id:
            self.parts[task.id] = task
        elif self._ordered:
            self._lay_out([task if part is chunk else part for part in self.parts.values()])
        else:
            del self.parts[chunk.key]
            self.parts[task.id] = task

    def _lay_out(self, parts: list[Part]) -> None:
        """These are there, in this order; of one that stands there twice, the first place counts."""
        self.parts = {part.key if type(part) is Chunk else part.id: part for part in parts}

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        chunks = [part for part in self.parts.values() if type(part) is Chunk]
        assert sorted(chunk.key for chunk in chunks) == self._keys, "a chunk is not known by its key"
        assert len(self) == sum(len(ids_of(part)) for part in self.parts.values()), "tasks are counted wrongly"
