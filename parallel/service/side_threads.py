"""SideThreads: for what may block and the dispatcher must not wait for: large transfers, files on slow disks."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Callable

from .lock_free import drained

_IDLE_SECONDS = 5.0  # after which a thread without work ends

Work = Callable[[], object]


class SideThreads:
    """As many threads as there is work at a time; idle ones are kept for a while.  `run` is for one thread only."""

    def __init__(self) -> None:
        self.idle: deque[_SideThread] = deque()  # those without work; each step is one of a deque, or of a flag
        self.kept = True  # whether they wait for more work

    def run(self, work: Work) -> None:
        """Have the work done; it must not raise.  Raises RuntimeError if no thread can be started."""
        try:
            thread = self.idle.pop()
        except IndexError:
            thread = _SideThread(self)
            thread.start()
        thread.todo.put(work)

    def end(self) -> None:
        """Let the idle threads end now, and each of the others when its work is done."""
        self.kept = False  # first: a thread that comes to be idle after the last look below sees it
        for thread in drained(self.idle):
            thread.todo.put(None)


class _SideThread(threading.Thread):
    def __init__(self, side: SideThreads) -> None:
        super().__init__(name="parallel transfer", daemon=True)
        self.todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._side = side

    def run(self) -> None:
        """The thread's body."""
        work: Work | None = self.todo.get()
        while work is not None:
            work()
            work = None  # it may hold a large message
            self._side.idle.append(self)
            work = self._next()

    def _next(self) -> Work | None:
        try:
            return self.todo.get(self._side.kept, _IDLE_SECONDS)
        except queue.Empty:
            try:
                self._side.idle.remove(self)
            except ValueError:  # just taken: the work is on its way
                return self.todo.get()
            return None
