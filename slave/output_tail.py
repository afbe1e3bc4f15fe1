"""What runners print, as it is told the master: the agent reads the end of their output files, which are its machine's.

Whole lines, in each slave's order.  A budget that all slaves of an agent share bounds what is sent; what is beyond it
is counted and not sent: it stands in the file.  Nothing here holds up a runner.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from typing import Callable

from .protocol import LINES, WARNING, OutputPart, RecordPart
from .voice import Message

SAYS = "slave: "  # how lines begin that the slave program itself says
LONGEST_LINE = 2000  # bytes of a line that are sent
MOST_BYTES = 64 * 1024  # of one slave in one message

_LINES, _LINES_AT_ONCE = 1000.0, 4000.0  # a second, and after a pause
_BYTES, _BYTES_AT_ONCE = 128 * 1024.0, 512 * 1024.0
_RECORDS, _RECORDS_AT_ONCE = 500.0, 2000.0
_UNWANTED = 1000  # lines that are kept in mind at most
_PIECE, _MOST_PIECES = 1 << 20, 8  # bytes that are read at a time, and how many times in one look
_SOONEST, _LATEST = 0.05, 0.4  # seconds between two looks: when something came, and when nothing does


class Budget:
    """So much may be sent: it grows with time, up to what may be sent at once."""

    def __init__(self, each_second: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_second, self._at_once, self._clock = each_second, at_once, clock
        self._left, self._seen = at_once, clock()

    def look(self) -> float:
        """What is left."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._seen) * self._each_second)
        self._seen = now
        return self._left

    def spend(self, amount: float) -> None:
        """So much was sent."""
        self._left -= amount


class Unwanted(logging.Handler):
    """Lines in output files that are not told as what tasks print: what this program says itself, as a log handler."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[bytes, int] = {}  # how often each is to come, the oldest first

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`: this is said now, and stands there soon."""
        self.add(SAYS + record.getMessage())

    def add(self, text: str) -> None:
        """These lines will be there once."""
        for line in text.splitlines():
            data = line.encode("utf-8", "backslashreplace")
            self._lines[data] = self._lines.pop(data, 0) + 1
        while len(self._lines) > _UNWANTED:
            del self._lines[next(iter(self._lines))]

    def __bool__(self) -> bool:
        return bool(self._lines)

    def takes(self, line: bytes) -> bool:
        """Whether it is one of them, which then was there."""
        count = self._lines.get(line, 0)
        if count > 1:
            self._lines[line] = count - 1
        elif count:
            del self._lines[line]
        return count > 0


