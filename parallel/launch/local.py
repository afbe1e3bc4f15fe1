"""LocalSlave: a slave on this machine.  All of one manager share one agent process."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from typing import IO, Callable

from ..service.ends import describe_exit, last_lines
from .base import Slave
from .job import Job


class LocalSlave(Slave):
    """One runner on this machine: add as many as there are CPUs to use."""


class LocalAgent:
    """The agent process of a manager's local slaves.  ``on_end`` is called, in another thread, when it has ended."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, job: Job) -> None:
        """Start the agent.  Raises OSError if there is no such program."""
        # without an output file its own words are kept, to be told if it ends
        output = open(job.output, "ab") if job.output else tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        try:
            # a session of its own: Ctrl-C in the terminal is for the master, which then ends its slaves in good order
            self._process = subprocess.Popen(
                job.command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except BaseException:
            output.close()
            raise
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(job.stdin)
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, and the thread below tells how
        arguments = (self._process, output, job.output)
        threading.Thread(target=self._watch, args=arguments, daemon=True, name="parallel local agent").start()

    def _watch(self, process: subprocess.Popen[bytes], output: IO[bytes], path: str | None) -> None:
        end = describe_exit(process.wait())
        with output:
            self._on_end(end if path else end + last_lines(output, "; its last words"))

    def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for it to end, then kill it; its runners end with it."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            try:
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended
            process.kill()
            process.wait()
