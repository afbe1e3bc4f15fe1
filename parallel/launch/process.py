"""CommandProcess: a command that a launcher runs on this machine to start slaves (ssh, mpirun, srun, qrsh)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import IO

from slave.private_files import append_to

from ..exits import describe_exit, last_lines
from .run_command import environment, temporary_file

_TO_END = 2.0  # seconds between SIGTERM and SIGKILL


class CommandProcess:
    """Started at once.  What it says goes to the end of the file ``output``; if that is None, it is kept for `poll`.

    ``pipe``: ``stdin``, ``stdout`` and ``stderr`` are pipes, there is no file, and nothing is kept.
    Raises OSError if there is no such program, or the file cannot be written or is not ours (`open_output`).
    """

    def __init__(self, command: Sequence[str], output: str | None, pipe: bool = False) -> None:
        self._said: IO[bytes] | None = None
        if not pipe:
            self._said = append_to(output) if output else temporary_file()
        self._kept = output is None
        try:
            # in a session of its own: Ctrl-C in the terminal is for the master, which ends its slaves in good order
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else self._said,
                stderr=subprocess.PIPE if pipe else subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        except BaseException:
            if self._said is not None:
                self._said.close()
            raise
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._end: str | None = None

    def poll(self) -> str | None:
        """None while it runs, then how it ended and, if that went to no file, the last lines of what it said."""
        code = self._process.poll()
        if code is not None and self._end is None:
            self._end = describe_exit(code)
            if self._said is not None:
                self._end += last_lines(self._said, "; its last words") if self._kept else ""
                self._said.close()
        return self._end

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Wait at most so long until it ends by itself."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def stop(self) -> None:
        """End it: SIGTERM, with which mpirun and srun end what they started, then SIGKILL for its whole group."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            self.wait(_TO_END)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self.poll()

    def _signal(self, signum: int) -> None:
        """Tell the whole group: the program may be a shell that waits for the real one."""
        if hasattr(os, "killpg"):
            try:
                os.killpg(self._process.pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # nobody is left
        else:
            self._process.kill()
