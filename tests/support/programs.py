"""Real programs: slaves started by hand, scripts, other Pythons."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import AnyStr

from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the checkout importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def without_waiting(shown: AnyStr) -> AnyStr:
    """What was shown, but for what a master says that waits for long: on a busy machine it does."""
    if isinstance(shown, bytes):
        return re.sub(rb"(?m)^parallel: waiting.*\n", b"", shown)
    return re.sub(r"(?m)^parallel: waiting.*\n", "", shown)


class Program:
    """A running program, whose output is collected in the background."""

    def __init__(self, *command: str, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out, self.err = "", ""
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in ("out", "err")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                setattr(self, name, getattr(self, name) + line)

    def says(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait until its output matches; returns the match."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self.err + self.out)

        try:
            found = eventually(look, seconds, f"output that matches {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; stdout:\n{self.out}\nstderr:\n{self.err}") from None
        assert found is not None
        return found

    @property
    def complaints(self) -> str:
        """Its standard error, but for what a master waits for: on a busy machine it has something to wait for."""
        return without_waiting(self.err)

    def ends(self, seconds: float = 60.0) -> int:
        """Wait for its end; returns its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"still running after {seconds:g} s; stdout:\n{self.out}\nstderr:\n{self.err}"
            ) from None
        self._read_to_the_end()
        return code

    def kill(self) -> None:
        """End it now."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._read_to_the_end()

    def _read_to_the_end(self, seconds: float = 30.0) -> None:
        """All that it printed; what it left behind may print, too, and has to end soon."""
        for reader in self._readers:
            reader.join(seconds)
        if any(reader.is_alive() for reader in self._readers):
            held = {stream.fileno() for stream in (self.process.stdout, self.process.stderr) if stream}
            pipes = {os.readlink(f"/proc/self/fd/{fd}") for fd in held}
            raise AssertionError(f"it has ended, but its output is still held by {holders(pipes)}; stderr:\n{self.err}")


def holders(pipes: set[str]) -> list[str]:
    """The processes, but this one, that have one of these open (named as in /proc/PID/fd): id and command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            open_ones = {os.readlink(fd) for fd in (process / "fd").iterdir()}
            if open_ones & pipes and process.name != str(os.getpid()):
                found.append(f"{process.name}: " + (process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return found


def slave(*arguments: str, python: str = sys.executable, **variables: str) -> Program:
    """``python -m slave ...``"""
    return Program(python, "-m", "slave", *arguments, variables=variables)


def script(path: Path, text: str, *arguments: str, python: str = sys.executable, **variables: str) -> Program:
    """Write a script and run it where it is."""
    path.write_text(text)
    return Program(python, path.name, *arguments, cwd=path.parent, variables=variables)


def pythons() -> list[tuple[str, str]]:
    """The supported Python versions found on this machine: version and path."""
    found = []
    for version in VERSIONS:
        for candidate in [*pyenv(version), shutil.which(f"python{version}")]:
            if candidate and _runs(candidate, version):
                found.append((version, candidate))
                break
    return found


def pyenv(version: str) -> list[str]:
    """Interpreters of a version that pyenv has installed."""
    root = os.environ.get("PYENV_ROOT")
    if not root:
        return []
    return [str(path / "bin" / "python") for path in sorted((Path(root) / "versions").glob(f"{version}.*"))]


def _runs(candidate: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version
