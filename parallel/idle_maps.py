"""IdleMaps: what is kept of maps that are over."""

from __future__ import annotations

from .service.mailbox import Mailbox

_MOST_IDLE = 4  # maps that are over and kept for the next ones


class IdleMaps:
    """Mailboxes of maps that are over, by their functions' digests: the next map of the same one needs no other.

    So a program that maps the same function again and again sends it once to each runner, and its time is known.
    """

    def __init__(self) -> None:
        self._mailboxes: dict[bytes, Mailbox] = {}

    def take(self, function: bytes) -> Mailbox | None:
        """One for the function with that digest, if there is one."""
        return self._mailboxes.pop(function, None)

    def keep(self, function: bytes, mailbox: Mailbox) -> None:
        """Keep one, in the place of the oldest if there are several."""
        other = self._mailboxes.pop(function, None)
        self._mailboxes[function] = mailbox
        if other is None and len(self._mailboxes) > _MOST_IDLE:
            other = self._mailboxes.pop(next(iter(self._mailboxes)), None)
        if other is not None:
            other.abandon()

    def abandon(self) -> None:
        """Keep none."""
        while self._mailboxes:
            self._mailboxes.popitem()[1].abandon()
