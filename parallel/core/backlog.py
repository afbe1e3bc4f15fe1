"""Backlog: every unsettled task, by context, and those that wait in the order in which they are granted.

Tasks are granted in the order in which they were added, over all contexts; one that comes back goes to the front.
Inputs of maps stand here in chunks (chunk.py), which are split here, and only here, as leases and outcomes need it.

Nothing here walks what is over or what is another context's: turns.py tells whose turn is next.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .chunk import Chunk, count_of, ids_of
from .leases import Lease
from .pacing import LEASE_BYTES, LEAST_SECONDS, MOST_TASKS, Pacing
from .task import MOVES, Move, State, Task
from .turns import ContextTasks, Line, Turns

_WAITING = State.WAITING
_GRANTED = MOVES[_WAITING, Move.GRANT]


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
        context.tasks.parts[task.id] = task
        context.queue.append(task)
        self.waiting += 1
        if not context.turn:
            self._turns.line_up(context)

    def add_chunk(self, chunk: Chunk) -> None:
        """The same of the tasks of a chunk."""
        context = self.contexts.get(chunk.context)
        if context is None:
            context = self.contexts[chunk.context] = ContextTasks(chunk.context)
        context.tasks.add(chunk)
        context.queue.append(chunk)
        self.waiting += len(chunk)
        if not context.turn:
            self._turns.line_up(context)

    def put_back(self, tasks: Sequence[Task | Chunk]) -> None:
        """Tasks that were leased wait again: at the front of their queues, in their order."""
        for task in reversed(tasks):
            self._turns.line_of(task).queue.appendleft(task)
            self.waiting += count_of(task)
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
        if waited:
            self.waiting -= count_of(task)  # it stays in its queue until its turn comes, and is passed over then
        context = self.contexts[task.context]
        if type(task) is Chunk:
            context.tasks.remove(task)
        else:
            del context.tasks.parts[task.id]
        if not context.tasks.parts:
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
        return list(found.tasks.parts.values())

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
        while seconds > 0 and size > 0 and len(tasks) < MOST_TASKS:
            line = turns.first(slave, excluded, aside)
            if line is None:
                break
            spent = whole - seconds
            in_no_time = pace.fits(line.id, LEAST_SECONDS - spent) if spent < LEAST_SECONDS else 0
            room = min(max(share - len(tasks), in_no_time), pace.fits(line.id, seconds), MOST_TASKS - len(tasks))
            if room < 1:
                if tasks.parts:
                    break
                room = 1
            before = len(tasks)
            lease.contexts.add(line.id)
            size = self._take(line, lease, room, turns.take_first(slave, excluded, aside), size)
            seconds -= (len(tasks) - before) * (pace.seconds_per_task(line.id) or whole)
        turns.put_back(aside)

    def _take(self, line: Line, lease: Lease, room: int, bound: float, size: int) -> int:
        """Move up to ``room`` tasks from the queue into the lease; returns how much of ``size`` bytes is left."""
        queue, tasks, slave, granted = line.queue, lease.tasks, lease.slave, 0
        parts = tasks.parts
        while granted < room and size > 0 and queue:
            task = queue[0]
            if task.state is not _WAITING:
                queue.popleft()
                continue
            if task.id >= bound:
                break
            if type(task) is Chunk:
                end = task.within(size, int(min(task.end, task.first + room - granted, bound)))
                if end < task.end:
                    self.split(task, end)
                size -= task.size
                granted += len(task)
                tasks.add(task)
            else:
                size -= len(task.payload)
                granted += 1
                parts[task.id] = task
            queue.popleft()
            task.state = _GRANTED
            task.attempt += 1
            task.holder = slave
        self.waiting -= granted
        self._turns.line_up(line)
        return size

    # -- chunks are split

    def split(self, chunk: Chunk, at: int) -> Chunk:
        """Take the task ``at``, which is not its first one, and all behind it out of a chunk; returns these.

        They stand behind it in the queue, but not in a lease.
        """
        context = self.contexts[chunk.context]
        rest = chunk.split(at)
        context.tasks.add_behind(chunk, rest)
        if chunk.state is State.WAITING:
            queue = context.queue
            queue.insert(queue.index(chunk) + 1, rest)
        return rest

    def single(self, chunk: Chunk) -> Task:
        """Make a task of a chunk of one; it stands in its place, but not in a lease."""
        context = self.contexts[chunk.context]
        task = chunk.single()
        context.tasks.replace(chunk, task)
        if chunk.state is State.WAITING:
            queue = context.queue
            queue[queue.index(chunk)] = task
        return task

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        count = sum(len(ids_of(task)) for task in self.in_line())
        assert count == self.waiting, f"{count} tasks wait, {self.waiting} are counted"
        for context in self.contexts.values():
            context.tasks.check()
            assert context.tasks, f"context {context.id} has no tasks and is kept"
            assert all(task.context == context.id for task in context.queue), f"context {context.id} queues another's"
            self._turns.check(context)
