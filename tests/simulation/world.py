"""The clock, the list of what is to happen next, and the story of what did."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Callable, TypeVar

Item = TypeVar("Item")

_MASK = (1 << 64) - 1


class Stream:
    """Random numbers that are the same on every Python and machine; each thing has its own, so that one that is left
    out of a plan changes nothing for the others.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int, name: str) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + zlib.crc32(name.encode()) * 0xBF58476D1CE4E5B9 + 1) & _MASK
        for _ in range(3):
            self.random()

    def random(self) -> float:
        """At least 0 and below 1."""
        self._state = state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (state >> 11) * 1.1102230246251565e-16

    def below(self, end: int) -> int:
        """A whole number, at least 0 and below ``end``."""
        return int(self.random() * end)

    def between(self, low: float, high: float) -> float:
        """A number between the two."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True as often as that."""
        return self.random() < probability

    def of(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[int(self.random() * len(items))]


class World:
    """See the module's text.  ``tells``: whether the story is kept, in words."""

    def __init__(self, seed: int, tells: bool = False) -> None:
        self.seed, self.now, self.steps = seed, 0.0, 0
        self.story: list[tuple[float, str]] | None = [] if tells else None
        self._next: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def stream(self, name: str) -> Stream:
        """The random numbers of what is called so."""
        return Stream(self.seed, name)

    def at(self, time: float, do: Callable[..., object], *arguments: Any) -> None:
        """Then do this; of what is to be done at the same time, what was said first."""
        self._count += 1
        heappush(self._next, (time if time > self.now else self.now, self._count, do, arguments))

    def after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        """Do this so much later."""
        self._count += 1
        heappush(self._next, (self.now + seconds, self._count, do, arguments))

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        if not self._next:
            return False
        self.now, _, do, arguments = heappop(self._next)
        self.steps += 1
        do(*arguments)
        return True

    def tell(self, text: str) -> None:
        """One more sentence of the story."""
        if self.story is not None:
            self.story.append((self.now, text))


class Process:
    """What can die, and be frozen: then what it would do next waits."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.alive, self.frozen = True, False
        self._waits: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def act(self, do: Callable[..., object], *arguments: Any) -> None:
        """It does this, unless it is dead; when it is thawed, if it is frozen."""
        if not self.alive:
            return
        if self.frozen:
            self._waits.append((do, arguments))
        else:
            do(*arguments)

    def later(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        """It does this so much later."""
        self.world.after(seconds, self.act, do, *arguments)

    def freeze(self, seconds: float) -> None:
        """It does nothing for so long."""
        if self.alive and not self.frozen:
            self.frozen = True
            self.world.tell(f"{self.name} is stopped for {seconds:g} s")
            self.world.after(seconds, self._thaw)

    def _thaw(self) -> None:
        self.frozen = False
        if self.alive:
            self.world.tell(f"{self.name} goes on")
        waits, self._waits = self._waits, []
        for do, arguments in waits:
            self.act(do, *arguments)
