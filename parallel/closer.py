"""Closer: ends a manager, by whichever of `shutdown`, the garbage collector and interpreter exit comes first."""

from __future__ import annotations

import os
import threading
import weakref

from .launch.yard import Yard
from .service.books import Books
from .service.expiry import ExpiryTimer
from .service.reach import Reach

_STOP_SECONDS = 3.0  # for slaves to end by themselves


class Closer:
    """Shuts a manager down, once.

    Knows its parts but not the manager itself, so that this can be garbage-collected.
    """

    def __init__(self, books: Books, yard: Yard, reach: Reach, timer: ExpiryTimer) -> None:
        self._books, self._yard, self._reach, self._timer = books, yard, reach, timer
        self._lock = threading.RLock()  # guards _done; held while closing, so that a second caller waits
        self._done = False
        self._pid = os.getpid()

    def close(self) -> None:
        """End everything.  May be called again, and from any thread."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._done:
                return
            # each step may be done twice: after a Ctrl-C in the middle, the next call (the last: at exit) does all
            try:
                self._reach.close_door()
                self._books.close()
            finally:
                try:
                    self._yard.stop(_STOP_SECONDS)
                finally:
                    self._reach.stop(grace=1.0)
                    self._timer.stop()
            self._done = True

    def close_elsewhere(self) -> None:
        """Close in a thread of its own: the garbage collector may call this in a thread that holds the books' lock."""
        if os.getpid() == self._pid and not self._done:
            threading.Thread(target=self.close, daemon=True, name="parallel shutdown").start()


def close_weakly(closer: weakref.ref[Closer]) -> None:
    """For atexit, which must not keep a manager from being collected."""
    found = closer()
    if found is not None:
        found.close()
