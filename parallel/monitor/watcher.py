"""Watcher: has somebody told how far a manager's run is, from the second second on and until its end.

Its thread asks the dispatcher for the counts, so what it costs is a look now and then, each at a hundredth of the time
at the most; nothing else of `monitor` is imported by a run that is over within a second.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Union

from ..service.dispatcher import Dispatcher

if TYPE_CHECKING:
    from .displays import Display
    from .status import Status
    from .words import Course

log = logging.getLogger("parallel")

FIRST = 1.0  # seconds of work after which it is told how far it is
_IDLE = 1.0, 16.0  # seconds between two looks whether there is work: at first, at most
_SHARE = 0.01  # of the time that looks may take
_STOP_SECONDS = 2.0
_LAST_WORDS, _LOOK_AGAIN = 0.1, 0.002  # seconds to wait for what slaves say after their last results

Progress = Union[None, bool, "Callable[[Status], object]"]


class Watcher:
    """See the module's text.  ``wanted``: as of `Manager`'s ``progress``; ``master``: what the manager is called."""

    def __init__(self, dispatcher: Dispatcher, wanted: Progress, master: str) -> None:
        self._dispatcher, self._wanted, self._master = dispatcher, wanted, master
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # tried, never waited for
        self._ending = threading.Event()
        self._news = threading.Event()  # results were asked for since the last look
        self._cells: list[Any] = []  # of a notebook, the latest at the end
        self._began = 0.0

    def begin(self) -> None:
        """Results are asked for, in this thread."""
        if self._wanted is False or self._ending.is_set():
            return
        if not self._news.is_set():
            self._news.set()
        if not callable(self._wanted) and "IPython" in sys.modules:
            self._see_cell()
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    self._began = time.monotonic()
                    thread = threading.Thread(target=self._run, daemon=True, name="parallel progress")
                    thread.start()
                    self._thread = thread
            finally:
                self._starting.release()

    def _see_cell(self) -> None:
        """What is told goes under the cell that runs now."""
        from . import notebook

        shell = notebook.shell()
        if shell is None:
            return
        if not self._cells or self._cells[-1].count != shell.execution_count:
            self._cells.append(notebook.Cell(shell))
            del self._cells[:-2]

    def stop(self) -> None:
        """Tell the last, unless nobody takes it.  May be called twice."""
        self._ending.set()
        self._news.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    # -- the thread

    def _run(self) -> None:
        if self._ending.wait(FIRST):
            return
        try:
            from .displays import display_for
        except OSError as error:  # no descriptor is left
            log.warning("parallel: how far the run is cannot be told: %s", error)
            return
        display = display_for(self._wanted, self._cells, self._dispatcher, self._master)
        try:
            self._watch(display)
        except Exception:  # somebody's own callable, or a stream of somebody's
            log.exception("parallel: how far the run is cannot be told, and is told no more")
            display.close()

    def _hear_all(self, course: Course) -> None:
        """How long its last tasks took a slave tells after their results."""
        from .survey import all_told

        until = time.monotonic() + _LAST_WORDS
        while not course.tasks.left and time.monotonic() < until and not all_told(self._dispatcher):
            time.sleep(_LOOK_AGAIN)

    def _rest(self, pause: float, least: float) -> float:
        """Wait, as there is no work, until results are asked for or ``pause`` is over; the next pause."""
        least = max(least, _IDLE[0])
        if self._ending.wait(least) or self._news.wait(max(0.0, pause - least)):
            return _IDLE[0]
        return min(_IDLE[1], 2 * pause)

    def _watch(self, display: Display) -> None:
        from .survey import course_of, summary_of

        since: float | None = self._began  # when there began to be work; None: there is none
        last, worked, offered = self._began, 0.0, 0.0
        shown = over = False
        done, pause = 0, _IDLE[0]
        while not over:
            self._news.clear()
            over = self._ending.is_set()
            course, cost = course_of(self._dispatcher)
            now = time.monotonic()
            tasks = course.tasks
            goes_on = tasks.left > 0 or not tasks.complete or tasks.done > done  # one may be added when one is done
            done = tasks.done
            if since is not None:
                worked += now - last
                offered += (now - last) * course.connected
            last, since = now, (now if since is None else since) if goes_on else None
            if since is not None and now - since >= FIRST and not over:
                display.show(course, now - self._began)
                shown = True
            elif since is None and shown:
                display.rest(course)
            if since is not None:
                pause = _IDLE[0]
                self._ending.wait(max(display.period, cost / _SHARE))
            else:
                pause = self._rest(pause, cost / _SHARE)
        if shown:
            self._hear_all(course)
            display.end(summary_of(self._dispatcher, worked, offered))
        display.close()
