"""Patience: whoever has waited for long without anything happening is told what for, ever more seldom."""

from __future__ import annotations

from . import events as ev
from .slave import Contact
from .state import State, Wait

FIRST_WORD = 5.0  # seconds without progress until the waiting user is told why; the next words take twice as long each
_NEVER = -1  # no count of outcomes: who waits later begins anew
SELDOM = 600.0  # seconds between two words at the most


class Patience:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state

    def begin(self, now: float) -> Wait:
        """Somebody begins to wait."""
        self._state.attend(now + FIRST_WORD)
        return Wait(now, FIRST_WORD, self._state.progress)

    def say_why(self, now: float) -> None:
        """Tell those that wait for results, if it is time."""
        state = self._state
        for context in state.contexts.values() if state.reading or state.tagged else ():
            wait = context.wait
            if wait is None:
                continue
            if not context.readers and not state.left(context.id):  # nobody waits for anything
                wait.seen = _NEVER
            elif self._is_due(wait, now, state.progress):
                state.take_in()  # to count those just added too
                state.tell(self._waiting(context.id, 0, state.left(context.id)))

    def say_why_no_slaves(self, wait: Wait, wanted: int, now: float) -> None:
        """Tell somebody that waits for so many slaves, if it is time."""
        if self._is_due(wait, now, wait.seen):
            self._state.tell(self._waiting(0, wanted, 0))

    def _is_due(self, wait: Wait, now: float, progress: int) -> bool:
        if progress != wait.seen:
            wait.seen, wait.pause = progress, FIRST_WORD
            wait.next_word = now + FIRST_WORD
        due = now >= wait.next_word
        if due:
            wait.pause = min(SELDOM, 2 * wait.pause)
            wait.next_word = now + wait.pause
        self._state.attend(wait.next_word)
        return due

    def _waiting(self, context: int, wanted: int, left: int) -> ev.Waiting:
        state = self._state
        slaves = state.roster.slaves.values()
        connected = [one for one in slaves if one.joined and one.contact is not Contact.LOST]
        leases = [state.leases.by_slave[one.number] for one in connected if one.number in state.leases.by_slave]
        expected = [(str(one), one.doing) for one in slaves if not one.joined and one.contact is not Contact.LOST]
        lost = [str(one) for one in slaves if one.contact is Contact.LOST]
        longest = max((state.now - lease.granted for lease in leases), default=0.0)
        return ev.Waiting(
            state.now, context, wanted, left, len(connected), len(leases), longest, expected, lost, state.may_join
        )
