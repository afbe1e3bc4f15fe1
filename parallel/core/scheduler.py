"""The scheduler: what happened goes in, with the time; what is to be done and told comes out.

No clock, lock, thread, socket, file or log: time is an argument, effects (effects.py) and events (events.py) are data.
One thread at a time calls it (service/dispatcher.py).

    runners.py   a runner joins, asks for tasks, posts outcomes         lease_table.py  who holds which task until when
        of pieces: backlog.py (unsettled tasks and whose turn is next), leases.py, races.py (tasks that two slaves hold)
    speculation.py  tasks that are started twice                        durations.py  whether that is worth it
    rebuilding.py  what becomes of a task that a slave cannot rebuild, and of that slave
    endings.py   a runner's process has ended
    agents.py    an agent comes, reports, falls silent, ends            roster.py       the agents and slaves, counted
    launches.py  a launcher expects slaves, has started them, saw them end   pacing.py  how many tasks one lease holds
    users.py     contexts, cancelling, who waits for slaves         patience.py  when they are told why
    readers.py   who waits for outcomes
    state.py     what all of these know, and the steps they share
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from slave.protocol import Role

from . import events as ev
from .agents import Agents
from .effects import Effect
from .endings import Endings
from .launches import Launches
from .runners import Runners
from .state import State
from .users import Users

_TICKS_PER_LEASE = 8
_LONGEST_TICK = 1.0
_LATE = 0.5  # seconds by which a tick may be late without meaning that this process was stopped or kept busy


class Scheduler:
    """See the module's text.  Arguments as of `State`."""

    def __init__(
        self,
        term: float,
        max_attempts: int,
        *,
        run: str,
        environment: Mapping[str, Any],
        may_join: bool,
        result_bytes: float = float("inf"),
        max_memory: int = 0,
        output_of: Callable[[int], str | None] = lambda number: None,
    ) -> None:
        self.state = State(
            term,
            max_attempts,
            run=run,
            environment=environment,
            may_join=may_join,
            result_bytes=result_bytes,
            max_memory=max_memory,
            output_of=output_of,
        )
        self.runners = Runners(self.state)
        self.endings = Endings(self.state, self.runners)
        self.agents = Agents(self.state, self.endings)
        self.launches = Launches(self.state)
        self.users = Users(self.state)

    def set_term(self, term: float, now: float) -> None:
        """Change the length of leases, as long as no agent has been told of it."""
        if not any(agent.enlisted for agent in self.state.roster.agents.values()):
            self.state.leases.term = term
            self.state.attend(now)

    def tick(self, now: float, late: float) -> None:
        """Time has passed: expire what is over, tell whoever waits.  To be called when `due`, or a little later.

        ``late``: seconds by which this call comes too late.  A master that was stopped, or whose program held the
        interpreter for so long, could not hear its slaves either: they get that time back, since the silence was not
        theirs.
        """
        state = self.state
        state.now = now
        state.due = now + min(_LONGEST_TICK, state.leases.term / _TICKS_PER_LEASE)
        if not state.closing:  # else slaves fall silent because they were asked to
            if late > _LATE:
                state.tell(ev.MasterWasStopped(now, late))
                state.leases.shift(late)
                state.roster.shift(late)
                self.runners.speculation.shift(late)
            self.agents.missed(now)
        self.endings.settle_overdue(now)
        self.runners.let_join_all(now)
        self.runners.end_polls(now)
        self.agents.end_polls(now)
        self.runners.recall_overdue(now)
        if state.durations:
            self.runners.speculation.look(now)
        self.users.say_why(now)
        state.tallies.look(now, state.with_tasks())

    def runner_disconnected(self, role: Role, now: float) -> None:
        """A runner's connection was read to its end."""
        self.runners.disconnected(role, now)
        self.endings.disconnected(role)

    def close(self, now: float) -> None:
        """The manager ends: nobody waits any more; slaves and agents are told to end, readers that it is over."""
        state = self.state
        state.now = now
        if state.closing:
            return
        state.closing = True
        self.endings.settle_overdue(now)
        self.runners.let_join_all(now)
        for number in list(state.idle):
            state.answer(state.idle.pop(number).call, None)
        self.agents.end_all()
        for context in state.contexts.values():
            stalled, context.stalled = context.stalled, []
            for call in stalled:
                state.answer(call, None)
        state.slaves_changed()
        state.tell(ev.ManagerClosed(now))

    def take(self, now: float | None = None) -> tuple[list[Effect], list[ev.Event]]:
        """What is to be done and told since the last time; waiting tasks go to idle slaves first.

        ``now``: leases that are granted here begin now, and not when something happened last.
        """
        state = self.state
        state.now = state.now if now is None else now
        if state.judge_again and state.picky_contexts and not state.closing:
            self.runners.rebuilding.judge_all()
        if state.idle and (state.backlog.waiting or state.incoming) and not state.closing:
            state.feed()
        state.send_outcomes()
        if state.judge_again or (state.tagged and state.incoming and state.without_slaves):
            self.users.judge_all()
        effects, state.effects = state.effects, []
        events, state.events = state.events, []
        return effects, events

    @property
    def due(self) -> float:
        """When `tick` is to be called next."""
        return self.state.due

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        self.state.check()
