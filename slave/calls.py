"""What pools and executors have slaves call: here, so that no slave need import more than its own program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Callable


def initialize(initializer: Callable[..., object], initargs: Sequence[object]) -> None:
    """As a context's setup: what an initializer returns is not for the calls."""
    initializer(*initargs)


def nothing() -> None:
    """A task that has setup run."""


def call_each(function: Callable[[Any], Any], inputs: Iterable[Any]) -> list[Any]:
    """What the calls return, made one after the other; the first that raises ends it."""
    return list(map(function, inputs))


def call_each_starred(function: Callable[..., Any], inputs: Iterable[Iterable[Any]]) -> list[Any]:
    """The same, each input being the arguments of one call."""
    return list(itertools.starmap(function, inputs))
