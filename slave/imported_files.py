"""ImportedFiles: the user's modules that only a slave has imported, and that somebody edits while a session goes on.

What runs on slaves is what the program was when it began, and not what somebody is writing just now.  In an interactive
session it is other: who edits a module and runs a cell again means what it is now.  Of the modules that the session has
imported itself the master tells when they are loaded anew (parallel/program.py).  What only tasks import, which it may
never have heard of, a runner looks at before each lease: it leaves for a fresh process if a file is not what it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

from .search_path import LIBRARY, PACKAGES, kind_of


class ImportedFiles:
    """See the module's text.  ``before``: modules that any fresh process has, too."""

    def __init__(self, before: Collection[str]) -> None:
        self._seen = set(before)
        self._stamps: dict[str, tuple[str, object]] = {}  # by module: its file, and what that was after the lease

    def learn(self) -> None:
        """Remember what has been imported since the last call."""
        if len(sys.modules) == len(self._seen):
            return
        for name, module in list(sys.modules.items()):
            if name not in self._seen:
                self._seen.add(name)
                spec: Any = getattr(module, "__spec__", None)
                path = getattr(spec, "origin", None) if getattr(spec, "has_location", False) else None
                if isinstance(path, str) and kind_of(os.path.dirname(os.path.abspath(path))) not in (LIBRARY, PACKAGES):
                    self._remember(name, path)

    def _remember(self, name: str, path: str) -> None:
        self._stamps[name] = path, stamp_of(path)

    def edited(self, but: Collection[str]) -> list[str]:
        """The modules whose files are not what they were, ``but`` those that the session has imported itself."""
        return [name for name, (path, stamp) in self._stamps.items() if name not in but and stamp_of(path) != stamp]


def stamp_of(path: str | None) -> object:
    """What is another one when the file was changed: time of the last change in ns, and size; None if there is none."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
