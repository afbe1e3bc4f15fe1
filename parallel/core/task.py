"""The states of a task and the one table of its moves.

WAITING   stands in its context's queue (backlog.py)
LEASED    is held by one slave: stands in that slave's lease (leases.py)
COPIED    is held by two slaves, which race: stands in the leases of both (races.py)
SETTLED   has its one outcome; the lease table has forgotten it
DROPPED   it was cancelled, or its context was or was abandoned; the lease table has forgotten it

             +- give back, lose, retry -+
             v                          |
add --> WAITING ---- grant ----> LEASED + settle --> SETTLED
             |                      |                   ^
             +----- settle: an earlier attempt's outcome came late
             +--- drop ---> DROPPED <--- drop           (it, or its context, was cancelled or abandoned)

LEASED -- copy --> COPIED -- give back, lose, retry: one of the two holds it no more --> LEASED
                     +------ settle, drop: as from LEASED
"""

from __future__ import annotations

import enum

from slave.protocol import Payload

from .moves import next_state


class State(enum.IntEnum):
    """Where a task is."""

    WAITING = 0
    LEASED = 1
    SETTLED = 2
    DROPPED = 3
    COPIED = 4


class Move(enum.IntEnum):
    """What can happen to a task after it was added."""

    GRANT = 0  # a slave gets it
    GIVE_BACK = 1  # the slave had not started it or cannot rebuild it, or was lost without its being to blame
    LOSE = 2  # its process ended while it ran the task, which is counted
    SETTLE = 3  # an outcome came
    DROP = 4  # nobody asks for its outcome any more
    RETRY = 5  # it raised, and may be tried again
    COPY = 6  # another slave gets it, too


MOVES = {
    (State.WAITING, Move.GRANT): State.LEASED,
    (State.WAITING, Move.SETTLE): State.SETTLED,
    (State.WAITING, Move.DROP): State.DROPPED,
    (State.LEASED, Move.GIVE_BACK): State.WAITING,
    (State.LEASED, Move.LOSE): State.WAITING,
    (State.LEASED, Move.RETRY): State.WAITING,
    (State.LEASED, Move.SETTLE): State.SETTLED,
    (State.LEASED, Move.DROP): State.DROPPED,
    (State.LEASED, Move.COPY): State.COPIED,
    (State.COPIED, Move.GIVE_BACK): State.LEASED,
    (State.COPIED, Move.LOSE): State.LEASED,
    (State.COPIED, Move.RETRY): State.LEASED,
    (State.COPIED, Move.SETTLE): State.SETTLED,
    (State.COPIED, Move.DROP): State.DROPPED,
}


NOBODY: frozenset[int] = frozenset()


class Label(str):
    """The tag of a task that has a name for people, and for whose outcome nobody waits by its tag."""

    __slots__ = ()


class Task:
    """One task: what the master knows about it."""

    __slots__ = (
        "attempt", "context", "ends", "failures", "holder", "id", "payload", "retries", "state", "tag", "timeout",
        "unfit",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        context: int,
        payload: Payload,
        timeout: float | None = None,
        retries: int = 0,
        tag: object = None,
    ) -> None:
        self.id, self.context, self.payload = id, context, payload
        self.timeout = timeout  # seconds that it may run; None: as long as it takes
        self.tag = tag  # what whoever added it wants to have with its outcome: a future, the index of an input, a label
        self.retries = retries  # how often it may still be tried again after it raised
        self.failures = 0  # how often it raised and was tried again
        self.state = State.WAITING
        self.attempt = 0  # counts grants
        self.holder = -1  # the slave that holds it while it is LEASED; the first of the two while it is COPIED
        self.unfit = NOBODY  # slaves that could not rebuild it
        self.ends: list[str] | None = None  # how each attempt that is blamed on this task ended

    def __repr__(self) -> str:
        return f"<Task {self.id} of context {self.context}, attempt {self.attempt}>"

    def move(self, what: Move) -> None:
        """Make a move.  Raises `IllegalMove` and changes nothing if the table does not have it."""
        try:
            self.state = MOVES[self.state, what]
        except KeyError:
            next_state(MOVES, self.state, what, self)
