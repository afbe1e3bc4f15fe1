"""LeaseTable: every unsettled task, who holds it, and until when.

A task is in exactly one place: the queue of its context (WAITING) or one slave's lease (LEASED), or two slaves' if it
was started once more (COPIED).  A slave holds at most one lease.  Tasks are granted in the order in which they were
added, over all contexts; one that comes back goes to the front.  The first outcome of a task settles it, whichever
attempt it is of; a later one finds no task and is nothing.

Nothing here walks what is over or what is another context's: turns.py tells whose turn is next.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from slave.named import NamedTuple

from .chunk import Chunk, ids_of
from .moves import IllegalMove
from .pacing import LEASE_BYTES, LEAST_SECONDS, Pacing
from .task import MOVES, Move, State, Task
from .turns import ContextTasks, Line, Turns

_SETTLED = MOVES[State.LEASED, Move.SETTLE]
_GRANTED = MOVES[State.WAITING, Move.GRANT]
_LEASES_AHEAD = 32  # for so many the front of a long chunk is cut off: a dict finds its first key by all that were


class Lease:
    """The tasks that one slave holds, in the order in which it runs them."""

    __slots__ = ("contexts", "deadline", "granted", "id", "recalled", "slave", "tasks")

    def __init__(self, id: int, slave: int, now: float, deadline: float) -> None:
        self.id, self.slave, self.granted, self.deadline = id, slave, now, deadline
        self.tasks: dict[int, Task | Chunk] = {}  # a chunk stands there for each of its tasks
        self.contexts: set[int] = set()  # of which it was granted tasks
        self.recalled = False  # the slave was asked to give back what it has not started


class GivenUp(NamedTuple):
    """A task that ended its slave too often; ``ends`` says how each attempt ended."""

    task: Task
    ends: list[str]


class Race(NamedTuple):
    """A task that two slaves held has its outcome.

    ``leases``: by slave, that under which it held the task; ``second``: the slave that got it later.
    """

    task: int
    leases: dict[int, int]
    second: int


class LeaseTable:
    """See the module's text.  ``term``: seconds that a lease lasts unless it is renewed."""

    def __init__(self, term: float, max_attempts: int) -> None:
        self.term, self.max_attempts = term, max_attempts
        self.contexts: dict[int, ContextTasks] = {}  # those that have tasks here
        self.leases: dict[int, Lease] = {}  # by slave; a lease without tasks is not kept
        self.waiting = 0  # how many tasks are WAITING
        self.copies: dict[int, int] = {}  # by COPIED task: the second slave that holds it
        self.races: list[Race] = []  # that are over, and of which nobody has stopped the other slave yet
        self._turns = Turns(self.contexts)
        self._last_lease = 0
        self._none_before = 0.0  # no lease is over before that

    # -- tasks come and go

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

    def left(self, context: int) -> int:
        """How many tasks of a context have no outcome yet."""
        found = self.contexts.get(context)
        return 0 if found is None else len(found.tasks)

    def find(self, context: int, id: int) -> Task | None:
        """An unsettled task; out of its chunk, if it stood in one."""
        found = self.contexts.get(context)
        task = None if found is None else found.tasks.get(id)
        return self._single(task, id) if type(task) is Chunk else task  # type: ignore[return-value]  # no chunk

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
        found = self.contexts.get(context)
        settled: list[Task] = []
        numbers: list[int] = []
        indices: list[int] = []
        if found is None:
            return settled, numbers, indices
        tasks, leases = found.tasks, self.leases
        chunk = tasks.get(next(iter(ids), 0))
        if type(chunk) is Chunk and self._settle_of(chunk, tasks, ids):
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

    def _settle_of(self, chunk: Chunk, tasks: dict[int, Task | Chunk], ids: Mapping[int, object]) -> bool:
        """Settle a part of a leased chunk, as nearly always it is; False if it is something else."""
        if chunk.state is not State.LEASED or len(ids) >= len(chunk.inputs) or not chunk.inputs.keys() >= ids.keys():
            return False
        for where in (tasks, self.leases[chunk.holder].tasks, chunk.inputs):
            deque(map(where.__delitem__, ids), 0)  # a loop in compiled code
        return True

    def retry(self, slave: int, lease_id: int, context: int, id: int) -> bool:
        """The task raised on ``slave`` under that lease: whether it is tried again, and so has no outcome yet.

        A failure of an attempt that is not the current one costs no retry: another attempt is on its way.  It may be
        the second word of a failure that was counted before.
        """
        task = self.find(context, id)
        if task is None or not (task.retries or task.failures):
            return False
        lease = self.leases.get(slave)
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
        task, lease = self.find(context, id), self.leases.get(slave)
        if task is None or lease is None or lease.id != lease_id or id not in lease.tasks:
            return None
        task.unfit |= {slave}
        if task.state is State.COPIED:
            self._leave_to_other(slave, task, Move.GIVE_BACK)
            return task
        self._release(task)
        task.move(Move.GIVE_BACK)
        self.waiting += 1
        line = self._turns.line_of(task)
        line.queue.append(task)
        if not line.turn:
            self._turns.line_up(line)
        return task

    def refused(self, context: int) -> list[tuple[frozenset[int], list[Task]]]:
        """The waiting tasks of a context that slaves could not rebuild, each set of slaves with theirs."""
        found = self.contexts.get(context)
        lines = [] if found is None else list(found.others.values())
        # a chunk is not refused, only a task
        return [(line.unfit, [task for task in line.queue if task.state is State.WAITING]) for line in lines]  # type: ignore[misc]

    def held(self, context: int) -> dict[int, tuple[int, list[int]]]:
        """By slave: the lease under which it holds tasks of the context, and their ids."""
        ids: dict[int, list[int]] = {}
        for id, task in self.contexts[context].tasks.items() if context in self.contexts else ():
            if task.state is State.LEASED:
                ids.setdefault(task.holder, []).append(id)
            elif task.state is State.COPIED:
                for slave in (task.holder, self.copies[id]):
                    ids.setdefault(slave, []).append(id)
        return {slave: (self.leases[slave].id, some) for slave, some in ids.items()}

    def held_by(self, task: Task) -> dict[int, int]:
        """By slave that holds the task: its lease."""
        slaves = [] if task.holder < 0 else [task.holder]
        slaves += [self.copies[task.id]] if task.state is State.COPIED else []
        return {slave: self.leases[slave].id for slave in slaves}

    def waits(self, context: int) -> bool:
        """Whether a task of the context waits; that is not known of one of which nothing is granted for now."""
        found = self.contexts.get(context)
        return found is not None and any(line.turn for line in found.lines)

    def drop(self, context: int) -> int:
        """Forget all tasks of a context that nobody asks for any more; returns how many there were."""
        found = self.contexts.get(context)
        count = 0 if found is None else len(found.tasks)
        gone = {} if found is None else {id(task): task for task in found.tasks.values()}
        if found is not None:
            for line in found.lines:
                line.turn = 0  # no use to find its next turn after each of them
        for task in gone.values():
            self._leave(task, Move.DROP)
        return count

    def drop_task(self, context: int, id: int) -> Task | None:
        """Forget one task; None if it is not here."""
        task = self.find(context, id)
        if task is not None:
            self._leave(task, Move.DROP)
        return task

    # -- leases

    def grant(self, slave: int, now: float, excluded: Collection[int], share: int, pace: Pacing) -> Lease | None:
        """A lease for a slave that holds none; None if nothing waits that it may run.

        Of at most ``share`` tasks, or so many as are done in no time.  Nothing of the contexts ``excluded``.
        """
        if slave in self.leases:
            raise IllegalMove(f"slave {slave} holds lease {self.leases[slave].id} and is to get another one")
        lease = Lease(self._last_lease + 1, slave, now, now + self.term)
        aside: list[tuple[int, int]] = []
        whole = seconds = pace.lease_seconds
        size = LEASE_BYTES
        while seconds > 0 and size > 0:
            line = self._turns.first(slave, excluded, aside)
            if line is None:
                break
            spent = whole - seconds
            in_no_time = pace.fits(line.id, LEAST_SECONDS - spent) if spent < LEAST_SECONDS else 0
            room = min(max(share - len(lease.tasks), in_no_time), pace.fits(line.id, seconds))
            if not lease.tasks:
                room = max(1, room)
            if room < 1:
                break
            before = len(lease.tasks)
            lease.contexts.add(line.id)
            size = self._take(line, lease, room, self._turns.take_first(slave, excluded, aside), size)
            seconds -= (len(lease.tasks) - before) * (pace.seconds_per_task(line.id) or whole)
        self._turns.put_back(aside)
        if not lease.tasks:
            return None
        self._last_lease = lease.id
        self.leases[slave] = lease
        return lease

    def copy(self, slave: int, task: Task, now: float) -> Lease:
        """A lease of a task that another slave holds, for one that holds none: the two race."""
        if slave in self.leases:
            raise IllegalMove(f"slave {slave} holds lease {self.leases[slave].id} and is to get another one")
        task.move(Move.COPY)
        task.attempt += 1
        lease = Lease(self._last_lease + 1, slave, now, now + self.term)
        lease.tasks[task.id] = task
        lease.contexts.add(task.context)
        self.copies[task.id] = slave
        self._last_lease = lease.id
        self.leases[slave] = lease
        return lease

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
            self._none_before = min(self._none_before, deadline)

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long and could hear nobody: every lease gets that time back."""
        for lease in self.leases.values():
            lease.deadline += seconds
            lease.granted += seconds

    def expired(self, now: float) -> list[int]:
        """The slaves whose lease is over."""
        if now < self._none_before:
            return []
        found = [slave for slave, lease in self.leases.items() if lease.deadline <= now]
        first = min((lease.deadline for lease in self.leases.values()), default=0.0)
        self._none_before = 0.0 if found else min(first, now + self.term)  # when one may be that is granted now
        return found

    def overdue(self, now: float, age: float) -> tuple[list[Lease], float]:
        """Leases not recalled yet, granted ``age`` seconds ago or more, that hold tasks behind the one that runs.

        And when the first of the others will be that old; infinity if there is none.
        """
        several = [lease for lease in self.leases.values() if len(lease.tasks) > 1 and not lease.recalled]
        overdue = [lease for lease in several if lease.granted + age <= now]
        later = (lease.granted + age for lease in several if lease.granted + age > now)
        return overdue, min(later, default=math.inf)

    def give_back(self, slave: int, ids: Iterable[int] | None = None) -> int:
        """The slave holds these tasks (default: any) no more and has not started them; returns how many came back.

        They wait in the lease's order, in whichever they are named.
        """
        lease = self.leases.get(slave)
        if lease is None:
            return 0
        named = None if ids is None else set(ids)
        return self._to_front(lease, [id for id in lease.tasks if named is None or id in named])

    def give_back_after(self, slave: int, lease_id: int, running: int) -> int:
        """The lease was recalled while task ``running`` ran: what stands behind it was not started.

        ``lease_id`` 0: whichever the slave holds, for it starts nothing any more.
        """
        lease = self.leases.get(slave)
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
        lease = self.leases.get(slave)
        if lease is None:
            return None
        blamed = self._task(lease, running)
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

    def _front_of(self, chunk: Chunk, room: int, size: int, bound: float) -> Chunk:
        """As much of a chunk as is to be granted: itself, or its first tasks as one of their own."""
        inputs = chunk.inputs
        if len(inputs) <= room and max(inputs) < bound and sum(map(len, inputs.values())) <= size:
            return chunk
        if len(inputs) > 2 * _LEASES_AHEAD * room:
            chunk = self._cut(chunk, list(itertools.islice(inputs, _LEASES_AHEAD * room)))
            self.contexts[chunk.context].queue.appendleft(chunk)
            inputs = chunk.inputs
        ids: list[int] = []
        for id in itertools.islice(inputs, room):
            if id >= bound or size <= 0:
                break
            size -= len(inputs[id])
            ids.append(id)
        return chunk if len(ids) == len(inputs) else self._cut(chunk, ids)

    def _cut(self, chunk: Chunk, ids: list[int]) -> Chunk:
        """Take a part of a chunk out of it, as a chunk that stands in no queue."""
        part = chunk.cut(ids)
        self.contexts[chunk.context].tasks.update(dict.fromkeys(ids, part))
        return part

    def _single(self, chunk: Chunk, id: int) -> Task:
        """Take a task out of a chunk; it stands in its place, or the chunk's."""
        if chunk.state is State.WAITING:
            queue = self.contexts[chunk.context].queue
            place = queue.index(chunk)
            before = list(itertools.takewhile(lambda one: one != id, chunk.inputs))
            task = chunk.single(id)
            if not chunk.inputs:
                queue[place] = task
            elif not before:
                queue.insert(place, task)
            else:
                if len(before) < len(chunk.inputs):
                    queue.insert(place, self._cut(chunk, before))
                    queue.insert(place + 1, task)
                else:
                    queue.insert(place + 1, task)
        else:
            task = chunk.single(id)
            self.leases[chunk.holder].tasks[id] = task
        self.contexts[chunk.context].tasks[id] = task
        return task

    def _task(self, lease: Lease, id: int) -> Task | None:
        """A task of the lease."""
        task = lease.tasks.get(id)
        return self._single(task, id) if type(task) is Chunk else task  # type: ignore[return-value]  # no chunk

    def _leave(self, task: Task | Chunk, move: Move) -> None:
        """A task, or a chunk of them, leaves the table for good."""
        waits = task.state is State.WAITING
        if task.state is State.COPIED:
            self._end_race(task, move)
        task.move(move)
        ids = ids_of(task)
        if waits:
            self.waiting -= len(ids)  # it stays in its queue until its turn comes, and is passed over then
        else:
            self._release(task)
        context = self.contexts[task.context]
        for id in ids:
            del context.tasks[id]
        if not context.tasks:
            self._turns.leave(context)
            del self.contexts[task.context]
        elif waits and task.id == (line := self._turns.line_of(task)).turn:
            self._turns.line_up(line)  # what stands behind it may have been added before: it came back earlier

    def _release(self, task: Task | Chunk) -> None:
        lease = self.leases[task.holder]
        for id in ids_of(task):
            del lease.tasks[id]
        if not lease.tasks:
            del self.leases[task.holder]
        task.holder = -1

    def _to_front(self, lease: Lease, ids: list[int]) -> int:
        """Leased tasks that were not started go back to the front of their queues, in their order."""
        parts: list[Task | Chunk] = []
        for task, group in itertools.groupby(ids, lease.tasks.__getitem__):
            some = list(group)
            if type(task) is Chunk and len(some) < len(task.inputs):
                task = self._cut(task, some)
                lease.tasks.update(dict.fromkeys(some, task))
            parts.append(task)
        self._back(lease.slave, parts, Move.GIVE_BACK)
        return len(ids)

    def _back(self, slave: int, tasks: Sequence[Task | Chunk], move: Move) -> None:
        if self.copies:
            for task in [one for one in tasks if one.state is State.COPIED]:
                self._leave_to_other(slave, task, move)
            tasks = [one for one in tasks if one.state is State.LEASED and one.holder == slave]
        for task in reversed(tasks):
            self._release(task)
            task.move(move)
            self._turns.line_of(task).queue.appendleft(task)
            self.waiting += len(ids_of(task))
        for line in {id(line): line for line in map(self._turns.line_of, tasks)}.values():
            self._turns.line_up(line)

    def _leave_to_other(self, slave: int, task: Task | Chunk, move: Move) -> None:
        """Of the two slaves that hold a task this one does so no more."""
        task.move(move)
        second = self.copies.pop(task.id)
        if slave == task.holder:
            task.holder = second
        self._take_from(slave, task.id)

    def _end_race(self, task: Task | Chunk, move: Move) -> None:
        """Of the two slaves that hold a task its holder alone is left, as ever; who asks for the outcome stops both."""
        second = self.copies.pop(task.id)
        if move is Move.SETTLE:
            leases = {slave: self.leases[slave].id for slave in (task.holder, second)}
            self.races.append(Race(task.id, leases, second))
        self._take_from(second, task.id)

    def _take_from(self, slave: int, id: int) -> None:
        held = self.leases[slave].tasks
        del held[id]
        if not held:
            del self.leases[slave]

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        every = {id: task for context in self.contexts.values() for id, task in context.tasks.items()}
        lines = [line for context in self.contexts.values() for line in context.lines]
        waiting = [task for line in lines for task in line.queue if task.state is State.WAITING]
        queued = [id for task in waiting for id in ids_of(task)]
        leased = [id for lease in self.leases.values() for id in lease.tasks]
        assert len(queued) == self.waiting, f"{len(queued)} tasks wait, {self.waiting} are counted"
        assert len({*queued, *leased}) == len(queued) + len(leased) - len(self.copies), "a task is in two places"
        assert {*queued, *leased} == set(every), "a task is in no place, or unknown"
        held = dict.fromkeys(task for lease in self.leases.values() for task in lease.tasks.values())
        for task in [*waiting, *held]:
            assert ids_of(task) and all(every[id] is task for id in ids_of(task)), f"{task!r} is not where it stands"
        for context in self.contexts.values():
            assert context.tasks, f"context {context.id} has no tasks and is kept"
            assert all(task.context == context.id for task in context.queue), f"context {context.id} queues another's"
            self._turns.check(context)
        for slave, lease in self.leases.items():
            assert lease.slave == slave and lease.tasks, f"the lease of slave {slave} is empty or another's"
            for id, task in lease.tasks.items():
                holders = (task.holder, self.copies[id]) if task.state is State.COPIED else (task.holder,)
                assert id in ids_of(task) and slave in holders, f"{task!r} is in the lease of slave {slave}"
                assert task.state in (State.LEASED, State.COPIED) and task.attempt > 0, f"{task!r} is in a lease"
        for id, slave in self.copies.items():
            task = every[id]
            held_by = [number for number, lease in self.leases.items() if id in lease.tasks]
            assert task.state is State.COPIED and sorted(held_by) == sorted((task.holder, slave)), f"{task!r}"
        for task in every.values():
            assert len(task.ends or ()) < self.max_attempts, f"{task!r} should have been given up"
