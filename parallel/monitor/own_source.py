"""A manager of this process, as the live page looks at it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..service.dispatcher import Dispatcher
from ..service.monitor_service import Controls
from .status import Status
from .survey import status_of


class OwnSource:
    """See the module's text."""

    def __init__(self, dispatcher: Dispatcher, controls: Controls, name: str) -> None:
        self._dispatcher, self._controls, self._name = dispatcher, controls, name

    def status(self) -> Status:
        """How things are."""
        return status_of(self._dispatcher, self._name)

    def failures(self, after: int) -> list[dict[str, Any]]:
        """See `Controls`."""
        found: list[dict[str, Any]] = self._asked("failures", after)
        return found

    def output(self, places: Mapping[str, int]) -> dict[str, Any]:
        """See `Controls`."""
        found: dict[str, Any] = self._asked("output", json.dumps(places))
        return found

    def _asked(self, method: str, *args: object) -> Any:
        """What is looked up in the dispatcher's thread, and made here."""
        work = self._dispatcher.call(lambda now: getattr(self._controls, method)(*args))
        return json.loads(work())
