"""Inputs of a map whose tasks have the ids that a test has given them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from parallel.core.chunk import Chunk, Inputs
from parallel.core.effects import Deliver, Outcome, Values
from slave.protocol import VALUE


class KnownInputs(Inputs):
    """The index of each is its task's id, so that ids need not be consecutive."""

    def __init__(self, context: int, timeout: float | None = None, retries: int = 0) -> None:
        super().__init__(context, timeout, retries)
        self.ids: deque[int] = deque()

    def put(self, id: int, payload: bytes) -> None:
        """One more."""
        self.ids.append(id)
        self.payloads.append(payload)

    def take(self, ids: Iterator[int]) -> list[Chunk]:
        """As `Inputs.take`."""
        self.listed = False
        found: list[Chunk] = []
        while self.payloads:
            first = self.ids[0]
            inputs: list[Any] = []
            while self.payloads and self.ids[0] == first + len(inputs):
                self.ids.popleft()
                inputs.append(self.payloads.popleft())
            found.append(Chunk(self.context, first, inputs, False, 0, self.timeout, self.retries))
        return found


def outcomes_of(effect: Deliver) -> list[Outcome]:
    """What is delivered; of tasks that stood in chunks as if they had not."""
    return [one for some in effect.outcomes for one in _outcomes_of(some)]


def _outcomes_of(found: Outcome | Values) -> list[Outcome]:
    if not isinstance(found, Values):
        return [found]
    size = found.size // len(found.tasks)
    outcomes = zip(found.tasks, found.indices, found.data)
    return [Outcome(task, VALUE, found.slave, data, (), size, tag=index) for task, index, data in outcomes]
