"""What is decided when a runner speaks: it joins, asks for tasks, posts outcomes.

A lease is written into the table before its tasks leave the master: if the answer is lost on its way, the slave's next
word ("I hold no lease"), its agent's report or the lease's expiry brings the tasks back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slave.named import NamedTuple
from slave.protocol import (
    ATOMS,
    FAILURE,
    IDLE_SECONDS,
    VALUE,
    Buffer,
    FetchRequest,
    GiveBack,
    JoinRequest,
    OutcomeMessage,
    RebuildFailure,
    Recall,
    Role,
    Setup,
    SetupFailure,
    ValuesMessage,
)

from . import events as ev
from .effects import Call, Granted, Outcome, Refuse, Values
from .rebuilding import Rebuilding
from .slave import SlaveRecord
from .speculation import Speculation
from .state import RECALL_AGE, Idle, State

_REPORT_SECONDS = 2.0  # for an agent's word, sent before, to arrive
_LOOK_AGAIN = 0.05  # seconds between two looks for overdue leases, at least
_LOOK_EACH = 3e-6  # seconds between them for each lease that is looked at, which takes a tenth of a microsecond or two
_OVERHEAD = 300  # bytes that the objects around an outcome take

_NOTHING = Granted(None, ())


class Joining(NamedTuple):
    """A runner that may join when its agent's word on the end of the former one is here, or after ``until``."""

    call: Call
    request: JoinRequest
    until: float


