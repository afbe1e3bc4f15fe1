"""Ahead: an interpreter that imports the slave program while this one still imports the master's modules.

Each takes a tenth of a second; one after the other they were most of the time to the first result.  `Manager` starts it
where local slaves are likely, before it imports most of the master.  It reads its orders from stdin as any agent does
(slave/cli.py), and so waits for them, and ends if this process does.  It becomes the agent of the local slaves, unless
something that a process gets from its parent has changed by then; if there are none, it is ended.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Any

from ..errors import InputError
from .job import slave_command
from .run_command import environment, file_in_memory

_LOOK_SECONDS = 0.005  # between two looks whether it has ended
_DEATH_SECONDS = 2.0  # for the system to end a killed process


class Ahead:
    """One such process.  ``said``: the file where its output goes."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes], inherited: object) -> None:
        self.said, self._inherited = said, inherited
        self._waiting = [process]  # until somebody takes it: that is one step, whatever a signal's handler does

    @classmethod
    def begin(cls, root: str) -> Ahead | None:
        """Start one, if it can be had.  ``root``: the folder of the package ``slave``."""
        if os.name != "posix":
            return None
        try:
            command = slave_command(None, root)
            inherited, said = _inherited(command), file_in_memory()
            process = begin_agent(command, said, subprocess.STDOUT)
        except (OSError, InputError):  # the start of the slaves tells, if it still is so
            return None
        return cls(process, said, inherited)

    def take(self, command: tuple[str, ...]) -> subprocess.Popen[bytes] | None:
        """The process, for whoever would start one by that command now; None if it is not what would be started."""
        process = self._take()
        if process is None:
            return None
        if process.poll() is None and _inherited(command) == self._inherited:
            return process
        self._end(process)
        return None

    def end(self) -> None:
        """End it, if nobody has taken it; takes no lock."""
        process = self._take()
        if process is not None:
            self._end(process)

    def _take(self) -> subprocess.Popen[bytes] | None:
        try:
            return self._waiting.pop()
        except IndexError:
            return None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        ends(process, _DEATH_SECONDS)
        hang_up(process)
        self.said.close()


def begin_agent(
    command: Sequence[str], stdout: IO[bytes] | int | None, stderr: IO[bytes] | int | None
) -> subprocess.Popen[bytes]:
    """Start an agent, which waits for its orders on stdin.  Raises OSError."""
    # a session of its own: Ctrl-C in the terminal is for the master, which then ends its slaves in good order
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment(), start_new_session=True
    )


def ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for its end.  Popen.wait would keep a lock meanwhile, for which a signal handler then waits in vain."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """Close its stdin."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except OSError:
        pass  # nobody reads it any more


def _inherited(command: tuple[str, ...]) -> object:
    """All that a process gets from this one."""
    folder: Any = None
    try:
        folder = os.stat(".")
    except OSError:
        pass  # it was deleted
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return command, environment(), folder and (folder.st_dev, folder.st_ino), processors, os.nice(0), _limits()


def _limits() -> list[tuple[int, int]]:
    import resource

    return [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
