"""LeaseTable: what happens to tasks that are granted, come back, or get their outcome.

A task is in exactly one place: the queue of its context (WAITING, backlog.py) or one slave's lease (LEASED, leases.py),
or two slaves' if it was started once more (COPIED, races.py).  The first outcome of a task settles it, whichever
attempt it is of; a later one finds no task and is nothing.

The table holds no tasks itself: it moves them between the backlog and the leases, so that both agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from slave.named import NamedTuple

from .backlog import Backlog
from .chunk import Chunk, count_of, ids_of
from .leases import Lease, Leases
from .pacing import Pacing
from .races import Races
from .task import MOVES, Move, State, Task

_LEASED = State.LEASED
_SETTLED = MOVES[_LEASED, Move.SETTLE]


class GivenUp(NamedTuple):
    """A task that ended its slave too often; ``ends`` says how each attempt ended."""

    task: Task
    ends: list[str]


class Settled(NamedTuple):
    """Tasks of a message that have their outcome now.

    ``tasks``: where in the message each stands, and the task.  ``runs``: of those that stood in chunks: where the first
    one stands, how many follow one another, itself included, and which input of the map it is.
    """

    tasks: list[tuple[int, Task]]
    runs: list[tuple[int, int, int]]


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
        for task in found.tasks.parts.values() if found is not None else ():
            if task.state is State.LEASED:
                ids.setdefault(task.holder, []).extend(ids_of(task))
            elif task.state is State.COPIED:
                for slave in (task.holder, self.races.second[task.id]):
                    ids.setdefault(slave, []).append(task.id)
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
        if not lease.tasks.parts:
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

    def settle_all(self, context: int, ids: Sequence[int]) -> Settled:
        """Outcomes of several tasks came, each of one.  Of those of which these are the first, see `Settled`."""
        found = self.backlog.contexts.get(context)
        settled = Settled([], [])
        if found is None:
            return settled
        tasks, leases = found.tasks, self.leases.by_slave
        parts, at, end = tasks.parts, 0, len(ids)
        while at < end:
            id = ids[at]
            task = parts.get(id)
            if type(task) is not Task:  # a chunk, or nothing
                task = tasks.get(id)
                if type(task) is Chunk and task.state is _LEASED:
                    count = _together(ids, at, min(end - at, task.end - id))
                    settled.runs.append((at, count, id + task.offset))
                    self._settle_run(task, id, count)
                    at += count
                    continue
            at += 1
            if task is None:
                continue
            if task.state is not _LEASED or len(parts) == 1:
                settled.tasks.append((at - 1, self.settle(context, id)))  # type: ignore[arg-type]  # it is there
                continue
            # as `_leave` has it, in fewer lines: this runs for each task
            del parts[id]
            held = leases[task.holder].tasks.parts
            del held[id]
            if not held:
                del leases[task.holder]
            settled.tasks.append((at - 1, task))  # type: ignore[arg-type]  # it is no chunk
            task.state, task.holder = _SETTLED, -1
        return settled

    def _settle_run(self, chunk: Chunk, id: int, count: int) -> None:
        """So many tasks of a leased chunk, from this one on, have their outcomes."""
        if id > chunk.first:
            chunk = self._split(chunk, id)
        if count == len(chunk):
            self._leave(chunk, Move.SETTLE)
            return
        chunk.first += count
        self.backlog.contexts[chunk.context].tasks.shorten(count)
        self.leases.by_slave[chunk.holder].tasks.shorten(count)

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
        parts = list(lease.tasks.parts.values())
        return self._to_front(slave, parts if ids is None else self._named(parts, set(ids)))

    def give_back_after(self, slave: int, lease_id: int, running: int) -> int:
        """The lease was recalled while task ``running`` ran: what stands behind it was not started.

        ``lease_id`` 0: whichever the slave holds, for it starts nothing any more.
        """
        lease = self.leases.by_slave.get(slave)
        if lease is None or lease_id not in (0, lease.id) or not running:
            return 0
        task = lease.tasks.get(running)
        if type(task) is Chunk and running + 1 < task.end:
            self._split(task, running + 1)
        behind = list(lease.tasks.parts.values())
        if task is not None:
            behind = behind[behind.index(task) + 1 :]
        return self._to_front(slave, behind)

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
        self._to_front(slave, [part for part in lease.tasks.parts.values() if part is not blamed])
        if blamed is not None and given_up is None:
            self._back(slave, [blamed], Move.LOSE)
        return given_up

    # -- within

    def _single(self, chunk: Chunk, id: int) -> Task:
        """Take a task out of a chunk; it stands in its place."""
        if id > chunk.first:
            chunk = self._split(chunk, id)
        if len(chunk) > 1:
            self._split(chunk, id + 1)
        task = self.backlog.single(chunk)
        if task.state is State.LEASED:
            self.leases.by_slave[task.holder].tasks.replace(chunk, task)
        return task

    def _split(self, chunk: Chunk, at: int) -> Chunk:
        """As `Backlog.split`, also where the chunk is held."""
        rest = self.backlog.split(chunk, at)
        if chunk.state is State.LEASED:
            self.leases.by_slave[chunk.holder].tasks.add_behind(chunk, rest)
        return rest

    def _named(self, parts: Iterable[Task | Chunk], ids: Collection[int]) -> list[Task | Chunk]:
        """Of these parts of a lease those whose tasks are named; a chunk of which only some are is split."""
        found: list[Task | Chunk] = []
        for part in parts:
            if type(part) is not Chunk:
                found += (part,) if part.id in ids else ()
                continue
            rest: Chunk | None = part
            while rest is not None:
                first = next((id for id in rest.ids if id in ids), None)
                if first is None:
                    break
                chunk = self._split(rest, first) if first > rest.first else rest
                behind = next((id for id in chunk.ids if id not in ids), None)
                rest = None if behind is None else self._split(chunk, behind)
                found.append(chunk)
        return found

    def _leave(self, task: Task | Chunk, move: Move) -> None:
        """A task, or a chunk of them, leaves the table for good."""
        state = task.state
        if state is State.COPIED:
            self.races.end(task, won=move is Move.SETTLE)
        task.move(move)
        if state is not State.WAITING:
            self.leases.release(task)
        self.backlog.remove(task, state is State.WAITING)

    def _to_front(self, slave: int, parts: Sequence[Task | Chunk]) -> int:
        """Leased tasks that were not started go back to the front of their queues, in their order; returns how many."""
        count = sum(map(count_of, parts))
        self._back(slave, parts, Move.GIVE_BACK)
        return count

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


def _together(ids: Sequence[int], at: int, most: int) -> int:
    """How many ids follow one another from the one at ``at`` on; ``most`` at the most, as nearly always."""
    first = ids[at]
    if ids[at + most - 1] == first + most - 1 and list(ids[at : at + most]) == list(range(first, first + most)):
        return most
    count = 1
    while count < most and ids[at + count] == first + count:
        count += 1
    return count
