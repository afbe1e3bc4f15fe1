"""What is decided for those that wait for outcomes: readers, those that wait for the last one, and tags."""

from __future__ import annotations

from . import events as ev
from .effects import AllDone, Call, Closed, Forsaken, News, NoSlaves, Pause, SetupFailed, TasksWanted, Verdict
from .patience import Patience
from .slave import Contact, Life, SlaveRecord
from .state import ContextRecord, Reader, State
from .task import Label


class Readers:
    """See the module's text."""

    def __init__(self, state: State, patience: Patience) -> None:
        self._state, self._patience = state, patience

    def wait_for_news(self, call: Call, id: int, for_tasks: bool, now: float) -> None:
        """A reader has read all that was delivered so far; answered with a `Verdict` when there is one."""
        state = self._state
        state.now = now
        context = state.contexts.get(id)
        if context is None:  # it was dropped meanwhile, by another thread
            state.answer(call, AllDone())
            return
        context.readers[call] = Reader(call, for_tasks)
        state.reading += 1
        if context.wait is None:
            context.wait = self._patience.begin(now)
        for full in list(state.backlog.paused):
            self._let_go(state.contexts[full])
        if not state.has_outcomes(id):  # else it is told of them when they are handed over
            if context.put != context.taken:
                self.results_taken(id, context.put - context.taken, now)
            self.judge(context)

    def can_wait(self, id: int, for_tasks: bool) -> bool:
        """Whether a reader is certainly told nothing before something else happens: then its question can wait, too.

        Any thread may ask this: nothing is changed, and what is looked at is there whole.  A question that stands where
        the scheduler's thread looks for it in its next turn is seen by then, whatever changes meanwhile.
        """
        state = self._state
        context, held = state.contexts.get(id), state.backlog.contexts.get(id)
        if context is None or held is None or not state.leases.by_slave:
            return False
        left = len(held.tasks)
        if not left or (for_tasks and context.low_water > left) or context.failures or context.rules.needs:
            return False
        return not (state.backlog.paused or state.closing)

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

    def look_again(self, id: int, now: float) -> None:
        """There is an outcome that did not come by way of the scheduler."""
        context = self._state.contexts.get(id)
        if context is not None:
            self._state.now = now
            self._state.wake_readers(context, News(), len(context.readers))

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
            state.backlog.resume(id)
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
        tasks = state.backlog.contexts[context.id].tasks.parts.values()
        tags = {task.id: task.tag for task in tasks if task.tag is not None and type(task.tag) is not Label}
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
        if not lacking and state.roster.has_others(context.failures, lost_too=not context.failures):
            return None
        for number, data in context.failures.items():
            return SetupFailed(data, str(state.roster.known(number)), len(context.failures))
        if state.may_join:
            return None
        state.take_in()  # to count those just added too
        ended = self.how_all_ended(state.left(context.id))
        return ended._replace(needs=sorted(context.rules.needs)) if lacking else ended

    def _none_has_what_is_needed(self, context: ContextRecord) -> bool:
        """Whether no slave that there is has it; then the user is told, and again when others come that have not."""
        state = self._state
        lacking = all(context.id in slave.lacks for slave in state.roster.slaves.values())
        if not lacking:
            context.needs_told = ()
            return False
        tags = sorted({tag for agent in state.roster.agents.values() for tag in agent.tags})
        slaves = len(state.roster.connected)
        there = tags if slaves else None
        if there not in context.needs_told:
            context.needs_told = (*context.needs_told, there)
            needs = sorted(context.rules.needs)
            state.tell(ev.NeedsUnmet(state.now, context.id, needs, slaves, tags, state.may_join))
        return True

    def how_all_ended(self, left: int) -> NoSlaves:
        """For `NoMoreSlavesError`: how each slave ended, or what it does if there are too few."""
        slaves = self._state.roster.every()
        return NoSlaves(left, [(str(one), _how_it_is(one)) for one in slaves], not self._state.roster.slaves)


def _how_it_is(slave: SlaveRecord) -> str:
    if slave.life is Life.ENDED:
        return slave.end
    if slave.contact is Contact.LOST:
        return "it is lost"
    return "it is ready" if slave.joined else "it is expected"
