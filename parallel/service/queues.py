"""TaskQueue and ResultQueue: what runners reach by proxy (slave/link.py has the other ends).

A lease is written into the table before its tasks leave the master: if the answer is lost on its way, the slave's next
word ("I hold no lease"), its agent's report or the lease's expiry brings the tasks back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from slave.link import Lease
from slave.outcome import FAILURE, pack_failure, unpack_failure
from slave.wire import Buffer, Unfit, opaque

from ..core import lease_table as table
from ..core.roster import SlaveRecord, SlaveState
from .books import RECALL_AGE, Books, Settled, log

Post = tuple[int, int, int, int, Any, Sequence[Any]]  # slave, lease, task, kind, data, buffers (bytes, bytearrays)

_NO_LEASE: Lease = (0, [], {})
_OVERHEAD = 300  # bytes that the objects around an outcome take
POLL_SECONDS = 5.0  # for which a call may wait in the master


class UnknownSlave(Exception):
    """A call in the name of a slave that this master does not have, or whose process has been replaced."""


class TaskQueue:
    """Hands out leases."""

    ident = "tasks"
    exposed = ("join", "fetch", "setup_of")
    one_way: tuple[str, ...] = ()
    gathered: tuple[str, ...] = ()

    def __init__(self, books: Books) -> None:
        self._books = books

    def join(self, number: int, pid: int, connection: int, run: str, lease: int) -> bool:
        """Process ``pid`` is slave ``number`` and holds ``lease`` (0: none); False if it means another master.

        ``connection`` counts the connections of this process.
        """
        books = self._books
        with books.lock:
            slave = books.roster.slaves.get(number)
            if run != books.run or slave is None:
                return False
            books.wait_for_report(slave, pid)
            if slave.state is SlaveState.ENDED:
                return False
            held = books.table.leases.get(number)
            if held is not None and (slave.pid != pid or held.id != lease):
                books.wake_idle(books.table.hand_back(number))
            if slave.pid != pid:
                slave.knows.clear()
                slave.to_forget.clear()
            slave.pid, slave.state, slave.connection = pid, SlaveState.READY, connection
            slave.call += 1
            books.stop_waiting(slave)  # a call of an earlier connection may still wait
            books.heard(slave)
            log.info("parallel: %s has joined", str(slave))
            books.wake_readers()
        return True

    def fetch(
        self, number: int, pid: int, connection: int, ran: Sequence[tuple[int, int, float]]
    ) -> tuple[Lease, list[int]] | None:
        """A lease and the contexts to forget; None when the master is done.  Waits for `POLL_SECONDS` at most."""
        books = self._books
        with books.lock:
            slave = _slave(books, number, pid)
            if slave.connection != connection:
                return _NO_LEASE, []  # read late, from a connection that was replaced: nobody is there to be answered
            slave.call += 1
            call = slave.call
            books.heard(slave)
            for context, tasks, seconds in ran:
                if context in books.trays:
                    books.pace.learn(context, tasks, seconds)
            books.drop_abandoned()
            books.wake_idle(books.table.hand_back(number))
            deadline = time.monotonic() + POLL_SECONDS
            while not books.closing and not slave.draining and slave.call == call and slave.state is SlaveState.READY:
                lease = books.grant(slave)
                patience = deadline - time.monotonic()
                if lease is None and not slave.to_forget and patience > 0:
                    self._idle(slave, patience)
                    continue
                forgotten, slave.to_forget = slave.to_forget, []
                return _NO_LEASE if lease is None else _entries(lease), forgotten
            if books.closing or slave.draining or slave.pid != pid or slave.state is SlaveState.ENDED:
                return None
            return _NO_LEASE, []

    def setup_of(self, number: int, context: int) -> Buffer | None:
        """The context's pickled setup; None if it has none."""
        with self._books.lock:
            tray = self._books.trays.get(context)
            return opaque(tray.setup) if tray is not None and tray.setup is not None else None

    def _idle(self, slave: SlaveRecord, patience: float) -> None:
        """Wait until something may have changed for the slave; meanwhile overdue leases are called back."""
        books = self._books
        books.recall_overdue()
        if any(len(lease.tasks) > 1 and not lease.recalled for lease in books.table.leases.values()):
            patience = min(patience, RECALL_AGE)
        news = books.idle[slave.number] = threading.Condition(books.lock)
        if not books.incoming:
            news.wait(patience)
        if books.idle.get(slave.number) is news:
            del books.idle[slave.number]


