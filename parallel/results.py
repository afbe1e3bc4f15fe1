"""Results: what `Context.get_results_unordered` returns."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from .core.effects import Outcome
from .errors import RemoteError, ResultError
from .feeder import Feeder
from .outcomes import rebuild
from .program import Program
from .service.mailbox import Mailbox
from .stays_here import stays_here

Result = TypeVar("Result")

RAISE, RETURN, LAST = "raise", "return", "last"  # what becomes of the error of a task


class Results(Generator[Result, None, None]):
    """A generator of results that keeps no reference to what it yielded; for one thread at a time.

    An outcome that has left the mailbox and does not reach the user goes back: neither Ctrl-C nor a signal handler that
    raises, wherever they strike, loses one.  That is why it is written as a class: the line that takes an outcome and
    the line that gives its value are in one frame, and nothing can come between.

    ``reading`` guards the front of the mailbox: who looks at an outcome is who takes it.
    """

    __reduce__ = stays_here

    def __init__(
        self, mailbox: Mailbox, feeder: Feeder, reading: AbstractContextManager[Any], program: Program, errors: str
    ) -> None:
        self._mailbox, self._feeder, self._reading, self._program = mailbox, feeder, reading, program
        self._errors = errors
        self._aside: list[tuple[Outcome, RemoteError]] = []  # errors that are to come last
        self._begun = self._over = False
        self._gave_at: float | None = None  # when the reader got a result, if it matters how long it is away

    def __next__(self) -> Result:
        if self._over:
            raise StopIteration
        hand: list[Outcome] = []  # what has been taken and is not given yet
        given = False
        try:
            is_error, value = self._next(hand)
            if not is_error:
                return value  # type: ignore[no-any-return]  # it is what a task returned
            self._over = given = True
            raise value
        except BaseException:
            value = None  # else it, its traceback, this frame and the caller's, with all results, hold one another
            self._over = True
            if not given:
                self._put_back(hand)
            raise

    def send(self, value: None) -> Result:
        """See `Generator`: nothing can be sent."""
        return self.__next__()

    def throw(self, kind: Any, value: Any = None, traceback: TracebackType | None = None) -> Result:
        """See `Generator`: it ends with that error."""
        self.close()
        error = kind() if isinstance(kind, type) and value is None else kind if value is None else value
        raise error.with_traceback(traceback) if isinstance(error, BaseException) else kind(error)

    def close(self) -> None:
        """It gives nothing more; errors that were to come last are there for the next one."""
        self._over = True
        self._put_back([])

    def __del__(self) -> None:
        if getattr(self, "_aside", None):
            self.close()

    def _next(self, hand: list[Outcome]) -> tuple[bool, Any]:
        """The next value, or an error to raise, StopIteration if there is none; its outcome is in ``hand`` by then."""
        if self._gave_at is not None:
            self._feeder.was_away(time.monotonic() - self._gave_at)
        if self._mailbox.wants_tasks or not self._begun:
            self._begun = True
            self._feeder.refill()
        mailbox, is_error = self._mailbox, False
        value: Any = None
        while True:
            if mailbox.ready:
                with self._reading:
                    is_error, value = take(mailbox, self._program, hand)
            if hand and is_error and self._errors == LAST:
                self._aside.append((hand[0], value))
                hand.clear()
            elif hand:
                self._gave_at = None if self._feeder.exhausted else time.monotonic()
                return is_error and self._errors != RETURN, value
            elif not mailbox.wait(for_tasks=not self._feeder.asking):
                if self._feeder.exhausted or self._feeder.asking:
                    return True, self._last_error()
                self._feeder.refill()
            elif mailbox.wants_tasks:
                self._feeder.refill()

    def _last_error(self) -> BaseException:
        if not self._aside:
            return StopIteration()
        errors = [error for _, error in self._aside]
        errors[0].others = errors[1:]
        self._aside.clear()
        return errors[0]

    def _put_back(self, hand: list[Outcome]) -> None:
        aside = [outcome for outcome, _ in self._aside if all(outcome is not one for one in hand)]
        self._aside.clear()
        with self._reading:
            put_back(self._mailbox, [*aside, *hand])


def take(mailbox: Mailbox, program: Program, hand: list[Outcome]) -> tuple[bool, Any]:
    """Take the next outcome, if there is one, into ``hand``: whether it is an error, and its value."""
    ready = mailbox.ready
    if not ready:
        return False, None
    outcome = first = ready[0]
    if mailbox.recorder is not None:
        found = mailbox.recorder.front()
        if found is None:
            return False, None
        outcome = found
    is_error, value = rebuild(outcome, program)
    if is_error and not value.label:
        value.label = mailbox.label
    if is_error and mailbox.recorder is not None and type(value) is ResultError:
        mailbox.recorder.cannot_be_rebuilt()
    hand.append(first)
    mailbox.took(first)
    return is_error, value


def put_back(mailbox: Mailbox, outcomes: list[Outcome]) -> None:
    """Put to the front what was taken and is not given; one that has not left it yet stays where it is."""
    for outcome in reversed(outcomes):
        if not mailbox.ready or mailbox.ready[0] is not outcome:
            mailbox.put_back(outcome)
