"""Whether another process has been given a processor lately, where the system tells (Linux)."""

from __future__ import annotations

import sys
import time

_A_MOMENT = 100_000  # nanoseconds


class CpuClock:
    """The processor time of process ``pid``, all of its threads together."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._id = ~pid << 3 | 2 if sys.platform == "linux" else None  # clock_getcpuclockid(3)
        self._then = self._now = 0
        self.look()

    def look(self) -> None:
        """Read the clock."""
        self._then, self._now = self._now, self.read()

    def read(self) -> int:
        """What it shows, in nanoseconds; 0 where the system does not tell."""
        try:
            return 0 if self._id is None else time.clock_gettime_ns(self._id)
        except OSError:
            return self._now  # it has ended: its clock stands still

    @property
    def starved(self) -> bool:
        """Whether it got no processor between the last two looks, and wants one."""
        return self._id is not None and self._now - self._then < _A_MOMENT and self._state() == "R"

    def _state(self) -> str:
        """As proc(5) has it."""
        try:
            with open(f"/proc/{self._pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return ""
