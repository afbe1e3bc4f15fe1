"""What is decided when a thread of the user's asks or says something: about contexts, results, slaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slave.named import NamedTuple
from slave.protocol import Drain, Setup, StopTasks

from . import events as ev
from .chunk import ids_of
from .durations import Durations
from .effects import Call, Closed
from .pacing import MOST_TASKS
from .patience import Patience
from .readers import Readers
from .slave import Contact, Life, Move, SlaveRecord
from .state import NO_RULES, ContextRecord, ContextRules, State, Wait
from .tally import Tally
from .task import State as TaskState

_LEASES_AHEAD = 4  # so many for each slave are to be filled by the tasks that there are
MOST_EACH = 10_000  # tasks for each slave that are wanted at a time: while they are made, no result is given
MOST_AT_HAND = _LEASES_AHEAD * MOST_TASKS  # the same of inputs that take next to no time
_LEAST_EACH = 2  # tasks for each slave: the one that runs, and the next
_EVER = 1e9  # seconds


class SlaveInfo(NamedTuple):
    """A slave as it was when `Manager.slaves` was read.

    ``number``: from 0 on, in the order of adding and joining.  ``name``: what it is, as in messages.  ``host``: its
    machine, '' before it has come.  ``pid``: of the process in which its tasks run, there; 0 if there is none.
    ``state``: 'expected', 'idle', 'busy', 'stopped' (by SIGSTOP), 'draining', 'lost' or 'ended'.  ``tasks_done``: how
    many.  ``output``: its output file on this machine; None: it has none.
    """

    number: int
    name: str
    host: str
    pid: int
    state: str
    tasks_done: int
    output: str | None


class Waiter:
    """A thread of the user's that waits for ``wanted`` slaves."""

    def __init__(self, wanted: int, wait: Wait) -> None:
        self.wanted, self.wait = wanted, wait


