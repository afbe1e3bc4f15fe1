"""A map of tasks is a dictionary to whoever looks, whatever becomes of the chunks in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parallel.core.chunk import Chunk, ids_of
from parallel.core.task import Task
from parallel.core.task_map import Part, TaskMap

PLACES = st.integers(0, 50)


class Story(RuleBasedStateMachine):
    """Parts come, are split, get shorter at their front, become single tasks, and go; beside it a list of ids."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []  # in their order
        self.next_id = 1

    @initialize(ordered=st.booleans())
    def begin(self, ordered: bool) -> None:
        self.map, self.ordered = TaskMap(ordered), ordered

    @rule(count=st.integers(1, 6), gap=st.integers(0, 2))
    def add_chunk(self, count: int, gap: int) -> None:
        self.next_id += gap
        self.map.add(Chunk(1, self.next_id, list(range(count)), True, 0, None, 0))
        self._added(count)

    @rule()
    def add_task(self) -> None:
        self.map.parts[self.next_id] = Task(self.next_id, 1, b"")
        self._added(1)

    def _added(self, count: int) -> None:
        self.ids += range(self.next_id, self.next_id + count)
        self.next_id += count

    def _chunk(self, place: int, least: int) -> Chunk | None:
        found = [part for part in self.map.parts.values() if isinstance(part, Chunk) and len(part) >= least]
        return found[place % len(found)] if found else None

    @rule(place=PLACES, at=PLACES)
    def split(self, place: int, at: int) -> None:
        chunk = self._chunk(place, 2)
        if chunk is not None:
            rest = chunk.split(chunk.first + 1 + at % (len(chunk) - 1))
            self.map.add_behind(chunk, rest)

    @rule(place=PLACES, count=PLACES)
    def shorten(self, place: int, count: int) -> None:
        chunk = self._chunk(place, 2)
        if chunk is not None:
            count = 1 + count % (len(chunk) - 1)
            for id in range(chunk.first, chunk.first + count):
                self.ids.remove(id)
            chunk.first += count
            self.map.shorten(count)

    @rule(place=PLACES)
    def make_single(self, place: int) -> None:
        chunk = self._chunk(place, 1)
        if chunk is not None and len(chunk) == 1:
            self.map.replace(chunk, chunk.single())

    @rule(place=PLACES)
    @precondition(lambda self: self.ids)
    def remove(self, place: int) -> None:
        part: Any = list(self.map.parts.values())[place % len(self.map.parts)]
        for id in ids_of(part):
            self.ids.remove(id)
        if isinstance(part, Chunk):
            self.map.remove(part)
        else:
            del self.map.parts[part.id]

    @invariant()
    def it_is_a_dictionary(self) -> None:
        self.map.check()
        found = list(self.map)
        assert found == self.ids if self.ordered else sorted(found) == self.ids
        assert len(self.map) == len(self.ids) and bool(self.map) == bool(self.ids)
        for id in range(self.next_id + 1):
            part: Part | None = self.map.get(id)
            assert (id in self.map) == (part is not None) == (id in self.ids)
            assert part is None or id in ids_of(part)
        if self.ordered and self.ids:
            assert self.map.first().id == self.ids[0]


Story.TestCase.settings = settings(deadline=None)
TestStory: Any = Story.TestCase
pytest.mark.slow(TestStory)  # it tells the same stories on every Python
