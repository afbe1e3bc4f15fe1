"""Processes that a task has forked and that come back from it: they leave at once, and the runner's value counts."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

came_back = False  # whether this process is a fork of the one that called `watch`


def watch() -> None:
    """This process is a runner's own."""
    global came_back
    came_back = False


def _forked() -> None:
    global came_back
    came_back = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def leave(error: BaseException | None) -> NoReturn:
    """End this process, a fork that came back with ``error`` or a value, as it would have ended in a program.

    Nothing of the runner's is cleaned up here: the connection, the output and what atexit knows are still its own.
    """
    code = 1
    try:
        code = _exit_code(error)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(type(error), error, error.__traceback__)
    return 1
