"""Chunks: many tasks of a map in one object, as long as nothing happens to one of them alone.

Each input of a map is a task: it has an id, is leased, counted, timed and blamed as any other.  Inputs that were taken
one after the other have consecutive ids and share all else, so that they stand in the queue, and in a lease, as one
`Chunk`.  A chunk is split where a lease ends, or where only a part of it comes back, and gets shorter at its front as
outcomes come; whoever has to deal with one input, since it raised, was refused or cancelled, ran too long or ended its
process, has the lease table make a `Task` of it (`LeaseTable.find`).  So a short call costs the master no object, and
next to no time, and a long one is a task like others.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any

from slave.protocol import ATOMS, Atom, Payload, as_pickle

from .moves import next_state
from .pacing import MOST_TASKS
from .task import MOVES, NOBODY, Move, State, Task

PLAIN_SIZE = 16  # bytes of an input that stands for itself, about


class Chunk:
    """Inputs of one context, whose tasks have consecutive ids; all in one state, and held by one slave.

    ``plain``: each stands for itself, none is a pickle.  To whoever looks at a task it is its first one.
    """

    __slots__ = (
        "_base", "_inputs", "attempt", "context", "end", "first", "holder", "key", "offset", "plain", "retries",
        "state", "timeout",
    )  # fmt: skip

    tag = None
    ends: list[str] | None = None
    failures = 0
    unfit = NOBODY

    def __init__(
        self, context: int, first: int, inputs: list[Any], plain: bool, offset: int, timeout: float | None, retries: int
    ) -> None:
        self.context, self.plain = context, plain
        self._inputs, self._base = inputs, first  # and the id of the first one there, of which little may be left
        self.first, self.end = first, first + len(inputs)  # ids of the first task that is left, and behind the last
        self.key = first  # by which a `TaskMap` knows it; never above `first`
        self.offset = offset  # from a task's id to the index of the input
        self.timeout, self.retries = timeout, retries
        self.state, self.attempt, self.holder = State.WAITING, 0, -1

    def __repr__(self) -> str:
        return f"<Chunk of {len(self)} inputs of context {self.context}, attempt {self.attempt}>"

    def __len__(self) -> int:
        return self.end - self.first

    def move(self, what: Move) -> None:
        """As of a task."""
        self.state = next_state(MOVES, self.state, what, self)

    @property
    def id(self) -> int:
        """Of the first task."""
        return self.first

    @property
    def payload(self) -> Payload:
        """Of the first task."""
        return as_pickle(self._inputs[self.first - self._base])

    @property
    def ids(self) -> range:
        """Of all tasks."""
        return range(self.first, self.end)

    @property
    def inputs(self) -> list[Any]:
        """Of all tasks."""
        return self._inputs[self.first - self._base : self.end - self._base]

    @property
    def size(self) -> int:
        """Bytes of all inputs, about."""
        return PLAIN_SIZE * len(self) if self.plain else sum(map(len, self.inputs))

    def within(self, size: int, end: int) -> int:
        """The id behind those before ``end`` whose inputs take ``size`` bytes, about; one at least."""
        if self.plain:
            return min(end, self.first + max(1, size // PLAIN_SIZE))
        inputs, base = self._inputs, self._base
        for id in range(self.first, end):
            size -= len(inputs[id - base])
            if size <= 0:
                return id + 1
        return end

    def split(self, at: int) -> Chunk:
        """Take the task ``at``, which is not its first one, and all behind it out of it: a chunk of their own."""
        inputs, base = self._inputs, self._base
        rest = Chunk(self.context, at, [], self.plain, self.offset, self.timeout, self.retries)
        rest.state, rest.attempt, rest.holder, rest.end = self.state, self.attempt, self.holder, self.end
        rest._inputs, rest._base = inputs, base  # what is behind may be long, and is not copied each time
        here = slice(self.first - base, at - base)
        self._inputs, self._base, self.end = inputs[here], self.first, at
        inputs[here] = [None] * (at - self.first)  # and not kept longer than the task
        return rest

    def single(self) -> Task:
        """Its first task as one of its own, in the same state."""
        task = Task(self.first, self.context, self.payload, self.timeout, self.retries, self.first + self.offset)
        task.state, task.attempt, task.holder = self.state, self.attempt, self.holder
        return task


def ids_of(task: Task | Chunk) -> Collection[int]:
    """The ids of a task, or of those of a chunk."""
    return task.ids if type(task) is Chunk else (task.id,)


def count_of(task: Task | Chunk) -> int:
    """How many tasks it is."""
    return len(task) if type(task) is Chunk else 1


class _NoTask:
    """See below."""


NO_TASK = _NoTask()  # in place of an input that cannot be pickled: there is no such task


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
        # each one, or several in a list
        self.payloads: deque[Payload | Atom | _NoTask | list[Payload | Atom]] = deque()
        self.taken = 0  # inputs, by the dispatcher
        self.listed = False

    @property
    def payload(self) -> object:
        """One of them that stands alone, if there is one."""
        return next((one for one in self.payloads.copy() if one is not NO_TASK and type(one) is not list), None)

    def take(self, ids: Iterator[int]) -> list[Chunk]:
        """All that there are; ``ids``: where to get theirs."""
        self.listed = False
        payloads = self.payloads
        here: list[Any] = []
        for _ in range(len(payloads)):
            some = payloads.popleft()
            if type(some) is list:
                here += some
            else:
                here.append(some)
        chunks, at = [], 0
        while at < len(here):
            most = min(len(here), at + MOST_TASKS)  # more are in no lease
            try:
                end = here.index(NO_TASK, at, most)
            except ValueError:
                end = most
            if end > at:
                chunks.append(self._chunk(ids, here[at:end], self.taken + at))
            at = end + 1 if end < most else end
        self.taken += len(here)
        return chunks

    def _chunk(self, ids: Iterator[int], payloads: list[Any], index: int) -> Chunk:
        """These, of which the first is the input with that index."""
        kinds = set(map(type, payloads))
        plain = kinds <= ATOMS
        if not plain and not kinds.isdisjoint(ATOMS):
            payloads = [as_pickle(one) if type(one) in ATOMS else one for one in payloads]
        taken = list(itertools.islice(ids, len(payloads)))  # in one step: nobody else takes one in between
        first = taken[0]
        return Chunk(self.context, first, payloads, plain, index - first, self.timeout, self.retries)
