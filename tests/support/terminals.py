"""Programs on a terminal of their own, at which somebody types."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from tests.support.programs import environment

SomeTerminal = TypeVar("SomeTerminal", bound="Terminal")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: Sequence[str], **variables: str) -> None:
        self.ours, theirs = pty.openpty()
        self.opened()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment(**variables),
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(theirs)
        self.shown = ""
        self._rest = ""  # of what was shown: behind what was waited for
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end within a character

    def opened(self) -> None:
        """The terminal is there, and the program does not run yet."""

    @classmethod
    def python(cls: type[SomeTerminal], code: str, **variables: Any) -> SomeTerminal:
        """Such a program by its code."""
        return cls([sys.executable, "-c", code], **variables)

    def __enter__(self: SomeTerminal) -> SomeTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def shows(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Read until the screen shows that, after what was waited for before; returns the match."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self._rest)
            if match:
                self._rest = self._rest[match.end() :]  # one read may bring what is waited for next, too
                return match
            try:
                if not select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise AssertionError(f"within {seconds:g} s it did not show {pattern!r}, but {self.shown!r}")
                text = self._decode(os.read(self.ours, 1024))
            except OSError:  # EIO: the program has ended
                raise AssertionError(f"it never shows {pattern!r}, but {self.shown!r}") from None
            self._rest += text
            self.shown += text

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self.ours, text.encode())

    def ends(self, seconds: float = 60.0) -> int:
        """Wait for its end; returns its exit code."""
        return self.process.wait(seconds)
