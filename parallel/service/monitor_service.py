"""MonitorService: what watchers ask and order, by proxy (parallel/monitor/client.py has the other end).

Whoever holds the key may ask and order, from any machine.  What is asked is looked up in the dispatcher's thread, in
one go and without waiting; all else, from turning it into text to starting slaves, is done by side threads.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

from slave.protocol import MONITOR_SERVICE
from slave.wire import opaque

from . import checked
from .peer import Call

Work = Callable[[], bytes]


class Controls(Protocol):
    """What can be asked and ordered.  Each returns what is to be done aside, and that returns JSON.

    What is done aside may raise: `str()` of that is for the watcher.
    """

    def status(self) -> Work:
        """How things are."""

    def failures(self, after: int) -> Work:
        """Tasks that failed, later ones than number ``after``."""

    def output(self, places: str) -> Work:
        """What slaves' output files hold from these places on."""

    def surroundings(self) -> Work:
        """What a slave's machine needs to have."""

    def stop(self) -> Work:
        """Have the manager shut down."""

    def drain(self, slave: int, grace: float | None) -> Work:
        """Have a slave end."""

    def add(self, count: int) -> Work:
        """Start so many more local slaves."""


class MonitorService:
    """The methods: see slave/protocol.py.  ``controls`` makes what carries them out, when it is first needed."""

    service = MONITOR_SERVICE

    def __init__(self, controls: Callable[[], Controls]) -> None:
        self._make_controls = controls
        self._made: Controls | None = None

    def _controls(self, call: Call) -> Controls:
        call.by_watcher()
        if self._made is None:
            self._made = self._make_controls()
        return self._made

    def status(self, call: Call) -> None:
        """See `Controls`."""
        self._answer(call, self._controls(call).status())

    def failures(self, call: Call, after: Any) -> None:
        """See `Controls`."""
        self._answer(call, self._controls(call).failures(checked.number(after)))

    def output(self, call: Call, places: Any) -> None:
        """See `Controls`."""
        controls = self._controls(call)
        self._answer(call, controls.output(checked.long_text(places)))

    def surroundings(self, call: Call) -> None:
        """See `Controls`."""
        self._answer(call, self._controls(call).surroundings())

    def stop(self, call: Call) -> None:
        """See `Controls`."""
        self._answer(call, self._controls(call).stop())

    def drain(self, call: Call, slave: Any, grace: Any) -> None:
        """See `Controls`."""
        seconds = None if grace is None else checked.seconds(grace)
        self._answer(call, self._controls(call).drain(checked.number(slave), seconds))

    def add(self, call: Call, count: Any) -> None:
        """See `Controls`."""
        self._answer(call, self._controls(call).add(checked.number(count)))

    def _answer(self, call: Call, work: Work) -> None:
        def tried() -> bytes | str:
            try:
                return work()
            except Exception as error:  # there is no such slave, say
                return str(error) or type(error).__name__

        def then(made: bytes | str, now: float) -> None:
            if isinstance(made, str):
                call.refuse(made)
            else:
                call.answer(opaque(made))

        call.aside(tried, then)
