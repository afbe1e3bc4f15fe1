"""Whether a process that has imported something may be forked, so that its forks do what fresh processes would do.

It is looked at from outside, before and after each import, for what a fork copies and should not, or does not copy and
should: threads, descriptors, children, random generators, handlers of signals, output.  Some libraries can be known by
name alone: `UNFIT`.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import signal
import sys
import warnings
from collections.abc import Container, Sequence
from types import MappingProxyType
from typing import Any

from . import process_tree
from .preload import Import

# what does not survive a fork although nothing of it can be seen right after the import
UNFIT = MappingProxyType(
    {
        "torch": "its pools of threads (OpenMP), and CUDA, do not work in a fork",
        "tensorflow": "its runtime does not work in a fork",
        "jax": "its runtime has threads, and says itself that it must not be forked",
        "jaxlib": "its runtime has threads",
        "cupy": "CUDA does not work in a fork",
        "pycuda": "CUDA does not work in a fork",
        "numba.cuda": "CUDA does not work in a fork",
        "pyopencl": "drivers of graphics cards do not work in a fork",
        "mxnet": "its engine has threads",
        "grpc": "its threads and connections do not work in a fork",
        "pyarrow": "its pools of threads and of memory are of one process",
        "polars": "its pool of threads deadlocks in a fork",
        "mpi4py.MPI": "MPI does not allow forks of what it has started",
        "ray": "it has connections and threads of one process",
        "dask.distributed": "it has connections and threads of one process",
        "distributed": "it has connections and threads of one process",
        "pyspark": "it has a gateway process of its own",
        "jpype": "a Java machine does not work in a fork",
        "rpy2.rinterface": "an R interpreter is of one process",
        "juliacall": "Julia does not work in a fork",
        "gi": "the main loop of GLib has threads and descriptors",
        "PyQt5.QtCore": "what Qt has started is of one process",
        "PyQt6.QtCore": "what Qt has started is of one process",
        "PySide2.QtCore": "what Qt has started is of one process",
        "PySide6.QtCore": "what Qt has started is of one process",
        "objc": "the libraries of macOS do not work in a fork",
    }
)
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random")  # what a descriptor may lead to
_EXITING = 4  # of the flags in proc(5)'s stat: PF_EXITING
_LIBRARY = re.compile(r"\.so(\.\d+)*$")
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD") if hasattr(signal, name))


def unfit(modules: Container[str]) -> str:
    """Why, by what is imported, this process may not be forked; '' if nothing is known."""
    for name, why in UNFIT.items():
        if name in modules:
            return f"{name} is imported: {why}"
    return ""


def fit(imports: Sequence[Import]) -> list[Import]:
    """Those of the imports that come before the first that does not survive a fork."""
    return list(
        itertools.takewhile(lambda one: one.name not in UNFIT and one.name.partition(".")[0] not in UNFIT, imports)
    )


class Snapshot:
    """What this process has and has set, to be compared later (`trouble`)."""

    def __init__(self) -> None:
        self._files = _descriptors()
        self._children = set(process_tree.children())
        self._handlers = [signal.getsignal(one) for one in _SIGNALS]
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._random = random.getstate()
        self._generators = set(map(id, _generators()))
        self._folder, self._mask = _folder(), _mask()
        self._numpy = _numpy_state()

    def quick_trouble(self) -> str:
        """What of it can be seen in microseconds."""
        return unfit(sys.modules) or self._threads()

    def trouble(self) -> str:
        """Why this process may not be forked any more; '' if it may."""
        return (
            self.quick_trouble()
            or self._descriptors()
            or self._generators_trouble()
            or self._settings()
            or ("it has started a process" if set(process_tree.children()) - self._children else "")
        )

    def _threads(self) -> str:
        """Threads are not copied.  Those that end before each fork, and are started again after it, are no trouble."""
        if count_threads() > 1:
            _fork_once()
            if count_threads() > 1:
                return "it has started a thread"
        return ""

    def _descriptors(self) -> str:
        for descriptor, target in _descriptors().items():
            if self._files.get(descriptor) == target or target in _HARMLESS or _is_of_library(descriptor, target):
                continue
            return f"it has opened {target}"
        return ""

    def _generators_trouble(self) -> str:
        if random.getstate() != self._random:
            return "it has used or seeded the generator of the module random"
        state = _numpy_state()
        if state is not None and (_is_seeded() if self._numpy is None else state != self._numpy):
            return "it has used or seeded numpy's global random generator"
        known = self._generators | _global_generators()
        for found in _generators():
            if id(found) not in known:
                return f"it has a random generator of its own ({type(found).__module__}.{type(found).__qualname__})"
        return ""

    def _settings(self) -> str:
        if [signal.getsignal(one) for one in _SIGNALS] != self._handlers:
            return "it has set the handler of a signal"
        if (sys.stdin, sys.stdout, sys.stderr) != self._streams:
            return "it has replaced a standard stream"
        if (_folder(), _mask()) != (self._folder, self._mask):
            return "it has changed the working folder, or the mask of files"
        return ""


def count_threads() -> int:
    """The threads of this process, those of libraries too.

    Not those that are about to end: whoever has waited for a thread's end may still find it listed.
    """
    listed = os.listdir("/proc/self/task")
    return 1 if len(listed) == 1 else sum(not _ends(thread) for thread in listed)


def _ends(thread: str) -> bool:
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as file:
            return bool(int(file.read().rpartition(b")")[2].split()[6]) & _EXITING)
    except OSError:
        return True  # it has ended


def _fork_once() -> None:
    """Fork, so that handlers that libraries have for that are called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "this process is multi-threaded"
        pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that by which the folder was read
    return found


