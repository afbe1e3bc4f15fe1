"""Chunks: many tasks of a map in one object, as long as nothing happens to one of them alone.

Each input of a map is a task: it has an id, is leased, counted, timed and blamed as any other.  Inputs that were taken
one after the other have consecutive ids and share all else, so that they stand in the queue, and in a lease, as one
`Chunk`.  A chunk is cut where a lease ends, or where only a part of it comes back; whoever has to deal with one input,
since it raised, was refused or cancelled, ran too long or ended its process, has the lease table make a `Task` of it
(`LeaseTable.find`).  So a short call costs the master no object, and a long one is a task like others.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator

from slave.protocol import Payload

from .moves import next_state
from .pacing import MOST_TASKS
from .task import MOVES, NOBODY, Move, State, Task


class Chunk:
    """Inputs of one context, by task id, in their order; all in one state, and held by one slave.

    To whoever looks at a task it is its first one.
    """

    __slots__ = ("attempt", "context", "holder", "inputs", "offset", "retries", "state", "timeout")

    tag = None
    ends: list[str] | None = None
    failures = 0
    unfit = NOBODY

    def __init__(self, context: int, inputs: dict[int, Payload], offset: int, timeout: float | None, retries: int):
        self.context, self.inputs = context, inputs
        self.offset = offset  # from a task's id to the index of the input
        self.timeout, self.retries = timeout, retries
        self.state, self.attempt, self.holder = State.WAITING, 0, -1

    def __repr__(self) -> str:
        return f"<Chunk of {len(self.inputs)} inputs of context {self.context}, attempt {self.attempt}>"

    def move(self, what: Move) -> None:
        """As of a task."""
        self.state = next_state(MOVES, self.state, what, self)

    @property
    def id(self) -> int:
        """Of the first task."""
        return next(iter(self.inputs))

    @property
    def payload(self) -> Payload:
        """Of the first task."""
        return next(iter(self.inputs.values()))

    def cut(self, ids: list[int]) -> Chunk:
        """Take these tasks, not all of them, out of it: a chunk of their own."""
        inputs = self.inputs
        part = Chunk(self.context, {id: inputs.pop(id) for id in ids}, self.offset, self.timeout, self.retries)
        part.state, part.attempt, part.holder = self.state, self.attempt, self.holder
        return part

    def single(self, id: int) -> Task:
        """Take one task out of it: as a task of its own, in the same state."""
        task = Task(id, self.context, self.inputs.pop(id), self.timeout, self.retries, id + self.offset)
        task.state, task.attempt, task.holder = self.state, self.attempt, self.holder
        return task


def ids_of(task: Task | Chunk) -> Collection[int]:
    """The ids of a task, or of those of a chunk."""
    return task.inputs if type(task) is Chunk else (task.id,)


class Inputs:
    """Inputs of one map on their way to the scheduler.

    The user's thread puts payloads in, and this into `State.incoming` if it is not ``listed`` there; the dispatcher's
    takes it out, says first that it is not, and looks then what there is.  So what the slaves may need is there as soon
    as it was put in, and yet nothing is done for each.
    """

    __slots__ = ("context", "listed", "payloads", "retries", "taken", "timeout")

    tag = None

    def __init__(self, context: int, timeout: float | None, retries: int) -> None:
        self.context, self.timeout, self.retries = context, timeout, retries
        self.payloads: deque[Payload | None] = deque()  # None: there is no such task, its input cannot be pickled
        self.taken = 0  # inputs, by the dispatcher
        self.listed = False

    @property
    def payload(self) -> Payload | None:
        """One of them, if there is one."""
        return next((payload for payload in self.payloads.copy() if payload is not None), None)

    def take(self, ids: Iterator[int]) -> list[Chunk]:
        """All that there are; ``ids``: where to get theirs."""
        self.listed = False
        payloads = self.payloads
        here = [payloads.popleft() for _ in range(len(payloads))]
        chunks, at = [], 0
        while at < len(here):
            most = min(len(here), at + MOST_TASKS)  # more are in no lease
            try:
                end = here.index(None, at, most)
            except ValueError:
                end = most
            if end > at:
                inputs: dict[int, Payload] = dict(zip(itertools.islice(ids, end - at), here[at:end]))  # type: ignore[arg-type]
                chunks.append(
                    Chunk(self.context, inputs, self.taken + at - next(iter(inputs)), self.timeout, self.retries)
                )
            at = end + 1 if end < most else end
        self.taken += len(here)
        return chunks
