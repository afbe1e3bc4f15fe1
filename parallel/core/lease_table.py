"""LeaseTable: what happens to tasks that are granted, come back, or get their outcome.

A task is in exactly one place: the queue of its context (WAITING, backlog.py) or one slave's lease (LEASED, leases.py),
or two slaves' if it was started once more (COPIED, races.py).  The first outcome of a task settles it, whichever
attempt it is of; a later one finds no task and is nothing.

The table holds no tasks itself: it moves them between the backlog and the leases, so that both agree.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from slave.named import NamedTuple

from .backlog import Backlog
from .chunk import Chunk, ids_of
from .leases import Lease, Leases
from .pacing import Pacing
from .races import Races
from .task import MOVES, Move, State, Task

_SETTLED = MOVES[State.LEASED, Move.SETTLE]


class GivenUp(NamedTuple):
    """A task that ended its slave too often; ``ends`` says how each attempt ended."""

    task: Task
    ends: list[str]


class LeaseTable:
    """See the module's text.  ``term``: as of `Leases`; ``max_attempts``: a task has, that ends its slaves."""

    def __init__(self, term: float, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self.backlog = Backlog()
        self.leases = Leases(term)
        self.races = Races(self.leases)

    # -- who holds what

    def find(self, context: int, id: int) -> Task | None:
        """An unsettled task; out of its chunk, if it stood in one."""
        found = self.backlog.contexts.get(context)
        task = None if found is None else found.tasks.get(id)
        return self._single(task, id) if type(task) is Chunk else task  # type: ignore[return-value]  # no chunk

    def held(self, context: int) -> dict[int, tuple[int, list[int]]]:
        """By slave: the lease under which it holds tasks of the context, and their ids."""
        ids: dict[int, list[int]] = {}
        found = self.backlog.contexts.get(context)
        for id, task in found.tasks.items() if found is not None else ():
            if task.state is State.LEASED:
                ids.setdefault(task.holder, []).append(id)
            elif task.state is State.COPIED:
                for slave in (task.holder, self.races.second[id]):
                    ids.setdefault(slave, []).append(id)
        return {slave: (self.leases.by_slave[slave].id, some) for slave, some in ids.items()}

    def held_by(self, task: Task) -> dict[int, int]:
        """By slave that holds the task: its lease."""
        slaves = task.holder, self.races.second.get(task.id, -1)
        return {slave: self.leases.by_slave[slave].id for slave in slaves if slave >= 0}

    # -- tasks are granted

    def grant(self, slave: int, now: float, excluded: Collection[int], share: int, pace: Pacing) -> Lease | None:
        """A lease for a slave that holds none, as `Backlog.fill` says; None if nothing waits that it may run."""
        lease = self.leases.new(slave, now)
        self.backlog.fill(lease, excluded, share, pace)
        if not lease.tasks:
            return None
        self.leases.begin(lease)
        return lease

    def copy(self, slave: int, task: Task, now: float) -> Lease:
        """A lease of a task that another slave holds, for one that holds none: the two race."""
        lease = self.leases.new(slave, now)
        self.races.begin(task, lease)
        self.leases.begin(lease)
        return lease

    # -- tasks have their outcome, or are to have none

    def settle(self, context: int, id: int) -> Task | None:
        """An outcome of the task came: the task if this is the first one, else None."""
        task = self.find(context, id)
        if task is not None:
            self._leave(task, Move.SETTLE)
        return task

    def settle_all(self, context: int, ids: Mapping[int, object]) -> tuple[list[Task], list[int], list[int]]:
        """Outcomes of several tasks came.  Of those of which these are the first: the tasks; and the ids and
        indices of those that stood in chunks.
        """
        found = self.backlog.contexts.get(context)
        settled: list[Task] = []
        numbers: list[int] = []
        indices: list[int] = []
        if found is None:
            return settled, numbers, indices
        tasks, leases = found.tasks, self.leases.by_slave
        chunk = tasks.get(next(iter(ids), 0))
        if type(chunk) is Chunk and _settle_part(chunk, tasks, leases, ids):
            return settled, list(ids), [id + chunk.offset for id in ids]
        for id in ids:
            task = tasks.get(id)
            if task is None:
                continue
            if task.state is not State.LEASED or len(tasks) == 1:
                settled.append(self.settle(context, id))  # type: ignore[arg-type]  # it is there
                continue
            # as `_leave` has it, in fewer lines: this runs for each task
            del tasks[id]
            held = leases[task.holder].tasks
            del held[id]
            if not held:
                del leases[task.holder]
            if type(task) is Chunk:
                del task.inputs[id]
                numbers.append(id)
                indices.append(id + task.offset)
                if task.inputs:
                    continue
            else:
                settled.append(task)  # type: ignore[arg-type]  # it is no chunk
            task.state, task.holder = _SETTLED, -1
        return settled, numbers, indices

    def drop(self, context: int) -> int:
        """Forget all tasks of a context that nobody asks for any more; returns how many there were."""
        count = self.backlog.left(context)
        for task in self.backlog.withdraw(context):
            self._leave(task, Move.DROP)
        return count

    def drop_task(self, context: int, id: int) -> Task | None:
        """Forget one task; None if it is not here."""
        task = self.find(context, id)
        if task is not None:
            self._leave(task, Move.DROP)
        return task

    # -- tasks come back

    def retry(self, slave: int, lease_id: int, context: int, id: int) -> bool:
        """The task raised on ``slave`` under that lease: whether it is tried again, and so has no outcome yet.

        A failure of an attempt that is not the current one costs no retry: another attempt is on its way.  It may be
        the second word of a failure that was counted before.
        """
        task = self.find(context, id)
        if task is None or not (task.retries or task.failures):
            return False
        lease = self.leases.by_slave.get(slave)
        if lease is not None and lease.id == lease_id and id in lease.tasks:
            if not task.retries:
                return False
            task.retries -= 1
            task.failures += 1
            self._back(slave, [task], Move.RETRY)
        return True

    def refuse(self, slave: int, lease_id: int, context: int, id: int) -> Task | None:
        """The slave cannot rebuild the task, which has not begun, and never gets it again; None if it is not its own.

        What is said of an attempt that is not the current one changes nothing.
        """
        task, lease = self.find(context, id), self.leases.by_slave.get(slave)
        if task is None or lease is None or lease.id != lease_id or id not in lease.tasks:
            return None
        task.unfit |= {slave}
        if task.state is State.COPIED:
            self.races.leave_to_other(slave, task, Move.GIVE_BACK)
            return task
        self.leases.release(task)
        task.move(Move.GIVE_BACK)
        self.backlog.put_behind(task)
        return task

    def give_back(self, slave: int, ids: Iterable[int] | None = None) -> int:
        """The slave holds these tasks (default: any) no more and has not started them; returns how many came back.

        They wait in the lease's order, in whichever they are named.
        """
        lease = self.leases.by_slave.get(slave)
        if lease is None:
            return 0
        named = None if ids is None else set(ids)
        return self._to_front(lease, [id for id in lease.tasks if named is None or id in named])

    def give_back_after(self, slave: int, lease_id: int, running: int) -> int:
        """The lease was recalled while task ``running`` ran: what stands behind it was not started.

        ``lease_id`` 0: whichever the slave holds, for it starts nothing any more.
        """
        lease = self.leases.by_slave.get(slave)
        if lease is None or lease_id not in (0, lease.id) or not running:
            return 0
        behind = list(lease.tasks)
        if running in lease.tasks:
            behind = behind[behind.index(running) + 1 :]
        return self.give_back(slave, behind)

    def lose(self, slave: int, running: int, end: str) -> GivenUp | None:
        """The slave is lost.  All its tasks come back; the blame, told by ``end``, falls on the one that was running.

        ``running`` is 0 if none was.  Returns that task if it has now ended its slaves ``max_attempts`` times.
        """
        lease = self.leases.by_slave.get(slave)
        if lease is None:
            return None
        held = lease.tasks.get(running)
        blamed = None if held is None else self.find(held.context, running)
        given_up: GivenUp | None = None
        if blamed is not None:
            blamed.ends = [*(blamed.ends or ()), end]
            if len(blamed.ends) >= self.max_attempts:
                self._leave(blamed, Move.SETTLE)
                given_up = GivenUp(blamed, blamed.ends)
        self._to_front(lease, [id for id in lease.tasks if blamed is None or id != running])
        if blamed is not None and given_up is None:
            self._back(slave, [blamed], Move.LOSE)
        return given_up

    # -- within

    def _single(self, chunk: Chunk, id: int) -> Task:
        """Take a task out of a chunk; it stands in its place, or the chunk's."""
        task = self.backlog.single(chunk, id)
        if task.state is State.LEASED:
            self.leases.by_slave[task.holder].tasks[id] = task
        return task

    def _leave(self, task: Task | Chunk, move: Move) -> None:
        """A task, or a chunk of them, leaves the table for good."""
        state = task.state
        if state is State.COPIED:
            self.races.end(task, won=move is Move.SETTLE)
        task.move(move)
        if state is not State.WAITING:
            self.leases.release(task)
        self.backlog.remove(task, state is State.WAITING)

    def _to_front(self, lease: Lease, ids: list[int]) -> int:
        """Leased tasks that were not started go back to the front of their queues, in their order."""
        parts: list[Task | Chunk] = []
        for task, group in itertools.groupby(ids, lease.tasks.__getitem__):
            some = list(group)
            if type(task) is Chunk and len(some) < len(task.inputs):
                task = self.backlog.cut(task, some)
                lease.tasks.update(dict.fromkeys(some, task))
            parts.append(task)
        self._back(lease.slave, parts, Move.GIVE_BACK)
        return len(ids)

    def _back(self, slave: int, tasks: Sequence[Task | Chunk], move: Move) -> None:
        if self.races.second:
            for task in [one for one in tasks if one.state is State.COPIED]:
                self.races.leave_to_other(slave, task, move)
            tasks = [one for one in tasks if one.state is State.LEASED and one.holder == slave]
        for task in tasks:
            self.leases.release(task)
            task.move(move)
        self.backlog.put_back(tasks)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        self.backlog.check()
        self.leases.check()
        self.races.check()
        every = {id: task for context in self.backlog.contexts.values() for id, task in context.tasks.items()}
        waiting, second = self.backlog.in_line(), self.races.second
        queued = [id for task in waiting for id in ids_of(task)]
        leased = [
            (id, task, slave) for slave, lease in self.leases.by_slave.items() for id, task in lease.tasks.items()
        ]
        held = {id for id, _, _ in leased}
        assert len({*queued, *held}) == len(queued) + len(leased) - len(second), "a task is in two places"
        assert {*queued, *held} == set(every), "a task is in no place, or unknown"
        for task in dict.fromkeys([*waiting, *(task for _, task, _ in leased)]):
            assert ids_of(task) and all(every[id] is task for id in ids_of(task)), f"{task!r} is not where it stands"
        for id, task, slave in leased:
            holders = (task.holder, second[id]) if task.state is State.COPIED else (task.holder,)
            assert slave in holders, f"{task!r} is in the lease of slave {slave}"
        for task in every.values():
            assert len(task.ends or ()) < self.max_attempts, f"{task!r} should have been given up"


def _settle_part(
    chunk: Chunk, tasks: dict[int, Task | Chunk], leases: Mapping[int, Lease], ids: Mapping[int, object]
) -> bool:
    """Settle a part of a leased chunk, as nearly always it is; False if it is something else."""
    if chunk.state is not State.LEASED or len(ids) >= len(chunk.inputs) or not chunk.inputs.keys() >= ids.keys():
        return False
    for where in (tasks, leases[chunk.holder].tasks, chunk.inputs):
        deque(map(where.__delitem__, ids), 0)  # a loop in compiled code
    return True