def _is_of_library(descriptor: str, target: str) -> bool:
    """Whether it only reads a shared library whose code is mapped here: libffi maps more of itself by such a one."""
    if not _LIBRARY.search(target):
        return False
    import fcntl

    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        rows = [line.rstrip("\n").split(None, 5) for line in maps]  # addresses, what is permitted, ..., the path
    mapped = any(row[5:] == [target] and "x" in row[1] for row in rows)
    return mapped and fcntl.fcntl(int(descriptor), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# -- random generators


def _generators() -> list[object]:
    """All that are there, of the standard library and of numpy."""
    kinds: tuple[type, ...] = (random.Random,)
    numpy: Any = sys.modules.get("numpy.random")
    if hasattr(numpy, "BitGenerator"):
        kinds += (numpy.BitGenerator,)
    every = gc.get_objects()  # by their types: to ask some objects for their class makes them do something
    return [one for one in every if issubclass(type(one), kinds) and not issubclass(type(one), random.SystemRandom)]


def _global_generators() -> set[int]:
    """Those that are seeded anew in a fork, by the standard library or by `seed_anew`."""
    found = {id(random._inst)}
    state = _numpy_global()
    if state is not None:
        found.add(id(state._bit_generator))
    return found


def _numpy_global() -> Any:
    """The generator behind `numpy.random.rand`; None if that is not imported."""
    return getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)


def _numpy_state() -> str | None:
    state = _numpy_global()
    return (
        None if state is None else repr([getattr(one, "tobytes", lambda one=one: one)() for one in state.get_state()])
    )


def _is_seeded() -> bool:
    """Whether numpy's global generator was given a seed: then each fresh process would have the same numbers."""
    generator = _numpy_global()._bit_generator
    return getattr(generator, "_seed_seq", None) is None and getattr(generator, "seed_seq", None) is None


def seed_anew() -> None:
    """In a fork: have numpy's global random generator give other numbers than in other forks.

    The standard library does that for its own.
    """
    numpy: Any = sys.modules.get("numpy.random")
    if _numpy_global() is not None:
        numpy.seed()
