"""PipedProgram: one run of a command whose stdin and stdout lead to where the slave program is to run.

Nothing is sent before the other end has said that it is ours: until then a shell's startup file may have put another
shell in its place, which would take the key for commands.  What it says is a number that the command does not show.

What the command itself says, and the shell that it starts there, comes on stderr, or before that number; all that
slaves and tasks print comes in frames (slave/pipe_agent.py).  So the one is never taken for the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import IO, Callable

from slave.private_files import append_to

from .process import CommandProcess

log = logging.getLogger("parallel")

_KEPT = 4096  # bytes of what is said
_TO_END = 2.0  # seconds for the slave program to clean up when the pipe is closed


class PipedProgram:
    """Started at once.  ``hello``: what the other end says first; ``data``: what it is told then.

    ``output_of``: by a slave's place its output file, None for none.  Raises as `CommandProcess`.
    """

    def __init__(
        self, command: Sequence[str], hello: bytes, data: bytes, output_of: Callable[[int], str | None], name: str
    ) -> None:
        self._hello, self._data, self._output_of = hello, data, output_of
        self._process = CommandProcess(command, None, pipe=True)
        self.came = False  # whether the other end is ours
        self._fed = threading.Event()  # it has taken in all that it is told, or will not
        self._words, self._said = bytearray(), bytearray()
        self._threads = [
            threading.Thread(target=body, daemon=True, name=f"parallel {name}")
            for body in (self._talk, self._listen_to_errors)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.code

    @property
    def words(self) -> str:
        """The end of what the command and the shell there said."""
        return bytes(self._words).decode(errors="replace")

    @property
    def said(self) -> bytes:
        """The end of what the slave program said, if that goes to no file."""
        return bytes(self._said)

    def join(self) -> None:
        """The command has ended: wait until all that it said is known."""
        if self._fed.wait(_TO_END):
            self._close_stdin()
            for thread in self._threads:
                thread.join(_TO_END)

    def stop(self) -> None:
        """End it.  When stdin is closed, the other end cleans up."""
        if self._fed.is_set() and self.came:  # else it reads nothing, and closing would wait for it
            self._close_stdin()
            self._process.wait(_TO_END)
        self._process.stop()
        self.join()

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended already

    # -- its threads

    def _talk(self) -> None:
        """Wait for the other end's word, tell it what it is to know, and take its output apart."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        files: dict[int, IO[bytes] | None] = {}
        try:
            with stdout:
                if self._wait_for_hello(stdout, files):
                    self.came = True
                    self._feed(stdin)
                    self._take_apart(stdout, files)
        except OSError as error:
            log.warning("parallel: a slave's output cannot be written any more: %s", error)
        finally:
            self._fed.set()
            for file in files.values():
                if file is not None:
                    file.close()

    def _wait_for_hello(self, stdout: IO[bytes], files: dict[int, IO[bytes] | None]) -> bool:
        """False if it ends without; what comes before is a greeting of the login shell there."""
        for line in stdout:
            if line.rstrip().endswith(self._hello):
                return True
            _keep(self._words, line)
            self._write(files, 0, line)
        return False

    def _feed(self, stdin: IO[bytes]) -> None:
        try:
            stdin.write(self._data)
            stdin.flush()
        except OSError:
            pass  # it has ended: its exit code tells how
        self._fed.set()

    def _take_apart(self, stdout: IO[bytes], files: dict[int, IO[bytes] | None]) -> None:
        while True:
            line = stdout.readline()
            words = line.split()
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
                self._write(files, int(words[0]), stdout.read(int(words[1])))
            elif line:
                self._write(files, 0, line)
            else:
                return

    def _write(self, files: dict[int, IO[bytes] | None], place: int, data: bytes) -> None:
        if place not in files:
            path = self._output_of(place)
            files[place] = append_to(path, buffering=0) if path else None
        file = files[place]
        if file is not None:
            file.write(data)
        elif not place:
            _keep(self._said, data)

    def _listen_to_errors(self) -> None:
        """What the command says, and the shell there, goes to the output file, and is kept for its remedies."""
        stderr = self._process.stderr
        assert stderr is not None
        files: dict[int, IO[bytes] | None] = {}
        try:
            with stderr:
                for line in stderr:
                    _keep(self._words, line)
                    self._write(files, 0, line)
        except OSError as error:
            log.warning("parallel: what a command says cannot be written any more: %s", error)
        finally:
            for file in files.values():
                if file is not None:
                    file.close()


def _keep(kept: bytearray, data: bytes) -> None:
    kept += data
    del kept[:-_KEPT]
