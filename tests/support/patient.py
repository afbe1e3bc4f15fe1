"""Managers that a busy machine does not hurry, for tests that look at all that was said.

When a manager ends, its slaves, and whoever is told what happened, have a few seconds to come to their last words; and
whoever waits for five seconds in which nothing happens is told so.  Here these are minutes.
"""

from __future__ import annotations

from types import ModuleType

from parallel import closer
from parallel.core import patience
from parallel.monitor import watcher

SECONDS = 300.0
LIMITS: tuple[tuple[ModuleType, str], ...] = (
    (closer, "_STOP_SECONDS"),
    (closer, "_HANG_UP_SECONDS"),
    (closer, "_TELL_SECONDS"),
    (watcher, "_STOP_SECONDS"),
    (watcher, "_LAST_WORDS"),
    (patience, "FIRST_WORD"),
)


def wait_long() -> None:
    """In this process, from now on: for scripts.  A test has the fixture ``patient``."""
    for module, name in LIMITS:
        setattr(module, name, SECONDS)