class ResultQueue:
    """Takes outcomes in."""

    ident = "results"
    exposed = ("post", "post_and_wait", "setup_failed", "hand_back")
    one_way = ("post",)
    gathered = ("post",)

    def __init__(self, books: Books) -> None:
        self._books = books

    def post(self, posts: Sequence[Post]) -> None:
        """What came of some tasks: the first outcome of a task settles it, any later one is dropped.

        Never waits, not even if too many results wait to be read: a connection on which nobody reads for long breaks.
        """
        books = self._books
        with books.lock:
            settle, slaves, deliver = books.table.settle, books.roster.slaves, books.deliver
            for number, lease, task_id, kind, data, buffers in posts:
                if kind == FAILURE and books.table.retry(number, lease, task_id):
                    books.wake_idle(1)
                    continue
                task = settle(task_id)
                if task is not None:
                    slave = slaves[number]
                    slave.done += 1
                    size = _OVERHEAD + len(data) + (sum(map(len, buffers)) if buffers else 0)
                    deliver(task.context, Settled(kind, str(slave), data, buffers, size, 1 + task.failures))

    def post_and_wait(
        self, number: int, lease: int, task: int, kind: int, data: Buffer, buffers: Sequence[Buffer]
    ) -> None:
        """The same for one task; the answer tells the slave that it need not keep the outcome, and may go on."""
        books = self._books
        found = books.table.tasks.get(task)
        self.post([(number, lease, task, *_fit(kind, data, buffers))])
        if found is not None:
            with books.lock:
                books.wait_for_room(found.context)

    def setup_failed(self, number: int, context: int, data: bytes, lease: int, unstarted: Sequence[int]) -> None:
        """Setup raised on this slave: it is out for that context, and the tasks go to others."""
        failure = unpack_failure(data)
        books = self._books
        with books.lock:
            slave = books.roster.slaves[number]
            slave.barred.add(context)
            back = _hand_back(books, number, lease, unstarted)
            tray = books.trays.get(context)
            if tray is not None:
                tray.failures[number] = data
                log.warning(
                    "parallel: setup raised %s on %s, which is out for this context: %s",
                    failure.type_name,
                    str(slave),
                    failure.message.splitlines()[0] if failure.message else "",
                )
            books.wake_idle(back)
            books.wake_readers()

    def hand_back(self, number: int, lease: int, unstarted: Sequence[int]) -> None:
        """The slave has not started these tasks of the lease and will not."""
        with self._books.lock:
            self._books.wake_idle(_hand_back(self._books, number, lease, unstarted))


def _hand_back(books: Books, number: int, lease: int, unstarted: Sequence[int]) -> int:
    """Hand tasks back, unless the word comes late, over a connection that was replaced, and means an older lease."""
    held = books.table.leases.get(number)
    return books.table.hand_back(number, unstarted) if held is not None and held.id == lease else 0


def _entries(lease: table.Lease) -> Lease:
    """A lease as it goes to the slave."""
    tasks = lease.tasks.values()
    limits = {task.id: task.timeout for task in tasks if task.timeout is not None}
    return lease.id, [(task.id, task.context, opaque(task.payload)) for task in tasks], limits


def _slave(books: Books, number: int, pid: int) -> SlaveRecord:
    slave = books.roster.slaves.get(number)
    if slave is None or slave.pid != pid:
        raise UnknownSlave(f"slave {number} with process {pid} is not known here")
    return slave


def _fit(kind: int, data: Buffer, buffers: Sequence[Buffer]) -> tuple[int, Buffer, Sequence[Buffer]]:
    """The outcome, or a failure in its place if the master had no memory for a part of it."""
    missing = sum(part.size for part in (data, *buffers) if isinstance(part, Unfit))
    if not missing:
        return kind, data, buffers
    return pack_failure(MemoryError(f"the master has no memory for this task's result of {missing} bytes or more"))
