"""Tally: how many outcomes a context has had, and when, so that whoever asks can be told a rate.

It is counted for each batch of outcomes and looked at once a second: a run that nobody watches pays next to nothing,
and whoever looks at it late is told what the last half minute was like.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

LOOK_SECONDS = 1.0  # between two looks
_SAMPLES = 31  # that are kept
_FEW = 5  # outcomes within all of them, of which a rate of the last half minute would be too rough


class Tally:
    """Of one context and its maps."""

    __slots__ = ("_base", "_began", "_rested", "_samples", "done", "failed")

    def __init__(self, now: float) -> None:
        self.done = self.failed = 0  # outcomes; those of them that are errors
        self._rested = now  # when it was last seen without a task
        self._began: float | None = None  # since when there has been work without a pause
        self._base = 0  # `done` then
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def look(self, now: float) -> None:
        """It has tasks."""
        if self._began is None:
            self._began = max(self._rested, now - LOOK_SECONDS)
            self._samples.append((self._began, self._base))
        if now - self._samples[-1][0] >= LOOK_SECONDS:
            self._samples.append((now, self.done))

    def rest(self, now: float) -> None:
        """It has none: what comes later is another stretch of work, which begins then."""
        self._began, self._rested, self._base = None, now, self.done
        self._samples.clear()

    @property
    def lately(self) -> int:
        """Outcomes since there has been work without a pause."""
        return self.done - self._base

    def rate(self, now: float) -> float:
        """Outcomes per second lately; 0.0 as long as that is not known."""
        if self._began is None:
            return 0.0
        since, done = self._samples[0]
        if self.done - done < _FEW:
            since, done = self._began, self._base
        return (self.done - done) / (now - since) if now > since else 0.0


class Tallies:
    """Looks at the tallies of those contexts that have tasks."""

    def __init__(self) -> None:
        self._active: set[Tally] = set()
        self._next = 0.0

    def look(self, now: float, with_tasks: Iterable[Tally]) -> None:
        """Time has passed.  ``with_tasks``: is not walked if it is too early for another look."""
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        active = set(with_tasks)
        for tally in self._active - active:
            tally.rest(now)
        for tally in active:
            tally.look(now)
        self._active = active
