"""Tasks and setups that end their slave, or try to."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn


def leave(code: int | None = 3) -> NoReturn:
    sys.exit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt("by the task itself")


def recurse() -> int:
    return 1 + recurse()


def dying_setup() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def die(signum: int = signal.SIGKILL) -> NoReturn:
    os.kill(os.getpid(), signum)
    raise AssertionError("still alive")


def die_once(path: str) -> str:
    """Kill this process the first time."""
    mark = Path(path)
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        die()
    return "survived"


def speak_and_die() -> NoReturn:
    print("I ran out of ink")
    os._exit(9)


def kill_parent_once(path: str, signum: int) -> str:
    """Kill the agent, the first time; that ends this process too."""
    mark = Path(path)
    if mark.exists():
        return "survived"
    mark.touch()
    os.kill(os.getppid(), signum)
    threading.Event().wait(60)
    raise AssertionError("still alive")


def shout_and_go() -> None:
    """Say what ssh might, and end the whole slave."""
    print("me@node1: Permission denied (publickey).\npython3: not found", flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()  # this process ends with its agent
