"""Bugs to be planted one at a time, to show that what searches for bugs finds them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Callable
from unittest import mock

Plant = Callable[[], AbstractContextManager[Any]]
Wrong = Callable[..., Any]


def planter(bugs: list[tuple[str, Plant]]) -> Callable[[str, type, str], Callable[[Wrong], Wrong]]:
    """A decorator ``bug(text, owner, method)`` that puts what it decorates into ``bugs``.

    The function that follows stands in for the method; it is given the real one first.
    """

    def bug(text: str, owner: type, method: str) -> Callable[[Wrong], Wrong]:
        def add(wrong: Wrong) -> Wrong:
            real = getattr(owner, method)

            def planted(*arguments: Any, **named: Any) -> Any:
                return wrong(real, *arguments, **named)

            bugs.append((text, lambda: mock.patch.object(owner, method, planted)))
            return wrong

        return add

    return bug


def without(owner: object, method: str, value: object = None) -> Any:
    """Meanwhile the method does nothing."""
    return mock.patch.object(owner, method, lambda *arguments, **named: value)
