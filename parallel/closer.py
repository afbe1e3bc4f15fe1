"""Closer: ends a manager, by whichever of `shutdown`, the garbage collector and interpreter exit comes first."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Callable

from .launch.launcher import Launcher
from .monitor.watcher import Watcher
from .service.dispatcher import Dispatcher
from .service.endpoint import Endpoint
from .service.publisher import Publisher
from .service.ticket import Ticket

log = logging.getLogger("parallel")

_STOP_SECONDS = 3.0  # for slaves to end by themselves
_HANG_UP_SECONDS = 1.0  # for connections
_TELL_SECONDS = 2.0  # for what has happened to be logged


class Closer:
    """Shuts a manager down, once, in a thread of its own.

    So Ctrl-C leaves nothing half done, and a signal handler that calls `close` waits for nobody whom it interrupted:
    whoever waits does so on a ticket of his own.  Knows the manager's parts but not the manager itself, so that this
    can be garbage-collected.
    """

    def __init__(
        self, dispatcher: Dispatcher, launcher: Launcher, endpoint: Endpoint, publisher: Publisher, watcher: Watcher
    ) -> None:
        self._dispatcher, self._launcher, self._endpoint = dispatcher, launcher, endpoint
        self._publisher, self._watcher = publisher, watcher
        self._waiting: deque[Ticket] = deque()
        self._running = threading.Lock()  # held by the thread that closes
        self._asked = False
        self._threads: set[int] = set()  # those that wait here: what a signal handler interrupted in them stands still
        self.last: list[Callable[[], object]] = []  # what else is to be closed, when no outcomes come any more
        self.done = False
        self._last: list[Callable[[], object]] = []  # what is done when all that happened has been told
        self._error: BaseException | None = None
        self._pid = os.getpid()
        self._warned = False

    def when_told(self, close: Callable[[], object]) -> None:
        """Have ``close`` called at the end, when subscribers have been told all that happened."""
        self._last.append(close)

    def close(self) -> None:
        """End everything, and wait for that.  May be called again, and from any thread."""
        if os.getpid() != self._pid or self.done:
            return
        ticket, here = Ticket(), threading.get_ident()
        self._waiting.append(ticket)
        self._asked = True
        self._threads.add(here)
        try:
            while not self.done and not ticket.answered:
                self._start()  # each time: a signal's handler may have prevented whoever was the first
                ticket.wait(1.0)
        finally:
            self._threads.discard(here)
        if self._error is not None:
            raise self._error

    def close_elsewhere(self) -> None:
        """Begin to close and do not wait: the garbage collector may call this in any thread at any moment."""
        if os.getpid() == self._pid and not self.done and not self._asked:
            self._asked = True
            self._start()

    def _start(self) -> None:
        if self._running.locked():
            return
        try:
            threading.Thread(target=self._close, name="parallel shutdown", daemon=True).start()
        except RuntimeError:  # at interpreter exit no thread can be started any more (3.12)
            self._close()

    def _close(self) -> None:
        if not self._running.acquire(blocking=False):
            return
        try:
            if not self.done:  # two threads may have been started, one of them late
                self._take_steps()
        finally:
            while self._waiting:
                self._waiting.popleft().answer(None)
            self._running.release()

    def _take_steps(self) -> None:
        self._error = None
        for step in self._steps():
            try:
                step()
            except BaseException as error:
                self._error = error  # and the other steps are done all the same
        self.done = self._error is None

    def _steps(self) -> Iterator[Callable[[], object]]:
        """Each may be done twice."""
        yield self._watcher.stop
        yield self._warn_of_unread
        yield self._endpoint.close_acceptor
        yield lambda: self._dispatcher.call(self._dispatcher.scheduler.close)
        yield lambda: self._launcher.stop(_STOP_SECONDS, waiting=self._threads)
        yield lambda: self._endpoint.stop(_HANG_UP_SECONDS)
        yield self._dispatcher.stop
        yield self._dispatcher.scheduler.users.drop_setups
        yield from self.last  # with what another thread adds meanwhile
        yield lambda: self._publisher.stop(_TELL_SECONDS)
        yield from self._last

    def _warn_of_unread(self) -> None:
        """Say that tasks were added and nobody asked what came of them, which is hardly what somebody wanted."""
        dispatcher = self._dispatcher
        count = dispatcher.never_read + sum(box.never_read for box in list(dispatcher.mailboxes.values()))
        if count and not self._warned:
            self._warned = True
            contexts = f"{count} contexts" if count > 1 else "a context"
            log.warning(
                "parallel: nobody asked for the results of %s that got tasks: call get_results_unordered(), which also "
                "starts the slaves, before the manager is shut down",
                contexts,
            )


def close_weakly(closer: weakref.ref[Closer]) -> None:
    """For atexit, which must not keep a manager from being collected."""
    found = closer()
    if found is not None:
        found.close()
