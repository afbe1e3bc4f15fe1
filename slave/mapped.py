"""The function of a map, which is sent once to each runner: the setup of the map's own context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from .named import NamedTuple


class Mapped(NamedTuple):
    """``function`` is called with each input, or, ``starred``, with the parts of each.

    What the setup of the context ``base`` returned comes as further arguments; 0: there are none.
    """

    function: Callable[..., Any]
    starred: bool
    base: int


def call_alone(task: Any) -> object:
    """The same without any of setup's."""
    if type(task) is tuple:
        (args, named), function = task
        return function(*args, **named)
    return task()


def call(task: Any, arguments: Sequence[object]) -> object:
    """What a task returns: a callable, or one with arguments of its own, which come before setup's ``arguments``."""
    if type(task) is tuple:
        (args, named), function = task
        return function(*args, *arguments, **named)
    return task(*arguments)
