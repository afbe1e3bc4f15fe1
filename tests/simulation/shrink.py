"""The shortest story in which a fault still shows: whatever can be left out of a plan, or be simpler, is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from .plan import SHUT_DOWN, Act, AgentPlan, ContextPlan, Plan, TaskPlan
from .run import Failure, Run

Item = TypeVar("Item")


def shrink(plan: Plan, failure: Failure, most: int = 2000) -> tuple[Plan, Failure]:
    """The simplest plan found in ``most`` runs that fails in the same way, and how it fails."""
    left = most
    simpler = True
    while simpler and left > 0:
        simpler = False
        for candidate in _simpler(plan):
            left -= 1
            found = Run(candidate).to_the_end()
            if found is not None and found.kind == failure.kind:
                plan, failure, simpler = candidate, found, True
                break
            if left <= 0:
                break
    return plan, failure


def story(plan: Plan) -> list[str]:
    """What happens, in words, and how it fails, if it does."""
    run = Run(plan, tells=True, check_every=1)
    failure = run.to_the_end()
    assert run.world.story is not None
    lines = [f"{time:10.4f} s  {text}" for time, text in run.world.story]
    return [*lines, "all is well" if failure is None else f"{failure.time:10.4f} s  WRONG: {failure.text}"]


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Simpler plans, those first that leave out most."""
    for acts in _without(plan.acts):
        yield plan._replace(acts=acts)
    for tasks in _without(plan.tasks):
        yield plan._replace(tasks=tasks)
    for agents in _without(plan.agents):
        yield plan._replace(agents=agents)
    for gone in range(len(plan.contexts)):
        if not any(task.context == gone for task in plan.tasks):
            contexts = [*plan.contexts[:gone], *plan.contexts[gone + 1 :]]
            tasks = [task._replace(context=task.context - (task.context > gone)) for task in plan.tasks]
            yield plan._replace(contexts=contexts, tasks=tasks)
    plainest = (
        ("restart", None),
        ("slowness", 0.0),
        ("result_bytes", 1e9),
        ("term", 10.0),
        ("may_join", True),
        ("end", SHUT_DOWN),
    )
    for name, least in plainest:
        yield from _plainer(plan, name, least)
    for index, agent in enumerate(plan.agents):
        for name, value in (("slaves", 1), ("kind", "by hand"), ("speed", 1.0), ("output", False), ("at", 0.0)):
            yield from _with(plan, "agents", index, agent, name, value)
    for index, context in enumerate(plan.contexts):
        for name, value in (("setup", "none"), ("seconds", 0.0), ("readers", 1), ("reading", 0.0), ("feeds", False)):
            yield from _with(plan, "contexts", index, context, name, value)
    for index, task in enumerate(plan.tasks):
        plain: Sequence[tuple[str, Any]] = (
            ("what", "returns"), ("times", 0), ("retries", 0), ("limit", None), ("size", 100), ("at", 0.0),
            ("seconds", 0.5),
        )  # fmt: skip
        for name, value in plain:
            yield from _with(plan, "tasks", index, task, name, value)
    for index, act in enumerate(plan.acts):
        for name, value in (("which", act.which % 16), ("which", 0), ("number", 0), ("seconds", round(act.seconds, 1))):
            yield from _with(plan, "acts", index, act, name, value)


def _without(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The half of them, a quarter, ... one less."""
    size = len(items)
    while size:
        for begin in range(0, len(items), size):
            yield [*items[:begin], *items[begin + size :]]
        size //= 2


def _plainer(plan: Plan, name: str, value: Any) -> Iterator[Plan]:
    if getattr(plan, name) != value:
        yield plan._replace(**{name: value})


def _with(
    plan: Plan, table: str, index: int, item: AgentPlan | ContextPlan | TaskPlan | Act, name: str, value: Any
) -> Iterator[Plan]:
    if getattr(item, name) != value:
        items = list(getattr(plan, table))
        items[index] = item._replace(**{name: value})
        yield plan._replace(**{table: items})  # type: ignore[arg-type]  # a sequence of the right kind