class Runners:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.rebuilding = Rebuilding(state)
        self.speculation = Speculation(state)
        self.joining: dict[int, Joining] = {}
        self._next_look = 0.0  # for overdue leases

    # -- join

    def join(self, call: Call, request: JoinRequest, now: float) -> None:
        """A runner says who it is; answered with whether that is so, False if it means another master.

        The agent's word on how the former runner ended was sent before, but over another connection: it is waited for.
        If it does not come the agent is about to enlist again.
        """
        state = self._state
        state.now = now
        slave = state.roster.slaves.get(request.slave)
        if slave is not None and self._is_late(slave, request):
            state.answer(call, False)
            return
        earlier = self.joining.pop(request.slave, None)
        if earlier is not None:
            state.answer(earlier.call, False)
        if request.run != state.run or slave is None:
            state.answer(call, False)
        elif slave.pid not in (0, request.pid) and not state.closing:
            until = now + min(_REPORT_SECONDS, state.leases.term / 4)
            self.joining[request.slave] = Joining(call, request, until)
            state.attend(until)
        else:
            self._join(slave, call, request)

    def _is_late(self, slave: SlaveRecord, request: JoinRequest) -> bool:
        """Whether that is read after the same process's word on a newer connection: nobody is on this one any more."""
        waiting = self.joining.get(slave.number)
        known = (slave.pid, slave.connection) if waiting is None else (waiting.request.pid, waiting.request.connection)
        return request.pid == known[0] and request.connection < known[1]

    def let_join(self, slave: SlaveRecord) -> None:
        """It is known how its former runner ended."""
        waiting = self.joining.pop(slave.number, None)
        if waiting is not None:
            self._join(slave, waiting.call, waiting.request)

    def let_join_all(self, now: float) -> None:
        """Those whose time is over join all the same; when the master ends, all do, and are told so."""
        for number in [one for one, waiting in self.joining.items() if waiting.until <= now or self._state.closing]:
            waiting = self.joining.pop(number)
            slave = self._state.roster.slaves.get(number)
            if slave is None:
                self._state.answer(waiting.call, False)
            else:
                self._join(slave, waiting.call, waiting.request)
        for waiting in self.joining.values():
            self._state.attend(waiting.until)

    def _join(self, slave: SlaveRecord, call: Call, request: JoinRequest) -> None:
        state = self._state
        held = state.leases.by_slave.get(slave.number)
        if held is not None and (slave.pid != request.pid or held.id != request.lease):
            if slave.pid == request.pid:
                self._lease_lost(slave, len(held.tasks))
            state.table.give_back(slave.number)
        state.release(slave)  # a call of an earlier connection may still wait
        if slave.pid != request.pid:
            state.unlearn(slave)
        else:  # the answer that told it may have been lost with the former connection
            slave.to_forget[:0], slave.told_to_forget = slave.told_to_forget, []
        state.roster.join(slave, request.pid, request.connection)
        if slave.came is None:
            slave.came = state.now
        state.heard(slave)
        state.tell(ev.SlaveJoined(state.now, slave.number, str(slave)))
        state.slaves_changed()
        state.answer(call, True)

    def _lease_lost(self, slave: SlaveRecord, tasks: int) -> None:
        """It was sent a lease, and comes back without: once may be a cut, again and again is worth a word."""
        times, done = slave.lost_answers
        slave.lost_answers = (times + 1 if done == slave.done else 1), slave.done
        if slave.lost_answers[0] > 1:
            self._state.tell(
                ev.LeaseNotArrived(self._state.now, slave.number, str(slave), slave.lost_answers[0], tasks)
            )

    # -- fetch

    def fetch(self, call: Call, request: FetchRequest, now: float) -> None:
        """A slave that holds no lease asks for one: answered with `Granted`, or None when it is to end.

        It waits for `IDLE_SECONDS` at most if there is nothing to do.
        """
        state = self._state
        state.now = now
        slave = state.roster.slaves.get(request.slave)
        if slave is None or slave.pid != request.pid:
            self._refuse(call, request)
        elif slave.connection != request.connection:
            state.answer(call, _NOTHING)  # read late, from a connection that was replaced: nobody is there any more
        else:
            state.release(slave)
            state.heard(slave)
            slave.told_to_forget.clear()  # it has had the answers to what it asked before on this connection
            for context, tasks, seconds in request.ran:
                slave.worked += seconds
                if seconds > state.slowest[0]:
                    alone = tasks == 1  # of others only this is known
                    state.slowest = seconds, context, slave.first if alone else 0, slave.label if alone else ""
                if context in state.contexts:
                    state.pace.learn(context, tasks, seconds)
                    if context in state.durations:
                        state.durations[context].learn(slave.number, tasks, seconds, now)
            state.table.give_back(slave.number)
            if not state.serve(slave, call):
                state.idle[slave.number] = Idle(call, now + IDLE_SECONDS)
                self.recall_overdue(now)
                if state.durations:
                    self.speculation.look(now)

    def _refuse(self, call: Call, request: FetchRequest) -> None:
        ended = self._state.roster.ended.get(request.slave)
        if ended is not None and ended.pid == request.pid:
            self._state.answer(call, None)
        else:
            who = f"slave {request.slave} with process {request.pid}"
            self._state.effects.append(Refuse(call, f"UnknownSlave: {who} is not known here"))

    def recall_overdue(self, now: float) -> None:
        """Slaves idle: leases that take far longer than planned give back what they have not started."""
        state = self._state
        if not state.idle:
            return
        if now >= self._next_look:
            overdue, then = state.leases.overdue(now, RECALL_AGE)
            self._next_look = again = now + max(_LOOK_AGAIN, _LOOK_EACH * len(state.leases.by_slave))
            for lease in overdue:
                slave = state.roster.connected.get(lease.slave)
                if slave is None:
                    then = again
                else:
                    lease.recalled = True
                    state.command(slave.agent, Recall(lease.slave, lease.id))
            if then == math.inf:
                return
            self._next_look = max(again, then)
        state.attend(self._next_look)

    def end_polls(self, now: float) -> None:
        """Answer the calls for tasks that have waited for long enough."""
        state = self._state
        while state.idle:
            number, waiting = next(iter(state.idle.items()))
            if waiting.until > now and not state.closing:
                break
            state.release(state.roster.slaves[number])

    def setup_of(self, slave: int, context: int) -> Setup | None:
        """The context's pickled setup; None if it has none.

        Of one that was dropped meanwhile: what cannot be loaded.  So its setup fails there, nobody is told, and
        no task of it runs without what the setup would have made.
        """
        found = self._state.contexts.get(context)
        return b"" if found is None else found.setup

    # -- outcomes

    def outcomes(self, batch: Sequence[OutcomeMessage | ValuesMessage], now: float) -> None:
        """What came of some tasks: the first outcome of a task settles it, any later one is dropped."""
        self._state.now = now
        for message in batch:
            if len(message) == 4:
                self._values(*message)
            else:
                self._outcome(message)

    def _values(self, number: int, lease: int, context: int, values: Sequence[Any]) -> None:
        """What tasks of one context have returned on one slave: see slave/pieces.py."""
        state = self._state
        if len(values) > 2:
            state.came_together = state.now
        data = values[1::2]
        settled, runs = state.table.settle_all(context, values[::2])
        count = len(settled) + sum(number for _, number, _ in runs)
        if not count:
            return
        slave, name = self._worked(number, context, count)
        for at, several, index in runs:
            some = data[at : at + several]
            size = _OVERHEAD * several
            if not ATOMS.issuperset(map(type, some)):
                size += sum(len(one) for one in some if type(one) not in ATOMS)
            first = values[2 * at]
            tasks, indices = range(first, first + several), range(index, index + several)
            state.deliver_values(context, Values(name, tasks, indices, some, size), slave)
        if not settled:
            return
        outcomes = []
        for at, task in settled:
            found = data[at]
            size = _OVERHEAD if type(found) in ATOMS else _OVERHEAD + len(found)
            outcomes.append(Outcome(task.id, VALUE, name, found, (), size, 1 + task.failures, b"", task.tag))
        state.deliver(context, outcomes, slave)

    def _worked(self, number: int, context: int, count: int) -> tuple[SlaveRecord | None, str]:
        """A slave has done so many tasks of a context; returns it, if it is still known, and what it is called."""
        slave = self._state.roster.known(number)
        self._state.contexts[context].rebuilt_by.add(number)
        if slave is None:
            return None, f"slave {number}"
        slave.done += count
        return slave, str(slave)

    def _outcome(self, message: OutcomeMessage) -> None:
        state = self._state
        number, lease, context, task_id, kind, data, buffers = message
        if kind == FAILURE and state.table.retry(number, lease, context, task_id):
            state.contexts[context].rebuilt_by.add(number)
            self._tell_retry(number, context, task_id)
            return
        task = state.table.settle(context, task_id)
        if task is None:
            return
        slave, name = self._worked(number, context, 1)
        size = _OVERHEAD + len(data) + sum(map(len, buffers))
        tries = 1 + task.failures
        if kind == VALUE:
            state.deliver(context, [Outcome(task_id, kind, name, data, buffers, size, tries, b"", task.tag)], slave)
        else:
            failure = Outcome(task_id, kind, name, data, buffers, size, tries, task.payload, task.tag)
            state.deliver_failure(context, failure, slave)

    def outcome_and_wait(self, call: Call, message: OutcomeMessage, now: float) -> None:
        """The same for one task; the answer tells the slave that it need not keep the outcome, and may go on.

        It is held up as long as too many results of its context wait to be read; not while a reader has to wait for
        a result of another context, which might then never come.
        """
        state = self._state
        _, _, number, task, *_ = message
        known = state.table.find(number, task) is not None
        self.outcomes([message], now)
        state.send_outcomes()
        context = state.contexts.get(number)
        if known and context is not None and context.full and not state.reading and not state.closing:
            context.stalled.append(call)
        else:
            state.answer(call, None)

    def _tell_retry(self, slave: int, context: int, task_id: int) -> None:
        task = self._state.table.find(context, task_id)
        if self._state.watched and task is not None:
            self._state.tell(ev.TaskRetried(self._state.now, context, task_id, slave, task.failures))

    def setup_failed(self, call: Call, failure: SetupFailure, type_name: str, message: str, now: float) -> None:
        """Setup raised on this slave: it is out for that context, and the tasks go to others."""
        state = self._state
        state.now = now
        slave, context = state.roster.slaves.get(failure.slave), state.contexts.get(failure.context)
        self._give_back(failure.slave, failure.lease, failure.unstarted)
        if slave is not None and context is not None:
            self.bar(slave, failure.context, failure.data)
            name = str(slave)
            state.tell(ev.SetupRaised(now, slave.number, name, failure.context, type_name, message))
        state.answer(call, None)

    def rebuild_failed(self, call: Call, failure: RebuildFailure, type_name: str, message: str, now: float) -> None:
        """The slave cannot rebuild a task of its lease; it goes to others."""
        state = self._state
        state.now = now
        slave = state.roster.slaves.get(failure.slave)
        if slave is not None:
            self.rebuilding.failed(slave, failure, type_name, message)
        state.answer(call, None)

    def bar(self, slave: SlaveRecord, context: int, failure: Buffer | str) -> None:
        """The context's setup failed on this slave: it gets no task of it any more."""
        found = self._state.contexts.get(context)
        if found is not None:
            slave.setup_failed.add(context)
            found.failures[slave.number] = failure
            self._state.slaves_changed()

    def give_back(self, call: Call, request: GiveBack, now: float) -> None:
        """The slave has not started these tasks of the lease and will not."""
        self._state.now = now
        self._give_back(request.slave, request.lease, request.unstarted)
        self._state.answer(call, None)

    def _give_back(self, slave: int, lease: int, unstarted: Sequence[int]) -> None:
        """Give tasks back, unless the word comes late, over a connection that was replaced, of another lease."""
        held = self._state.leases.by_slave.get(slave)
        if held is not None and held.id == lease:
            self._state.table.give_back(slave, unstarted)

    # -- the end of a connection

    def disconnected(self, role: Role, now: float) -> None:
        """A runner's connection ended: nobody is there any more who could be given tasks over it."""
        state = self._state
        state.now = now
        slave = state.roster.slaves.get(role.slave)
        if slave is not None and slave.pid == role.pid and slave.connection == role.connection:
            state.release(slave)
        joining = self.joining.get(role.slave)
        if joining is not None and (joining.request.pid, joining.request.connection) == (role.pid, role.connection):
            state.answer(self.joining.pop(role.slave).call, False)
