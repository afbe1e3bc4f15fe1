"""What the tables of moves of tasks and of slaves have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

State = TypeVar("State")


class IllegalMove(Exception):
    """A move that the table does not have: a bug of ours, and nothing was changed."""


def next_state(table: Mapping[Any, State], state: Any, move: Any, whose: object) -> State:
    """Where the move leads.  Raises `IllegalMove` if the table does not have it."""
    try:
        return table[state, move]
    except KeyError:
        raise IllegalMove(f"{move.name} of {whose}, which is {state.name}") from None
