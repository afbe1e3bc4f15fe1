"""LeaseTable: every unsettled task, who holds it, and until when.

A task is in exactly one place: the queue of its context (WAITING) or one slave's lease (LEASED).  A slave holds at most
one lease.  Tasks are granted in the order in which they were added, over all contexts; one that comes back goes to
the front.  The first outcome of a task settles it, whichever attempt it is of; a later one finds no task and is
nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Callable, NamedTuple

from .pacing import LEASE_BYTES, LEASE_SECONDS, Pacing
from .task import IllegalMove, Move, State, Task


class Lease:
    """The tasks that one slave holds, in the order in which it runs them."""

    __slots__ = ("deadline", "granted", "id", "recalled", "slave", "tasks")

    def __init__(self, id: int, slave: int, now: float, deadline: float) -> None:
        self.id, self.slave, self.granted, self.deadline = id, slave, now, deadline
        self.tasks: dict[int, Task] = {}
        self.recalled = False  # the slave was asked to hand back what it has not started


class GivenUp(NamedTuple):
    """A task that ended its slave too often; ``ends`` says how each attempt ended."""

    task: Task
    ends: list[str]


class LeaseTable:
    """See the module's text.  ``term``: seconds that a lease lasts unless it is renewed."""

    def __init__(self, term: float, max_attempts: int) -> None:
        self.term, self.max_attempts = term, max_attempts
        self.tasks: dict[int, Task] = {}  # every unsettled task by id
        self.leases: dict[int, Lease] = {}  # by slave; a lease without tasks is not kept
        self.waiting = 0  # how many tasks are WAITING
        self.left: dict[int, int] = {}  # how many tasks each context has here
        self._queues: dict[int, deque[Task]] = {}  # by context; may hold tasks that were settled or dropped since
        self._last_lease = 0

    # -- tasks come and go

    def add(self, task: Task) -> None:
        """A new task, at the back of its context's queue."""
        self.tasks[task.id] = task
        self.left[task.context] = self.left.get(task.context, 0) + 1
        queue = self._queues.get(task.context)
        if queue is None:
            queue = self._queues[task.context] = deque()
        queue.append(task)
        self.waiting += 1

    def settle(self, id: int) -> Task | None:
        """An outcome of the task came: the task if this is the first one, else None."""
        task = self.tasks.get(id)
        if task is not None:
            self._leave(task, Move.SETTLE)
        return task

    def retry(self, slave: int, lease_id: int, id: int) -> bool:
        """The task raised on ``slave`` under that lease: whether it is tried again, and so has no outcome yet.

        A failure of an attempt that is not the current one costs no retry: another attempt is on its way.
        """
        task = self.tasks.get(id)
        if task is None or not task.retries:
            return False
        lease = self.leases.get(slave)
        if lease is not None and lease.id == lease_id and id in lease.tasks:
            task.retries -= 1
            task.failures += 1
            self._to_front([task], Move.RETRY)
        return True

    def held(self, context: int) -> dict[int, tuple[int, list[int]]]:
        """By slave: the lease under which it holds tasks of the context, and their ids."""
        found: dict[int, tuple[int, list[int]]] = {}
        for lease in self.leases.values():
            ids = [task.id for task in lease.tasks.values() if task.context == context]
            if ids:
                found[lease.slave] = lease.id, ids
        return found

    def drop(self, context: int) -> int:
        """Forget all tasks of a context that nobody asks for any more; returns how many there were."""
        gone = [task for task in self.tasks.values() if task.context == context]
        for task in gone:
            self._leave(task, Move.DROP)
        self._queues.pop(context, None)
        return len(gone)

    # -- leases

    def grant(self, slave: int, now: float, may_run: Callable[[int], bool], share: int, pace: Pacing) -> Lease | None:
        """A lease for a slave that holds none, of at most ``share`` tasks; None if nothing waits that it may run.

        ``may_run`` tells whether the slave may run a context's tasks.
        """
        if slave in self.leases:
            raise IllegalMove(f"slave {slave} holds lease {self.leases[slave].id} and is to get another one")
        lease = Lease(self._last_lease + 1, slave, now, now + self.term)
        seconds, size = LEASE_SECONDS, LEASE_BYTES
        while len(lease.tasks) < share and seconds > 0 and size > 0:
            queue, bound = self._oldest(may_run)
            if not queue:
                break
            context = queue[0].context
            room = min(share - len(lease.tasks), pace.fits(context, seconds))
            if not lease.tasks:
                room = max(1, room)
            if room < 1:
                break
            before = len(lease.tasks)
            size = self._take(queue, lease, room, bound, size)
            seconds -= (len(lease.tasks) - before) * (pace.seconds_per_task(context) or LEASE_SECONDS)
        if not lease.tasks:
            return None
        self._last_lease = lease.id
        self.leases[slave] = lease
        return lease

    def renew(self, slave: int, now: float) -> None:
        """A sign of life: the slave's lease lasts a full term from now."""
        lease = self.leases.get(slave)
        if lease is not None:
            lease.deadline = now + self.term

    def shorten(self, slave: int, deadline: float) -> None:
        """The slave's lease ends at ``deadline`` at the latest, unless it is renewed."""
        lease = self.leases.get(slave)
        if lease is not None:
            lease.deadline = min(lease.deadline, deadline)

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long and could hear nobody: every lease gets that time back."""
        for lease in self.leases.values():
            lease.deadline += seconds
            lease.granted += seconds

    def expired(self, now: float) -> list[int]:
        """The slaves whose lease is over."""
        return [slave for slave, lease in self.leases.items() if lease.deadline <= now]

    def overdue(self, now: float, age: float) -> list[Lease]:
        """Leases not recalled yet, granted ``age`` seconds ago or more, that hold tasks behind the one that runs."""
        return [
            lease
            for lease in self.leases.values()
            if len(lease.tasks) > 1 and not lease.recalled and lease.granted + age <= now
        ]

    def hand_back(self, slave: int, ids: Iterable[int] | None = None) -> int:
        """The slave holds these tasks (default: any) no more and has not started them; returns how many came back."""
        lease = self.leases.get(slave)
        if lease is None:
            return 0
        back = list(lease.tasks.values()) if ids is None else [lease.tasks[id] for id in ids if id in lease.tasks]
        return self._to_front(back, Move.RETURN)

    def hand_back_after(self, slave: int, lease_id: int, running: int) -> int:
        """The lease was recalled while task ``running`` ran: what stands behind it was not started.

        ``lease_id`` 0: whichever the slave holds, for it starts nothing any more.
        """
        lease = self.leases.get(slave)
        if lease is None or lease_id not in (0, lease.id) or not running:
            return 0
        behind = list(lease.tasks)
        if running in lease.tasks:
            behind = behind[behind.index(running) + 1 :]
        return self.hand_back(slave, behind)

    def lose(self, slave: int, running: int, end: str) -> GivenUp | None:
        """The slave is lost.  All its tasks come back; the blame, told by ``end``, falls on the one that was running.

        ``running`` is 0 if none was.  Returns that task if it has now ended its slaves ``max_attempts`` times.
        """
        lease = self.leases.get(slave)
        if lease is None:
            return None
        blamed = lease.tasks.get(running)
        given_up: GivenUp | None = None
        if blamed is not None:
            blamed.ends = [*(blamed.ends or ()), end]
            if len(blamed.ends) >= self.max_attempts:
                self.settle(blamed.id)
                given_up = GivenUp(blamed, blamed.ends)
        rest = list(lease.tasks.values())
        self._to_front([task for task in rest if task is not blamed], Move.RETURN)
        if blamed is not None and given_up is None:
            self._to_front([blamed], Move.LOSE)
        return given_up

    # -- within

    def _oldest(self, may_run: Callable[[int], bool]) -> tuple[deque[Task], float]:
        """Of the queues that may be run the one with the oldest task, and the id from which another's turn is."""
        best: deque[Task] = deque()
        bound = math.inf
        for context, queue in self._queues.items():
            while queue and queue[0].state is not State.WAITING:
                queue.popleft()
            if not queue or not may_run(context):
                continue
            if not best or queue[0].id < best[0].id:
                bound = best[0].id if best else math.inf
                best = queue
            else:
                bound = min(bound, queue[0].id)
        return best, bound

    def _take(self, queue: deque[Task], lease: Lease, room: int, bound: float, size: int) -> int:
        """Move up to ``room`` tasks from the queue into the lease; returns how much of ``size`` bytes is left."""
        while room > 0 and size > 0 and queue and queue[0].id < bound:
            task = queue.popleft()
            if task.state is not State.WAITING:
                continue
            task.move(Move.GRANT)
            task.attempt += 1
            task.holder = lease.slave
            lease.tasks[task.id] = task
            self.waiting -= 1
            size -= len(task.payload)
            room -= 1
        return size

    def _leave(self, task: Task, move: Move) -> None:
        """A task leaves the table for good."""
        if task.state is State.WAITING:
            self.waiting -= 1  # it stays in its queue until its turn comes, and is passed over then
        else:
            self._release(task)
        task.move(move)
        del self.tasks[task.id]
        self.left[task.context] -= 1
        if not self.left[task.context]:
            del self.left[task.context]

    def _release(self, task: Task) -> None:
        lease = self.leases[task.holder]
        del lease.tasks[task.id]
        if not lease.tasks:
            del self.leases[task.holder]
        task.holder = -1

    def _to_front(self, tasks: list[Task], move: Move) -> int:
        """Leased tasks go back to the front of their queues, in their order."""
        for task in reversed(tasks):
            self._release(task)
            task.move(move)
            self._queues.setdefault(task.context, deque()).appendleft(task)
            self.waiting += 1
        return len(tasks)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        queued = [task for queue in self._queues.values() for task in queue if task.state is State.WAITING]
        leased = [task for lease in self.leases.values() for task in lease.tasks.values()]
        assert len(queued) == self.waiting, f"{len(queued)} tasks wait, {self.waiting} are counted"
        assert len({task.id for task in queued + leased}) == len(queued) + len(leased), "a task is in two places"
        assert {task.id for task in queued + leased} == set(self.tasks), "a task is in no place, or unknown"
        assert sum(self.left.values()) == len(self.tasks), "the tasks of the contexts are counted wrongly"
        for context, queue in self._queues.items():
            assert all(task.context == context for task in queue), (
                f"the queue of context {context} holds another's task"
            )
        for slave, lease in self.leases.items():
            assert lease.slave == slave and lease.tasks, f"the lease of slave {slave} is empty or another's"
            for id, task in lease.tasks.items():
                assert task.id == id and task.holder == slave, f"{task!r} is in the lease of slave {slave}"
                assert task.state is State.LEASED and task.attempt > 0, f"{task!r} is in a lease"
        for task in self.tasks.values():
            assert len(task.ends or ()) < self.max_attempts, f"{task!r} should have been given up"
