"""Words that come late, over a connection that was replaced, or twice: the books as slaves and agents find them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from parallel.core.pacing import Pacing
from parallel.core.roster import SlaveState
from parallel.core.task import IllegalMove, Task
from parallel.service.books import Books, TrayState
from parallel.service.desk import RECONNECT_SECONDS, AgentDesk
from parallel.service.queues import ResultQueue, TaskQueue
from slave.outcome import pack_failure
from tests.support.waiting import eventually

PID = 4711


class Master:
    """Books with one context, and what stands around them."""

    def __init__(self) -> None:
        self.books = Books(10.0, 3, {}, open_to_joiners=False)
        self.books.trays[1] = TrayState(1, None, self.books.lock)
        self.tasks, self.results, self.desk = TaskQueue(self.books), ResultQueue(self.books), AgentDesk(self.books)
        self.last_task = 0

    def enlist(self, slots: list[int | None], run: str = "", connection: int = 1, **runners: int) -> list[int]:
        card = {"agent": "a", "run": run, "host": "here", "pid": 1, "version": "3", "connection": connection}
        pids = [(int(name[1:]), pid) for name, pid in runners.items()]
        numbers: list[int] = self.desk.enlist({**card, "slots": slots, "runners": pids})["numbers"]
        return numbers

    def slave(self) -> int:
        """A slave that has joined."""
        (number,) = self.enlist([None])
        assert self.tasks.join(number, PID, 1, self.books.run, 0)
        return number

    def add(self, count: int = 1) -> None:
        with self.books.lock:
            for _ in range(count):
                self.last_task += 1
                self.books.incoming.append(Task(self.last_task, 1, b""))
            self.books.wake_idle(count)

    def lease_of(self, number: int) -> list[int]:
        """The tasks that a slave holds."""
        with self.books.lock:
            self.books.table.check()
            lease = self.books.table.leases.get(number)
            return [] if lease is None else list(lease.tasks)


@pytest.fixture
def master() -> Master:
    return Master()


class Fetch:
    """A call of fetch that waits, in a thread."""

    def __init__(self, master: Master, number: int) -> None:
        self.answer: Any = "none yet"
        self._thread = threading.Thread(target=self._call, args=(master, number), daemon=True)
        self._thread.start()
        eventually(lambda: number in master.books.idle, what="a call that waits")

    def _call(self, master: Master, number: int) -> None:
        self.answer = master.tasks.fetch(number, PID, 1, [])

    def ends(self) -> Any:
        self._thread.join(4)  # less than a fetch waits of itself
        return self.answer


def test_the_end_of_a_process_is_told_and_blamed_though_the_next_one_joins_before_the_agents_word(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    number = master.slave()
    master.add()
    master.tasks.fetch(number, PID, 1, [])
    joined: list[bool] = []
    next_one = threading.Thread(
        target=lambda: joined.append(master.tasks.join(number, PID + 1, 1, master.books.run, 0))
    )
    next_one.start()
    eventually(lambda: master.books.replaced._waiters, what="the new process to wait")  # type: ignore[attr-defined]
    assert master.lease_of(number) == [1]
    master.desk.runner_ended("a", number, PID, -9, 1, 0, "")
    next_one.join(1)
    assert joined == [True] and master.books.roster.slaves[number].pid == PID + 1
    assert f"lost slave 0 (started by hand on here, pid {PID}): it was killed by SIGKILL" in caplog.text
    assert [len(task.ends or ()) for task in master.books.table.tasks.values()] == [1]


def test_a_process_whose_predecessors_end_nobody_tells_joins_all_the_same(master: Master) -> None:
    """Its agent is cut off, and will enlist again."""
    number = master.slave()
    master.add()
    master.books.table.term = 0.1
    master.tasks.fetch(number, PID, 1, [])
    assert master.tasks.join(number, PID + 1, 1, master.books.run, 0)
    assert master.lease_of(number) == [] and master.books.roster.slaves[number].pid == PID + 1


def test_a_waiting_call_of_an_old_connection_gets_no_lease_when_its_slave_has_joined_anew(master: Master) -> None:
    number = master.slave()
    stale = Fetch(master, number)
    assert master.tasks.join(number, PID, 1, master.books.run, 0)
    assert stale.ends() == ((0, [], {}), [])
    master.add()
    assert master.lease_of(number) == []
    (_, entries, _), _ = master.tasks.fetch(number, PID, 1, [])  # type: ignore[misc]  # it is not None
    assert [entry[0] for entry in entries] == master.lease_of(number) == [1]


def test_of_two_waiting_calls_of_one_slave_the_newer_gets_the_lease(master: Master) -> None:
    number = master.slave()
    stale = Fetch(master, number)
    old = master.books.idle[number]
    newer = Fetch(master, number)
    eventually(lambda: master.books.idle.get(number) not in (None, old), what="the newer call to wait")
    with master.books.lock:
        old.notify()
    assert stale.ends() == ((0, [], {}), [])
    assert number in master.books.idle, "the older call leaves the newer one to be woken"
    master.add()
    (_, entries, _), _ = newer.ends()
    assert [entry[0] for entry in entries] == master.lease_of(number) == [1]


def test_a_slave_that_holds_a_lease_is_not_granted_another(master: Master) -> None:
    number = master.slave()
    master.add(2)
    table = master.books.table
    with master.books.lock:
        master.books.take_in()
        held = table.grant(number, 0.0, lambda context: True, 1, Pacing())
        with pytest.raises(IllegalMove, match=r"slave 0 holds lease 1 and is to get another one"):
            table.grant(number, 0.0, lambda context: True, 1, Pacing())
        assert table.leases[number] is held
        table.check()


def test_the_late_end_of_an_agents_old_connection_does_not_cut_it_off(master: Master) -> None:
    number = master.slave()
    slave = master.books.roster.slaves[number]
    master.enlist([number], master.books.run, 2)
    due = slave.due
    master.desk.disconnected(("agent", "a", "reports", 1))
    assert not slave.cut and slave.due == due
    master.desk.disconnected(("agent", "a", "orders", 2))
    assert not slave.cut and slave.due == due


def test_the_end_of_an_agents_current_connection_cuts_it_off_until_it_is_back(master: Master) -> None:
    number = master.slave()
    slave = master.books.roster.slaves[number]
    master.add()
    master.tasks.fetch(number, PID, 1, [])
    master.desk.disconnected(("agent", "a", "reports", 1))
    assert slave.cut and slave.due - slave.heard < RECONNECT_SECONDS + 5
    assert master.books.table.leases[number].deadline == slave.due
    master.enlist([number], master.books.run, 2, _0=PID)
    assert not slave.cut and master.books.table.leases[number].deadline == slave.due == slave.heard + 10
    assert master.lease_of(number) == [1]


def test_orders_are_given_again_until_they_are_acknowledged(master: Master) -> None:
    master.slave()
    with master.books.lock:
        master.books.order("a", ("start", 5, None))
    assert master.desk.orders("a", 0) == (1, [("start", 5, None)])
    assert master.desk.orders("a", 0) == (1, [("start", 5, None)]), "the answer was lost with its connection"
    with master.books.lock:
        master.books.order("a", ("recall", 0, 3))
    assert master.desk.orders("a", 1) == (2, [("recall", 0, 3)])
    assert master.books.roster.agents["a"].orders == [(2, ("recall", 0, 3))]


def test_an_order_wakes_the_call_that_waits_for_it(master: Master) -> None:
    master.slave()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(master.desk.orders("a", 0)), daemon=True)
    thread.start()
    eventually(lambda: "a" in master.books.order_news)
    with master.books.lock:
        master.books.order("a", ("recall", 0, 3))
    thread.join(4)
    assert answers == [(1, [("recall", 0, 3)])]


def test_a_slot_that_was_closed_while_its_agent_was_out_of_reach_has_ended(master: Master) -> None:
    gone, there = master.enlist([None, None])
    for number in (gone, there):
        assert master.tasks.join(number, PID + number, 1, master.books.run, 0)
    master.add(1)
    assert master.tasks.fetch(gone, PID + gone, 1, [])
    assert master.enlist([there], master.books.run, 2) == [gone, there]
    slaves = master.books.roster.slaves
    assert slaves[gone].state is SlaveState.ENDED and "right after each start" in slaves[gone].end
    assert slaves[there].state is SlaveState.READY
    assert master.lease_of(gone) == [] and master.books.table.waiting == 1


def test_a_slot_whose_order_is_still_on_its_way_has_not_ended(master: Master) -> None:
    number = master.slave()
    with master.books.lock:
        late = master.books.roster.new_number()
        master.books.roster.expect(late, "LocalSlave()", "a")
        master.books.order("a", ("start", late, None))
    master.enlist([number], master.books.run, 2)
    assert master.books.roster.slaves[late].state is SlaveState.EXPECTED


def test_an_agent_that_says_hello_again_since_the_answer_was_lost_gets_the_same_slaves(master: Master) -> None:
    numbers = master.enlist([None, None], connection=1)
    assert numbers == [0, 1]
    assert master.enlist([None, None], connection=2) == numbers
    assert list(master.books.roster.slaves) == numbers


def test_tasks_handed_back_late_are_not_taken_from_a_newer_lease(master: Master) -> None:
    number = master.slave()
    master.add(1)
    (old, _, _), _ = master.tasks.fetch(number, PID, 1, [])  # type: ignore[misc]  # it is not None
    (new, _, _), _ = master.tasks.fetch(number, PID, 1, [])  # type: ignore[misc]
    assert new != old and master.lease_of(number) == [1]
    master.results.hand_back(number, old, [1])
    assert master.lease_of(number) == [1]
    data: Any = pack_failure(LookupError("no such data"))[1]
    master.results.setup_failed(number, 1, data, old, [1])
    assert master.lease_of(number) == [1] and 1 in master.books.roster.slaves[number].barred
    master.results.hand_back(number, new, [1])
    assert master.lease_of(number) == [] and master.books.table.waiting == 1


def test_a_waiting_call_of_a_slave_that_is_lost_ends_with_an_empty_lease(master: Master) -> None:
    number = master.slave()
    slave = master.books.roster.slaves[number]
    fetch = Fetch(master, number)
    with master.books.lock:
        slave.state = SlaveState.LOST
        master.books.lose(slave, 0, "nothing was heard of it")
    assert fetch.ends() == ((0, [], {}), [])


def test_a_lost_slave_that_asks_for_tasks_is_back(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    number = master.slave()
    slave = master.books.roster.slaves[number]
    slave.state = SlaveState.LOST
    master.add()
    begun, woken = threading.Event(), list[bool]()

    def wait_for_slaves() -> None:
        with master.books.lock:
            begun.set()
            woken.append(master.books.joined.wait(5))

    thread = threading.Thread(target=wait_for_slaves, daemon=True)
    thread.start()
    begun.wait()
    (_, entries, _), _ = master.tasks.fetch(number, PID, 1, [])  # type: ignore[misc]  # it is not None
    assert [entry[0] for entry in entries] == [1]
    assert slave.state is SlaveState.READY and "is back" in caplog.text
    thread.join()
    assert woken == [True], "who waits for slaves learns of it"


def test_a_lost_slave_without_a_process_is_awaited_when_its_agent_is_heard(master: Master) -> None:
    (number,) = master.enlist([None])
    slave = master.books.roster.slaves[number]
    slave.state = SlaveState.LOST
    master.desk.beat("a", [(number, PID, 0)])
    assert slave.state is SlaveState.EXPECTED


def test_a_fetch_that_is_read_after_its_connection_was_replaced_takes_no_lease_over(master: Master) -> None:
    number = master.slave()
    assert master.tasks.join(number, PID, 2, master.books.run, 0)
    master.add()
    (lease, _, _), _ = master.tasks.fetch(number, PID, 2, [])  # type: ignore[misc]  # it is not None
    assert master.tasks.fetch(number, PID, 1, []) == ((0, [], {}), [])
    assert lease and master.lease_of(number) == [1]
