"""ExpiryTimer: the one timer thread.  It re-enqueues the tasks of slaves that are not heard any more."""

from __future__ import annotations

import select
import socket
import threading
import time

from ..core.roster import SlaveRecord, SlaveState
from .books import Books, log

_TICKS_PER_LEASE = 8
_LONGEST_TICK = 1.0
_LATE = 0.5  # seconds by which a tick may be late without meaning that this process was stopped or kept busy


class ExpiryTimer(threading.Thread):
    """Ticks until stopped."""

    def __init__(self, books: Books) -> None:
        super().__init__(name="parallel expiry timer", daemon=True)
        self._books = books
        # select counts in monotonic time; before CPython 3.11 Event.wait does not, and a clock that is set back by a
        # day would keep it for a day (bpo-41710)
        self._ear, self._bell = socket.socketpair()

    def stop(self) -> None:
        """End the thread soon.  May be called twice."""
        try:
            self._bell.send(b"!")
        except OSError:
            pass  # it has ended already

    def run(self) -> None:
        """The thread's body."""
        while True:
            interval = min(_LONGEST_TICK, self._books.table.term / _TICKS_PER_LEASE)
            planned = time.monotonic() + interval
            if select.select([self._ear], [], [], interval)[0]:
                self._ear.close()
                self._bell.close()
                return
            now = time.monotonic()
            try:
                with self._books.lock:
                    tick(self._books, now, now - planned)
            except Exception:
                log.exception("parallel: a bug in the expiry timer, which goes on; please report it")


def tick(books: Books, now: float, late: float) -> None:
    """Expire what is over, unless the master ends: then slaves fall silent because they were asked to.  Needs the lock.

    ``late``: seconds by which this tick comes too late.  A master that was stopped, or whose program held the
    interpreter for so long, could not hear its slaves either: they get that time back, since the silence was not
    theirs.
    """
    if books.closing:
        return
    if late > _LATE:
        log.info(
            "parallel: this process was stopped or busy for %.1f s; no slave is taken for dead because of that", late
        )
        books.table.shift(late)
        books.roster.shift(late)
    books.drop_abandoned()
    lost = books.table.expired(now)
    for number in lost:
        slave = books.roster.slaves[number]
        books.lose(slave, slave.suspect, _silence(slave, now))
        if slave.alive:
            slave.state = SlaveState.LOST
    silent = books.roster.silent(now)
    for slave in silent:
        slave.state = SlaveState.LOST
        books.lose(slave, 0, _silence(slave, now))
    if lost or silent:
        books.wake_readers()


def _silence(slave: SlaveRecord, now: float) -> str:
    if slave.cut:
        return "its agent's connection ended and did not come back (was it killed, or its machine switched off?)"
    return f"nothing was heard of it for {now - slave.heard:.1f} s (is its machine off, or the network cut?)"
