"""What the scheduler of a running manager knows, asked in the dispatcher's thread: for what no public name tells."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

import parallel
from parallel.core.state import State

T = TypeVar("T")


def inside(manager: parallel.Manager, look: Callable[[State], T]) -> T:
    """``look(state)``, between two turns of the dispatcher."""
    found: T = manager.dispatcher.call(lambda now: look(manager.dispatcher.scheduler.state))
    return found


def unsettled(manager: parallel.Manager) -> list[Any]:
    """The tasks that have no outcome yet."""

    def look(state: State) -> list[Any]:
        state.take_in()
        return [task for context in state.backlog.contexts.values() for task in context.tasks.values()]

    return inside(manager, look)


def check(manager: parallel.Manager) -> None:
    """All invariants of the scheduler."""
    inside(manager, lambda state: state.check())


def readers(manager: parallel.Manager) -> int:
    """How many threads wait for results."""
    return inside(manager, lambda state: state.reading)


def cut_all(manager: parallel.Manager) -> None:
    """Break the connections of all slaves."""
    connections: Any = manager.dispatcher.connections
    manager.dispatcher.call(lambda now: connections.shut())
