"""How many processors this process may use, and how many threads a runner's libraries are to start."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, Callable

# whichever of these libraries computes in a task would start as many threads as the machine has processors
GENERAL = "OMP_NUM_THREADS"  # which the others follow where nothing is said of them
_SPECIAL = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
THREADS = (GENERAL, *_SPECIAL, "NUMBA_NUM_THREADS")  # every variable that says how many


def usable_cpus() -> int:
    """The CPUs this process may use.

    Fewer than the machine has under taskset, cpusets, most batch systems, and a container's quota of processor time.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota())))


def share_threads(runners: int, variables: MutableMapping[str, str]) -> None:
    """Give each of so many runners its share of the processors, unless the user has said how many threads he wants."""
    if GENERAL in variables:
        return
    for name in (GENERAL, *_SPECIAL):
        variables.setdefault(name, share(runners))


def share(runners: int) -> str:
    """How many threads that is."""
    return str(max(1, usable_cpus() // max(1, runners)))


def prepare(threads: int | None, then: Callable[[], object] | None = None) -> None:
    """As a context's setup: have libraries start so many threads in this process, and call ``then``.

    What was loaded before has read the variables already, and is told by threadpoolctl where that is installed.
    """
    if threads:
        for name in THREADS:
            os.environ[name] = str(threads)
        if "numpy" in sys.modules:
            try:
                threadpoolctl: Any = importlib.import_module("threadpoolctl")
            except ImportError:
                pass
            else:
                threadpoolctl.threadpool_limits(threads)
    if then is not None:
        then()


def _quota(root: str = "/") -> float:
    """The processors that control groups of Linux grant in processor time; infinity if they set no limit."""
    try:
        with open(os.path.join(root, "proc/self/cgroup")) as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return math.inf
    found = math.inf
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if not controllers:
            found = min(found, _least(os.path.join(root, "sys/fs/cgroup"), path, _second_version))
        elif "cpu" in controllers.split(","):
            for base in ("sys/fs/cgroup/cpu", f"sys/fs/cgroup/{controllers}"):
                found = min(found, _least(os.path.join(root, base), path, _first_version))
    return found


def _least(base: str, path: str, limit: Callable[[str], float]) -> float:
    """The least limit of a group and those above it."""
    found = math.inf
    for folder in _upwards(path):
        found = min(found, limit(base + folder))
    return found


def _upwards(path: str) -> Iterable[str]:
    """A group's path and those above it; '' is the root, which alone is seen inside many containers."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["".join(f"/{part}" for part in parts[:count]) for count in range(len(parts), -1, -1)]


def _second_version(folder: str) -> float:
    quota, period = [*_words(f"{folder}/cpu.max"), "", ""][:2]
    return _ratio(quota, period)


def _first_version(folder: str) -> float:
    quota, period = _words(f"{folder}/cpu.cfs_quota_us"), _words(f"{folder}/cpu.cfs_period_us")
    return _ratio((quota or [""])[0], (period or [""])[0])


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _ratio(quota: str, period: str) -> float:
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return math.inf  # 'max', -1, or no such file
