"""Outcomes of short tasks travel together, and none of them waits for a task that runs on.

    the runner   puts the value of a short task into memory that its agent can read, and sends all that it has
                 gathered there with one write: when the first of it has waited for 0.65 ms, when a task was
                 not short, before each question to the master.  Once its next task runs it may be unable to do
                 anything: a task may hold the interpreter's lock for an hour, or end the process.
    the agent    looks at that memory every 0.95 ms for as long as short tasks run.  What the runner should have sent by
                 then it sends to the master itself, and so it does with what a runner that has died had gathered.  If
                 no task runs on, but the runner waits for a processor as others do, it gives it a little longer.

So an outcome waits for LATE and one look, 1.85 ms, whatever the next task does.  It may arrive twice then, and the
master drops the second.  As long as the agent does not look, the runner lets nothing wait.

What is put in are pieces of one message (pieces.py), all of one lease and context, which its head names: a round.

Each cell of the memory has one writer, and needs no lock.  The runner puts a piece in first and looks then whether it
is watched; the agent says first that it watches no more, and looks then, some time later, whether there is a piece.
"""

from __future__ import annotations

import mmap
from typing import Any, Callable

GATHER = 650_000  # nanoseconds for which the runner lets an outcome wait
LATE = 900_000  # nanoseconds after which a runner whose tasks are short has sent: else one of them runs on
SHORT = 200_000  # nanoseconds below which a task is short: what comes after it is thought to be short, too
LOOK_SECONDS = 0.00095  # between two looks of the agent
_ASK_AGAIN = 50_000_000  # nanoseconds after which a runner that is not watched asks for it once more
_QUIET_LOOKS = 25  # in which nothing was gathered, after which the agent stops to look
_MOST_STARVED = 5  # looks at which a runner that waits for a processor is given longer
_LAST_LOOKS = 1  # after it has said so: for what came before the runner saw that

ROUND = 0  # written by the runner: how often it has sent all
USED = 1  # written by the runner: bytes of whole pieces
ASKED = 2  # written by the runner: how often it asked to be watched
GATHERED = 3  # written by the runner: how often it has sent several together
SINCE = 4  # written by the runner: when it has put the first piece of the round in, by time.monotonic_ns()
WATCHED = 5  # written by the agent: whether it looks
HEAD = 6  # written by the runner: bytes of the head

CELL_BYTES = 8 * 8
_HEADS = 96  # bytes: room for the head
SIZE = 64 * 1024  # bytes, cells and head included

SharedMemory = Any  # an mmap or a ctypes array


def new_shared_memory(fork: bool) -> SharedMemory:
    """Zeroed memory that survives a fork, or can be passed to a spawned process."""
    if fork:
        return mmap.mmap(-1, SIZE)
    from multiprocessing import sharedctypes

    return sharedctypes.RawArray("B", SIZE)


def _parts(memory: SharedMemory) -> tuple[memoryview, memoryview, memoryview]:
    """The cells, and the bytes for the head and for pieces."""
    view = memoryview(memory).cast("B")
    return view[:CELL_BYTES].cast("Q"), view[CELL_BYTES : CELL_BYTES + _HEADS], view[CELL_BYTES + _HEADS :]


def data_of(memory: SharedMemory) -> memoryview:
    """What is for pieces: nobody uses it as long as the runner rests."""
    return _parts(memory)[2]


