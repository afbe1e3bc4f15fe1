"""Takes the status of a manager: in the dispatcher's thread, between two turns, from what the scheduler knows.

No lock is held and nothing is waited for but that thread, so a signal handler may ask.  It costs a walk over the slaves
and contexts that have not ended, and not over tasks.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator

from slave.protocol import RELEASE

from ..core.chunk import Chunk
from ..core.slave import Contact, Life, SlaveRecord
from ..core.state import ContextRecord, State
from ..core.task import Label, Task
from ..pickled import name_in
from ..service.dispatcher import Dispatcher
from ..service.messages import grouped, some
from .status import ContextStatus, EventStatus, SlaveStatus, Status, sum_of
from .words import Course, Summary

_AT_ONCE = 5_000  # added tasks that are entered for the sake of a look
_FORMER = 20  # slaves that have ended and are shown
_TO_BE_NAMED = 1.0  # seconds for which a task runs before its name is looked for in it
_LARGEST = 64 * 1024  # bytes of a task that are looked into for that
_LONG_TASKS = 1.0  # seconds from which on the time left is told from their length, and not from the rate
_LATE = 3.0  # times the length of others that a task runs, and then nobody knows for how long it will
_FEW = 5  # tasks for each slave, of which the rate tells less than their length


def status_of(dispatcher: Dispatcher, master: str) -> Status:
    """The manager's.  ``master``: what it is called."""
    status: Status = dispatcher.call(lambda now: survey(dispatcher, master, now))
    return status


def survey(dispatcher: Dispatcher, master: str, now: float) -> Status:
    """The same, in the dispatcher's thread."""
    return _Survey(dispatcher, now).status(master)


def progress_of(dispatcher: Dispatcher, context: int) -> ContextStatus:
    """That of one context, with its maps."""
    found: ContextStatus = dispatcher.call(lambda now: _Survey(dispatcher, now).context(context))
    return found


def course_of(dispatcher: Dispatcher) -> tuple[Course, float]:
    """How far it is, and the seconds that the look has cost the dispatcher's thread."""

    def look(now: float) -> tuple[Course, float]:
        began = time.perf_counter()
        course = _Survey(dispatcher, now).course()
        return course, time.perf_counter() - began

    found: tuple[Course, float] = dispatcher.call(look)
    return found


def all_told(dispatcher: Dispatcher) -> bool:
    """Whether no slave that is connected has anything to tell: each has told how long its last tasks took."""
    state = dispatcher.scheduler.state
    told: bool = dispatcher.call(lambda now: len(state.idle) >= len(state.roster.connected))
    return told


def summary_of(dispatcher: Dispatcher, seconds: float, offered: float) -> Summary:
    """What became of a run that took ``seconds``, for which slaves were there for ``offered`` seconds altogether."""
    found: Summary = dispatcher.call(lambda now: _Survey(dispatcher, now).summary(seconds, offered))
    return found


