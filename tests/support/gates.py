"""Gates: where tasks wait until the test opens them, also on machines that share no disk with it, by the loopback."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Callable


def wait_at(port: int, name: str, *_: object) -> int:
    """Tell that it runs, and run until the gate ``name`` is open.  Ends, without a result, with its test."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(name.encode() + b"\n")
        if not connection.recv(1):
            raise RuntimeError("the test is over")
    return os.getpid()


class Gates:
    """The test's side.  Each gate is shut until it is opened."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()  # guards what follows
        self._open: set[str] = set()
        self._starts: Counter[str] = Counter()
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, name="gates")]
        self._threads[0].start()

    def task(self, name: str) -> Callable[..., int]:
        """A task that waits at that gate."""
        return functools.partial(wait_at, self.port, name)

    def starts(self, name: str) -> int:
        """How often a task has come to that gate."""
        with self._changed:
            return self._starts[name]

    def open(self, *names: str) -> None:
        """Let those pass that wait there, or will come."""
        with self._changed:
            self._open.update(names)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody pass any more; those who wait fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[connection], name="gate"))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            name = lines.readline().decode().strip()
            with self._changed:
                self._starts[name] += 1
                self._changed.wait_for(lambda: self._closed or name in self._open)
                passes = not self._closed
            if passes:
                with contextlib.suppress(OSError):  # the task was killed meanwhile
                    connection.sendall(b".")


@contextlib.contextmanager
def made_gates() -> Iterator[Gates]:
    """Gates for one test."""
    gates = Gates()
    try:
        yield gates
    finally:
        gates.close()
