"""Turns: which context's tasks are granted next, the one with the oldest waiting task first.

A context's waiting tasks stand in lines: most in one, and those that some slaves could not rebuild in one for each
such set of slaves, who get none of it.  A heap holds one valid entry for each line that has waiting tasks and whose
context is not paused; entries that are out of date are told by `Line.turn`, and dropped when they come up.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Collection, Mapping

from .chunk import Chunk
from .task import NOBODY, State, Task
from .task_map import TaskMap

Entry = tuple[int, int]  # oldest waiting task, line


class Line:
    """Waiting tasks of one context, in their order.  ``number``: of the line, the context's own or a negative one."""

    __slots__ = ("id", "number", "queue", "turn", "unfit")

    def __init__(self, number: int, context: int, unfit: frozenset[int]) -> None:
        self.number, self.id = number, context
        self.unfit = unfit  # slaves that could not rebuild these tasks
        self.queue: deque[Task | Chunk] = deque()  # those that wait; and some that were settled or dropped since
        self.turn = 0  # the task id of its valid entry; 0: it has none


class ContextTasks(Line):
    """The unsettled tasks of one context; as a line, those that every slave may get."""

    __slots__ = ("others", "tasks")

    def __init__(self, id: int) -> None:
        super().__init__(id, id, NOBODY)
        self.tasks = TaskMap(ordered=False)
        self.others: dict[frozenset[int], Line] = {}  # by who could not rebuild them

    @property
    def lines(self) -> list[Line]:
        """All of its lines."""
        return [self, *self.others.values()]


class Turns:
    """See the module's text.  ``contexts``: those that have tasks, by id."""

    def __init__(self, contexts: Mapping[int, ContextTasks]) -> None:
        self.paused: set[int] = set()  # contexts of which nothing is granted for now
        self._contexts = contexts
        self._others: dict[int, Line] = {}  # lines of tasks that some slaves could not rebuild, by their numbers
        self._last_number = 0
        self._heap: list[Entry] = []

    def line_of(self, task: Task | Chunk) -> Line:
        """Where a task that waits stands, or is to stand."""
        context = self._contexts[task.context]
        if not task.unfit:
            return context
        line = context.others.get(task.unfit)
        if line is None:
            self._last_number -= 1
            line = Line(self._last_number, task.context, task.unfit)
            context.others[task.unfit] = self._others[line.number] = line
        return line

    def line_up(self, line: Line) -> None:
        """Give the line its entry, by its oldest waiting task, if it has one; else forget it, unless it is main."""
        queue = line.queue
        while queue and queue[0].state is not State.WAITING:
            queue.popleft()
        line.turn = queue[0].id if queue else 0
        if queue:
            heapq.heappush(self._heap, (line.turn, line.number))
        elif line.unfit:
            self._forget(line)

    def _forget(self, line: Line) -> None:
        self._others.pop(line.number, None)
        context = self._contexts.get(line.id)
        if context is not None:
            context.others.pop(line.unfit, None)

    def leave(self, context: ContextTasks) -> None:
        """The context has no tasks any more."""
        for line in list(context.others.values()):
            self._forget(line)

    def _line(self, number: int) -> Line | None:
        return self._contexts.get(number) if number > 0 else self._others.get(number)

    def resume(self, context: int) -> None:
        """It is paused no more."""
        if context in self.paused:
            self.paused.discard(context)
            found = self._contexts.get(context)
            for line in found.lines if found is not None else ():
                if not line.turn:
                    self.line_up(line)

    def first(self, slave: int, excluded: Collection[int], aside: list[Entry]) -> Line | None:
        """The line with the oldest task that the slave may be granted; its entry is the heap's first then.

        Entries of excluded contexts, and of what the slave cannot rebuild, are put ``aside``, stale ones dropped.
        """
        heap = self._heap
        while heap:
            id, number = heap[0]
            line = self._line(number)
            if line is None or line.turn != id:
                heapq.heappop(heap)
            elif line.id in self.paused:
                heapq.heappop(heap)
                line.turn = 0
            elif line.queue[0].state is not State.WAITING:
                heapq.heappop(heap)
                self.line_up(line)
            elif line.id in excluded or slave in line.unfit:
                aside.append(heapq.heappop(heap))
            else:
                return line
        return None

    def take_first(self, slave: int, excluded: Collection[int], aside: list[Entry]) -> float:
        """Take the first line's entry away; returns the task id from which another line's turn is."""
        _, number = heapq.heappop(self._heap)
        line = self._line(number)
        assert line is not None, "it was looked at just now"
        line.turn = 0  # should its entry stand there twice, the other one is stale now
        after = self.first(slave, excluded, aside)
        return math.inf if after is None else after.turn

    def put_back(self, aside: Collection[Entry]) -> None:
        """Put the entries that stood aside back."""
        for entry in aside:
            heapq.heappush(self._heap, entry)

    def check(self, context: ContextTasks) -> None:
        """Raise AssertionError if one of the context's lines waits and its turn never comes.  For tests."""
        for line in context.lines:
            waits = any(task.state is State.WAITING for task in line.queue)
            lined_up = (line.turn, line.number) in self._heap or context.id in self.paused
            assert not waits or lined_up, f"context {context.id} waits and its turn never comes"
            assert all(task.unfit == line.unfit for task in line.queue if task.state is State.WAITING), "another line's"
        there = {line.number for one in self._contexts.values() for line in one.others.values()}
        assert set(self._others) == there, f"lines {self._others} are kept, and {there} are there"
