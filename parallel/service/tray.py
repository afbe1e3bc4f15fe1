"""Tray: one context's place in the master, for the user's threads: tasks go in, outcomes come out."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from slave.outcome import unpack_failure

from ..core.task import Task
from ..errors import ManagerClosed, NoMoreSlavesError, RemoteError
from . import status
from .books import Books, Settled, TrayState, log


class Tray:
    """See the module's text.  Safe to use from several threads."""

    def __init__(self, books: Books, setup: bytes | None) -> None:
        self._books = books
        self.id = next(books.tray_ids)
        self._state = TrayState(self.id, setup, books.lock)
        with books.lock:
            books.trays[self.id] = self._state

    def add(self, payload: bytes) -> None:
        """One more task.  Raises `ManagerClosed`.

        Takes the lock only to wake a slave: the task is left where the next who holds the lock enters it into the
        table. Nobody sleeps over it: a slave first stands in `idle` and then looks for tasks, here a task comes first
        and then the look.
        """
        books = self._books
        if books.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        books.incoming.append(Task(next(books.task_ids), self.id, payload))
        if books.idle:
            with books.lock:
                books.wake_idle(1)

    def take(self) -> deque[Settled] | None:
        """All outcomes that are ready, in the order of completion; None when no task is left.  Waits.

        Raises `NoMoreSlavesError` or `RemoteError` when nothing is ready and no slave can go on with the context,
        `ManagerClosed` when the manager is shut down.
        """
        books, state = self._books, self._state
        word, seen = status.FIRST_WORD, -1
        with books.lock:
            next_word = time.monotonic() + word
            while True:
                books.take_in()
                if state.ready:
                    ready, state.ready = state.ready, deque()
                    return ready
                if state.unsettled == 0:
                    return None
                if books.closing:
                    raise ManagerClosed("the manager was shut down while results were waited for")
                self._check_hope()
                if books.progress != seen:
                    seen, word = books.progress, status.FIRST_WORD
                    next_word = time.monotonic() + word
                elif time.monotonic() >= next_word:
                    log.warning("parallel: waiting: %s", status.why_waiting(books, state))
                    word = min(status.SELDOM, 2 * word)
                    next_word = time.monotonic() + word
                state.readers += 1
                try:
                    state.news.wait(max(0.0, next_word - time.monotonic()))
                finally:
                    state.readers -= 1

    def abandon(self) -> None:
        """Nobody can ask for the outcomes any more.  Does not take the lock: it is called by the garbage collector."""
        self._books.abandoned.append(self.id)

    def _check_hope(self) -> None:
        """Raise if no slave is left that could run this context's tasks."""
        books, state = self._books, self._state
        if books.roster.hopeful(self.id):
            return
        failed = self._setup_failure()
        if failed is not None:
            slave, data = failed
            if isinstance(data, str):
                raise RemoteError("the context's setup", "SlaveEnded", data, "", slave)
            failure = unpack_failure(data)
            what = f"the context's setup (tried on {len(state.failures)} slaves, none is left to try)"
            raise RemoteError(what, failure.type_name, failure.message, failure.traceback, slave, failure.exception())
        if not books.open_to_joiners:
            raise NoMoreSlavesError(f"{state.unsettled} tasks are left and {status.how_all_ended(books)}")

    def _setup_failure(self) -> tuple[str, Any] | None:
        for number, data in self._state.failures.items():
            return str(self._books.roster.slaves[number]), data
        return None