class Tail:
    """The end of one slave's output file."""

    def __init__(self, slave: int, path: str, unwanted: Unwanted) -> None:
        self.slave, self._path, self._unwanted = slave, path, unwanted
        self._file: int | None = None
        self._partial = b""  # a line without its end, yet
        try:
            facts = os.stat(path)
            self._is_file = stat.S_ISREG(facts.st_mode)
            self._at = facts.st_size  # what is there has been printed by others
        except OSError:
            self._is_file, self._at = True, 0  # it is made later

    @property
    def is_there(self) -> bool:
        """Whether it is a file, or will be one."""
        return self._is_file and os.path.isdir(os.path.dirname(self._path))

    def look(self, lines: Budget, size: Budget, last: bool = False) -> OutputPart | None:
        """What came since the last time, as far as there is room for it; ``last``: nothing comes any more."""
        found: list[bytes] = []
        left_out = 0
        for piece in self._pieces():
            some = (self._partial + piece).split(b"\n")
            self._partial = some.pop()[:LONGEST_LINE]
            if self._unwanted:
                some = [line for line in some if not self._unwanted.takes(line)]
            room = max(0, int(lines.look()) - len(found))
            found += some[:room]
            left_out += max(0, len(some) - room)
        if last and self._partial:
            found.append(self._partial)
            self._partial = b""
        return kept_of(self.slave, found, left_out, lines, size)

    def _pieces(self) -> list[bytes]:
        """What was added to the file, not too much at a time."""
        if not self._is_file:
            return []
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            size = os.fstat(self._file).st_size
            if size < self._at:
                self._at = size  # somebody has emptied it
            pieces: list[bytes] = []
            while self._at < size and len(pieces) < _MOST_PIECES:
                os.lseek(self._file, self._at, os.SEEK_SET)
                piece = os.read(self._file, min(_PIECE, size - self._at))
                if not piece:
                    break
                self._at += len(piece)
                pieces.append(piece)
            return pieces
        except OSError:
            return []

    def close(self) -> None:
        """Read it no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Tails:
    """Those of all slaves of an agent, and what their runners tell (voice.py).

    ``shows``: what they print is wanted.
    """

    def __init__(self, shows: bool = True) -> None:
        self._shows = shows
        self._tails: dict[int, Tail] = {}
        self._heard: list[OutputPart] = []
        self._records: list[RecordPart] = []
        self._record_room = Budget(_RECORDS, _RECORDS_AT_ONCE)
        self.unwanted = Unwanted()
        self._lines, self._size = Budget(_LINES, _LINES_AT_ONCE), Budget(_BYTES, _BYTES_AT_ONCE)
        self._pause = _SOONEST
        self._next = 0.0

    def add(self, slave: int, path: str | None) -> None:
        """A slave's output goes there from now on; None: to where this program's own does."""
        if self._shows and path is not None and slave not in self._tails:
            self._tails[slave] = Tail(slave, path, self.unwanted)

    def reads(self, slave: int) -> bool:
        """Whether what the slave prints goes to a file that can be read here."""
        tail = self._tails.get(slave)
        return tail is not None and tail.is_there

    def hear(self, message: Message) -> None:
        """A runner tells something."""
        kind, slave, lost, data = message
        if kind == LINES:
            lines = [line for line in data.split(b"\n")[:-1] if not self.unwanted.takes(line)]
            part = kept_of(slave, lines, lost, self._lines, self._size)
            self._heard += [] if part is None else [part]
            return
        if kind == WARNING:
            self.unwanted.add(text_of(data))
        if self._record_room.look() < 1 or self._size.look() < len(data):
            lost, data = lost + 1, b""
        else:
            self._record_room.spend(1)
            self._size.spend(len(data))
        before = self._records[-1] if self._records else None
        if not data and before is not None and before.slave == slave and not before.data:
            self._records[-1] = before._replace(left_out=before.left_out + lost)
        else:
            self._records.append(RecordPart(slave, kind, data, lost))

    def records(self) -> list[RecordPart]:
        """What was heard since the last time."""
        records, self._records = self._records, []
        return records

    def patience(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - now) if self._tails else 1e9

    def look(self, now: float) -> list[OutputPart]:
        """What is to be told, if it is time for a look."""
        heard, self._heard = self._heard, []
        if now < self._next:
            return heard
        found = heard + self._all(False)
        self._pause = _SOONEST if found else min(_LATEST, 2 * self._pause)
        self._next = now + self._pause
        return found

    def look_last(self) -> list[OutputPart]:
        """What is to be told, now: this program ends."""
        heard, self._heard = self._heard, []
        return heard + self._all(True)

    def _all(self, last: bool) -> list[OutputPart]:
        parts = [tail.look(self._lines, self._size, last) for tail in self._tails.values()]
        return [part for part in parts if part is not None]

    def ended(self, slave: int) -> list[OutputPart]:
        """The same of one slave, whose process has ended."""
        tail = self._tails.get(slave)
        part = None if tail is None else tail.look(self._lines, self._size, last=True)
        return [] if part is None else [part]

    def remove(self, slave: int) -> None:
        """The slave is no more."""
        tail = self._tails.pop(slave, None)
        if tail is not None:
            tail.close()

    def close(self) -> None:
        """The same for all."""
        for slave in list(self._tails):
            self.remove(slave)


def kept_of(slave: int, found: list[bytes], left_out: int, lines: Budget, size: Budget) -> OutputPart | None:
    """The first of these lines, as many as there is room for, and how many others there are; None if there is none."""
    kept: list[bytes] = []
    used, room = 0, min(size.look(), MOST_BYTES)
    for line in found[: max(0, int(lines.look()))]:
        line = _short(line)
        if used + len(line) >= room:
            break
        kept.append(line)
        used += len(line) + 1
    left_out += len(found) - len(kept)
    if not kept and not left_out:
        return None
    lines.spend(len(kept))
    size.spend(used)
    return OutputPart(slave, b"".join(line + b"\n" for line in kept), left_out)


def text_of(warning: bytes) -> str:
    """What a warning looks like where it is printed."""
    try:
        return str(json.loads(warning)["text"])
    except (ValueError, KeyError, TypeError):  # it was cut
        return ""


def _short(line: bytes) -> bytes:
    """As a terminal would show it in the end, and not too long."""
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + b"..."