class Gatherer:
    """The runner's side.  ``ask`` wakes the agent.  All times are nanoseconds.

    ``used``, ``since``, ``last``: bytes of all pieces, when the first one of them was put in, and when the last task
    ended.  A loop that puts pieces in itself (stretch.py) has them meanwhile, and gives them back.
    """

    def __init__(self, memory: SharedMemory, ask: Callable[[], None]) -> None:
        self.cells, self._head, self.data = _parts(memory)
        self._ask = ask
        self._lease = self._context = 0  # of the tasks whose values it has
        self.room = len(self.data)
        self.used = self.since = self.last = 0
        self._first = 0  # bytes of the first piece
        self._asked_at = 0

    def is_of(self, lease: int, context: int) -> bool:
        """Whether values of that context and lease can be put in now."""
        return self._lease == lease and self._context == context

    def begin(self, lease: int, context: int, head: bytes) -> None:
        """The head of the rounds from now on, and what it says.  Nothing is gathered."""
        self._head[: len(head)] = head
        self.cells[HEAD] = len(head)
        self._lease, self._context = lease, context

    def begin_round(self, now: int, end: int) -> int:
        """The first piece, which was not put in yet, will end there; returns ``now``."""
        self.cells[SINCE] = self.since = now
        self._first = end
        return now

    def put(self, piece: bytes, now: int) -> bool:
        """Put a piece in; False if there is no room."""
        end = self.used + len(piece)
        if end > self.room:
            return False
        if not self.used:
            self.begin_round(now, end)
        self.data[self.used : end] = piece
        self.cells[USED] = self.used = end
        return True

    def may_wait(self, now: int, last: bool = False) -> bool:
        """Whether what was put in, the outcome of a task that has just ended last, may wait while the next one runs.

        ``last``: it is of the last task of a lease, and goes with the question for the next one in any case.
        """
        short, self.last = now - self.last < SHORT, now
        if last or not short:
            return False
        if self.cells[WATCHED]:
            return now - self.since < GATHER
        if now - self._asked_at > _ASK_AGAIN:
            self._asked_at = now
            self.cells[ASKED] += 1
            self._ask()
        return False

    @property
    def empty(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.used

    @property
    def pieces(self) -> bytes:
        """All that is to be sent, with its head; empty if that is nothing.  Then `clear`."""
        return self.pieces_from(0)

    def pieces_from(self, begin: int) -> bytes:
        """The same of what was put in behind so many bytes."""
        return bytes(self._head[: self.cells[HEAD]]) + self.data[begin : self.used] if self.used > begin else b""

    def clear(self) -> None:
        """It was sent, or will be once more on another connection."""
        if self.used > self._first:
            self.cells[GATHERED] += 1
        self.cells[USED] = self.used = 0
        self.cells[ROUND] += 1


class Watch:
    """The agent's side."""

    def __init__(self, memory: SharedMemory) -> None:
        self._cells, self._head, self._data = _parts(memory)
        self.on = False
        self._asked = 0  # the question that was answered last
        self._passed_on = 0, 0  # round, and bytes of it that were sent
        self._starved = 0  # looks at which the runner was given longer, in a row
        self._gathered = self._quiet = 0  # how often the runner had gathered, and looks since that has changed

    def heed(self) -> bool:
        """Begin to look if the runner has asked for it; whether to look."""
        asked = self._cells[ASKED]
        if asked != self._asked:
            self.on, self._quiet = True, 0
            self._cells[WATCHED] = 1
        self._asked = asked
        return self.on

    def look(self, now: int, starved: Callable[[], bool] = lambda: False) -> bytes:
        """The pieces that the runner should have sent by now, and that were not sent yet, with their head.

        ``starved``: whether the runner got no processor since the last look.
        """
        gathered, self._gathered = self._gathered, self._cells[GATHERED]
        self._quiet = self._quiet + 1 if gathered == self._gathered else 0
        if self._quiet > _QUIET_LOOKS:
            self._cells[WATCHED] = 0
            self.on = self._quiet <= _QUIET_LOOKS + _LAST_LOOKS
        round, end = self._cells[ROUND], self._cells[USED]
        if end <= self._sent(round):
            return b""
        if self.on and now - self._cells[SINCE] < LATE:
            return b""
        if self.on and self._starved < _MOST_STARVED and starved():
            self._starved += 1
            return b""
        self._starved = 0
        return self._take(round, end)

    def rest(self) -> bytes:
        """The pieces that were not sent yet, now that the runner is dead, with their head."""
        return self._take(self._cells[ROUND], self._cells[USED])

    def stop(self) -> None:
        """Look no more: nothing can be sent."""
        self.on = False
        self._cells[WATCHED] = 0

    def _sent(self, round: int) -> int:
        """How many bytes of a round were sent."""
        begun, sent = self._passed_on
        return sent if begun == round else 0

    def _take(self, round: int, end: int) -> bytes:
        pieces = bytes(self._data[self._sent(round) : end])
        head = bytes(self._head[: self._cells[HEAD]])
        if not pieces or self._cells[ROUND] != round:
            return b""  # the runner has sent all of this round itself
        self._passed_on = round, end
        return head + pieces
