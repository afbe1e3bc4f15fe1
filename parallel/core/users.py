"""What is decided when a thread of the user's asks or says something: about contexts, results, slaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slave.protocol import Drain, StopTasks

from . import events as ev
from .effects import AllDone, Call, Closed, Forsaken, News, NoSlaves, Pause, SetupFailed, TasksWanted, Verdict
from .pacing import LEASE_SECONDS, MOST_TASKS
from .patience import Patience
from .slave import Contact, Life, Move, SlaveRecord
from .state import NO_RULES, ContextRecord, ContextRules, Reader, State, Wait
from .task import State as TaskState

_LEAST_EACH = 2  # tasks for each slave: the one that runs, and the next
_EVER = 1e9  # seconds


class SlaveInfo(NamedTuple):
    """A slave as it was when `Manager.slaves` was read."""

    number: int
    name: str
    host: str
    pid: int
    state: str  # 'expected', 'idle', 'busy', 'draining', 'lost' or 'ended'
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

    # -- the program

    def set_environment(self, environment: Mapping[str, Any], now: float) -> None:
        """The user's program has changed in what slaves need of it; ``number`` tells which description is later."""
        if environment["number"] > self._state.environment["number"]:
            self._state.environment = environment

    # -- contexts

    def make_context(self, setup: bytes | None, now: float, rules: ContextRules = NO_RULES) -> int:
        """A new context; returns its id."""
        state = self._state
        id = next(state.context_ids)
        state.contexts[id] = ContextRecord(id, setup, rules)
        state.limited = state.limited or rules.most_tasks > 0
        for slave in state.roster.slaves.values() if rules.needs else ():
            if state.roster.agents[slave.agent].enlisted:
                state.see_tags(slave)
        state.tell(ev.ContextMade(now, id))
        return id

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
        state.table.resume(id)
        state.pace.forget(id)
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
        self.judge(context)
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
        lease = state.table.leases.get(found.holder)
        held = {} if lease is None else {found.holder: (lease.id, [task])}
        state.table.drop_task(id, task)
        state.contexts[id].refusals.pop(task, None)
        self._stop(held)
        self.judge(state.contexts[id])
        state.tell(ev.ContextCancelled(now, id, 1))
        return True

    def cancel_waiting(self, id: int, now: float) -> list[object]:
        """Drop the tasks of a context that no slave holds; returns their tags.

        The oldest ones stay, as many as slaves are on their way: these are started for them.
        """
        state = self._state
        state.now = now
        state.take_in()
        found = state.table.contexts.get(id)
        waiting = [] if found is None else [task for task in found.tasks.values() if task.state is TaskState.WAITING]
        del waiting[: len(state.roster.slaves) - len(state.roster.connected)]
        for task in waiting:
            state.table.drop_task(id, task.id)
        self.judge(state.contexts[id])
        state.tell(ev.ContextCancelled(now, id, len(waiting)))
        return [task.tag for task in waiting]

    def _stop(self, held: dict[int, tuple[int, list[int]]]) -> None:
        for number, (lease, ids) in held.items():
            self._state.command(self._state.roster.slaves[number].agent, StopTasks(number, lease, ids))

    # -- adding tasks as they are needed

    def tasks_wanted(self, id: int, seconds: float, now: float) -> int:
        """How many tasks are to be added so that the slaves have work for ``seconds``."""
        state = self._state
        context = state.contexts[id]
        state.take_in()
        each = min(MOST_TASKS, max(_LEAST_EACH, state.pace.fits(id, max(seconds, 4 * LEASE_SECONDS))))
        target = each * max(1, len(state.roster.slaves))
        context.low_water, context.wants_tasks = max(1, target // 2), False
        return max(0, target - state.table.left(id))

    def no_more_tasks(self, id: int, now: float) -> None:
        """There are no more tasks to add."""
        context = self._state.contexts.get(id)
        if context is not None:
            context.low_water, context.wants_tasks = 0, False

    # -- results

    def wait_for_news(self, call: Call, id: int, for_tasks: bool, now: float) -> None:
        """A reader has read all that was delivered so far; answered with a `Verdict` when there is one."""
        state = self._state
        state.now = now
        context = state.contexts[id]
        context.readers[call] = Reader(call, for_tasks)
        state.reading += 1
        if context.wait is None:
            context.wait = self._patience.begin(now)
        for full in list(state.table.paused):
            self._let_go(state.contexts[full])
        if not state.has_outcomes(id):  # else it is told of them when they are handed over
            if context.put != context.taken:
                self.results_taken(id, context.put - context.taken, now)
            self.judge(context)

    def wait_for_tags(self, id: int, now: float) -> None:
        """From now on tasks of the context may have tags, by which somebody waits for each: see `Forsaken`."""
        state = self._state
        context = state.contexts.get(id)
        if context is not None and not context.tagged:
            state.now = now
            context.tagged = True
            state.tagged.add(id)
            if context.wait is None:
                context.wait = self._patience.begin(now)
            self.judge(context)

    def wait_until_done(self, call: Call, id: int, now: float) -> None:
        """Answered with `AllDone` when no task of the context is left, or with what is in the way."""
        state = self._state
        state.now = now
        context = state.contexts.get(id)
        if context is None:
            state.answer(call, AllDone())
        else:
            context.finishers.append(call)
            self.judge(context)

    def is_leased(self, id: int, task: int, now: float) -> bool:
        """Whether a slave holds the task just now."""
        found = self._state.table.find(id, task)
        return found is not None and found.state is TaskState.LEASED

    def stop_waiting(self, call: Call, id: int, now: float) -> None:
        """A reader has gone, by Ctrl-C say.  Was it just being told of an outcome, the others look instead."""
        context = self._state.contexts.get(id)
        if context is None:
            return
        if call in context.finishers:
            context.finishers.remove(call)
        elif context.readers.pop(call, None) is not None:
            self._state.reading -= 1
            if not context.readers and not context.tagged:
                context.wait = None
        else:
            self._state.wake_readers(context, News(), len(context.readers))

    def results_taken(self, id: int, size: float, now: float) -> None:
        """Readers have taken so many more bytes of the context's results; when half are gone, its slaves go on."""
        state = self._state
        state.now = now
        context = state.contexts.get(id)
        if context is None:
            return
        context.taken = min(context.put, context.taken + size)
        if context.full and context.put - context.taken <= state.result_bytes / 2:
            context.full = False
            state.table.resume(id)
            state.effects.append(Pause(id, False))
            self._let_go(context)

    def _let_go(self, context: ContextRecord) -> None:
        stalled, context.stalled = context.stalled, []
        for call in stalled:
            self._state.answer(call, None)

    # -- judging those that wait

    def judge_all(self) -> None:
        """The state of the slaves has changed, or the manager ends."""
        self._state.judge_again = False
        state = self._state
        if state.reading or state.tagged or state.closing:
            for context in state.contexts.values():
                if context.readers or context.tagged or context.finishers:
                    self.judge(context)
        for call in list(self.waiters):
            self._judge_waiter(call)

    def judge(self, context: ContextRecord) -> None:
        """Answer the readers of a context that need not wait any more; what they are told of comes first."""
        self._state.send_outcomes()
        for reader in list(context.readers.values()):
            verdict = self._verdict(context, reader.for_tasks)
            if verdict is not None:
                del context.readers[reader.call]
                self._state.reading -= 1
                self._state.answer(reader.call, verdict)
        if context.tagged:
            self._forsake(context)
        if context.finishers:
            verdict = self._verdict(context, False)
            if verdict is not None:
                self._state.finish(context, verdict)
        if not context.readers and not context.tagged:
            context.wait = None

    def _forsake(self, context: ContextRecord) -> None:
        """Tasks with tags that no slave can run are nobody's to wait for."""
        state = self._state
        verdict = self._verdict(context, False)
        if not isinstance(verdict, (NoSlaves, SetupFailed, Closed)):
            return
        state.take_in()
        tasks = state.table.contexts[context.id].tasks.values()
        tags = {task.id: task.tag for task in tasks if task.tag is not None}
        for id in tags:
            state.table.drop_task(context.id, id)
        if tags:
            state.effects.append(Forsaken(context.id, verdict, tags))

    def _verdict(self, context: ContextRecord, for_tasks: bool) -> Verdict | None:
        """What a reader is to be told; None: it has to wait."""
        state = self._state
        left = state.left(context.id)
        if for_tasks and context.low_water > left:
            return TasksWanted()
        if not left:
            return AllDone()
        if state.closing:
            return Closed()
        lacking = bool(context.rules.needs) and self._none_has_what_is_needed(context)
        if not lacking and state.roster.hopeful(context.failures, lost_too=not context.failures):
            return None
        for number, data in context.failures.items():
            return SetupFailed(data, str(state.roster.known(number)), len(context.failures))
        if state.may_join:
            return None
        state.take_in()  # to count those just added too
        ended = self.how_all_ended(state.left(context.id))
        return ended._replace(needs=sorted(context.rules.needs)) if lacking else ended

    def _none_has_what_is_needed(self, context: ContextRecord) -> bool:
        """Whether no slave that there is has it; then the user is told, once until one comes."""
        state = self._state
        lacking = all(context.id in slave.lacks for slave in state.roster.slaves.values())
        if lacking and not context.needs_told:
            tags = sorted({tag for agent in state.roster.agents.values() for tag in agent.tags})
            slaves = len(state.roster.connected)
            needs = sorted(context.rules.needs)
            state.tell(ev.NeedsUnmet(state.now, context.id, needs, slaves, tags, state.may_join))
        context.needs_told = lacking
        return lacking

    def how_all_ended(self, left: int) -> NoSlaves:
        """For `NoMoreSlavesError`: how each slave ended, or what it does if there are too few."""
        slaves = self._state.roster.every()
        return NoSlaves(left, [(str(one), _obituary(one)) for one in slaves], not self._state.roster.slaves)

    # -- slaves

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
                answer = self.how_all_ended(0)
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
            SlaveInfo(one.number, one.name, one.host, one.pid, self._shown(one), one.done, one.output)
            for one in self._state.roster.every()
        ]

    def _shown(self, slave: SlaveRecord) -> str:
        if slave.life is Life.ENDED:
            return "ended"
        if slave.contact is Contact.LOST:
            return "lost"
        if not slave.joined:
            return "expected"
        if slave.leaving:
            return "draining"
        return "busy" if slave.number in self._state.table.leases else "idle"


def _obituary(slave: SlaveRecord) -> str:
    if slave.life is Life.ENDED:
        return slave.end
    if slave.contact is Contact.LOST:
        return "it is lost"
    return "it is ready" if slave.joined else "it is expected"
