"""What is of the master's process alone, and is refused by name where a task or its arguments hold it."""

from __future__ import annotations

from typing import NoReturn


def stays_here(self: object) -> NoReturn:
    """The ``__reduce__`` of such a class: pickle would only tell which lock, deep inside, it cannot have."""
    raise NotImplementedError(
        f"a {type(self).__name__} is of the master's process alone: keep it out of what tasks hold and return"
    )
