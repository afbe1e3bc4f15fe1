"""Connecting: what a group's slave programs do until they are connected, told to the service and to the user."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ..exits import UNREACHABLE, last_line
from .base import SlaveArray
from .config import LaunchConfig
from .slave_service import SlaveService, SlaveView
from .unit import Unit

log = logging.getLogger("parallel")

_LOOK_SECONDS = 0.02  # for each slave program, between two looks who is connected, and what the others do


class Connecting:
    """See the module's text.  For the group's thread; `began` is called before that begins."""

    def __init__(self, service: SlaveService, config: LaunchConfig) -> None:
        self._service, self._config = service, config
        self._timeout = 0.0  # how long they may take to connect ...
        self._since: dict[str, float] = {}  # ... by agent: from when on
        self._views: dict[str, list[SlaveView]] = {}  # by agent: its slaves, as seen in this round
        self._next_look = 0.0  # when they are looked at next
        self._doing: dict[str, str] = {}  # by agent: what the service was told last that its slaves do
        self._warned: set[str] = set()  # troubles that the user has been told of

    def began(self, units: Sequence[Unit], timeout: float) -> None:
        """They have been started."""
        self._timeout, self._since = timeout, dict.fromkeys([one.agent for one in units], time.monotonic())

    def look(self, units: Sequence[Unit], array: SlaveArray) -> None:
        """See who is connected.  Of large arrays not every second: each slave costs some time of the master."""
        now = time.monotonic()
        self._views = {}
        if now >= self._next_look:
            self._views = {one.agent: self._service.describe(one.agent) for one in units}
            self._since.update({agent: now for agent, views in self._views.items() if came(views)})
            self._next_look = now + _LOOK_SECONDS * len(units)
            array.urgent = any(view.lost for views in self._views.values() for view in views)

    def overdue(self, unit: Unit) -> str | None:
        """Why to give it up, if it has not connected in time."""
        now = time.monotonic()
        if now - self._since[unit.agent] <= self._timeout:
            return None
        if came(self._service.describe(unit.agent)):
            self._since[unit.agent] = now
            return None
        return f"it did not connect within {self._timeout:g} s (connect_timeout)"

    def tell(self, units: Sequence[Unit]) -> None:
        """Have the service know what those do that were seen not to be connected; warn of what troubles them."""
        for one in units:
            views = self._views.get(one.agent, [])
            if views and (not came(views) or all(view.lost for view in views)):
                self._tell(one, views)

    def _tell(self, unit: Unit, views: Sequence[SlaveView]) -> None:
        said = last_words(self._config.output_of(unit.numbers[0]))
        trouble = said if UNREACHABLE in said else unit.slave.trouble
        if trouble and trouble not in self._warned:
            self._warned.add(trouble)
            name = next((view.text for view in views if view.number == unit.numbers[0]), unit.name)
            log.warning("parallel: %s cannot come: %s", name, trouble)
        words = unit.slave.doing + (f"; its last words: {said}" if said else "")
        if self._doing.get(unit.agent, "") != words:
            self._doing[unit.agent] = words
            self._service.started(unit.agent, unit.numbers, doing=words)


def came(views: Sequence[SlaveView]) -> bool:
    """Whether a slave program is connected or was, if these are its slaves."""
    return any(view.came for view in views)


def last_words(path: str | None) -> str:
    """The last line of a slave program's output file; and what to do if that says that it cannot connect."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            line = last_line(file)
    except OSError:
        return ""
    unreachable = "no master yet" in line or "cannot reach the master" in line
    return f"{line} ({UNREACHABLE})" if unreachable else line
