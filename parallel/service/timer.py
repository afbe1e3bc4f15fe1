"""The expiry timer: when the scheduler's `tick` is due, and how late it comes.

It re-enqueues the tasks of slaves that are not heard any more.  The dispatcher sleeps no longer than it says, and asks
it at every turn: so what has arrived meanwhile is read before anybody is taken for dead.
"""

from __future__ import annotations

from ..core.scheduler import Scheduler


class ExpiryTimer:
    """See the module's text.  Times are by time.monotonic(), which nobody sets."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._ticked = False

    def ring(self, now: float) -> None:
        """Tick if that is due."""
        due = self._scheduler.due
        if now >= due:
            self._scheduler.tick(now, now - due if self._ticked else 0.0)
            self._ticked = True
