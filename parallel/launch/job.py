"""What a launcher is asked to run: the slave program's command line, and what it reads on stdin.  Pure functions.

The key travels on stdin (or in a file that only the user can read), never on the command line, which every user of
a machine can see.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Callable

from slave.named import NamedTuple

from ..errors import InputError

INHERITED = "-"  # in place of an output file: local slaves print where this process does

# "python -c" puts '' at the front of sys.path; a file named socket.py in the working directory must not break the slave
_BOOTSTRAP = "import sys; sys.path = [{root!r}] + [p for p in sys.path if p]; from slave.__main__ import run; run()"


class Job(NamedTuple):
    """One slave program to run: ``command`` (an argument vector), fed ``stdin``, with its output in ``output``.

    ``numbers`` are the slaves that it brings.  For a launcher that makes a command of its own: ``python``, as it was
    given to the manager; ``orders``, what ``stdin`` says; ``output_of``, by a slave's place in it (0: the first of
    ``numbers``) the name of its output file, also if there are more slaves than numbers.
    """

    command: tuple[str, ...]
    stdin: bytes
    numbers: tuple[int, ...]
    output: str | None
    python: str | None = None
    orders: Mapping[str, Any] = MappingProxyType({})
    output_of: Callable[[int], str | None] = lambda place: None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(numbers={self.numbers!r}, output={self.output!r})"  # the rest holds the key


def slave_command(python: str | None, root: str) -> tuple[str, ...]:
    """The argument vector that starts the slave program from the folder ``root``.

    ``python`` is a shell fragment ('nice python3', 'module load py; python3'); None means this interpreter.
    """
    bootstrap = _BOOTSTRAP.format(root=root)
    if python is None:
        return (this_python(), *interpreter_flags(), "-c", bootstrap, "--launched")
    return ("/bin/sh", "-c", f"{shell_python(python)} -c {shlex.quote(bootstrap)} --launched")


def this_python() -> str:
    """The path of this interpreter.  Raises `InputError` where it cannot be started as one."""
    if getattr(sys, "frozen", False):
        why = f"this program is frozen: {sys.executable} is not Python but the program itself"
    elif not sys.executable:
        why = (
            "this Python does not know where its interpreter is (sys.executable): it is part of another program, or "
            "was started without a PATH"
        )
    else:
        return sys.executable
    raise InputError(
        f"{why}; name a Python for the slaves that has this library and your modules: Manager(python='python3')"
    )


def shell_python(python: str | None) -> str:
    """The shell fragment that starts Python with this interpreter's flags; ``python``: as given to the manager."""
    if python is None:
        return shlex.join([this_python(), *interpreter_flags()])
    return " ".join([python, *map(shlex.quote, (flag for flag in interpreter_flags() if flag != "-P"))])


def flags_elsewhere() -> list[str]:
    """Those of them that another machine's interpreter, of another version perhaps, has a use for (not -B, -P)."""
    # "-P" is new in 3.11, and an older Python would refuse it; -X options that are not known are passed over
    left_out = {"-P", "-B", *(f"-W{one}" for one in os.environ.get("PYTHONWARNINGS", "").split(","))}  # a variable
    return [flag for flag in interpreter_flags() if flag not in left_out]


def interpreter_flags() -> list[str]:
    """The flags with which this interpreter was started, as far as they change what a program does."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return []  # they were chosen for a program that brings all its modules along: -I, -S
    try:
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing
    except ValueError:
        flags = []  # somebody has changed sys.warnoptions in a way that it does not expect
    known = {flag.partition("=")[0] for flag in flags}
    for name, value in getattr(sys, "_xoptions", {}).items():
        if name not in known and name != "frozen_modules":
            flags += ["-X", name if value is True else f"{name}={value}"]
    return flags


def slave_orders(
    agent: str,
    addresses: Sequence[tuple[str, int]],
    key: bytes,
    slots: Sequence[tuple[int, str | None]],
    wait: float,
    wait_refused: float,
    stays: bool,
    shielded: bool = False,
    master: str | None = None,
    encrypt: bool = True,
    master_pid: int = 0,
    quiet: bool = False,
    tied: bool = False,
) -> dict[str, Any]:
    """What the slave program is told: who it is, where the master is, the key.

    ``master``: the master's fingerprint, hex digits; None: any master with that key.  ``encrypt``: whether to insist on
    encryption.

    ``wait``: how many seconds to look for the master; ``wait_refused``: the same if its machine refuses connections.
    ``master_pid``: for a local slave the master's process, with which it ends; 0 elsewhere.
    ``stays``: whether it waits for new slaves when it has none any more.  ``shielded``: whether running tasks are to
    be spared when SIGTERM is sent to every process there.  ``quiet``: whether to say only what is wrong.
    ``tied``: whether its stdin ends when this process does.
    """
    where = {"addresses": list(addresses), "key": key.hex(), "wait": wait, "wait_refused": wait_refused}
    channel = {"master": master, "encrypt": encrypt, "master_pid": master_pid, "tied": tied}
    ways = {"stays": stays, "shielded": shielded, "quiet": quiet}
    return {"agent": agent, "slots": list(slots), **ways, **where, **channel}


def as_line(orders: Mapping[str, Any]) -> bytes:
    """The same as one line for its stdin."""
    return json.dumps(orders).encode() + b"\n"
