"""What a runner tells its agent while a task runs: log records, warnings, and lines that go to no file of its own.

Each is one datagram on the socket that wakes the agent, so that threads, and what tasks fork, need no lock; one that
finds no room is counted and dropped: no task waits for the network, or for an agent that somebody has stopped.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Callable

from . import streams
from .named import NamedTuple
from .protocol import LINES, RECORD, WARNING

MOST = 32 * 1024  # bytes of one message

_HEAD = struct.Struct(">BQI")  # kind, slave, how many messages before it found no room
_LONGEST = 8 * 1024  # characters of each text of a record


class Voice(NamedTuple):
    """What of it is wanted.  ``levels``: by name of a logger its level, '' for the root; None: no log records."""

    levels: Mapping[str, int] | None = None
    warnings: bool = False
    lines: bool = False


class Message(NamedTuple):
    """One as the agent gets it."""

    kind: int
    slave: int
    lost: int
    data: bytes


def message(data: bytes) -> Message | None:
    """What came; None if it was no message but only to wake."""
    if len(data) < _HEAD.size:
        return None
    kind, slave, lost = _HEAD.unpack_from(data)
    return Message(kind, slave, lost, data[_HEAD.size :])


class Speaker:
    """The runner's end.  ``task``: which one runs."""

    def __init__(self, slave: int, waker: socket.socket, task: Callable[[], int]) -> None:
        self._slave, self._waker, self._task = slave, waker, task
        self._lost = 0
        self._partial: dict[tuple[int, int], bytes] = {}  # by process and descriptor, a line without its end, yet

    def begin(self, voice: Voice) -> None:
        """Tell from now on what is wanted."""
        if voice.levels is not None:
            self._take_levels(voice.levels)
            logging.getLogger().addHandler(_Forwarder(self))
        if voice.warnings:
            self._take_warnings()
        if voice.lines:
            streams.listener = self._printed

    def renumber(self, slave: int) -> None:
        """It is of that slave from now on."""
        self._slave = slave

    def tell(self, kind: int, data: bytes) -> None:
        """Tell it, if there is room."""
        try:
            self._waker.send(_HEAD.pack(kind, self._slave, self._lost) + data[:MOST])
            self._lost = 0
        except OSError:
            self._lost = min(self._lost + 1, 1 << 31)

    def record(self, record: logging.LogRecord) -> None:
        """Tell what a task logs."""
        formatter = logging.Formatter()
        trace = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
        told = {
            "name": record.name,
            "level": record.levelno,
            "level_name": record.levelname,
            "message": record.getMessage()[:_LONGEST],
            "path": record.pathname,
            "line": record.lineno,
            "function": record.funcName or "",
            "thread": record.threadName or "",
            "process": record.process or 0,
            "created": record.created,
            "trace": trace[-_LONGEST:],
            "stack": (record.stack_info or "")[-_LONGEST:],
            "task": self._task(),
        }
        self.tell(RECORD, json.dumps(told).encode())

    def _take_levels(self, levels: Mapping[str, int]) -> None:
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)

    def _take_warnings(self) -> None:
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: str | None = None,
        ) -> None:
            if file is None:
                written = warnings.formatwarning(str(message), category, filename, lineno, line)
                told = {
                    "category": category.__name__,
                    "message": str(message)[:_LONGEST],
                    "path": filename,
                    "line": lineno,
                    "text": written[:_LONGEST],
                }
                self.tell(WARNING, json.dumps(told).encode())
            shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show

    def _printed(self, descriptor: int, data: bytes) -> None:
        key = os.getpid(), descriptor
        lines = self._partial.pop(key, b"") + data
        whole, end, rest = lines.rpartition(b"\n")
        if rest:
            self._partial[key] = rest[-MOST:]
        whole += end
        while whole:
            piece = whole if len(whole) <= MOST else whole[: max(whole.rfind(b"\n", 0, MOST) + 1, 0) or MOST]
            self.tell(LINES, piece)
            whole = whole[len(piece) :]


class _Forwarder(logging.Handler):
    """The root logger's, in a runner."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self._speaker = speaker

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._speaker.record(record)
        except Exception:
            if sys.stderr is not None:
                self.handleError(record)
