"""Turns: which context's tasks are granted next, the one with the oldest waiting task first.

A heap holds one valid entry for each context that has waiting tasks and is not paused; entries that are out of date
are told by `ContextTasks.turn`, and dropped when they come up.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Collection, Mapping

from .task import State, Task

Entry = tuple[int, int]  # oldest waiting task, context


class ContextTasks:
    """The unsettled tasks of one context."""

    __slots__ = ("id", "queue", "tasks", "turn")

    def __init__(self, id: int) -> None:
        self.id = id
        self.tasks: dict[int, Task] = {}
        self.queue: deque[Task] = deque()  # those that wait; and some that were settled or dropped since
        self.turn = 0  # the task id of its valid entry; 0: it has none


class Turns:
    """See the module's text.  ``contexts``: those that have tasks, by id."""

    def __init__(self, contexts: Mapping[int, ContextTasks]) -> None:
        self.paused: set[int] = set()  # contexts of which nothing is granted for now
        self._contexts = contexts
        self._heap: list[Entry] = []

    def line_up(self, context: ContextTasks) -> None:
        """Give the context its entry, by its oldest waiting task, if it has one."""
        queue = context.queue
        while queue and queue[0].state is not State.WAITING:
            queue.popleft()
        context.turn = queue[0].id if queue else 0
        if queue:
            heapq.heappush(self._heap, (context.turn, context.id))

    def resume(self, context: int) -> None:
        """It is paused no more."""
        if context in self.paused:
            self.paused.discard(context)
            found = self._contexts.get(context)
            if found is not None and not found.turn:
                self.line_up(found)

    def first(self, excluded: Collection[int], aside: list[Entry]) -> ContextTasks | None:
        """The context with the oldest task that may be granted; its entry is the heap's first then.

        Entries of excluded contexts are put ``aside``, stale ones dropped.
        """
        heap = self._heap
        while heap:
            id, number = heap[0]
            context = self._contexts.get(number)
            if context is None or context.turn != id:
                heapq.heappop(heap)
            elif number in self.paused:
                heapq.heappop(heap)
                context.turn = 0
            elif context.queue[0].state is not State.WAITING:
                heapq.heappop(heap)
                self.line_up(context)
            elif number in excluded:
                aside.append(heapq.heappop(heap))
            else:
                return context
        return None

    def take_first(self, excluded: Collection[int], aside: list[Entry]) -> float:
        """Take the first context's entry away; returns the task id from which another context's turn is."""
        _, number = heapq.heappop(self._heap)
        self._contexts[number].turn = 0  # should its entry stand there twice, the other one is stale now
        after = self.first(excluded, aside)
        return math.inf if after is None else after.turn

    def put_back(self, aside: Collection[Entry]) -> None:
        """Put the entries of excluded contexts back."""
        for entry in aside:
            heapq.heappush(self._heap, entry)

    def check(self, context: ContextTasks) -> None:
        """Raise AssertionError if the context waits and its turn never comes.  For tests."""
        waits = any(task.state is State.WAITING for task in context.queue)
        lined_up = (context.turn, context.id) in self._heap or context.id in self.paused
        assert not waits or lined_up, f"context {context.id} waits and its turn never comes"
