"""LaunchService: the four calls by which launchers see the rest of the master (parallel/launch/slave_service.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..core.launches import Expected, SlaveView
from .dispatcher import Dispatcher


class LaunchService:
    """See the module's text.  Each call is carried out by the dispatcher's thread."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._launches, self._agents = dispatcher.scheduler.launches, dispatcher.scheduler.agents

    def expect(self, agent: str, slaves: Sequence[Expected]) -> list[int]:
        """Agent ``agent`` is to bring these slaves; returns their numbers."""
        numbers: list[int] = self._dispatcher.call(self._launches.expect, agent, slaves)
        return numbers

    def describe(self, agent: str) -> list[SlaveView]:
        """All slaves of an agent."""
        views: list[SlaveView] = self._dispatcher.call(self._launches.describe, agent)
        return views

    def started(
        self,
        agent: str,
        numbers: Sequence[int],
        *,
        names: Mapping[int, str] | None = None,
        doing: str | None = None,
        by_agent: bool = False,
    ) -> None:
        """What the launcher says of slaves that it has started."""
        self._dispatcher.call(self._launches.started, agent, numbers, names or {}, doing)
        if by_agent:
            self._dispatcher.call(self._launches.start_by_agent, agent, numbers, os.devnull)

    def ended(
        self,
        agent: str,
        why: str,
        *,
        numbers: Sequence[int] | None = None,
        last_words: Mapping[int, str] | None = None,
        successor: str | None = None,
    ) -> list[int]:
        """The slave program has ended."""
        moved: list[int] = self._dispatcher.call(self._agents.ended, agent, why, numbers, last_words or {}, successor)
        return moved
