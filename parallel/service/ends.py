"""How processes ended, in words."""

from __future__ import annotations

import os
import signal
from typing import IO

from ..core.lease_table import GivenUp

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


def fate(back: int, given_up: GivenUp | None) -> str:
    """What becomes of the ``back`` tasks that a lost slave held."""
    if not back:
        return ""
    tasks = "; its task goes to another slave" if back == 1 else f"; its {back} tasks go to other slaves"
    if given_up is None:
        return tasks
    reason = "given up: it ended its slave too often"
    return f"; its task is {reason}" if back == 1 else f"{tasks}, but for one that is {reason}"


def tail(path: str | None) -> str:
    """The last lines of an output file, indented, or '' if there is nothing to show."""
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            return last_lines(file, f"; the end of {path}")
    except OSError:
        return ""


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
