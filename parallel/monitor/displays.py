"""Where it is told how far a run is: the last line of a terminal, a notebook's cell, plain lines, or a callable."""

from __future__ import annotations

import abc
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from ..service.dispatcher import Dispatcher
from .screen import Screen, on_terminal
from .survey import status_of
from .words import Course, Summary, line, summary_line

_FIRST_LINE, _FIRST_LINE_WANTED = 60.0, 10.0  # seconds before a plain line; the next ones come after twice the time


_PREFIX = "parallel: "


class Display(abc.ABC):
    """For one thread.  ``period``: seconds between two looks at how far it is."""

    period = 0.5

    @abc.abstractmethod
    def show(self, course: Course, seconds: float) -> None:
        """There is work, and so far it is; ``seconds`` since the beginning."""

    def rest(self, course: Course) -> None:  # noqa: B027 - not all have something to do
        """There is none now."""

    @abc.abstractmethod
    def end(self, summary: Summary) -> None:
        """The manager ends, and `show` was called."""

    def close(self) -> None:  # noqa: B027
        """Leave everything as it was."""


class LastLine(Display):
    """The last line of a terminal; of several managers of this program one at a time has it."""

    _taken = threading.Lock()

    def __init__(self, screen: Screen) -> None:
        self._screen, self._has = screen, False
        self._color = not os.environ.get("NO_COLOR")

    def show(self, course: Course, seconds: float) -> None:
        """See `Display`."""
        self._has = self._has or LastLine._taken.acquire(blocking=False)
        if self._has:
            self._screen.show(lambda width: line(course, width, self._color))

    def rest(self, course: Course) -> None:
        """See `Display`."""
        self._screen.clear()
        if self._has:
            self._has = False
            LastLine._taken.release()

    def end(self, summary: Summary) -> None:
        """See `Display`."""
        self._screen.clear()
        columns = self._screen.columns
        _print(summary_line(summary, columns - len(_PREFIX)) if columns else summary_line(summary))

    def close(self) -> None:
        """See `Display`."""
        self._screen.close()
        if self._has:
            self._has = False
            LastLine._taken.release()


class PlainLines(Display):
    """Lines in a file or a pipe, where nobody sits before it: ever more seldom."""

    period = 1.0

    def __init__(self, first: float) -> None:
        self._next, self._told = first, False

    def show(self, course: Course, seconds: float) -> None:
        """See `Display`."""
        if seconds >= self._next:
            self._next, self._told = 2 * self._next, True
            _print(line(course))

    def end(self, summary: Summary) -> None:
        """See `Display`."""
        if self._told:
            _print(summary_line(summary))


class Cells(Display):
    """Under the notebook's cell that was begun last."""

    def __init__(self, cells: Sequence[Any]) -> None:
        self._cells = cells
        self._shown: Any = None

    def show(self, course: Course, seconds: float) -> None:
        """See `Display`."""
        self._shown = self._cells[-1]
        self._shown.show(course)

    def rest(self, course: Course) -> None:
        """See `Display`."""
        if self._shown is not None:
            self._shown.end(line(course))
            self._shown = None

    def end(self, summary: Summary) -> None:
        """See `Display`."""
        self._cells[-1].end(summary_line(summary))


class Called(Display):
    """A callable of the user's, which gets the `Status`."""

    def __init__(self, callback: Any, dispatcher: Dispatcher, master: str) -> None:
        self._callback, self._dispatcher, self._master = callback, dispatcher, master

    def show(self, course: Course, seconds: float) -> None:
        """See `Display`."""
        self._callback(status_of(self._dispatcher, self._master))

    def rest(self, course: Course) -> None:
        """See `Display`."""
        self.show(course, 0.0)

    def end(self, summary: Summary) -> None:
        """See `Display`."""
        self._callback(status_of(self._dispatcher, self._master))


def display_for(wanted: Any, cells: Sequence[Any], dispatcher: Dispatcher, master: str) -> Display:
    """The one that is wanted, or for where ``sys.stderr`` leads."""
    if callable(wanted):
        return Called(wanted, dispatcher, master)
    if cells:
        return Cells(cells)
    screen = on_terminal()
    if screen is not None:
        return LastLine(screen)
    return PlainLines(_FIRST_LINE_WANTED if wanted else _FIRST_LINE)


def _print(text: str) -> None:
    """A line to whatever is ``sys.stderr`` now; nobody need be there to take it."""
    try:
        sys.stderr.write(f"{_PREFIX}{text}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass
