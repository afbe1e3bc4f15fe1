"""PipedSlave: slaves behind a command whose stdin and stdout lead to the machine where they run (ssh, docker run -i).

The slave program travels over the pipe, and its output comes back on it (piped_program.py, bootstrap.py,
slave/pipe_agent.py); when the pipe ends, so do the slaves.  Tasks and results go over a connection of the slaves to the
master, as always.
"""

from __future__ import annotations

import io
import logging
import random
import secrets
import time

from ..exits import describe_exit, last_lines
from .arguments import whole_number
from .base import Slave
from .bootstrap import hello_of, payload
from .job import Job
from .piped_program import PipedProgram

log = logging.getLogger("parallel")

_TRIES = 10  # how often a command is started that is refused for what may pass
_PAUSE = 1.0, 30.0  # seconds between two of them, about: at first, at most
_SILENT = 10.0  # seconds after which a command had better have started the slave program


class PipedSlave(Slave):
    """See the module's text.  Derive from it and define `command`."""

    def __init__(self, runners: int | None) -> None:
        self.runners = None if runners is None else whole_number(runners, type(self).__name__)
        self._program: PipedProgram | None = None
        self._job: Job | None = None
        self._since, self._again = 0.0, 0.0  # when it was started last; when it is started again, 0 if it runs
        self._tries = 0

    def command(self, python: str | None, nonce: tuple[int, int]) -> list[str]:
        """The command line; ``python`` as given to the manager, ``nonce`` for `receiving_command`."""
        raise TypeError(f"{type(self).__name__} must define command(python, nonce)")

    def start(self, job: Job) -> None:
        """See `Slave.start`."""
        self._job = job
        self._start(job)

    def _start(self, job: Job) -> None:
        nonce = secrets.randbits(48), secrets.randbits(48)
        data = payload(job.orders, self.runners)
        command, hello = self.command(job.python, nonce), hello_of(nonce)
        self._program = PipedProgram(command, hello, data, job.output_of, repr(self))
        self._since, self._again = time.monotonic(), 0.0
        self._tries += 1

    def poll(self) -> str | None:
        """See `Slave.poll`."""
        assert self._program is not None and self._job is not None
        if self._again:
            if time.monotonic() >= self._again:
                self._start(self._job)
            return None
        code = self._program.code
        if code is None:
            self._tell(time.monotonic() - self._since)
            return None
        self._program.join()
        words = self._program.words
        if not self._program.came and self._tries < _TRIES and self.may_pass(code, words):
            self._pause(words)
            return None
        end = describe_exit(code)
        if self._job.output is None:
            end += last_lines(io.BytesIO(self._program.said or words.encode()), "; its last words")
        hint = self.hint(code, words)
        if not hint and code == 0 and not self._program.came:
            hint = "it ended without having run what starts Python; perhaps the other side runs a command of its own"
        return f"{end} ({hint})" if hint else end

    def _tell(self, seconds: float) -> None:
        assert self._program is not None
        self.doing = f"its command was started {seconds:.0f} s ago, and it is not connected"
        self.trouble = ""
        if not self._program.came:
            self.doing = f"its command was started {seconds:.0f} s ago, and has not started the slave program"
            if seconds > _SILENT:
                self.trouble = self.silence()

    def _pause(self, words: str) -> None:
        pause = min(_PAUSE[1], _PAUSE[0] * 2 ** (self._tries - 1)) * random.uniform(0.5, 1.5)
        self._again = time.monotonic() + pause
        last = (words.strip().splitlines() or ["it said nothing"])[-1]
        self.doing = f"it was refused ({last}); it is tried again"
        log.info("parallel: %r was refused (%s); it is tried again in %.1f s", self, last, pause)

    def hint(self, code: int, words: str) -> str:
        """What to do, when it has ended with ``code``; '' for nothing.

        ``words``: what the command and the shell there said; not what slaves and tasks did.
        """
        return ""

    def may_pass(self, code: int, words: str) -> bool:
        """Whether what it ended of, before it had started the slave program, may have passed when it is tried again."""
        return False

    def silence(self) -> str:
        """What may be wrong if the command runs, and does not start the slave program; '' if that is not known."""
        return ""

    def stop(self) -> None:
        """See `Slave.stop`.  When stdin is closed, the other end cleans up."""
        self._tries, self._again = _TRIES, 0.0
        if self._program is not None:
            self._program.stop()
