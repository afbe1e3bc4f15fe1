"""Digests of large payloads, made in a thread of its own while payloads are written: neither needs the interpreter.

Whoever writes says what comes, and asks for the digest when it is needed: see `ResultsFile.append`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

from .format import digest_of

MOST = 3  # payloads whose digests are made, or wait to be taken


class _Job:
    def __init__(self, payload: Any, buffers: Sequence[Any]) -> None:
        self.payload, self.buffers = payload, buffers
        self.digest: bytes | None = None  # as long as it is not made, and if it cannot be
        self.over = threading.Event()

    def run(self) -> None:
        try:
            self.digest = digest_of(self.payload, self.buffers)
        except Exception:  # whoever asks for it makes it, and meets what is wrong
            pass
        self.over.set()


class Digests:
    """See the module's text.  For one thread at a time; a signal handler may interrupt it and do the same."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Job] = {}  # by the id of the payload, which they keep
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, payload: Any, buffers: Sequence[Any]) -> None:
        """That digest will be wanted soon."""
        if id(payload) in self._jobs or not self._is_running():
            return
        if len(self._jobs) == MOST:  # the first one was of a result that is not to be written any more
            del self._jobs[next(iter(self._jobs))]
        job = self._jobs[id(payload)] = _Job(payload, buffers)
        self._queue.put(job)

    def of(self, payload: Any, buffers: Sequence[Any]) -> bytes:
        """The digest.  Waits until it is made, or makes it if it was not begun."""
        job = self._jobs.pop(id(payload), None)
        if job is not None:
            job.over.wait()
        made = None if job is None else job.digest
        return digest_of(payload, buffers) if made is None else made

    def forget(self) -> None:
        """What was begun and not asked for is not wanted any more."""
        self._jobs.clear()

    def close(self) -> None:
        """End the thread."""
        self.forget()
        if self._thread is not None:
            self._queue.put(None)

    def _is_running(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="parallel checkpoint digests", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread can be had, or the interpreter ends
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            job.run()
            del job  # else it is kept until the next one comes
