"""A run as a file: `Manager(trace="run.json")` writes a Chrome trace while it goes on.

The file is a JSON array with one event a line.  It is written in whole lines, once a second or as the lines become
many, so it can be opened at any time and whatever becomes of the master: the format lets the array's end be missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from ..core.events import Event
from ..errors import InputError
from .chrome import ChromeTrace

log = logging.getLogger("parallel")

_FLUSH_SECONDS, _FLUSH_LINES = 1.0, 1000
_MOST_LINES = 20_000  # that wait to be written: then whoever brings more waits, and events are missed in the end


class Trace:
    """See the module's text.  Raises `InputError` if the file cannot be written.

    It is called with each event, by one thread; another one writes.  ``_changed`` guards what is between them.
    """

    def __init__(self, path: str, program: str) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise InputError(f"trace={path!r} cannot be written: {error.strerror}") from None
        self._chrome = ChromeTrace(time.monotonic())
        self._lines = list(self._chrome.head(program))
        self._changed = threading.Condition()
        self._closing = self._broken = False
        self._writer = threading.Thread(target=self._write_now_and_then, name="parallel trace", daemon=True)
        self._writer.start()

    def __call__(self, event: Event) -> None:
        """Note an event."""
        with self._changed:
            if self._broken or self._closing:  # who was not told in time, when the manager ended, comes too late
                return
            made = list(self._chrome.lines(event))
            if made:
                self._lines += made
                if len(self._lines) >= _FLUSH_LINES:
                    self._changed.notify_all()
                self._changed.wait_for(lambda: len(self._lines) < _MOST_LINES or self._broken or self._closing)

    def close(self) -> None:
        """Write what is left, and the array's end.  May be called twice."""
        with self._changed:
            if not self._closing:
                self._lines += self._chrome.rest()
            self._closing = True
            self._changed.notify_all()
        self._writer.join()

    def _write_now_and_then(self) -> None:
        before, closing = "[\n", False
        try:
            while not closing:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closing or len(self._lines) >= _FLUSH_LINES, timeout=_FLUSH_SECONDS
                    )
                    lines, self._lines, closing = self._lines, [], self._closing
                    self._changed.notify_all()
                if lines:
                    self._write(before + ",\n".join(lines))
                    before = ",\n"
            self._write("\n]\n")
        except OSError as error:
            log.warning("parallel: the trace %s ends here, it cannot be written: %s", self.path, error.strerror)
            with self._changed:
                self._broken = True
                self._changed.notify_all()
        finally:
            os.close(self._file)

    def _write(self, text: str) -> None:
        """Whole lines in one go: if this process is killed, they are there or they are not."""
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._file, data) :]
