"""How processes ended, in words."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import IO

_MEANING = {
    "SIGKILL": "perhaps out of memory",
    "SIGSEGV": "a crash in compiled code",
    "SIGBUS": "a crash in compiled code, or a full disk under mapped memory",
    "SIGFPE": "an arithmetic fault in compiled code",
    "SIGILL": "code compiled for another processor",
    "SIGABRT": "compiled code gave up",
    "SIGTERM": "somebody asked it to end",
    "SIGXCPU": "its CPU time limit",
}

# what to do when a slave says that it cannot connect
UNREACHABLE = (
    "if it tries the wrong addresses, name one of this machine that it can reach: Manager(host=...); "
    "if a firewall is between, open a port in it and name that: Manager(port=...)"
)


def describe_exit(code: int | None) -> str:
    """``code`` as multiprocessing and subprocess give it: negative for a signal, None for unknown."""
    if code is None:
        return "it ended in an unknown way"
    if code >= 0:
        return f"it exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"it was killed by signal {-code}"
    meaning = _MEANING.get(name)
    return f"it was killed by {name}" + (f", {meaning}" if meaning else "")


# the slave program's own codes (slave/errors.py), in words
_SLAVE_CODES = {
    3: "its key is not the master's",
    4: "it could not reach the master",
    5: "it had lost the master",
    6: "it and the master cannot work together",
    7: "it had no usable key",
    8: "what it was sent made no sense",
    9: "its machine, or a limit there (ulimit), left it without memory or open files",
}


def describe_slave_exit(code: int | None, host: str | None = None) -> str:
    """The same of a slave program on ``host``, whose exit codes say what was wrong."""
    meaning = _SLAVE_CODES.get(-1 if code is None else code)
    return describe_exit(code) + (f" on {host}" if host else "") + (f": {meaning}" if meaning else "")


def could_not_start(error: BaseException) -> str:
    """How a slave ended whose launcher raised."""
    return f"it could not be started: {type(error).__name__}: {error}"


def tail(path: str | None) -> str:
    """The last lines of an output file, indented, or '' if there is nothing to show."""
    if not path:
        return ""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return last_lines(file, f"; the end of {path}")
    except OSError:
        return ""


def tails(outputs: Iterable[tuple[int, str | None]]) -> dict[int, str]:
    """The same of several slaves, by number; without those that have nothing to show."""
    found = {number: tail(path) for number, path in outputs}
    return {number: text for number, text in found.items() if text}


def last_lines(file: IO[bytes], title: str, lines: int = 10, most: int = 4096) -> str:
    """The same of an open file, under a title."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - most))
    last = file.read().decode(errors="replace").rstrip().splitlines()[-lines:]
    return f"{title}:\n" + "\n".join(f"    | {line}" for line in last) if last else ""


def last_line(file: IO[bytes], most: int = 2048) -> str:
    """The last line of an open file that is not blank."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - most))
    lines = file.read().decode(errors="replace").rstrip().splitlines()
    return lines[-1] if lines else ""


def _without_waiting(path: str, flags: int) -> int:
    """For `open`: a FIFO that somebody has put there would else wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
