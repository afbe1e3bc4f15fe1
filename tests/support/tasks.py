"""Tasks and setups that the tests send to slaves."""

from __future__ import annotations

import collections
import ctypes
import gc
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn


def give(*values: object) -> Any:
    """What it was given: nothing as None, one as itself, more as a tuple."""
    return values[0] if len(values) == 1 else values or None


def square(x: float) -> float:
    return x * x


def arguments_are(*args: object) -> tuple[object, ...]:
    """The arguments as the slave saw them."""
    return args


class Slotted:
    """A task with __slots__ and no __dict__."""

    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x

    def __call__(self, *args: object) -> int:
        return self.x


class Falsy(Slotted):
    """A task that is false."""

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


class Counter:
    """Has a bound method to be a task."""

    def __init__(self, start: int) -> None:
        self.start = start

    def plus_one(self) -> int:
        return self.start + 1


def raise_value_error(message: str = "no good") -> NoReturn:
    raise ValueError(message)


class Particular(Exception):
    """Its constructor takes other arguments than its args, so that its own pickle cannot be loaded."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code, self.where = code, where


def raise_particular() -> NoReturn:
    raise Particular(7, where="the door")


class Stubborn(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("stubborn")
        self.lock = threading.Lock()


def raise_stubborn() -> NoReturn:
    raise Stubborn


class MuteError(Exception):
    """Its str() fails."""

    def __str__(self) -> str:
        raise RuntimeError("mute")


def raise_mute() -> NoReturn:
    raise MuteError


def unpicklable() -> object:
    return {"model": [threading.Lock()]}


def stranger() -> object:
    """An instance of a class that exists in the slave only."""
    module = type(sys)("only_here")
    exec("class Thing: pass", module.__dict__)
    sys.modules["only_here"] = module
    return module.Thing()


def setup_log(path: str, value: object) -> object:
    """Say in a file that this setup ran in this process, and return ``value``."""
    with Path(path).open("a") as log:
        log.write(f"{os.getpid()}\n")
    return value


def failing_setup() -> NoReturn:
    raise LookupError("no such data set")


def failing_setup_on(number: int) -> str:
    """Fails on the slave whose output file has this number."""
    if f"slave{number}." in os.readlink("/proc/self/fd/1"):
        raise LookupError("not on this one")
    return "fine"


class Held:
    """What a setup returned; can be counted in the slave's memory."""


def hold() -> Held:
    return Held()


def count_held(*_: object) -> int:
    gc.collect()
    return sum(isinstance(thing, Held) for thing in gc.get_objects())


def who() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def pid_of(*_: object) -> int:
    return os.getpid()


def say(text: str) -> None:
    print(text)


def wait_for(path: str, *_: object) -> int:
    """Tell by ``path.started`` that it runs, and run until ``path`` exists."""
    started, whole = Path(path + ".started"), Path(f"{path}.{os.getpid()}")
    whole.write_text(f"{os.getpid()}\n")
    try:
        os.link(whole, started)  # as soon as it is there it has its line: whoever waits for it may stop us at once
    except FileExistsError:
        with started.open("a") as log:
            log.write(whole.read_text())
    whole.unlink()
    pause = threading.Event()
    while not Path(path).exists():
        pause.wait(0.01)
    return os.getpid()


def race(log: str, winner: int) -> int:
    """Of two runs that are on at the same time this one is done, the other one never; each notes its process."""
    log_line(log)
    pause = threading.Event()
    while True:
        pids = Path(log).read_text().split()
        if len(pids) == 2 and pids[winner] == str(os.getpid()):
            return winner
        pause.wait(0.01)


def quick_or_race(log: str, winner: int, item: int) -> int:
    """The same for one item, while others are quick."""
    return race(log, winner) if item < 0 else item


def spin(seconds: float, *_: object) -> float:
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def blob(size: int, *_: object) -> bytes:
    return bytes(size)


class Weighed(NamedTuple):
    """A large value, checked without sending it."""

    size: int
    total: int


def blob_in_list(size: int, *_: object) -> list[bytes]:
    return [bytes(size)]


def random_number(*_: object) -> float:
    return random.random()


def surroundings() -> tuple[str, list[str], list[str]]:
    return str(Path.cwd()), sys.path, sys.argv


def call(function: Callable[..., object], *args: object) -> object:
    return function(*args)


def history() -> Iterator[int]:
    yield from collections.deque([1, 2])


def make_manager() -> object:
    """What a task must not do."""
    import parallel

    return parallel.Manager()


def version(*_: object) -> tuple[int, int]:
    return sys.version_info[:2]


def leave_child() -> int:
    """Start a child that outlives the task."""
    child = os.fork()
    if not child:
        threading.Event().wait(600)
        os._exit(0)
    return child


def setup_is_lock(lock: object) -> bool:
    return hasattr(lock, "acquire")


def version_slowly(*_: object) -> tuple[int, ...]:
    spin(0.05)
    return tuple(sys.version_info[:2])


def blob_with(size: int, *_: object) -> bytes:
    return bytes(size)


def raise_particular_with(*_: object) -> NoReturn:
    raise_particular()


def hold_the_interpreter(log: str, seconds: float) -> str:
    """Compute for so long in one call of compiled code, which no other thread can interrupt."""
    with Path(log).open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    count = 200_000
    while True:
        began = time.perf_counter()
        sum(range(count))
        took = time.perf_counter() - began
        if took >= seconds:
            return "held"
        count = int(count * min(100.0, max(1.5, 1.1 * seconds / max(took, 1e-6))))


def limit_memory(more: int) -> None:
    """Let this process have at most ``more`` bytes of address space more than it has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def give_first(first: object, *_: object) -> object:
    return first


def fail_times(log: str, times: int) -> str:
    """Raise so many times, counted in a file, and then be done."""
    with Path(log).open("a+") as file:
        file.write(".")
        file.seek(0)
        count = len(file.read())
    if count <= times:
        raise ValueError(f"failure {count}")
    return "done"


def say_and_wait(text: str, path: str) -> int:
    print(text)
    return wait_for(path)


def log_line(log: str) -> None:
    with Path(log).open("a") as lines:
        lines.write(f"{os.getpid()}\n")


def blob_logged(log: str, size: int) -> bytes:
    log_line(log)
    return bytes(size)


def length_logged(log: str, data: bytes) -> int:
    log_line(log)
    return len(data)


def give_both(first: object, second: object) -> tuple[object, object]:
    return first, second


def noted(path: str, size: int) -> bytes:
    """Notes each of its runs, and returns so many bytes."""
    with open(path, "a") as file:
        file.write("!")
    return bytes(size)


def note(log: str, number: int) -> int:
    """Some ten microseconds of work; tells the file that it ran."""
    handle = _logs.get(log)
    if handle is None:
        handle = _logs[log] = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, b"%d\n" % number)
    return number


_logs: dict[str, int] = {}


def hold_lock_until(fifo: str) -> str:
    """Holds the interpreter's lock until somebody writes into the FIFO."""
    handle = os.open(fifo, os.O_RDWR)
    ctypes.PyDLL(None).read(handle, ctypes.create_string_buffer(1), 1)  # PyDLL: the lock is not given away
    os.close(handle)
    return "held"


def same_process(pid: int) -> bool:
    return pid == os.getpid()


def text_of(path: str) -> str:
    return Path(path).read_text()


def modes_of(*paths: str) -> dict[str, int]:
    """The permissions of files there."""
    return {path: os.stat(path).st_mode & 0o777 for path in paths}
