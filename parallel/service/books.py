"""Books: everything the master knows, and the one lock of the master that guards it.

    who writes and reads                    what
    the user's threads (tray.py)            table (add), trays (take)
    runners' server threads (queues.py)     table (grant, settle), trays (put)
    agents' server threads (desk.py)        roster, orders, table (renew, lose)
    the timer thread (expiry.py)            table and roster (expire)

Whoever waits does so on a condition over the one lock: a fetching slave on its own (`idle`), an agent's long poll on
its own (`order_news`), a reader on its tray's, whoever waits for slaves to come on `joined`, and a new runner on
`replaced`.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from slave.wire import Buffer

from ..core.lease_table import Lease, LeaseTable
from ..core.pacing import LEASE_SECONDS, Pacing
from ..core.roster import Order, Roster, SlaveRecord, SlaveState
from ..core.task import Task
from .ends import fate

log = logging.getLogger("parallel")

# threading.RLock, which is no type; it may be taken again by a log handler or finalizer that asks for a state
Lock = Any

_REPORT_SECONDS = 2.0  # for an agent's word, sent before, to arrive
_LOOK_AGAIN = 1.0  # seconds; whoever waits for room is woken, and looks all the same
RECALL_AGE = 2 * LEASE_SECONDS  # seconds after which a lease should be done, and is called back if others idle
GIVEN_UP, TIMED_OUT = 2, 3  # kinds of outcome beside slave.outcome's VALUE and FAILURE, made by the master


class Settled(NamedTuple):
    """An outcome on its way to the user.

    ``data`` is a pickle; for GIVEN_UP how each attempt ended (text), for TIMED_OUT the limit in seconds.
    """

    kind: int
    slave: str  # as it was then
    data: Any
    buffers: Sequence[Buffer]
    size: int = 0  # bytes of memory, about
    tries: int = 1  # how often the task ran until it raised for the last time


class TrayState:
    """What the books hold of one context."""

    def __init__(self, id: int, setup: bytes | None, lock: Lock) -> None:
        self.id, self.setup = id, setup
        self.first = 0  # tasks with a lower id were cancelled before they were entered
        self.ready: deque[Settled] = deque()  # appended to with the lock; readers take from it without
        self.put = self.taken = 0  # bytes of results that came in with the lock, that readers took without
        self.low_water = 0  # the reader wants to add tasks when fewer are left; 0: it has none
        self.hungry = False  # fewer are left
        self.readers = 0  # how many wait for news
        self.news = threading.Condition(lock)
        # by slave: the pickled failure of setup there, or how it ended the slave, in words
        self.failures: dict[int, Any] = {}


class Books:
    """See the module's text.  Methods here need the lock to be held, but for those that say that they take it."""

    def __init__(
        self,
        term: float,
        max_attempts: int,
        surroundings: dict[str, Any],
        open_to_joiners: bool,
        result_bytes: float = math.inf,
    ) -> None:
        self.lock: Lock = threading.RLock()
        self.run = secrets.token_hex(8)  # tells this master from the one that had the same port before
        self.surroundings, self.open_to_joiners = surroundings, open_to_joiners
        self.result_bytes = result_bytes  # of results may wait for the user, in each context
        self.closing = False
        self.table = LeaseTable(term, max_attempts)
        self.roster = Roster()
        self.pace = Pacing()
        self.trays: dict[int, TrayState] = {}
        self.idle: dict[int, threading.Condition] = {}  # slaves that wait for a lease, the longest waiting first
        self.order_news: dict[str, threading.Condition] = {}
        self.joined = threading.Condition(self.lock)
        self.replaced = threading.Condition(self.lock)  # it is known how some slave's process ended
        self.full: set[int] = set()  # contexts of which enough results wait for the user: no leases until some are read
        self.room = threading.Condition(self.lock)  # a full context has room again
        self.readers = 0  # how many users wait for a result of whatever context
        self.progress = 0  # counts settled tasks; a waiting reader sees whether anything happens at all
        self.incoming: deque[Task] = deque()  # added by users, without the lock; see take_in
        self.task_ids = itertools.count(1)
        self.tray_ids = itertools.count(1)
        self.output_of: Callable[[int], str | None] = lambda number: None  # the output file of a launched slave
        self.abandoned: deque[int] = deque()  # contexts to drop; a finalizer may append at any moment, without the lock

    # -- slaves

    def heard(self, slave: SlaveRecord) -> None:
        """A sign of life from a slave."""
        now = time.monotonic()
        if self.roster.heard(slave, now, self.table.term):
            log.warning("parallel: %s is back", str(slave))
            self.joined.notify_all()
        self.table.renew(slave.number, now)

    def lose(self, slave: SlaveRecord, running: int, end: str, last_words: str = "", wanted: bool = False) -> None:
        """The slave is gone or out of reach: its tasks go elsewhere; the running one is blamed.

        ``end``: how it ended, in one line; ``last_words``: the end of its output; ``wanted``: we ended it ourselves.
        """
        lease = self.table.leases.get(slave.number)
        back = len(lease.tasks) if lease is not None else 0
        given_up = self.table.lose(slave.number, running, f"{end} on {slave.host}{last_words}")
        slave.running = 0
        level = logging.INFO if wanted else logging.WARNING
        log.log(level, "parallel: lost %s: %s%s", str(slave), end, fate(back, given_up))
        if given_up is not None:
            self.deliver(given_up.task.context, Settled(GIVEN_UP, str(slave), given_up.ends, ()))
        self.stop_waiting(slave)
        self.wake_idle(back)

    def time_out(self, slave: SlaveRecord, id: int) -> None:
        """The slave's process was ended since this task ran for too long: that is the task's outcome."""
        lease = self.table.leases.get(slave.number)
        if lease is not None and id in lease.tasks:
            task = lease.tasks[id]
            self.table.settle(id)
            self.deliver(task.context, Settled(TIMED_OUT, str(slave), task.timeout, ()))

    def end(self, slave: SlaveRecord, why: str) -> None:
        """The slave will not work again, unless it was launched: then its launcher has the last word."""
        if slave.state is SlaveState.ENDED:
            return
        if slave.launched and not slave.dismissed:
            self.roster.expect_again(slave)
            slave.parting = why
        else:
            slave.state, slave.end = SlaveState.ENDED, f"{slave.parting}; {why}" if slave.parting else why
            log.info("parallel: %s has ended: %s", str(slave), slave.end)
        self.wake_readers()
        self.stop_waiting(slave)

    def stop_waiting(self, slave: SlaveRecord) -> None:
        """If the slave waits for tasks, have it look at its state again."""
        news = self.idle.get(slave.number)
        if news is not None:
            news.notify()
            del self.idle[slave.number]

    def order(self, agent: str, order: Order) -> None:
        """Give an order to an agent, which may not have come yet."""
        record = self.roster.agents[agent]
        record.last_order += 1
        record.orders.append((record.last_order, order))
        news = self.order_news.get(agent)
        if news is not None:
            news.notify_all()

    def replace(self, slave: SlaveRecord) -> None:
        """The slave's process has ended, and what it held is dealt with; its agent starts another one."""
        slave.state, slave.pid = SlaveState.EXPECTED, 0
        self.replaced.notify_all()

    def wait_for_report(self, slave: SlaveRecord, pid: int) -> None:
        """The slave's process ``pid`` joins: wait until its agent's word on how the former one ended is here.

        That was sent before, but over another connection.  If it does not come its agent is about to enlist again.
        """
        deadline = time.monotonic() + min(_REPORT_SECONDS, self.table.term / 4)
        while slave.pid not in (0, pid) and not self.closing and time.monotonic() < deadline:
            self.replaced.wait(deadline - time.monotonic())

    # -- tasks

    def grant(self, slave: SlaveRecord) -> Lease | None:
        """A lease for the slave if there is anything to do for it."""
        self.take_in()
        if not self.table.waiting:
            return None
        share = math.ceil(self.table.waiting / max(1, len(self.roster.ready())))
        barred = slave.barred | self.full if self.full else slave.barred
        lease = self.table.grant(
            slave.number, time.monotonic(), lambda context: context not in barred, share, self.pace
        )
        if lease is not None:
            slave.knows.update({task.context for task in lease.tasks.values()})
        return lease

    def take_in(self) -> None:
        """Enter the tasks that users have added since the last time.

        Not for the user's threads: a KeyboardInterrupt half way would lose a task.
        """
        incoming, trays = self.incoming, self.trays
        while incoming:
            task = incoming.popleft()
            tray = trays.get(task.context)
            if tray is not None and task.id >= tray.first:
                self.table.add(task)

    def left(self, context: int) -> int:
        """How many tasks of the context have no outcome yet."""
        tray = self.trays[context]
        new = sum(task.context == context and task.id >= tray.first for task in list(self.incoming))
        return self.table.left.get(context, 0) + new

    def deliver(self, context: int, settled: Settled) -> None:
        """An outcome for the context's reader; the task has left the table."""
        tray = self.trays.get(context)
        if tray is None:
            return
        self.progress += 1
        tray.ready.append(settled)
        tray.put += settled.size
        if tray.put - tray.taken >= self.result_bytes and context not in self.full:
            self.full.add(context)
            log.info("parallel: %.0f MB of results wait to be read; slaves pause meanwhile", self.result_bytes / 1e6)
        tray.hungry = tray.low_water > self.table.left.get(context, 0)
        if tray.readers:
            if context in self.table.left:
                tray.news.notify()
            else:
                tray.news.notify_all()  # it was the last one: whoever gets none must learn that

    def wait_for_room(self, context: int) -> None:
        """Let a slave wait that has posted a result, as long as too many of its context wait to be read.

        Not while a reader has to wait for a result of another context, which might then never come.
        """
        while context in self.full and not self.readers and not self.closing:
            self.room.wait(_LOOK_AGAIN)

    def make_room(self, tray: TrayState) -> None:
        """A reader took a result of a full context: when half of them are gone, the slaves go on."""
        if not tray.ready:
            tray.taken = tray.put
        if tray.put - tray.taken <= self.result_bytes / 2:
            self.full.discard(tray.id)
            self.room.notify_all()
            self.wake_idle(len(self.idle))

    def recall_overdue(self) -> None:
        """A slave idles: leases that take far longer than planned give back what they have not started."""
        for lease in self.table.overdue(time.monotonic(), RECALL_AGE):
            slave = self.roster.slaves[lease.slave]
            if slave.state is SlaveState.READY:
                lease.recalled = True
                self.order(slave.agent, ("recall", lease.slave, lease.id))

    def cancel(self, context: int) -> int:
        """Drop what waits and stop what runs of a context; returns how many tasks will have no outcome."""
        count, tray = self.left(context), self.trays[context]
        tray.first = next(self.task_ids)
        held = self.table.held(context)
        self.table.drop(context)
        for number, (lease, ids) in held.items():
            self.order(self.roster.slaves[number].agent, ("stop", number, lease, ids))
        tray.news.notify_all()
        return count

    def drop_abandoned(self) -> None:
        """Forget the contexts whose user is gone, and have the slaves forget what their setups returned."""
        while self.abandoned:
            context = self.abandoned.popleft()
            self.table.drop(context)
            self.trays.pop(context, None)
            self.full.discard(context)
            self.room.notify_all()
            self.pace.forget(context)
            for slave in self.roster.forget_context(context):
                self.stop_waiting(slave)

    # -- waking

    def wake_idle(self, tasks: int) -> None:
        """As many idle slaves as there are new tasks look again; all, if a task may not be for everybody."""
        if tasks and any(slave.barred for slave in self.roster.slaves.values()):
            tasks = len(self.idle)
        for number in list(self.idle)[:tasks]:
            self.idle[number].notify()
            del self.idle[number]

    def wake_readers(self) -> None:
        """The state of the slaves has changed: whoever waits looks again."""
        for tray in self.trays.values():
            tray.news.notify_all()
        self.joined.notify_all()

    def close(self) -> None:
        """Takes the lock.  Nobody waits any more: slaves and agents are told to end, readers that it is over."""
        with self.lock:
            self.closing = True
            self.wake_idle(len(self.idle))
            for news in self.order_news.values():
                news.notify_all()
            self.room.notify_all()
            self.replaced.notify_all()
            self.wake_readers()
