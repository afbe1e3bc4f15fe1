"""Tasks that misbehave: each returns 'rude', or raises what it must, and leaves its process changed."""

from __future__ import annotations

import gc
import locale
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, NoReturn


def close_descriptors() -> str:
    os.closerange(3, 1000)
    return "rude"


def close_all_descriptors() -> str:
    os.closerange(0, 1000)
    return "rude"


def reuse_descriptors() -> str:
    """Close everything and let files of its own take the numbers."""
    os.closerange(3, 1000)
    for _ in range(20):
        os.open("/dev/zero", os.O_RDWR)
    return "rude"


def leave_children() -> str:
    for detached in (False, True):
        subprocess.Popen(["sleep", "60"], start_new_session=detached)
    return "rude"


def leave_forks() -> str:
    """A child and a grandchild that hold copies of everything this process has."""
    if not os.fork():
        if not os.fork():
            os.setsid()
        threading.Event().wait(20)
        os._exit(0)
    return "rude"


def leave_daemon_thread() -> str:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return "rude"


def leave_thread() -> str:
    threading.Thread(target=threading.Event().wait).start()
    return "rude"


def change_folder() -> str:
    os.chdir("/")
    return "rude"


def change_environment() -> str:
    os.environ.clear()
    os.environ.update(HOME="/nonexistent", PYTHONPATH="/nonexistent", PARALLEL_AUTHKEY="another key, and a wrong one")
    return "rude"


def change_path() -> str:
    sys.path.append("/nonexistent")
    sys.argv[:] = []
    return "rude"


def change_signals() -> str:
    for name in ("SIGTERM", "SIGINT", "SIGCHLD", "SIGHUP", "SIGPIPE", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    return "rude"


def change_locale() -> str:
    locale.setlocale(locale.LC_ALL, "C")
    os.umask(0o777)
    return "rude"


def close_streams() -> str:
    sys.stdout.close()
    sys.stderr.close()
    sys.stdin = sys.stdout = sys.stderr = None
    return "rude"


def default_timeout() -> str:
    socket.setdefaulttimeout(0.001)
    return "rude"


def switch_off() -> str:
    gc.disable()
    random.seed(1)
    sys.setrecursionlimit(200)
    time.sleep = lambda seconds: None
    return "rude"


def write_much() -> str:
    block = "x" * 1023
    for _ in range(200 * 1024):
        print(block)
    return "rude"


def take_all_memory(procs: str) -> NoReturn:
    """Join a control group that has little memory, and fill it."""
    Path(procs).write_text(str(os.getpid()))
    kept = []
    while True:
        block = mmap.mmap(-1, 1 << 20)
        block.write(b"x" * (1 << 20))
        kept.append(block)


class Explosive:
    """Raises when it is pickled (as a result) or rebuilt (as a task)."""

    def __init__(self, kind: type[BaseException], when: str) -> None:
        self.kind, self.when = kind, when

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            raise self.kind("while it is pickled")
        return explode, (self.kind, "while it is rebuilt")

    def __call__(self) -> None:
        raise AssertionError("it was rebuilt")


def explode(kind: type[BaseException], text: str) -> NoReturn:
    raise kind(text)


class Asked(Exception):
    """Looks up what it lacks, and raises what a dictionary raises."""

    def __getattr__(self, name: str) -> object:
        return {"known": 1}[name]


class Speechless(RuntimeError):
    """Exits when it is asked what it says."""

    def __str__(self) -> str:
        raise SystemExit(5)


NOTHING: dict[str, Any] = {}


class Nameless(ImportError):
    """Does not say which module it misses, nor what has caused it."""

    name = property(lambda self: NOTHING["name"])
    __cause__ = property(lambda self: NOTHING["cause"])


class Elsewhere(OSError):
    """Has neither a number nor a class nor a traceback."""

    errno = property(lambda self: NOTHING["errno"])
    __class__ = property(lambda self: NOTHING["class"])
    __traceback__ = property(lambda self: NOTHING["traceback"])


HOSTILE: tuple[type[BaseException], ...] = (Asked, Speechless, Nameless, Elsewhere)


def explosive_result(kind: type[BaseException]) -> Explosive:
    return Explosive(kind, "pickled")


TASKS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        close_descriptors,
        close_all_descriptors,
        reuse_descriptors,
        leave_children,
        leave_forks,
        leave_daemon_thread,
        leave_thread,
        change_folder,
        change_environment,
        change_path,
        change_signals,
        change_locale,
        close_streams,
        default_timeout,
        switch_off,
    )
}
