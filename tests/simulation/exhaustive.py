"""All orders in which a small plan may happen: 2 slaves, 3 tasks, one cut, one death.

Time stands still while something can happen at once, and whatever can is a choice: each connection delivers the next
thing that was said on it, each process does its next line, the master has its turn; once in a run a connection is cut,
and once a runner dies.  Only when nothing can happen at once does time pass, to the next thing that somebody has
planned.  A state that was seen before is not gone on from.  States are told apart by all that both ends remember, and
by what is on its way; not by the clock.

Whoever is to decide differently runs the plan again from its beginning (nothing here can be copied), and those first
that differ from the usual order in the fewest choices.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from .network import Connection
from .plan import AgentPlan, ContextPlan, Plan, TaskPlan
from .run import Run
from .runner import Runner
from .world import Process, World

_AT_ONCE = 0.2  # seconds; what is planned for later is not done as long as something can be done at once
_TELL_EVERY = 30.0  # seconds


class Choices(NamedTuple):
    """The choices that lead to a state: those of ``before``, then ``last``."""

    before: Choices | None
    last: int

    def all(self) -> list[int]:
        """All of them, the first first."""
        found: list[int] = []
        at: Choices | None = self
        while at is not None:
            found.append(at.last)
            at = at.before
        return found[::-1]


class ChoosingWorld(World):
    """A world in which the order of what can happen at once is chosen.  ``choose``: which of so many."""

    choose: Callable[[int], int]

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.lanes: dict[Any, list[tuple[float, int, Callable[..., object], tuple[Any, ...]]]] = {}
        self.faults: list[Callable[[], Iterator[Callable[[], object]]]] = []  # each is done once at the most
        self.in_order = False  # nothing is chosen any more: the earliest first
        self._limit = 0.0  # what is planned until then can happen at once

    def at(self, time: float, do: Callable[..., object], *arguments: Any) -> None:
        """As `World.at`; in the lane of whoever does it."""
        self._count += 1
        insort(self.lanes.setdefault(_lane(do, arguments), []), (max(time, self.now), self._count, do, arguments))

    def after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        """The same."""
        self.at(self.now + seconds, do, *arguments)

    def step(self) -> bool:
        """Let one of the things happen that can."""
        if self.in_order:
            return self._step_in_order()
        ready = [lane for lane, items in self.lanes.items() if items and items[0][0] <= self._limit]
        if not ready:
            planned = [items[0][0] for items in self.lanes.values() if items]
            if not planned:
                return False
            self.now = max(self.now, min(planned))
            self._limit = self.now + _AT_ONCE
            return self.step()
        actions: list[tuple[int, Callable[[], object]]] = [
            (index, act) for index, fault in enumerate(self.faults) for act in fault()
        ]
        chosen = self.choose(len(ready) + len(actions))
        self.steps += 1
        if chosen >= len(ready):
            index, act = actions[chosen - len(ready)]
            del self.faults[index]
            act()
            return True
        self._do(ready[chosen])
        return True

    def _step_in_order(self) -> bool:
        if not self.lanes:
            return False
        self._do(min(self.lanes, key=lambda lane: self.lanes[lane][0][0]))
        return True

    def _do(self, lane: Any) -> None:
        items = self.lanes[lane]
        at, _, do, arguments = items.pop(0)
        if not items:
            del self.lanes[lane]
        self.now = max(self.now, at)
        do(*arguments)


class ExploredRun(Run):
    """A run whose orders are all tried; not of its end, when all is done."""

    def _wind_down(self) -> None:
        assert isinstance(self.world, ChoosingWorld)
        self.world.in_order = True
        super()._wind_down()


def _lane(do: Callable[..., object], arguments: tuple[Any, ...]) -> Any:
    """Who does it: what one does keeps its order."""
    owner = getattr(do, "__self__", None)
    name = getattr(do, "__name__", "")
    if isinstance(owner, Connection):
        return owner.name, name
    if isinstance(owner, Process):
        return owner.name, getattr(arguments[0], "__name__", "") if arguments else name
    return type(owner).__name__, name, id(owner) if name == "_read" else 0


PLAN = Plan(
    1,
    term=10.0,
    max_attempts=2,
    slowness=0.0,
    agents=[AgentPlan(0.0, 2)],
    contexts=[ContextPlan()],
    tasks=[TaskPlan(0, 0.02, 0.1), TaskPlan(0, 0.02, 0.1), TaskPlan(0, 0.02, 0.1)],
)


class Explorer:
    """Goes through all orders of ``plan``, up to ``most`` states."""

    def __init__(self, plan: Plan, most: int) -> None:
        self.plan, self.most = plan, most
        self.seen: set[int] = set()
        self.to_do: deque[Choices | None] = deque([None])
        self.runs = self.ends = self.steps = 0

    def explore(self) -> str | None:
        """Go; what was wrong, or None."""
        told = time.monotonic()
        while self.to_do and len(self.seen) < self.most:
            wrong = self._run(self.to_do.popleft())
            if wrong is not None:
                return wrong
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                print(f"{len(self.seen)} states, {self.runs} runs, {len(self.to_do)} more to do", flush=True)
        return None

    def _run(self, given: Choices | None) -> str | None:
        """Make these choices, then the usual ones until a known state; note what else could have been chosen."""
        self.runs += 1
        prefix = [] if given is None else given.all()
        made: list[Choices | None] = [given]
        run = ExploredRun(self.plan, world=ChoosingWorld(self.plan.seed), check_every=1, helped=False)
        world = run.world
        assert isinstance(world, ChoosingWorld)
        world.faults = [lambda: _cuts(run), lambda: _deaths(run)]
        position = 0

        def choose(count: int) -> int:
            nonlocal position
            position += 1
            if position <= len(prefix):
                return prefix[position - 1]
            key = hash(state_of(run, world))
            if key in self.seen:
                raise _Known
            self.seen.add(key)
            before = made[0]
            self.to_do.extend(Choices(before, other) for other in range(1, count))
            made[0] = Choices(before, 0)
            return 0

        world.choose = choose
        try:
            failure = run.to_the_end()
        except _Known:
            failure = None
        else:
            self.ends += 1
        self.steps += world.steps
        if failure is None:
            return None
        return f"{failure.text}, after the choices {made[0].all() if made[0] else []}"


class _Known(BaseException):
    """This state was seen before."""


def _cuts(run: Run) -> Iterator[Callable[[], object]]:
    for machine in run.fleet.machines:
        for connection in machine.connections:
            if connection.client_open and connection.server_open:
                yield lambda connection=connection: _cut(run, connection)  # type: ignore[misc]


def _cut(run: Run, connection: Connection) -> None:
    run.ledger.may_run_again = True
    connection.cut(0, 0, 0.0, 0.0)


def _deaths(run: Run) -> Iterator[Callable[[], object]]:
    for runner in run.ledger.runners.values():
        if runner.alive:
            yield lambda runner=runner: runner.die("is killed", -9)  # type: ignore[misc]


def state_of(run: Run, world: ChoosingWorld) -> tuple[Any, ...]:
    """All that both ends remember and what is on its way, as something that can be compared; but for times."""
    state, ledger = run.master.state, run.ledger
    roster = state.roster
    return (
        tuple((id, task.outcome, task.taken, task.runs, task.blamed, task.died) for id, task in ledger.tasks.items()),
        tuple((slave, lease.id, tuple(lease.tasks), lease.recalled) for slave, lease in state.leases.by_slave.items()),
        tuple(tuple(task.id for task in context.queue) for context in state.backlog.contexts.values()),
        tuple(state.idle),
        tuple(
            (one.number, one.life.value, one.contact.value, one.pid, one.connection, one.running, one.speaks)
            for one in roster.slaves.values()
        ),
        tuple(
            (one.id, one.enlisted, one.connection, one.last_command, len(one.commands), one.call is None)
            for one in roster.agents.values()
        ),
        tuple(run.master.scheduler.runners.joining),
        tuple(run.master.scheduler.endings.waiting),
        tuple((len(one.readers), one.full) for one in state.contexts.values()),
        tuple(_runner(one) for one in ledger.runners.values()),
        tuple(
            (
                agent.session.state,
                agent.session.acknowledged,
                agent.alive,
                _lines(agent._steps),
                len(agent._replies),
                agent._woken,
                tuple((one.number, one.pid, one.stopped, one.draining) for one in agent.slaves.values()),
            )
            for agent in run._agents()
        ),
        tuple(
            (one.name, one.client_open, one.server_open, len(one.unread), one.up.said, one.down.said)
            for machine in run.fleet.machines
            for one in machine.connections
        ),
        tuple(
            (lane if not isinstance(lane[-1], int) else lane[:-1], tuple(_planned(item) for item in items))
            for lane, items in sorted(world.lanes.items(), key=lambda pair: str(pair[0]))
        ),
        tuple(len(context.ready) for context in run.users.contexts),
        len(world.faults),
    )


def _runner(runner: Runner) -> tuple[Any, ...]:
    session = runner.session
    return (
        runner.pid,
        runner.alive,
        tuple(runner.status),
        session.lease,
        tuple(task for task, _, _ in session.unstarted),
        tuple(
            one[3]
            for message in session.unanswered
            for one in (runner.messages(message) if isinstance(message, bytes) else [message])
        ),
        runner.untold,
        session.over,
        runner._asked,
        _lines(runner._steps) if runner.alive else (),
    )


def _lines(steps: Any) -> tuple[int, ...]:
    """Where a generator stands, and those in which it is."""
    found = []
    while steps is not None and getattr(steps, "gi_frame", None) is not None:
        found.append(steps.gi_frame.f_lineno)
        steps = steps.gi_yieldfrom
    return tuple(found)


def _planned(item: tuple[float, int, Callable[..., object], tuple[Any, ...]]) -> tuple[Any, ...]:
    _, _, do, arguments = item
    return do.__name__, tuple(one for one in arguments if isinstance(one, (int, str)) and not isinstance(one, bool))


def explore(most: int) -> bool:
    """Tell how many states there are, or that not all were seen; whether all was well."""
    began = time.monotonic()
    explorer = Explorer(PLAN, most)
    wrong = explorer.explore()
    print(
        f"{len(explorer.seen)} distinct states, {explorer.ends} ends in {explorer.runs} runs, {explorer.steps} steps, "
        f"{time.monotonic() - began:.0f} s; "
        + ("these are all" if not explorer.to_do else f"{len(explorer.to_do)} choices were not followed")
    )
    if wrong is not None:
        print(f"WRONG: {wrong}")
    return wrong is None
