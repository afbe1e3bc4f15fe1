"""Backlog: every unsettled task, by context, and those that wait in the order in which they are granted.

Tasks are granted in the order in which they were added, over all contexts; one that comes back goes to the front.
Inputs of maps stand here in chunks (chunk.py), which are cut here, and only here, as leases and outcomes need it.

Nothing here walks what is over or what is another context's: turns.py tells whose turn is next.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from .chunk import Chunk, ids_of
from .leases import Lease
from .pacing import LEASE_BYTES, LEAST_SECONDS, Pacing
from .task import MOVES, Move, State, Task
from .turns import ContextTasks, Line, Turns

_GRANTED = MOVES[State.WAITING, Move.GRANT]
_LEASES_AHEAD = 32  # for so many the front of a long chunk is cut off: a dict finds its first key by all that were


class Backlog:
    """See the module's text."""

    def __init__(self) -> None:
        self.contexts: dict[int, ContextTasks] = {}  # those that have tasks here
        self.waiting = 0  # how many tasks are WAITING
        self._turns = Turns(self.contexts)

    # -- tasks come, come back, and go

    def add(self, task: Task) -> None:
        """A new task, at the back of its context's queue."""
        context = self.contexts.get(task.context)
        if context is None:
            context = self.contexts[task.context] = ContextTasks(task.context)
        context.tasks[task.id] = task
        context.queue.append(task)
        self.waiting += 1
        if not context.turn:
            self._turns.line_up(context)

    def add_chunk(self, chunk: Chunk) -> None:
        """The same of the tasks of a chunk."""
        context = self.contexts.get(chunk.context)
        if context is None:
            context = self.contexts[chunk.context] = ContextTasks(chunk.context)
        context.tasks.update(dict.fromkeys(chunk.inputs, chunk))
        context.queue.append(chunk)
        self.waiting += len(chunk.inputs)
        if not context.turn:
            self._turns.line_up(context)

    def put_back(self, tasks: Sequence[Task | Chunk]) -> None:
        """Tasks that were leased wait again: at the front of their queues, in their order."""
        for task in reversed(tasks):
            self._turns.line_of(task).queue.appendleft(task)
            self.waiting += len(ids_of(task))
        for line in {id(line): line for line in map(self._turns.line_of, tasks)}.values():
            self._turns.line_up(line)

    def put_behind(self, task: Task) -> None:
        """A task that was leased waits again: behind the others that the same slaves could not rebuild."""
        self.waiting += 1
        line = self._turns.line_of(task)
        line.queue.append(task)
        if not line.turn:
            self._turns.line_up(line)

    def remove(self, task: Task | Chunk, waited: bool) -> None:
        """A task, or a chunk of them, has left for good.  ``waited``: for a slave, else one held it."""
        ids = task.inputs if type(task) is Chunk else (task.id,)  # no call of `ids_of`: each task comes here
        if waited:
            self.waiting -= len(ids)  # it stays in its queue until its turn comes, and is passed over then
        context = self.contexts[task.context]
        for id in ids:
            del context.tasks[id]
        if not context.tasks:
            self._turns.leave(context)
            del self.contexts[task.context]
        elif waited and task.id == (line := self._turns.line_of(task)).turn:
            self._turns.line_up(line)  # what stands behind it may have been added before: it came back earlier

    def withdraw(self, context: int) -> list[Task | Chunk]:
        """The tasks of a context, which are all to be removed: none has its turn any more."""
        found = self.contexts.get(context)
        if found is None:
            return []
        for line in found.lines:
            line.turn = 0  # no use to find its next turn after each of them
        return list({id(task): task for task in found.tasks.values()}.values())

    # -- what is there

    def left(self, context: int) -> int:
        """How many tasks of a context have no outcome yet."""
        found = self.contexts.get(context)
        return 0 if found is None else len(found.tasks)

    def waits(self, context: int) -> bool:
        """Whether a task of the context waits; that is not known of one of which nothing is granted for now."""
        found = self.contexts.get(context)
        return found is not None and any(line.turn for line in found.lines)

    def in_line(self) -> list[Task | Chunk]:
        """All tasks and chunks that wait.  For tests: it walks them."""
        lines = [line for context in self.contexts.values() for line in context.lines]
        return [task for line in lines for task in line.queue if task.state is State.WAITING]

    def refused(self, context: int) -> list[tuple[frozenset[int], list[Task]]]:
        """The waiting tasks of a context that slaves could not rebuild, each set of slaves with theirs."""
        found = self.contexts.get(context)
        lines = [] if found is None else list(found.others.values())
        # a chunk is not refused, only a task
        return [(line.unfit, [task for task in line.queue if task.state is State.WAITING]) for line in lines]  # type: ignore[misc]

    @property
    def paused(self) -> Collection[int]:
        """Contexts of which nothing is granted for now."""
        return self._turns.paused

    def pause(self, context: int) -> None:
        """Grant nothing of the context until it is resumed."""
        self._turns.paused.add(context)

    def resume(self, context: int) -> None:
        """Grant tasks of the context again."""
        self._turns.resume(context)

    # -- tasks are granted

    def fill(self, lease: Lease, excluded: Collection[int], share: int, pace: Pacing) -> None:
        """Move the tasks whose turn it is into a new lease; none if nothing waits that its slave may run.

        At most ``share`` tasks, or so many as are done in no time.  Nothing of the contexts ``excluded``.
        """
        turns, slave, tasks = self._turns, lease.slave, lease.tasks
        aside: list[tuple[int, int]] = []
        whole = seconds = pace.lease_seconds
        size = LEASE_BYTES
        while seconds > 0 and size > 0:
            line = turns.first(slave, excluded, aside)
            if line is None:
                break
            spent = whole - seconds
            in_no_time = pace.fits(line.id, LEAST_SECONDS - spent) if spent < LEAST_SECONDS else 0
            room = min(max(share - len(tasks), in_no_time), pace.fits(line.id, seconds))
            if room < 1:
                if tasks:
                    break
                room = 1
            before = len(tasks)
            lease.contexts.add(line.id)
            size = self._take(line, lease, room, turns.take_first(slave, excluded, aside), size)
            seconds -= (len(tasks) - before) * (pace.seconds_per_task(line.id) or whole)
        turns.put_back(aside)

    def _take(self, line: Line, lease: Lease, room: int, bound: float, size: int) -> int:
        """Move up to ``room`` tasks from the queue into the lease; returns how much of ``size`` bytes is left."""
        queue = line.queue
        while room > 0 and size > 0 and queue:
            task = queue[0]
            if task.state is not State.WAITING:
                queue.popleft()
                continue
            if task.id >= bound:
                break
            if type(task) is Chunk:
                task = self._front_of(task, room, size, bound)
                size -= sum(map(len, task.inputs.values()))
                count = len(task.inputs)
                lease.tasks.update(dict.fromkeys(task.inputs, task))
            else:
                size -= len(task.payload)
                count = 1
                lease.tasks[task.id] = task
            if task is queue[0]:
                queue.popleft()
            task.state = _GRANTED
            task.attempt += 1
            task.holder = lease.slave
            self.waiting -= count
            room -= count
        self._turns.line_up(line)
        return size

    # -- chunks are cut

    def _front_of(self, chunk: Chunk, room: int, size: int, bound: float) -> Chunk:
        """As much of a chunk as is to be granted: itself, or its first tasks as one of their own."""
        inputs = chunk.inputs
        if len(inputs) <= room and max(inputs) < bound and sum(map(len, inputs.values())) <= size:
            return chunk
        if len(inputs) > 2 * _LEASES_AHEAD * room:
            chunk = self.cut(chunk, list(itertools.islice(inputs, _LEASES_AHEAD * room)))
            self.contexts[chunk.context].queue.appendleft(chunk)
            inputs = chunk.inputs
        ids: list[int] = []
        for id in itertools.islice(inputs, room):
            if id >= bound or size <= 0:
                break
            size -= len(inputs[id])
            ids.append(id)
        return chunk if len(ids) == len(inputs) else self.cut(chunk, ids)

    def cut(self, chunk: Chunk, ids: list[int]) -> Chunk:
        """Take a part of a chunk out of it, as a chunk that stands in no queue, nor, if it is held, in the lease."""
        part = chunk.cut(ids)
        self.contexts[chunk.context].tasks.update(dict.fromkeys(ids, part))
        return part

    def single(self, chunk: Chunk, id: int) -> Task:
        """Take a task out of a chunk; it stands in its place of the queue, or the chunk's, but not in a lease."""
        context = self.contexts[chunk.context]
        if chunk.state is State.WAITING:
            queue = context.queue
            place = queue.index(chunk)
            before = list(itertools.takewhile(lambda one: one != id, chunk.inputs))
            task = chunk.single(id)
            if not chunk.inputs:
                queue[place] = task
            elif not before:
                queue.insert(place, task)
            else:
                if len(before) < len(chunk.inputs):
                    queue.insert(place, self.cut(chunk, before))
                queue.insert(place + 1, task)
        else:
            task = chunk.single(id)
        context.tasks[id] = task
        return task

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        count = sum(len(ids_of(task)) for task in self.in_line())
        assert count == self.waiting, f"{count} tasks wait, {self.waiting} are counted"
        for context in self.contexts.values():
            assert context.tasks, f"context {context.id} has no tasks and is kept"
            assert all(task.context == context.id for task in context.queue), f"context {context.id} queues another's"
            self._turns.check(context)
