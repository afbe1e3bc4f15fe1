"""Tray: one context's place in the master, for the user's threads: tasks go in, outcomes come out."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from typing import Any, Callable

from slave.outcome import unpack_failure

from ..core.pacing import LEASE_SECONDS, MOST_TASKS
from ..core.task import Task
from ..errors import ManagerClosed, NoMoreSlavesError, RemoteError
from . import status
from .books import Books, Settled, TrayState, log

_LEAST_EACH = 2  # tasks for each slave: the one that runs, and the next


class Tray:
    """See the module's text.  Safe to use from several threads."""

    def __init__(self, books: Books, setup: bytes | None) -> None:
        self._books = books
        self.id = next(books.tray_ids)
        self._state = TrayState(self.id, setup, books.lock)
        with books.lock:
            books.trays[self.id] = self._state

    def add(self, payload: bytes, timeout: float | None, retries: int) -> None:
        """One more task.  Raises `ManagerClosed`.

        Takes the lock only to wake a slave: the task is left where the next who holds the lock enters it into the
        table. Nobody sleeps over it: a slave first stands in `idle` and then looks for tasks, here a task comes first
        and then the look.
        """
        books = self._books
        if books.closing:
            raise ManagerClosed("the manager was shut down: no tasks can be added")
        books.incoming.append(Task(next(books.task_ids), self.id, payload, timeout, retries))
        if books.idle:
            with books.lock:
                books.wake_idle(1)

    @property
    def ready(self) -> deque[Settled]:
        """The outcomes that are known, in the order of completion; readers take from the front, without the lock."""
        return self._state.ready

    def wait(self, for_tasks: bool = True) -> bool:
        """Wait until an outcome is ready or, ``for_tasks``, tasks are `wanted`; False when no task is left.

        Raises `NoMoreSlavesError` or `RemoteError` when no slave can go on with the context, `ManagerClosed` when the
        manager is shut down.
        """
        error = self._wait(for_tasks)
        if error is not None:
            raise error()
        return bool(self._state.ready or (for_tasks and self._state.hungry))

    def _wait(self, for_tasks: bool) -> Callable[[], Exception] | None:
        """None when an outcome is ready or no task is left; else what makes the error that `wait` raises."""
        books, state = self._books, self._state
        word, seen, next_word = status.FIRST_WORD, -1, 0.0
        with books.lock:
            while not state.ready:
                left = books.left(self.id)
                state.hungry = state.low_water > left
                if (for_tasks and state.hungry) or not left:
                    break
                if books.closing:
                    return _closed_meanwhile
                error = self._end_of_hope()
                if error is not None:
                    return error
                now = time.monotonic()
                if books.progress != seen:
                    seen, word = books.progress, status.FIRST_WORD
                    next_word = now + word
                elif now >= next_word:
                    log.warning("parallel: waiting: %s", status.why_waiting(books, self.id))
                    word = min(status.SELDOM, 2 * word)
                    next_word = now + word
                state.readers += 1
                books.readers += 1
                if books.full:
                    books.room.notify_all()
                try:
                    state.news.wait(max(0.0, next_word - now))
                finally:
                    state.readers -= 1
                    books.readers -= 1
        return None

    def put_back(self, settled: Settled) -> None:
        """The outcome that was taken last did not reach the user."""
        self._state.taken -= settled.size
        self._state.ready.appendleft(settled)

    def took(self, settled: Settled) -> None:
        """A reader takes this outcome, the first of `ready`."""
        self._state.ready.popleft()
        self._state.taken += settled.size
        if self.id in self._books.full:
            with self._books.lock:
                self._books.make_room(self._state)

    @property
    def hungry(self) -> bool:
        """Whether fewer tasks are left than the slaves may need until the reader looks next."""
        return self._state.hungry

    def wanted(self, seconds: float) -> int:
        """How many tasks are to be added so that the slaves have work for ``seconds``."""
        books, state = self._books, self._state
        with books.lock:
            each = min(MOST_TASKS, max(_LEAST_EACH, books.pace.fits(self.id, max(seconds, 4 * LEASE_SECONDS))))
            target = each * max(1, books.roster.possible())
            left = books.left(self.id)
            state.low_water, state.hungry = max(1, target // 2), False
            return max(0, target - left)

    def not_hungry(self) -> None:
        """There are no more tasks to add."""
        with self._books.lock:
            self._state.low_water, self._state.hungry = 0, False

    def cancel(self) -> int:
        """Drop what waits and stop what runs; returns how many tasks these were.

        The work is done in a thread of its own, where no KeyboardInterrupt can leave it half done.
        """
        counts: list[int] = []

        def cancel() -> None:
            with self._books.lock:
                counts.append(self._books.cancel(self.id))

        thread = threading.Thread(target=cancel, name="parallel cancel")
        thread.start()
        thread.join()
        return counts[0]

    def abandon(self) -> None:
        """Nobody can ask for the outcomes any more.  Does not take the lock: it is called by the garbage collector."""
        self._books.abandoned.append(self.id)

    def _end_of_hope(self) -> Callable[[], Exception] | None:
        """What makes the error to raise if no slave is left that could run this context's tasks; else None.

        It is to be called without the lock: rebuilding an exception runs code of the user's.
        """
        books, state = self._books, self._state
        if books.roster.hopeful(self.id, lost_too=not state.failures):
            return None
        for number, data in state.failures.items():
            tried, slave = len(state.failures), str(books.roster.slaves[number])
            return functools.partial(_setup_error, data, tried, slave)
        if books.open_to_joiners:
            return None
        left = books.left(self.id)
        text = f"{left} task{' is' if left == 1 else 's are'} left and {status.how_all_ended(books)}"
        return functools.partial(NoMoreSlavesError, text)


def _setup_error(data: Any, tried: int, slave: str) -> RemoteError:
    """``data``: the packed failure of setup on ``slave``, or how it ended that slave, in words."""
    what = "the context's setup" + (f" (tried on {tried} slaves, none is left to try)" if tried > 1 else "")
    if isinstance(data, str):
        return RemoteError(what, "SlaveEnded", data, "", slave)
    failure = unpack_failure(data)
    return RemoteError(what, failure.type_name, failure.message, failure.traceback, slave, failure.exception())


def _closed_meanwhile() -> ManagerClosed:
    return ManagerClosed("the manager was shut down while results were waited for")
