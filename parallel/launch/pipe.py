"""PipedSlave: slaves behind a command whose stdin and stdout lead to the machine where they run (ssh, docker run -i).

The slave program travels over the pipe, and its output comes back on it (bootstrap.py, slave/pipe_agent.py); when the
pipe ends, so do the slaves.  Tasks and results go over a connection of the slaves to the master, as always.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from typing import IO, Callable

from slave.private_files import append_to

from ..exits import last_lines, tail
from .arguments import whole_number
from .base import Slave
from .bootstrap import payload
from .job import Job
from .process import CommandProcess

log = logging.getLogger("parallel")

_KEPT = 4096  # bytes
_TO_END = 2.0  # seconds for the slave program to clean up when the pipe is closed


class PipedSlave(Slave):
    """See the module's text.  Derive from it and define `command`."""

    def __init__(self, runners: int | None) -> None:
        self.runners = None if runners is None else whole_number(runners, type(self).__name__)
        self._process: CommandProcess | None = None
        self._since = 0.0
        self._output: str | None = None
        self._said = bytearray()  # the end of what the slave program said, if that goes to no file
        self._fed = threading.Event()  # the command has taken in all that it is told
        self._thread: threading.Thread | None = None

    def command(self, python: str | None) -> list[str]:
        """The command line; ``python`` as given to the manager."""
        raise TypeError(f"{type(self).__name__} must define command(python)")

    def start(self, job: Job) -> None:
        """See `Slave.start`."""
        data = payload(job.orders, self.runners)
        self._output = job.output
        self._fed.clear()
        self._said.clear()
        self._process = CommandProcess(self.command(job.python), job.output, pipe=True)
        self._since = time.monotonic()
        assert self._process.stdin is not None and self._process.stdout is not None
        arguments = (self._process.stdin, self._process.stdout, data, self._fed, job.output_of, self._said)
        self._thread = threading.Thread(target=_serve, args=arguments, daemon=True, name=f"parallel {self!r}")
        self._thread.start()

    def poll(self) -> str | None:
        """See `Slave.poll`."""
        assert self._process is not None
        end = self._process.poll()
        if end is None:
            since = time.monotonic() - self._since
            self.doing = f"its command was started {since:.0f} s ago, and it is not connected"
            return None
        self._join()
        if self._output is None:
            end += last_lines(io.BytesIO(self._said), "; the last words of its slave program")
        hint = self.hint(end + tail(self._output))
        return f"{end} ({hint})" if hint else end

    def hint(self, said: str) -> str:
        """What to do about what the command said when it ended; '' for nothing."""
        return ""

    def stop(self) -> None:
        """See `Slave.stop`.  When stdin is closed, the other end cleans up."""
        if self._process is not None:
            if self._fed.is_set():  # else it reads nothing, and closing would wait for it
                self._close_stdin()
                self._process.wait(_TO_END)
            self._process.stop()
            self._join()

    def _close_stdin(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended already

    def _join(self) -> None:
        """The command has ended."""
        if self._thread is not None and self._fed.wait(_TO_END):
            self._close_stdin()
            self._thread.join(_TO_END)
            self._thread = None


def _serve(
    stdin: IO[bytes],
    stdout: IO[bytes],
    data: bytes,
    fed: threading.Event,
    output_of: Callable[[int], str | None],
    said: bytearray,
) -> None:
    """The body of the thread that feeds the command and takes its output apart."""
    try:
        stdin.write(data)
        stdin.flush()
    except OSError:
        pass  # it has ended: poll tells how
    fed.set()
    files: dict[int, IO[bytes] | None] = {}
    try:
        with stdout:
            while True:
                line = stdout.readline()
                words = line.split()
                if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
                    _write(files, int(words[0]), output_of, stdout.read(int(words[1])), said)
                elif line:
                    _write(files, 0, output_of, line, said)  # a greeting of the login shell there
                else:
                    return
    except OSError as error:
        log.warning("parallel: a slave's output cannot be written any more: %s", error)
    finally:
        for file in files.values():
            if file is not None:
                file.close()


def _write(
    files: dict[int, IO[bytes] | None],
    place: int,
    output_of: Callable[[int], str | None],
    data: bytes,
    said: bytearray,
) -> None:
    """Write what came to that slave's file; keep the end of it if it is the slave program's, and has none."""
    if place not in files:
        path = output_of(place)
        files[place] = append_to(path, buffering=0) if path else None
    file = files[place]
    if file is not None:
        file.write(data)
    elif not place:
        said += data
        del said[:-_KEPT]
