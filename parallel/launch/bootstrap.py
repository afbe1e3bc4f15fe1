"""How slave.pyz (slave_file.py) gets to machines that need have nothing of the slave program, and how it is started."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

import slave

from .job import shell_python
from .slave_file import slave_file

# The receiving end of a pipe, as argument of "python -c": runs the source that comes first on stdin.
# Neither quotes nor an exclamation mark, so that any login shell lets it through.  First it says who it is, by a sum: a
# shell that shows its commands, or takes another command's place, does not say that.
# Python 2 gets as far as to say that it is too old.
RECEIVER = (
    "import sys; print({} + {}); sys.stdout.flush(); i = sys.stdin.buffer if sys.version_info[0] - 2 else sys.stdin; "
    "exec(i.read(int(i.readline())))"
)

_TOO_OLD = """
if sys.version_info < (3, 9):
    sys.stderr.write("slave: this is Python %d.%d (%s); a slave needs 3.9 or newer: name one, python='...'\\n"
                     % (sys.version_info[:2] + (sys.executable,)))
    sys.exit(6)
exec(i.read(int(i.readline())))
"""


def payload(orders: Mapping[str, Any], runners: int | None) -> bytes:
    """What `RECEIVER` is fed: slave/pipe_agent.py, its orders (see there), the archive."""
    with open(os.path.join(os.path.dirname(slave.__file__), "pipe_agent.py"), encoding="utf-8") as file:
        pipe_agent = file.read() + "\nsys.exit(main(i))\n"
    header = {"archive": len(slave_file()), "runners": runners, "orders": orders}
    return _sized(_TOO_OLD) + _sized(pipe_agent) + json.dumps(header).encode() + b"\n" + slave_file()


def hello_of(nonce: tuple[int, int]) -> bytes:
    """What the receiving end says before it reads anything."""
    return b"%d" % sum(nonce)


def receiving_command(python: str, nonce: tuple[int, int]) -> str:
    """The shell command, for a machine at the other end of a pipe, that takes in a `payload`.

    ``python``: a shell fragment.  ``nonce``: two numbers, which make the word that it says first, `hello_of`.  It is
    wrapped so that the login shell there may be any.
    """
    return f"/bin/sh -c {shlex.quote(f'{shell_python(python)} -c {shlex.quote(RECEIVER.format(*nonce))}')}"


def archive_command(python: str | None, path: str) -> str:
    """The shell command that starts the slave program from the file ``path``; its orders come on stdin."""
    return f"{shell_python(python)} {shlex.quote(path)} --launched"


def _sized(source: str) -> bytes:
    data = source.encode()
    return b"%d\n" % len(data) + data
