"""Waiting for a condition, with a deadline that reports what was seen.  No test sleeps."""

from __future__ import annotations

import threading
import time
from typing import Callable, TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], seconds: float = 30.0, what: str = "a true value") -> T:
    """The first true value of ``look()``; fails after ``seconds``, telling the last value."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {seen!r}")
        pause.wait(0.005)
