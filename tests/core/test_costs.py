"""What things cost, in steps of the interpreter and not in seconds: none grows with what is not concerned.

The scheduler's dictionaries are such here that walking them takes steps too, also where C does it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable

import pytest

from parallel.core.task import Task
from tests.core.fake import Env

FEW, MOST_GROWTH = 10, 1.3
Act = Callable[[], object]


class Walked(dict):  # type: ignore[type-arg]
    """Walked step by step."""

    def __iter__(self) -> Iterator[Any]:
        return (key for key in dict.keys(self))

    def keys(self) -> Any:
        return (key for key in dict.keys(self))

    def values(self) -> Any:
        return (value for value in dict.values(self))

    def items(self) -> Any:
        return (item for item in dict.items(self))


def new_env(**options: Any) -> Env:
    """With dictionaries that are walked step by step."""
    env = Env(**options)
    state, roster = env.state, env.state.roster
    state.contexts = Walked()
    state.idle = Walked()  # type: ignore[assignment]  # used as any dictionary
    roster.slaves, roster.ended, roster.connected, roster.agents = Walked(), Walked(), Walked(), Walked()
    state.leases.by_slave = Walked()
    assert env.context() == 1
    return env


def steps(act: Act) -> int:
    """How many steps the core takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "opcode"
        frame.f_trace_opcodes = True
        return trace

    before = sys.gettrace()
    gc.disable()  # what it ends of other tests' objects would be counted
    sys._getframe().f_trace_opcodes = True  # or Python 3.12.1's settrace foresees no such events
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def slaves(env: Env, count: int, *, busy: bool) -> None:
    """So many slaves of one agent hold a task each, or wait for some."""
    numbers = env.enlist([None] * count, agent="many").numbers
    if busy:
        env.add(count)
    for number in numbers:
        env.joined(number)
        env.fetch(number)
        env.effects.clear()


def contexts(env: Env, count: int) -> None:
    """So many contexts with one task each."""
    for _ in range(count):
        env.add(1, env.context())
    env.enter()


def agents_that_ended(env: Env, count: int) -> None:
    for agent in range(count):
        env.enlist([None] * 8, agent=str(agent))
        env.leave(str(agent))


# what there is besides, by number


def busy_slaves(count: int) -> Env:
    env = new_env()
    slaves(env, count, busy=True)
    return env


def idle_slaves(count: int) -> Env:
    env = new_env()
    slaves(env, count, busy=False)
    return env


def ended_agents(count: int) -> Env:
    env = new_env()
    agents_that_ended(env, count)
    return env


def live_contexts(count: int) -> Env:
    env = new_env()
    contexts(env, count)
    return env


def waiting_tasks(count: int) -> Env:
    env = new_env()
    env.add(count, env.context())
    env.enter()
    return env


def full_contexts(count: int) -> Env:
    """Of which nothing is granted, though tasks wait."""
    env = new_env(result_bytes=1000)
    contexts(env, count)
    for id in list(env.state.contexts)[1:]:
        env.state.contexts[id].full = True
        env.state.backlog.pause(id)
    env.fetch(env.slave("first"))  # who asks first after they were paused puts them out of the way
    return env


# what is done then


def slave_with_a_task(env: Env) -> tuple[int, int]:
    """Another one, which got the oldest task there is, though others wait."""
    number = env.slave("one")
    waiting = dict(env.state.idle)
    env.state.idle.clear()
    env.state.incoming.append(Task(next(env.state.task_ids), 1, b""))
    env.fetch(number)
    env.state.idle.update(waiting)
    return number, env.lease_of(number)[0]


def nothing_may_be_granted(env: Env) -> None:
    for id in list(env.state.contexts):
        env.state.backlog.pause(id)


def fetch(env: Env) -> Act:
    """A slave has had a task, and gets another one: the oldest."""
    number, task = slave_with_a_task(env)
    env.post(number, task)
    env.state.idle.clear()
    env.add(1)
    env.enter()
    return lambda: env.fetch(number)


def fetch_in_vain(env: Env) -> Act:
    """A slave asks for a task, and waits, as another one has just done."""
    numbers = env.enlist([None, None], agent="one").numbers
    for number in numbers:
        env.joined(number)
    nothing_may_be_granted(env)
    env.fetch(numbers[0])
    return lambda: env.fetch(numbers[1])


def post(env: Env) -> Act:
    number, task = slave_with_a_task(env)
    message = env.message(number, task)
    return lambda: env.outcomes([message])


def heartbeat(env: Env) -> Act:
    number = env.slave("one")
    return lambda: env.heartbeat(number, 5)


def add(env: Env) -> Act:
    """A task is added, and an idle slave gets it."""
    number = env.slave("one")
    nothing_may_be_granted(env)
    id = env.context()
    env.fetch(number)
    return lambda: env.add(1, id)


def read(env: Env) -> Act:
    """A reader waits."""
    env.slave("one")
    id = env.context()
    env.add(1, id)
    env.enter()
    return lambda: env.read(id)


def drop(env: Env) -> Act:
    """A context without tasks is dropped."""
    id = env.context()
    return lambda: env.drop_context(id)


def cancel(env: Env) -> Act:
    """A context with three tasks is cancelled."""
    id = env.context()
    env.add(3, id)
    env.enter()
    return lambda: env.cancel(id)


def join(env: Env) -> Act:
    (number,) = env.enlist(agent="one").numbers
    return lambda: env.join(number)


def give_up(env: Env) -> Act:
    """A slave ends."""
    number = env.slave("one")
    return lambda: env.slave_closed(number)


def tick(env: Env) -> Act:
    """Time has passed, and nothing is due: who is missed first is known from the tick before."""
    env.slave("one")
    env.tick()
    env.now += 0.01
    return env.tick


ACTS = [fetch, fetch_in_vain, post, heartbeat, add, read, drop, cancel, join, give_up, tick]
BESIDES: list[tuple[Callable[[int], Env], int]] = [
    (busy_slaves, 1000),
    (idle_slaves, 1000),
    (ended_agents, 500),
    (live_contexts, 8000),
    (waiting_tasks, 20_000),
    (full_contexts, 2000),
]
CASES = [
    pytest.param(act, build, many, id=f"{act.__name__}-{build.__name__}")
    for act in ACTS
    for build, many in BESIDES
    if (act, build) != (read, full_contexts)  # each full context has its results in memory: there cannot be many
]


@pytest.mark.parametrize(("act", "build", "many"), CASES)
def test_what_is_done_costs_the_same_however_much_there_is_besides(
    act: Callable[[Env], Act], build: Callable[[int], Env], many: int
) -> None:
    few_steps = steps(act(build(FEW)))
    many_steps = steps(act(build(many)))
    assert many_steps <= MOST_GROWTH * few_steps, f"{few_steps} steps with {FEW}, {many_steps} with {many}"


def test_walking_is_seen_whoever_does_it() -> None:
    few, many = busy_slaves(FEW).state, busy_slaves(1000).state
    assert steps(lambda: list(many.roster.slaves)) > 50 * steps(lambda: list(few.roster.slaves))
    assert steps(lambda: max(many.leases.by_slave.values(), key=id)) > 50 * steps(
        lambda: max(few.leases.by_slave.values(), key=id)
    )
