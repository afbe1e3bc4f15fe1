"""Feeder: takes tasks out of the user's iterables as the slaves need them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from .errors import InputTypeError
from .service.mailbox import Mailbox, still_in

_LONGEST_AHEAD = 60.0  # seconds of work that are fetched ahead at the most


class Feeder:
    """The iterables of one context.

    They are asked in the thread that reads the results, between two of them: a generator of the user's runs where its
    author expects it.  So many tasks are fetched that the slaves have enough to do until the reader comes again.
    """

    def __init__(self, mailbox: Mailbox, add: Callable[[Any, float | None], None]) -> None:
        self._mailbox, self._add = mailbox, add
        self._sources: deque[tuple[Iterator[Any], float | None]] = deque()
        self._lock = threading.Lock()  # held while an iterable is asked
        self._owner = 0  # the thread that holds it
        self._away = 0.0  # seconds for which the reader was away lately, between two results
        self._rests_until = 0.0  # for as long as the last refill took results have precedence over the next one

    def append(self, tasks: Iterable[Any], timeout: float | None) -> None:
        """One more iterable, to be asked when those before are exhausted.  Raises `InputTypeError` if it is none."""
        try:
            iterator = iter(tasks)
        except TypeError:
            raise InputTypeError(f"add_tasks takes an iterable of tasks, and {tasks!r} is not iterable") from None
        self._sources.append((iterator, timeout))
        self._mailbox.coming += still_in(iterator)

    def clear(self) -> None:
        """Ask none of them any more."""
        self._sources.clear()
        self._mailbox.no_more_tasks()

    @property
    def exhausted(self) -> bool:
        """Whether no iterable has anything left, as far as is known."""
        return not self._sources

    @property
    def asking(self) -> bool:
        """Whether this very thread is in the middle of an iterable: it reads results to make tasks."""
        return self._owner == threading.get_ident()

    def was_away(self, seconds: float) -> None:
        """The reader has been busy with a result for so long: the longest such time counts, and is forgotten slowly."""
        self._away = max(seconds, 0.9 * self._away)

    def refill(self) -> None:
        """Fetch as many tasks as are wanted; not while results wait and the last time is just over.

        Else the reader would only make tasks where slaves are as quick as it is, and give hardly any result.  Raises
        what an iterable raises, which is then not asked again, and what adding its task raises.
        """
        if not self._sources or self.asking:
            return
        began = time.monotonic()
        if self._mailbox.ready and began < self._rests_until:
            return
        with self._lock:
            self._owner = threading.get_ident()
            try:
                for _ in range(self._mailbox.wanted(min(_LONGEST_AHEAD, 2 * self._away))):
                    if not self._fetch():
                        return
            finally:
                self._owner = 0
                self._mailbox.coming = sum(still_in(iterator) for iterator, _ in self._sources)
                now = time.monotonic()
                self._rests_until = now + (now - began)

    def _fetch(self) -> bool:
        """Fetch one task; False when there is none."""
        while self._sources:
            iterator, timeout = self._sources[0]
            try:
                task = next(iterator)
            except BaseException as error:
                if self._sources and self._sources[0][0] is iterator and not isinstance(error, KeyboardInterrupt):
                    self._sources.popleft()
                if not isinstance(error, StopIteration):
                    raise
            else:
                self._add(task, timeout)
                return True
        self._mailbox.no_more_tasks()
        return False