class _Survey:
    """One look.  For the dispatcher's thread."""

    def __init__(self, dispatcher: Dispatcher, now: float) -> None:
        self._dispatcher, self._now = dispatcher, now
        self._state: State = dispatcher.scheduler.state
        self._state.take_in(_AT_ONCE)
        incoming = self._state.incoming
        # of a million that are on their way nobody counts whose they are: the last one stands for all
        self._incoming = (incoming[-1].context, len(incoming)) if incoming else (0, 0)
        self._running = {slave: lease.tasks.first() for slave, lease in self._state.leases.by_slave.items()}
        self._runs_of = Counter(task.context for task in set(self._running.values()))  # two may run the same
        self._maps: dict[int, list[ContextRecord]] = {}
        for record in self._state.contexts.values():
            self._maps.setdefault(self._row_of(record), []).append(record)

    def _row_of(self, record: ContextRecord) -> int:
        return record.rules.base if record.rules.base in self._state.contexts else record.id

    # -- contexts

    def context(self, id: int) -> ContextStatus:
        """A row: the context ``id`` and its maps."""
        records = self._maps.get(id, [])
        state, now = self._state, self._now
        left = sum(state.backlog.left(record.id) for record in records)
        left += self._incoming[1] if self._incoming[0] in [record.id for record in records] else 0
        running = sum(self._runs_of[record.id] for record in records)
        coming = sum(box.coming for box in map(self._dispatcher.mailboxes.get, (one.id for one in records)) if box)
        complete = coming < math.inf
        if not records:
            return ContextStatus(id, f"context {id}", 0, 0, 0, 0, 0, True, 0.0, None)
        tally = records[0].tally
        if left and state.roster.connected:
            tally.look(now)
        rate = tally.rate(now)
        known = left + (int(coming) if complete else 0)
        return ContextStatus(
            id=id,
            label=self._label(id, records),
            waiting=left - running,
            running=running,
            done=tally.done,
            failed=tally.failed,
            coming=known - left,
            complete=complete,
            rate=rate,
            time_left=self._time_left(records, known, rate),
        )

    def _label(self, id: int, records: list[ContextRecord]) -> str:
        for rules in [record.rules for record in records]:
            if rules.label or rules.name:
                return rules.label or rules.name
        tasks = self._state.backlog.contexts.get(id)
        name = "" if tasks is None else self._name_in(tasks.tasks.first())
        if name:
            self._dispatcher.scheduler.users.name_context(records[0], name)
        return name or f"context {id}"

    def _time_left(self, records: list[ContextRecord], left: int, rate: float) -> float | None:
        """Long or few tasks: by how long they take; others, which cost more than their own time: by the rate."""
        if not left:
            return 0.0
        ids = {record.id for record in records}
        leases = self._state.leases.by_slave
        ages = [self._now - leases[slave].granted for slave, task in self._running.items() if task.context in ids]
        each = [self._state.pace.seconds_per_task(id) for id in ids if self._state.backlog.left(id)]
        length = max((seconds for seconds in each if seconds is not None), default=0.0)
        slaves = len(self._state.roster.connected)
        late = max(ages, default=0.0) > max(_LONG_TASKS, _LATE * length)
        if late and len(ages) >= min(left, slaves):
            return None  # what runs takes longer than others did, and nobody knows how long
        if (length < _LONG_TASKS and records[0].tally.lately > _FEW * slaves) or None in each or not slaves:
            return left / rate if rate else None
        work = left * length - sum(min(age, length) for age in ages)
        return max(work / min(slaves, left), max((length - age for age in ages), default=0.0), 0.0)

    # -- slaves

    def _slave(self, slave: SlaveRecord) -> SlaveStatus:
        task = self._running.get(slave.number)
        runs_for = self._runs_for(slave, task)
        ended = slave.life is Life.ENDED
        return SlaveStatus(
            number=slave.number,
            name=slave.name,
            host=slave.host,
            pid=0 if ended else slave.pid,
            state=self._dispatcher.scheduler.users.shown(slave),
            words=slave.end if ended or slave.parting else slave.doing,
            task=0 if task is None else task.id,
            label="" if task is None else self._name_of(task, runs_for) + self._mark_of(task, slave),
            context=0 if task is None else task.context,
            runs_for=runs_for,
            done=slave.done,
            busy=self._share(slave),
            memory=0 if ended else slave.memory,
            heard=None if slave.contact is Contact.UNHEARD else max(0.0, self._now - slave.heard),
            losses=slave.losses,
            output=slave.output,
        )

    def _runs_for(self, slave: SlaveRecord, task: Task | Chunk | None) -> float:
        if task is None:
            return 0.0
        granted = self._state.leases.by_slave[slave.number].granted
        since = slave.since if slave.running == task.id and slave.first != task.id else granted
        return max(0.0, self._now - since)

    def _share(self, slave: SlaveRecord) -> float:
        if slave.came is None:
            return 0.0
        lease = self._state.leases.by_slave.get(slave.number)
        worked = slave.worked + (0.0 if lease is None else self._now - lease.granted)
        there = (slave.heard if slave.life is Life.ENDED else self._now) - slave.came
        return min(1.0, worked / there) if there > 0 else 0.0

    def _name_of(self, task: Task | Chunk, runs_for: float) -> str:
        if type(task.tag) is Label:
            return str(task.tag)
        rules = self._state.contexts[task.context].rules
        if rules.base and rules.name:
            return rules.name  # a map's function
        name = self._name_in(task) if runs_for >= _TO_BE_NAMED else ""
        return name or rules.label or rules.name

    def _mark_of(self, task: Task | Chunk, slave: SlaveRecord) -> str:
        return " (copy)" if self._state.table.races.second.get(task.id) == slave.number else ""

    def _name_in(self, task: Task | Chunk) -> str:
        """Of its callable, unless it would take long to find that."""
        small = type(task.payload) is bytes and len(task.payload) <= _LARGEST
        return _name_in(task.payload) if small else ""

    # -- all

    def status(self, master: str) -> Status:
        """Everything."""
        state, roster = self._state, self._state.roster
        former = itertools.islice(reversed(roster.ended.values()), _FORMER)
        slaves = sorted([*roster.slaves.values(), *former], key=lambda slave: slave.number)
        return Status(
            master=master,
            release=RELEASE,
            uptime=self._now - self._dispatcher.began,
            closing=state.closing,
            contexts=[self.context(id) for id in sorted(self._maps)],
            slaves=[self._slave(slave) for slave in slaves],
            ended=len(roster.ended),
            events=[
                EventStatus(max(0.0, self._now - time), level, text)
                for time, level, text in self._dispatcher.publisher.recent()
            ],
            trouble=list(self._trouble()),
            slowest=self._slowest(),
            slowest_seconds=state.slowest[0] if state.slowest[2] else 0.0,
            copies=state.copies,
            copies_first=state.copies_first,
        )

    def course(self) -> Course:
        """How far it is."""
        tasks = sum_of([self.context(id) for id in self._maps])
        return Course(tasks, len(self._running), len(self._state.roster.connected), list(self._trouble()))

    def summary(self, seconds: float, offered: float) -> Summary:
        """What became of it."""
        slaves = self._state.roster.every()
        worked = sum(slave.worked for slave in slaves)
        return Summary(
            tasks=sum_of([self.context(id) for id in self._maps]),
            seconds=seconds,
            busy=min(1.0, worked / offered) if offered > 0 else 0.0,
            slaves=sum(slave.done > 0 for slave in slaves),
            losses=sum(slave.losses for slave in slaves),
            slowest=self._slowest(),
            slowest_seconds=self._state.slowest[0] if self._state.slowest[2] else 0.0,
            copies=self._state.copies,
            copies_first=self._state.copies_first,
        )

    def _slowest(self) -> str:
        _, context, task, label = self._state.slowest
        if not task or label:
            return label
        record = self._state.contexts.get(context)
        named = record is not None and (record.rules.label or record.rules.name)
        return f"task {task} of {named}" if named else f"task {task}"

    # -- what is wrong

    def _trouble(self) -> Iterator[str]:
        """In words for the user; the worst first."""
        state, roster = self._state, self._state.roster
        died_of = self._dispatcher.failure
        if died_of is not None:
            yield f"a thread of this manager has died of {type(died_of).__name__}: a bug, please report it"
        if state.closing:
            return
        left = any(map(state.backlog.left, state.contexts))
        if left and not roster.connected:
            yield self._nobody()
        lost = [str(slave) for slave in roster.slaves.values() if slave.contact is Contact.LOST] if roster.lost else []
        if lost:
            yield f"not heard of: {', '.join(some(lost))}"
        stopped = [str(slave) for slave in roster.connected.values() if slave.stopped]
        if stopped:
            yield f"stopped by somebody (kill -CONT lets them go on): {', '.join(some(stopped))}"
        for record in state.contexts.values():
            label = self._label(record.id, [record])
            if record.failures and state.backlog.left(record.id):
                yield f"setup failed on {len(record.failures)} slave{'s' if len(record.failures) > 1 else ''}: {label}"
            if record.rules.needs and state.backlog.left(record.id) and self._none_can_run(record.id):
                yield f"no connected slave has what it needs ({', '.join(sorted(record.rules.needs))}): {label}"
            if record.full:
                yield f"{state.result_bytes / 1e6:.0f} MB of results wait to be read, and slaves pause: {label}"

    def _none_can_run(self, context: int) -> bool:
        """Whether slaves are connected, and none has the tags that a context needs."""
        connected = self._state.roster.connected.values()
        return bool(connected) and all(context in slave.lacks for slave in connected)

    def _nobody(self) -> str:
        """No slave is connected, and there are tasks."""
        roster = self._state.roster
        expected = [(str(one), one.doing) for one in roster.slaves.values() if one.contact is Contact.UNHEARD]
        if expected:
            return "no slave is connected yet: " + "; ".join(grouped(expected))
        by_hand = "; slaves may join by hand" if self._state.may_join else ""
        return f"no slave is connected{by_hand}"


_name_in = functools.lru_cache(maxsize=2000)(name_in)