class Users:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.waiters: dict[Call, Waiter] = {}
        self._patience = Patience(state)
        self.readers = Readers(state, self._patience)

    # -- the program

    def set_environment(self, environment: Mapping[str, Any], now: float) -> None:
        """The user's program has changed in what slaves need of it; ``number`` tells which description is later."""
        if environment["number"] > self._state.environment["number"]:
            self._state.environment = environment

    # -- contexts

    def make_context(self, setup: Setup | None, now: float, rules: ContextRules = NO_RULES) -> int:
        """A new context; returns its id."""
        state = self._state
        id = next(state.context_ids)
        base = state.contexts.get(rules.base)
        state.contexts[id] = ContextRecord(id, setup, rules, Tally(now) if base is None else base.tally)
        if base is not None and not base.rules.name:
            self.name_context(base, rules.name)
        state.limited = state.limited or rules.most_tasks > 0
        if rules.speculate:
            state.durations[id] = Durations()
        for slave in state.roster.slaves.values() if rules.needs else ():
            if state.roster.agents[slave.agent].enlisted:
                state.see_tags(slave)
        state.tell(ev.ContextMade(now, id, rules.label or rules.name))
        return id

    def name_context(self, context: ContextRecord, name: str) -> None:
        """What it runs has this name."""
        context.rules = context.rules._replace(name=name)

    def drop_context(self, id: int, now: float) -> None:
        """Nobody can ask for its outcomes any more: the slaves forget what its setup returned."""
        state = self._state
        state.now = now
        context = state.contexts.pop(id, None)
        if context is None:
            return
        for one in state.roster.slaves.values() if context.rules.needs else ():
            one.lacks.discard(id)
        state.table.drop(id)
        state.backlog.resume(id)
        state.pace.forget(id)
        state.durations.pop(id, None)
        for call in context.stalled:
            state.answer(call, None)
        state.reading -= len(context.readers)
        for call in [*context.readers, *context.finishers]:
            state.answer(call, Closed())
        state.tagged.discard(id)
        for number in context.failures:
            slave = state.roster.slaves.get(number)
            if slave is not None:
                slave.setup_failed.discard(id)
        for number in context.refused:
            if number in state.roster.slaves:
                state.roster.slaves[number].unfit_for.discard(id)
        state.picky_contexts.discard(id)
        for number in context.known_by:
            slave = state.roster.slaves[number]
            slave.knows.discard(id)
            slave.to_forget.append(id)
            state.release(slave)
        state.tell(ev.ContextDropped(now, id))

    def drop_setups(self) -> None:
        """All slaves have ended: their memory is not for whoever keeps the manager."""
        for context in self._state.contexts.values():
            context.setup = None

    def cancel(self, id: int, now: float) -> int:
        """Drop what waits and stop what runs of a context; returns how many tasks will have no outcome."""
        state = self._state
        state.now = now
        state.take_in()
        context = state.contexts[id]
        context.first = next(state.task_ids)
        held = state.table.held(id)
        count = state.table.drop(id)
        context.refusals.clear()
        self._stop(held)
        self.readers.judge(context)
        state.tell(ev.ContextCancelled(now, id, count))
        return count

    def cancel_task(self, id: int, task: int, now: float) -> bool:
        """The same for one task; False if it has its outcome already, or was cancelled before."""
        state = self._state
        state.now = now
        state.take_in()
        found = state.table.find(id, task)
        if found is None:
            return False
        held = {slave: (lease, [task]) for slave, lease in state.table.held_by(found).items()}
        state.table.drop_task(id, task)
        state.contexts[id].refusals.pop(task, None)
        self._stop(held)
        self.readers.judge(state.contexts[id])
        state.tell(ev.ContextCancelled(now, id, 1))
        return True

    def cancel_waiting(self, id: int, now: float) -> list[object]:
        """Drop the tasks of a context that no slave holds; returns their tags.

        The oldest ones stay, as many as slaves are on their way: these are started for them.
        """
        state = self._state
        state.now = now
        state.take_in()
        found = state.backlog.contexts.get(id)
        parts = [] if found is None else found.tasks.parts.values()
        waiting = sorted(id for part in parts if part.state is TaskState.WAITING for id in ids_of(part))
        del waiting[: len(state.roster.slaves) - len(state.roster.connected)]
        dropped = [state.table.drop_task(id, one) for one in waiting]
        self.readers.judge(state.contexts[id])
        state.tell(ev.ContextCancelled(now, id, len(waiting)))
        return [task.tag for task in dropped if task is not None]

    def _stop(self, held: dict[int, tuple[int, list[int]]]) -> None:
        for number, (lease, ids) in held.items():
            self._state.command(self._state.roster.slaves[number].agent, StopTasks(number, lease, ids))

    def is_leased(self, id: int, task: int, now: float) -> bool:
        """Whether a slave holds the task just now."""
        found = self._state.table.find(id, task)
        return found is not None and found.state in (TaskState.LEASED, TaskState.COPIED)

    # -- adding tasks as they are needed

    def tasks_wanted(self, id: int, seconds: float, now: float, most: int = MOST_EACH) -> int:
        """How many tasks are to be added so that the slaves have work for ``seconds``; ``most`` for each slave."""
        state = self._state
        context = state.contexts[id]
        state.take_in()
        target = self.tasks_wanted_at_first(id, seconds, most)
        context.low_water, context.wants_tasks = max(1, target // 2), False
        return max(0, target - state.backlog.left(id))

    def tasks_wanted_at_first(self, id: int, seconds: float, most: int = MOST_EACH) -> int:
        """The same of a context that has none.  Only looks: may be called by any thread."""
        state = self._state
        ahead = max(seconds, _LEASES_AHEAD * state.pace.lease_seconds)
        each = max(_LEAST_EACH, state.pace.fits(id, ahead, most))
        return each * max(1, len(state.roster.slaves))

    def no_more_tasks(self, id: int, now: float) -> None:
        """There are no more tasks to add."""
        context = self._state.contexts.get(id)
        if context is not None:
            context.low_water, context.wants_tasks = 0, False
            if id in self._state.durations:
                self._state.attend(now)  # a slave that idles waits for less now until it gets a copy

    # -- slaves

    def judge_all(self) -> None:
        """The state of the slaves has changed, or the manager ends."""
        self.readers.judge_all()
        for call in list(self.waiters):
            self._judge_waiter(call)

    def wait_for_slaves(self, call: Call, wanted: int, now: float) -> None:
        """Answered with None when so many are connected, with `NoSlaves` or `Closed` when that cannot be."""
        self._state.now = now
        self.waiters[call] = Waiter(wanted, self._patience.begin(now))
        self._judge_waiter(call)

    def stop_waiting_for_slaves(self, call: Call, now: float) -> int:
        """Somebody waits no more; returns how many are connected."""
        self.waiters.pop(call, None)
        return len(self._state.roster.connected)

    def _judge_waiter(self, call: Call) -> None:
        state, wanted = self._state, self.waiters[call].wanted
        answer: object = None
        if len(state.roster.connected) < wanted:
            if state.closing:
                answer = Closed()
            elif not state.may_join and not state.roster.open_ended() and len(state.roster.slaves) < wanted:
                answer = self.readers.how_all_ended(0)
            else:
                return
        del self.waiters[call]
        state.answer(call, answer)

    def dismiss(self, number: int, grace: float | None, now: float) -> None:
        """The user had a slave removed: it gets no more tasks, and its running one may go on for ``grace`` seconds."""
        state = self._state
        state.now = now
        slave = state.roster.slaves.get(number)
        if slave is not None:
            state.roster.move(slave, Move.DISMISS)
            state.release(slave)
            state.command(slave.agent, Drain(number, _EVER if grace is None else grace))
            state.slaves_changed()

    def say_why(self, now: float) -> None:
        """Whoever has waited for long without progress is told why."""
        self._patience.say_why(now)
        for waiter in self.waiters.values():
            self._patience.say_why_no_slaves(waiter.wait, waiter.wanted, now)

    def infos(self, now: float) -> list[SlaveInfo]:
        """All slaves, as they are now."""
        return [
            SlaveInfo(one.number, one.name, one.host, one.pid, self.shown(one), one.done, one.output)
            for one in self._state.roster.every()
        ]

    def shown(self, slave: SlaveRecord) -> str:
        """Its state in a word: see `SlaveInfo`."""
        if slave.life is Life.ENDED:
            return "ended"
        if slave.contact is Contact.LOST:
            return "lost"
        if not slave.joined:
            return "expected"
        if slave.leaving:
            return "draining"
        if slave.stopped:
            return "stopped"
        return "busy" if slave.number in self._state.leases.by_slave else "idle"
