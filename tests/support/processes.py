"""Tasks that do to their process what programs do: fork, read, print, log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


def give(*values: object) -> object:
    """What it was given."""
    return values


def come_back(way: str) -> object:
    """In a forked child: leave the task in the given way."""
    if way == "sys.exit":
        sys.exit()
    if way == "a code":
        sys.exit(7)
    if way == "a text":
        sys.exit("something went wrong")
    if way == "an exception":
        raise ValueError("in the child")
    if way == "a failed exec":
        os.execv("/no/such/program", ["program"])
    return ("child", way)


def fork_and_come_back(way: str, number: int) -> object:
    """Fork; the child comes back in the given way, the parent says with which code."""
    child = os.fork()
    if not child:
        return come_back(way)
    return "parent", number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_go_on(go: str, code: str) -> int:
    """The child comes back when the file ``go`` exists; a grandchild's parent writes its code down."""
    if not os.fork():
        child = os.fork()
        pause = threading.Event()
        if not child:
            while not Path(go).exists():
                pause.wait(0.01)
            sys.exit(3)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _note(code, ended)
        os._exit(0)
    return os.getpid()


def read_everything() -> tuple[str, str, bytes]:
    """What the process, its file object and a program can read from standard input."""
    return sys.stdin.read(), open(0, closefd=False).read(), subprocess.run(["cat"], stdout=-1, check=True).stdout


def print_in_many_ways(number: int, full: bool = False) -> int:
    """Print, and have programs print; ``full``: where programs would say that the disk is full."""
    print("working on", number, "\u2192")
    print("an error", file=sys.stderr, flush=True)
    sys.stdout.write("no line")
    sys.stdout.flush()
    if not full:
        subprocess.run("echo from a program; echo and its errors >&2", shell=True, check=True)
    return number


def configure_logging(path: str) -> None:
    """As a setup does."""
    logging.basicConfig(filename=path, level=logging.INFO, format="%(message)s")


def log_a_step() -> int:
    """Log to the root logger; returns its level."""
    logging.info("step done")
    return logging.getLogger().level


def _note(path: str, number: int) -> None:
    """Write it there: as soon as there is such a file, the number is in it."""
    draft = Path(f"{path}.draft")
    draft.write_text(str(number))
    draft.replace(path)


def start(way: str, path: str, done: bool = False, together: str = "") -> tuple[int, int]:
    """Start something that runs for long, write its process id to ``path.pid``, and wait for it unless ``done``.

    ``together``: return when two have done so in that folder, which takes two slaves.
    """
    pid = {
        "a program": lambda: subprocess.Popen(["sleep", "600"]).pid,
        "a session of its own": lambda: subprocess.Popen(["sleep", "600"], start_new_session=True).pid,
        "a daemon": lambda: _daemon("600"),
        "a daemon that takes its time": lambda: _daemon("600", 0.2),
        "a fork with a session of its own": _fork_with_session,
    }[way]()
    _note(path + ".pid", pid)
    pause = threading.Event()
    while together and len(list(Path(together).glob("*.pid"))) < 2:
        pause.wait(0.01)
    if not (done or together):
        pause.wait(600)
    return os.getpid(), pid


def _daemon(seconds: str, pause: float = 0.0) -> int:
    """As daemons do: a fork, a session, another fork, and the first parent ends.  It runs a program after a pause.

    Without one it does when this returns: before, nothing tells whose it is.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        grandchild = os.fork()
        if not grandchild:
            threading.Event().wait(pause)
            os.execvp("sleep", ["sleep", seconds])
        os.write(write, str(grandchild).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    pid = int(os.read(read, 20))
    if not pause:
        os.read(read, 1)  # its end of the pipe closes with the start of the program
    os.close(read)
    return pid


def _fork_with_session() -> int:
    child = os.fork()
    if not child:
        os.setsid()
        threading.Event().wait(600)
        os._exit(0)
    return child


def start_daemon_that_ends(path: str) -> int:
    """A daemon that ends soon, whose process id is written down."""
    _note(path, _daemon("0.1"))
    return os.getpid()


def give_with_pid(number: int) -> tuple[int, int]:
    """Which process it was."""
    return number, os.getpid()


def of_all(name: str) -> Iterator[tuple[int, str]]:
    """The process id of everybody, and what stands in that file of /proc."""
    for process in Path("/proc").glob("[0-9]*"):  # a longer pattern raises if one ends just then
        try:
            text = (process / name).read_text(errors="replace")
        except OSError:
            continue  # it has ended
        yield int(process.name), text


def command_lines() -> str:
    """What ``ps`` shows of everybody."""
    return "\n".join(text.replace("\0", " ") for _, text in of_all("cmdline"))
