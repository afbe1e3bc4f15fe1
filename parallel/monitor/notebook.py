"""A line under the cell of a notebook, which is changed in place."""

from __future__ import annotations

import html
import importlib
import sys
from typing import Any

from .words import Course, line


def shell() -> Any:
    """IPython's shell if this program runs in a notebook or one of its like, and nothing is imported to see that."""
    package = sys.modules.get("IPython")
    found = getattr(package, "get_ipython", lambda: None)() if package is not None else None
    return found if getattr(found, "kernel", None) is not None else None


class Cell:
    """The output of the cell that was begun last when it is made: in the thread that runs it."""

    def __init__(self, shell: Any) -> None:
        display: Any = importlib.import_module("IPython.display").display
        self.count = getattr(shell, "execution_count", 0)  # tells this cell from others
        self._handle = display({"text/plain": "", "text/html": ""}, raw=True, display_id=True)

    def show(self, course: Course) -> None:
        """How far it is."""
        tasks, text = course.tasks, line(course)
        known = f' value="{tasks.done}" max="{tasks.known}"' if tasks.complete else ""
        self._update(text, f"<progress{known}></progress> {html.escape(text)}")

    def end(self, text: str) -> None:
        """What became of it."""
        self._update(text, html.escape(text))

    def _update(self, text: str, markup: str) -> None:
        self._handle.update({"text/plain": text, "text/html": f"<div>{markup}</div>"}, raw=True)
