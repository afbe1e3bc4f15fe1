"""The whole scheduler against a model that does its own counting: tasks and slaves, agents, launchers, users, time.

Whatever can happen happens at random, also twice, too late, or in the name of who is gone.  planted_bugs.py shows that
this finds bugs; test_found.py holds what it has found, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from slave.protocol import BY_ITSELF, DRAINED, FAILURE, STOPPED, TIME_LIMIT, VALUE
from tests.core.driver import OLD_LEASE, Driver
from tests.core.fake import RUN
from tests.core.model_state import ModelSlave
from tests.support.examples import stories

TERM = 8.0
STEPS = [0.0, 0.25, 1.0, TERM / 2, TERM, 2.5 * TERM]
EDGES = [-0.001, 0.0, 0.001]
MOST_SLAVES, MOST_CONTEXTS, MOST_TASKS = 4, 4, 60
RESULT_BYTES = 700

SOME = st.integers(0, 11)  # which of several, modulo how many there are
MOSTLY = st.sampled_from([True, True, True, True, True, False])
SELDOM = st.sampled_from([False, False, False, False, False, True])
PLACES = st.sampled_from([0, 0, 0, 1, 2, -1, -2])  # in a slave's lease; -1: no task, -2: one that it does not hold
OUTCOMES = st.sampled_from(["value", "failure", "failure", "earlier value", "earlier failure", "of another context"])
RETRIES = st.sampled_from([0, 1, 1, 2])
Item = TypeVar("Item")


class SchedulerMachine(RuleBasedStateMachine):
    """Chooses what happens next."""

    driver: Driver

    @initialize(
        attempts=st.sampled_from([1, 2, 2]),
        may_join=SELDOM,
        result_bytes=st.sampled_from([float("inf"), RESULT_BYTES]),
        tasks=st.integers(0, 6),
        working=MOSTLY,
    )
    def begin(self, attempts: int, may_join: bool, result_bytes: float, tasks: int, working: bool) -> None:
        """Two slaves by hand, one that is launched, three contexts, and some tasks."""
        self.driver = Driver(TERM, attempts, may_join, result_bytes)
        self.model = self.driver.judge
        for _ in range(3):
            self.driver.make_context()
        self.driver.enlist_new(2)
        self.driver.expect("job 2", False, True)
        if working:
            self.driver.come_to_order()
        if tasks:
            self.driver.add(1, tasks, 1)

    # -- choosing

    def _slave(self, which: int) -> ModelSlave:
        """A slave that has not ended, if there is one, or seldom one that has."""
        alive = self.model.alive()
        return _of(alive if which < 11 and alive else list(self.model.slaves.values()), which)

    def _busy(self, which: int) -> ModelSlave:
        """One that holds a lease, if there is one, or seldom one that does not."""
        busy = [slave for slave in self.model.alive() if slave.held]
        return _of(busy, which) if which < 10 and busy else self._slave(which)

    def _task(self, slave: ModelSlave, place: int) -> int:
        """A task of the slave's lease, none (0), or another one that has left the master."""
        if place == -1:
            return 0
        if 0 <= place < len(slave.held):
            return slave.held[place]
        others = [id for id, task in self.model.tasks.items() if task.attempts and id not in slave.held]
        return _of(others, 7 * place) if others else 0

    def _lease(self, slave: ModelSlave, current: bool = True) -> int:
        return slave.lease.id if current and slave.lease is not None else OLD_LEASE

    def _context(self, which: int) -> int:
        return _of(list(self.model.contexts), which)

    # -- work as usual

    @rule(some=st.lists(SOME, min_size=1, max_size=6), size=st.sampled_from([0, 0, 400]))
    def work(self, some: list[int], size: int) -> None:
        for which in some:
            self.driver.work(self._slave(which), size)

    @rule(some=st.lists(SOME, min_size=2, max_size=6))
    def work_on(self, some: list[int]) -> None:
        """The same once more, since this is most of what happens."""
        self.work(some, 0)

    @rule()
    def all_ask_for_work(self) -> None:
        for slave in self.model.alive():
            if not slave.held:
                self.driver.work(slave)

    @rule(readers=st.integers(0, 2))
    def all_work_is_done(self, readers: int) -> None:
        """As far as the slaves may do it, while so many of the user's threads wait for each context's results."""
        self.driver.come_to_order()
        for which in range(len(self.model.contexts)):
            self.read(which, readers, False)
        for _ in range(8):
            for slave in self.model.alive():
                self.driver.work(slave)

    @rule(which=SOME, then=st.sampled_from(["value", "failure", "its end", "cancelled", "both go on"]), second=MOSTLY)
    @precondition(lambda self: self.model.contexts and len(self.model.tasks) < MOST_TASKS)
    def a_task_is_late(self, which: int, then: str, second: bool) -> None:
        """All others are done, and one of the slaves that idle gets it too, if that is wanted.

        ``then``: what comes of that, on the ``second`` of the two slaves or on the first.
        """
        self.driver.come_to_order()
        for _ in range(4):
            for slave in self.model.alive():
                self.driver.work(slave)
        self.driver.add(self._context(which), 1, 1)
        for _ in range(2):
            self.driver.pass_time(0.3)
        for task in [id for id in self.model.tasks if len(self.model.holders(id)) > 1][:1]:
            slave = self.model.holders(task)[second]
            if then == "its end":
                self.driver.runner_ended(slave, slave.pid, task)
            elif then == "cancelled":
                self.driver.cancel_task(task)
            elif then != "both go on":
                self.driver.post([self.driver.message(slave, task, VALUE if then == "value" else FAILURE)])

    @rule()
    def everything_comes_to_order(self) -> None:
        self.driver.come_to_order()

    @rule(which=SOME, count=st.integers(1, 4), retries=RETRIES, ask=st.sampled_from(["not", "before", "then"]))
    @precondition(lambda self: self.model.contexts and len(self.model.tasks) < MOST_TASKS)
    def add(self, which: int, count: int, retries: int, ask: str) -> None:
        """``ask``: when whoever can work, and has nothing to do, asks for some."""
        if ask == "before":
            self.driver.come_to_order()
            self.all_ask_for_work()
            self.driver.pass_time(0.3)
        self.driver.add(self._context(which), count, retries)
        if ask == "then":
            self.driver.come_to_order()
            self.all_ask_for_work()

    # -- runners

    @rule(which=SOME, pid=MOSTLY, connection=MOSTLY)
    def fetch(self, which: int, pid: bool, connection: bool) -> None:
        slave = self._slave(which)
        contexts = list(self.model.contexts)[which % 3 :]
        self.driver.fetch(slave, slave.pid + (not pid) or 1, slave.connection - (not connection), contexts)

    @rule(posts=st.lists(st.tuples(SOME, PLACES, OUTCOMES), min_size=1, max_size=3))
    def post(self, posts: list[tuple[int, int, str]]) -> None:
        """Several outcomes at once, of current leases and of others, and twice the same."""
        batch = []
        for which, place, what in posts:
            slave = self._busy(which)
            task = self._task(slave, place)
            if task:
                kind, lease = VALUE if "value" in what else FAILURE, OLD_LEASE if "earlier" in what else 0
                message = self.driver.message(slave, task, kind, 0, lease)
                batch.append((*message[:2], message[2] + 1, *message[3:]) if "context" in what else message)
        self.driver.post(batch)

    @rule(which=SOME, place=PLACES, failed=SELDOM, size=st.sampled_from([400, 1500]))
    def post_and_wait(self, which: int, place: int, failed: bool, size: int) -> None:
        slave = self._busy(which)
        task = self._task(slave, place)
        if task:
            self.driver.post_and_wait(self.driver.message(slave, task, FAILURE if failed else VALUE, size))

    @rule(which=SOME, places=st.lists(PLACES, max_size=3), current=MOSTLY)
    def give_back(self, which: int, places: list[int], current: bool) -> None:
        slave = self._busy(which)
        unstarted = list(dict.fromkeys(self._task(slave, place) for place in places))
        self.driver.give_back(slave, self._lease(slave, current), unstarted)

    @rule(which=SOME, current=MOSTLY)
    def setup_failed(self, which: int, current: bool) -> None:
        """Of the context of its first task, or of some other."""
        slave = self._busy(which)
        if slave.held and current:
            self.driver.setup_failed(slave, self.model.tasks[slave.held[0]].context, self._lease(slave))
        elif self.model.contexts:
            self.driver.setup_failed(slave, self._context(which), OLD_LEASE)

    @rule(which=SOME, other_pid=st.booleans(), next_connection=MOSTLY, this_run=MOSTLY, holds=MOSTLY)
    def join(self, which: int, other_pid: bool, next_connection: bool, this_run: bool, holds: bool) -> None:
        slave = self._busy(which)
        pid = self.driver.new_pid() if other_pid or not slave.pid else slave.pid
        connection = 1 if pid != slave.pid else slave.connection + next_connection
        self.driver.join(slave, pid, connection, this_run, self._lease(slave) if holds else 0)

    @rule(which=SOME, drops=st.booleans(), late=st.booleans())
    def connection_is_replaced(self, which: int, drops: bool, late: bool) -> None:
        """By the next one of the same process.

        ``drops``: just before, the slave was told that a context is dropped, or is to be; ``late``: what it said on the
        one before is read only then.
        """
        joined = [slave for slave in self.model.alive() if slave.pid]
        knowing = [slave for slave in joined if slave.knows]
        if not joined:
            return
        slave = _of(knowing if drops and knowing else joined, which)
        if drops and knowing:
            self.driver.drop_context(min(slave.knows))
        older = slave.connection
        self.driver.join(slave, slave.pid, older + 1, True, self._lease(slave))
        if late:
            self.driver.join(slave, slave.pid, older, True, self._lease(slave))

    # -- agents

    @rule(
        which=SOME,
        how=st.sampled_from(["back", "back", "without one", "with other runners", "anew", "late", "first, late"]),
    )
    @precondition(lambda self: self.model.agents)
    def agent_comes(self, which: int, how: str) -> None:
        """For the first time, or back, or started again by its engine."""
        agent = _of(list(self.model.agents.values()), which)
        open_ended = any(self.model.slaves[number].open_ended for number in agent.slaves)
        if not agent.enlisted or how == "anew":
            self.driver.enlist(agent, [*agent.slaves, *([None] if open_ended and not agent.enlisted else [])])
        elif how == "back":
            self.driver.come_back(agent)
        elif "late" in how:
            self.driver.enlist_late(agent, "" if "first" in how else RUN)
        else:
            gone = how == "without one"
            runners = {} if gone else {number: self.driver.new_pid() for number in agent.slaves}
            self.driver.enlist(agent, agent.slaves[gone:], RUN, runners)

    @rule(which=SOME, what=st.sampled_from(["agent", "agent", "agent, late", "runner", "runner, late", "commands"]))
    def connection_breaks(self, which: int, what: str) -> None:
        """``late``: it was replaced before; ``commands``: an answer with commands is lost, and they come again."""
        agents = [agent for agent in self.model.agents.values() if agent.enlisted]
        if what.startswith("runner"):
            slave, late = self._slave(which), what.endswith("late")
            joining = self.model.joining.get(slave.number)
            pid, connection = (slave.pid, slave.connection) if joining is None or late else joining[1:3]
            self.driver.runner_disconnected(slave, pid, connection - late)
        elif agents and what == "commands":
            _of(agents, which).answer_is_lost = True
        elif agents:
            self.driver.agent_disconnected(_of(agents, which), what == "agent")

    @rule(beats=st.lists(st.tuples(SOME, PLACES, MOSTLY), min_size=1, max_size=3))
    def heartbeat(self, beats: list[tuple[int, int, bool]]) -> None:
        found = []
        for which, place, current in beats:
            slave = self._busy(which)
            found.append((slave.number, slave.pid + (not current), self._task(slave, place)))
        self.driver.heartbeat(found)

    @rule(
        which=SOME,
        place=PLACES,
        cause=st.sampled_from([BY_ITSELF, BY_ITSELF, BY_ITSELF, TIME_LIMIT, STOPPED, DRAINED]),
        in_setup=SELDOM,
        current=MOSTLY,
        hung_up=st.booleans(),
    )
    def runner_ended(self, which: int, place: int, cause: str, in_setup: bool, current: bool, hung_up: bool) -> None:
        """``hung_up``: its own connection was read to its end before its agent's word comes."""
        slave = self._busy(which)
        task = self._task(slave, place)
        setup = self.model.tasks[task].context if in_setup and task else 0
        self.driver.runner_ended(slave, slave.pid + (not current), task, setup, cause, hung_up)

    @rule(
        which=SOME,
        place=st.integers(0, 1),
        outcome=st.sampled_from([VALUE, FAILURE, None]),
        meanwhile=st.sampled_from(["nothing", "its slave is given up", "its agent leaves", "the next one joins"]),
        hangs_up=st.booleans(),
    )
    def runner_ends_before_its_outcome_is_read(
        self, which: int, place: int, outcome: int | None, meanwhile: str, hangs_up: bool
    ) -> None:
        """Its agent's word comes first.  ``hangs_up``: its connection ends then, and not only after some time."""
        slave = self._busy(which)
        task, pid, connection = self._task(slave, place), slave.pid, slave.connection
        message = self.driver.message(slave, task, outcome) if task and outcome is not None else None
        self.driver.runner_ended(slave, pid, task, hung_up=False)
        if meanwhile == "its slave is given up":
            self.driver.slave_closed(slave.number)
        elif meanwhile == "its agent leaves" and slave.agent in self.model.agents:
            self.driver.leave(slave.agent)
        elif meanwhile == "the next one joins":
            self.driver.join(slave, self.driver.new_pid(), 1)
        if message is not None:
            self.driver.post([message])
        if hangs_up:
            self.driver.runner_disconnected(slave, pid, connection)

    @rule(
        which=SOME,
        place=st.integers(0, 1),
        how=st.sampled_from(["runner", "agent", "silence", "asked before", "time limit"]),
        times=st.integers(1, 2),
    )
    def a_task_ends_its_slave(self, which: int, place: int, how: str, times: int) -> None:
        """Again and again: its runner dies, or its agent, or its machine."""
        for _ in range(times):
            slave = self._busy(which)
            self.driver.heartbeat([(slave.number, slave.pid, self._task(slave, place))])
            if how == "asked before":
                self.driver.draining(slave.number)
            if how == "runner":
                self.driver.runner_ended(slave, slave.pid, slave.running)
            elif how == "time limit":
                self.driver.runner_ended(slave, slave.pid, slave.running, cause=TIME_LIMIT)
            elif how == "agent" and slave.agent in self.model.agents:
                self.driver.launcher_says_ended(slave.agent)
            else:
                self.driver.pass_time(TERM)
            self.driver.come_to_order()
            self.all_ask_for_work()

    @rule(which=SOME, lease=st.sampled_from(["current", "current", "whichever", "other"]), place=PLACES)
    def recalled(self, which: int, lease: str, place: int) -> None:
        slave = self._busy(which)
        id = 0 if lease == "whichever" else self._lease(slave, lease == "current")
        self.driver.recalled(slave, id, self._task(slave, place))

    @rule(which=SOME, how=st.sampled_from(["closed", "draining", "dismissed", "agent leaves", "one ended", "moves"]))
    def slave_ends(self, which: int, how: str) -> None:
        """Or is asked to."""
        slave = self._busy(which)
        if how == "closed":
            self.driver.slave_closed(slave.number)
        elif how == "draining":
            self.driver.draining(slave.number)
        elif how == "dismissed":
            self.driver.dismiss(slave.number)
        elif slave.agent in self.model.agents:
            if how == "agent leaves":
                self.driver.leave(slave.agent)
            else:
                numbers = [slave.number] if how == "one ended" else None
                self.driver.launcher_says_ended(slave.agent, numbers, moves=how == "moves")

    @rule(which=SOME, what=st.sampled_from(["by hand", "launched", "launched", "open-ended", "by a running agent"]))
    @precondition(lambda self: len(self.model.alive()) < MOST_SLAVES)
    def new_slave(self, which: int, what: str) -> None:
        running = [agent.id for agent in self.model.agents.values() if agent.enlisted]
        if what == "by hand":
            self.driver.enlist_new(1 + which % 2)
        else:
            by_agent = what == "by a running agent" and running
            agent = _of(running, which) if by_agent else f"job {len(self.model.slaves)}"
            self.driver.expect(agent, what == "open-ended", which % 4 != 0)

    @rule(which=SOME)
    def agent_that_was_given_up_comes_back(self, which: int) -> None:
        given_up = [id for id in self.driver.former if id not in self.model.agents]
        if given_up:
            self.driver.given_up_comes_back(_of(given_up, which))

    # -- users

    @rule()
    @precondition(lambda self: len(self.model.contexts) < MOST_CONTEXTS)
    def make_context(self) -> None:
        self.driver.make_context()

    @rule(which=SOME)
    @precondition(lambda self: self.model.contexts and len(self.model.tasks) < MOST_TASKS)
    def more_tasks(self, which: int) -> None:
        self.driver.more_tasks(self._context(which))

    @rule(which=SOME, how=st.sampled_from(["task", "task", "all", "all", "dropped"]))
    @precondition(lambda self: self.model.contexts)
    def cancel(self, which: int, how: str) -> None:
        """One task, or all of a context, or the user drops it."""
        tasks = [task.id for task in self.model.tasks.values() if task.context in self.model.contexts]
        if how == "dropped":
            self.driver.drop_context(self._context(which))
        elif how == "all":
            self.driver.cancel(self._context(which))
        elif tasks:
            self.driver.cancel_task(tasks[-1 - which % len(tasks)])

    @rule(which=SOME, place=PLACES, reads=st.booleans())
    def cancel_just_after_an_outcome(self, which: int, place: int, reads: bool) -> None:
        """Of the same context, in the same turn of the dispatcher."""
        slave = self._busy(which)
        task = self._task(slave, place)
        context = self.model.tasks[task].context if task else 0
        if context in self.model.contexts:
            if reads:
                self.driver.read(context)
            self.driver.cancel(context, [self.driver.message(slave, task, VALUE)])

    @rule(which=SOME, count=st.integers(1, 3), tells=MOSTLY)
    @precondition(lambda self: self.model.contexts)
    def take_results(self, which: int, count: int, tells: bool) -> None:
        self.driver.take_results(self._context(which), count, tells)

    @rule(which=SOME, count=st.integers(1, 2), for_tasks=st.booleans())
    @precondition(lambda self: self.model.contexts)
    def read(self, which: int, count: int, for_tasks: bool) -> None:
        id = self._context(which)
        for _ in range(count):
            if len(self.model.contexts[id].readers) < 2:
                self.driver.read(id, for_tasks)

    @rule(which=SOME)
    @precondition(lambda self: self.model.reads)
    def stop_reading(self, which: int) -> None:
        """One that waits, or one that was answered."""
        reads = [(call, id) for call, id in self.model.reads.items() if id in self.model.contexts]
        if reads:
            self.driver.stop_reading(*reads[-1 - which % len(reads)])

    @rule(wanted=st.integers(1, MOST_SLAVES + 1), stops=SELDOM)
    def wait_for_slaves(self, wanted: int, stops: bool) -> None:
        if self.model.waiters and (stops or len(self.model.waiters) > 1):
            self.driver.stop_waiting_for_slaves()
        else:
            self.driver.wait_for_slaves(wanted)

    # -- time

    @rule(step=st.sampled_from(STEPS), heard=MOSTLY)
    def pass_time(self, step: float, heard: bool) -> None:
        self.driver.pass_time(step, heard)

    @rule(edge=st.sampled_from(EDGES))
    def pass_time_until_the_first_slave_is_due(self, edge: float) -> None:
        due = min((slave.due for slave in self.model.alive() if slave.contact != "lost"), default=0.0)
        if self.driver.env.now <= due + edge < 1e9:
            self.driver.pass_time(due + edge - self.driver.env.now)

    @rule(step=st.sampled_from(STEPS))
    def stand_still(self, step: float) -> None:
        self.driver.stand_still(step)

    def teardown(self) -> None:
        """Nothing was lost; and when all is over, nothing is left, and nobody waits."""
        if hasattr(self, "driver") and self.driver.sound:
            self.model.all_accounted_for()
            if self.driver.new_pid() % 2:
                self.driver.close()
            else:
                self.driver.wind_down()


def _of(some: Sequence[Item], which: int) -> Item:
    return some[which % len(some)]


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = stories(300, 60)
pytest.mark.slow(TestScheduler)  # it tells the same stories on every Python
