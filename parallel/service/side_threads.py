"""SideThreads: for what may block and the dispatcher must not wait for: large transfers, files on slow disks."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Callable

_IDLE_SECONDS = 5.0  # after which a thread without work ends

Work = Callable[[], object]


class SideThreads:
    """As many threads as there is work at a time; idle ones are kept for a while.  `run` is for one thread only."""

    def __init__(self) -> None:
        self._idle = _Idle()

    def run(self, work: Work) -> None:
        """Have the work done; it must not raise.  Raises RuntimeError if no thread can be started."""
        try:
            thread = self._idle.threads.pop()
        except IndexError:
            thread = _SideThread(self._idle)
            thread.start()
        thread.todo.put(work)

    def end(self) -> None:
        """Let the idle threads end now, and each of the others when its work is done."""
        self._idle.kept = False  # first: a thread that comes to be idle after the last look below sees it
        while True:
            try:
                self._idle.threads.pop().todo.put(None)
            except IndexError:
                return


class _Idle:
    """The threads without work.  Each step is one of a deque, or of a flag: there is no lock."""

    def __init__(self) -> None:
        self.threads: deque[_SideThread] = deque()
        self.kept = True  # whether they wait for more work


class _SideThread(threading.Thread):
    def __init__(self, idle: _Idle) -> None:
        super().__init__(name="parallel transfer", daemon=True)
        self.todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._idle = idle

    def run(self) -> None:
        """The thread's body."""
        work: Work | None = self.todo.get()
        while work is not None:
            work()
            work = None  # it may hold a large message
            self._idle.threads.append(self)
            work = self._next()

    def _next(self) -> Work | None:
        try:
            return self.todo.get(self._idle.kept, _IDLE_SECONDS)
        except queue.Empty:
            try:
                self._idle.threads.remove(self)
            except ValueError:  # just taken: the work is on its way
                return self.todo.get()
            return None
