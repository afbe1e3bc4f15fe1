"""Programs on a terminal whose screen is looked at, as somebody sees it who sits before it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Sequence
from typing import Callable

import pyte

from tests.support.terminals import Terminal


class Seen(Terminal):
    """A program on a terminal of so many rows and columns."""

    def __init__(self, command: Sequence[str], rows: int = 12, columns: int = 100, **variables: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.writes = 0  # of what was read since the beginning
        self._begin_size = rows, columns
        super().__init__(command, **{"TERM": "xterm", **variables})

    def opened(self) -> None:
        """Before the program starts."""
        self.set_size(*self._begin_size)

    def set_size(self, rows: int, columns: int) -> None:
        """Somebody resizes the window."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without blanks at the ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def last(self) -> str:
        """Its last line."""
        return self.lines[-1]

    def read(self, seconds: float) -> bool:
        """Take what comes within so many seconds; False at the program's end."""
        if select.select([self.ours], [], [], max(0.0, seconds))[0]:
            try:
                data = os.read(self.ours, 65536)
            except OSError:  # EIO
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    def until(self, look: Callable[[], object], seconds: float = 60.0, what: str = "") -> None:
        """Read until ``look()`` is true."""
        deadline = time.monotonic() + seconds
        while not look():
            if not self.read(min(0.1, deadline - time.monotonic())) and not look():
                raise AssertionError(f"it ended without {what or 'it'}: {self._told()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"within {seconds:g} s there was no {what or 'such thing'}: {self._told()}")

    def until_end(self, seconds: float = 60.0) -> int:
        """Read until the program ends; returns its exit code."""
        deadline = time.monotonic() + seconds
        while self.read(0.1) and time.monotonic() < deadline:
            pass
        return self.ends()

    def _told(self) -> str:
        return "\n".join(["", *self.lines, repr(self.raw[-2000:])])
