"""The lease table against a model that does its own counting."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parallel.core.chunk import Chunk
from parallel.core.lease_table import LeaseTable
from parallel.core.pacing import LEASE_BYTES, LEASE_SECONDS, LEAST_SECONDS, Pacing
from parallel.core.task import Task
from tests.support.examples import stories

TERM = 8.0
STEPS = [0.0, 1.0, TERM / 2, TERM, 2.5 * TERM]
SLAVES = st.integers(0, 1)
CONTEXTS = st.sampled_from([1, 1, 1, 2, 3])
PLACES = st.sampled_from([0, 0, 1, 2, None, 999_999])
BARRED: list[frozenset[int]] = [frozenset(), frozenset(), frozenset({1}), frozenset({1, 2}), frozenset({1, 2, 3})]


class TableMachine(RuleBasedStateMachine):
    """Drives a table at random.

    The model: for each task where it is, counted here and not read from the table; for each lease its order and how
    long it lasts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.max_attempts = 2
        self.table = LeaseTable(TERM, self.max_attempts)
        self.pace = Pacing()
        self.next_id = 1
        self.context_of: dict[int, int] = {}
        self.waiting: list[int] = []  # what waits, in the order in which it must be granted
        self.held: dict[int, list[int]] = {}  # by slave, in the order of the lease
        self.until: dict[int, float] = {}  # by slave
        self.blame: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.finished: set[int] = set()
        self.retries: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.paused: set[int] = set()
        self.races: list[tuple[int, list[int]]] = []  # tasks that got their outcome while two slaves held them

    @initialize(seconds=st.sampled_from([0.0, LEAST_SECONDS / 3, 0.02, 0.04, 1.0]))
    def measure(self, seconds: float) -> None:
        self.pace.learn(1, 1, seconds)
        self.pace.learn(2, 1, 0.03)

    @rule(
        contexts=st.lists(CONTEXTS, min_size=1, max_size=5),
        size=st.sampled_from([1, 1, 1, LEASE_BYTES // 2]),
        retries=st.sampled_from([0, 1, 1, 2]),
    )
    def add(self, contexts: list[int], size: int, retries: int) -> None:
        for context in contexts:
            self.table.backlog.add(Task(self.next_id, context, _Sized(size), retries=retries))
            self.retries[self.next_id] = retries
            self.context_of[self.next_id] = context
            self.waiting.append(self.next_id)
            self.next_id += 1

    @rule(
        context=CONTEXTS,
        count=st.integers(1, 6),
        size=st.sampled_from([1, 1, 1, LEASE_BYTES // 2]),
        retries=st.sampled_from([0, 1, 1, 2]),
    )
    def add_inputs(self, context: int, count: int, size: int, retries: int) -> None:
        """In a chunk, which makes no difference."""
        ids = range(self.next_id, self.next_id + count)
        self.table.backlog.add_chunk(Chunk(context, ids[0], [_Sized(size)] * count, False, 0, None, retries))
        for id in ids:
            self.retries[id], self.context_of[id] = retries, context
            self.waiting.append(id)
        self.next_id += count

    @rule(
        slave=SLAVES,
        first=st.integers(0, 3),
        count=st.integers(1, 4),
        others=st.lists(st.integers(1, 30), max_size=2),
    )
    def settle_several(self, slave: int, first: int, count: int, others: list[int]) -> None:
        """What a slave has gathered; perhaps with some that are nobody's, or another's, or there twice."""
        held = self.held.get(slave, [])
        context = self.context_of[held[0]] if held else 1
        some = [id for id in held[first : first + count] if self.context_of[id] == context]
        ids = [*some, *(id for id in others if self.context_of.get(id) == context)]
        tasks, runs = self.table.settle_all(context, ids)
        assert all(ids[at] == task.id for at, task in tasks)
        assert all(ids[at] == index for at, _, index in runs), "the offset is 0"
        found = sorted(
            [*(task.id for _, task in tasks), *(index + n for _, count, index in runs for n in range(count))]
        )
        assert found == sorted({*ids} - {*self.finished}), "the first outcome of each, and no other"
        for id in found:
            self._finish(id)

    @rule(barred=st.sampled_from(BARRED), share=st.sampled_from([1, 2, 3, 50]), slave=SLAVES)
    def grant(self, slave: int, barred: frozenset[int], share: int) -> None:
        if slave in self.held:
            slave = 1 - slave
        if slave in self.held:
            return
        lease = self.table.grant(slave, self.now, barred, share, self.pace)
        may = [id for id in self._turn() if self.context_of[id] not in barred | self.paused]
        if lease is None:
            assert not may
            return
        got = list(lease.tasks)
        assert got == may[: len(got)], "not the oldest ones, in order"
        self._check_size(got, share)
        for id in got:
            self.waiting.remove(id)
            self.attempts[id] = self.attempts.get(id, 0) + 1
            assert lease.tasks[id].attempt == self.attempts[id]
        self.held[slave] = got
        self.until[slave] = self.now + TERM

    def _check_size(self, got: list[int], share: int) -> None:
        """Neither none nor too many: no more than the share, or than are done in no time, nor than are known to fit."""
        seconds = [self.pace.seconds_per_task(self.context_of[id]) for id in got]
        assert len(got) >= 1 and (len(got) <= share or all(known is not None for known in seconds))
        if len(got) > share:
            assert sum(known or 0.0 for known in seconds) <= LEAST_SECONDS * 1.001
        if all(known is None for known in seconds):
            assert len(got) == 1, "several tasks of which nothing is known"
        assert len(got) == 1 or sum(known or 0.0 for known in seconds) <= LEASE_SECONDS * 1.001

    def _turn(self) -> list[int]:
        """Waiting tasks in the order of their turn: within a context as they stand, between contexts the older head."""
        queues: dict[int, list[int]] = {}
        for id in self.waiting:
            queues.setdefault(self.context_of[id], []).append(id)
        order = []
        while any(queues.values()):
            head = min((queue for queue in queues.values() if queue), key=lambda queue: queue[0])
            order.append(head.pop(0))
        return order

    @rule(data=st.data())
    @precondition(lambda self: self.next_id > 1)
    def settle(self, data: st.DataObject) -> None:
        id = data.draw(st.integers(1, self.next_id - 1))
        assert self.table.settle(self.context_of[id] + 1, id) is None, "it is of another context"
        task = self.table.settle(self.context_of[id], id)
        assert (task is not None) == (id not in self.finished), "an outcome was lost or given twice"
        self._finish(id)

    @rule(data=st.data(), slave=SLAVES, current=st.sampled_from([True, True, False]), times=st.sampled_from([1, 1, 2]))
    @precondition(lambda self: self.next_id > 1)
    def retry(self, data: st.DataObject, slave: int, current: bool, times: int) -> None:
        """A task raised on the slave, under its lease or an earlier one; that may be told twice."""
        slave = slave if slave in self.held else next(iter(self.held), slave)
        held = self.held.get(slave, [])
        id = data.draw(st.sampled_from(held) if held else st.integers(1, self.next_id - 1))
        lease = self.table.leases.by_slave.get(slave)
        number = lease.id if lease is not None and current else 999_999
        for _ in range(times):
            self._retry(slave, number, id, current)

    def _retry(self, slave: int, number: int, id: int, current: bool) -> None:
        # else another attempt is on its way, or this failure was counted before
        counts = current and id in self.held.get(slave, ())
        retried = self.retries[id] > 0 or (not counts and self.failures.get(id, 0) > 0)
        again = id not in self.finished and retried
        assert self.table.retry(slave, number, self.context_of[id], id) == again
        if again and counts:
            self.retries[id] -= 1
            self.failures[id] = self.failures.get(id, 0) + 1
            self._requeue(self._unhold(slave, [id]))

    def _finish(self, id: int, by_outcome: bool = True) -> None:
        holders = sorted(slave for slave, held in self.held.items() if id in held)
        if len(holders) == 2 and by_outcome:
            self.races.append((id, holders))
        self.finished.add(id)
        if id in self.waiting:
            self.waiting.remove(id)
        for slave in list(self.held):
            self._unhold(slave, [id])

    def _unhold(self, slave: int, ids: list[int]) -> list[int]:
        out = [id for id in self.held.get(slave, []) if id in ids]
        if slave in self.held:
            self.held[slave] = [id for id in self.held[slave] if id not in ids]
            if not self.held[slave]:
                del self.held[slave], self.until[slave]
        return out

    def _requeue(self, ids: list[int]) -> None:
        """To the front, unless the other slave holds it, too."""
        self.waiting[:0] = [id for id in ids if not any(id in held for held in self.held.values())]

    @rule(slave=SLAVES, place=st.sampled_from([0, 0, 1, 2]))
    def copy(self, slave: int, place: int) -> None:
        """The other slave, if it holds nothing, gets a task of this one's, too."""
        slave = slave if slave in self.held else 1 - slave
        other, held = 1 - slave, self.held.get(slave, [])
        if other in self.held or place >= len(held):
            return
        id = held[place]
        task = self.table.find(self.context_of[id], id)
        assert task is not None
        lease = self.table.copy(other, task, self.now)
        assert list(lease.tasks) == [id] and lease.slave == other
        self.attempts[id] += 1
        assert task.attempt == self.attempts[id]
        self.held[other], self.until[other] = [id], self.now + TERM

    @rule(slave=SLAVES, data=st.data())
    def give_back(self, slave: int, data: st.DataObject) -> None:
        held = self.held.get(slave, [])
        ids = data.draw(st.none() | st.lists(st.sampled_from([*held, 999_999]), unique=True))
        back = self._unhold(slave, held if ids is None else ids)
        assert self.table.give_back(slave, ids) == len(back)
        self._requeue(back)

    @rule(
        slave=SLAVES,
        place=st.sampled_from([0, 0, 1, 2, None, 999_999]),
        current=st.sampled_from([True, True, False]),
        any_lease=st.booleans(),
    )
    def recall(self, slave: int, place: int | None, current: bool, any_lease: bool) -> None:
        held = self.held.get(slave, [])
        running = self._named(slave, place)
        lease = self.table.leases.by_slave.get(slave)
        id = 0 if any_lease else lease.id if lease is not None and current else 999_999
        behind: list[int] = []
        if (current or any_lease) and running:
            behind = held[held.index(running) + 1 :] if running in held else list(held)
        assert self.table.give_back_after(slave, id, running) == len(behind)
        self._requeue(self._unhold(slave, behind))

    @rule(slave=SLAVES, running=PLACES)
    def lose(self, slave: int, running: int | None) -> None:
        """``running``: the task at that place in the lease, none (None), or one that is not in it."""
        self._lose(slave, self._named(slave, running))

    def _named(self, slave: int, place: int | None) -> int:
        held = self.held.get(slave, [])
        if place is None:
            return 0
        return held[place] if place < len(held) else 999_999

    def _lose(self, slave: int, running: int) -> None:
        back = self._unhold(slave, list(self.held.get(slave, [])))
        held_by_other = running in self.held.get(1 - slave, [])
        given_up = self.table.lose(slave, running, "it was killed")
        assert slave not in self.table.leases.by_slave
        if running in back:
            self.blame[running] = self.blame.get(running, 0) + 1
            back.remove(running)
            if self.blame[running] == self.max_attempts:
                assert given_up is not None and given_up.task.id == running
                assert given_up.ends == ["it was killed"] * self.max_attempts
                if held_by_other:
                    self.races.append((running, [0, 1]))
                self._finish(running)
            else:
                assert given_up is None
                back.insert(0, running)
        else:
            assert given_up is None
        self._requeue(back)

    @rule(slave=SLAVES)
    def renew(self, slave: int) -> None:
        self.table.leases.renew(slave, self.now)
        if slave in self.until:
            self.until[slave] = self.now + TERM

    @rule(slave=SLAVES, step=st.sampled_from(STEPS))
    def shorten(self, slave: int, step: float) -> None:
        self.table.leases.shorten(slave, self.now + step)
        if slave in self.until:
            self.until[slave] = min(self.until[slave], self.now + step)

    @rule(step=st.sampled_from(STEPS))
    def pass_time(self, step: float) -> None:
        self.now += step

    @rule(step=st.sampled_from(STEPS))
    def stand_still(self, step: float) -> None:
        """The master was stopped: time passes for nobody's lease."""
        self.now += step
        self.table.leases.shift(step)
        for slave in self.until:
            self.until[slave] += step

    @rule(step=st.sampled_from(STEPS))
    def expire(self, step: float) -> None:
        self.now += step
        expired = self.table.leases.expired(self.now)
        assert sorted(expired) == sorted(slave for slave, until in self.until.items() if until <= self.now)
        for slave in expired:
            self._lose(slave, self.held.get(slave, [0])[0])  # both may have run the same, which is given up

    @rule(context=CONTEXTS)
    def pause(self, context: int) -> None:
        self.table.backlog.pause(context)
        self.paused.add(context)

    @rule(context=CONTEXTS)
    def resume(self, context: int) -> None:
        self.table.backlog.resume(context)
        self.paused.discard(context)

    @rule(data=st.data())
    @precondition(lambda self: self.next_id > 1)
    def drop_task(self, data: st.DataObject) -> None:
        id = data.draw(st.integers(1, self.next_id - 1))
        task = self.table.drop_task(self.context_of[id], id)
        assert (task is not None) == (id not in self.finished)
        self._finish(id, by_outcome=False)

    @rule(context=st.sampled_from([2, 3]))
    def drop(self, context: int) -> None:
        gone = [id for id, of in self.context_of.items() if of == context and id not in self.finished]
        assert self.table.drop(context) == len(gone)
        for id in gone:
            self._finish(id, by_outcome=False)

    @invariant()
    def table_is_sound(self) -> None:
        self.table.check()
        assert self.table.backlog.waiting == len(self.waiting)
        assert {slave: list(lease.tasks) for slave, lease in self.table.leases.by_slave.items()} == self.held
        assert {slave: lease.deadline for slave, lease in self.table.leases.by_slave.items()} == self.until
        assert [(race.task, sorted(race.leases)) for race in self.table.races.over] == self.races
        twice = [id for id in self.held.get(0, []) if id in self.held.get(1, [])]
        assert list(self.table.races.second) == twice
        tasks = {id: task for context in self.table.backlog.contexts.values() for id, task in context.tasks.items()}
        assert set(tasks) == set(self.context_of) - self.finished
        for id, task in tasks.items():
            assert (task.retries, task.failures) == (self.retries[id], self.failures.get(id, 0))
            assert len(task.ends or ()) == self.blame.get(id, 0)
        for context in (1, 2, 3):
            ids = {slave: [id for id in held if self.context_of[id] == context] for slave, held in self.held.items()}
            found = {slave: sorted(held) for slave, (_, held) in self.table.held(context).items()}
            assert found == {slave: sorted(held) for slave, held in ids.items() if held}
            unsettled = [id for id, of in self.context_of.items() if of == context and id not in self.finished]
            assert self.table.backlog.left(context) == len(unsettled)


class _Sized(bytes):
    """Claims to be as long as it says, to save memory."""

    def __new__(cls, size: int) -> _Sized:
        self = super().__new__(cls)
        self.size = size
        return self

    size: int

    def __len__(self) -> int:
        return self.size


TestTable = TableMachine.TestCase
TestTable.settings = stories(200, 60)
pytest.mark.slow(TestTable)  # it tells the same stories on every Python
