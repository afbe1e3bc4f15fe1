"""The bottom line of a terminal, which scrolls with nothing that is printed.

The terminal is told to scroll all lines but the last (DECSTBM), and the cursor comes back to where it was after each
change of that: so whoever prints what by which way, this program, its children or a library in C, in the middle of a
line too, is not torn by our line and does not tear it.  A shell of its own waits for this process's end and gives the
terminal back should that be sudden.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Callable

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_ALL = "\x1b[r"  # all lines scroll
_ROOM = "\x1bD\x1b[A"  # one line down, which scrolls at the bottom, and up again: the cursor's column stays
_LEAST = 3, 8  # rows and columns of a terminal that has room for such a line
_GIVE_BACK = "read -r x || printf '\\0337\\033[r\\033[999;1H\\033[2K\\0338'"  # unless it is told that this was done


class Screen:
    """The last line of the terminal behind a descriptor.  For one thread."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor, self._encoding = descriptor, encoding
        self._size = 0, 0  # rows and columns, when the line was set apart; (0, 0): it is not
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def columns(self) -> int:
        """How many there are; 0: nobody knows."""
        return self._look()[1]

    def _look(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._descriptor)
        except OSError:
            return 0, 0
        return rows, columns

    def _is_ours(self) -> bool:
        """Whether this program is in the terminal's foreground."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True  # it is not the terminal that controls us

    def show(self, text_for: Callable[[int], str]) -> None:
        """Show this in the last line, made for so many columns; not if there is no room or somebody else has it."""
        rows, columns = size = self._look()
        if rows < _LEAST[0] or columns < _LEAST[1] or not self._is_ours():
            return
        parts = []
        if self._size != size:
            self._stand_guard()
            if self._size != (0, 0):  # what was there is below the cursor, whatever the terminal has moved
                parts.append(f"{_SAVE}{_ALL}{_RESTORE}{_ROOM}{_SAVE}\x1b[B\r\x1b[J{_RESTORE}")
            parts.append(f"{_ROOM}{_SAVE}\x1b[1;{rows - 1}r{_RESTORE}")
            self._size = size
        parts.append(f"{_SAVE}\x1b[{rows};1H\x1b[0m\x1b[2K{text_for(columns - 1)}{_RESTORE}")
        self._write("".join(parts))

    def clear(self) -> None:
        """Give the last line back."""
        if self._size != (0, 0):
            rows, _ = self._look()
            self._size = 0, 0
            self._write(f"{_SAVE}{_ALL}\x1b[{max(1, rows)};1H\x1b[0m\x1b[2K{_RESTORE}")

    def close(self) -> None:
        """The same, for good."""
        self.clear()
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            try:
                guard.stdin.write(b"done\n")
                guard.stdin.close()
            except OSError:
                pass  # somebody has ended it
            guard.wait()

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # the terminal has gone

    def _stand_guard(self) -> None:
        if self._guard is None:
            try:
                self._guard = subprocess.Popen(
                    ["/bin/sh", "-c", _GIVE_BACK],
                    stdin=subprocess.PIPE,
                    stdout=self._descriptor,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # what ends this program's group leaves it alone
                )
            except OSError:
                pass  # then a sudden end leaves the line there


def on_terminal() -> Screen | None:
    """The screen to which ``sys.stderr`` leads, if it is one that knows where its last line is."""
    stream = sys.stderr
    try:
        descriptor = stream.fileno()
        if os.name != "posix" or not os.isatty(descriptor) or os.environ.get("TERM", "dumb") in ("dumb", ""):
            return None
    except (AttributeError, OSError, ValueError):  # none, or somebody's own object, or it was closed
        return None
    return Screen(descriptor, getattr(stream, "encoding", None) or "utf-8")
