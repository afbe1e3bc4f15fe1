"""What is measured: one number of one peer (bench_peers.py)."""

from __future__ import annotations

import functools
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tools import bench_peers

MEGABYTES = 10  # what bench_peers.ten_megabytes and array return


class Measure(NamedTuple):
    """One number, and how it is written."""

    title: str
    form: str
    more_is_better: bool


MEASURES = {
    "noop": Measure("no-op tasks per second", "{:,.0f}", True),
    "alone": Measure("one task alone, there and back, us", "{:,.0f}", False),
    "late": Measure("the same, 99th percentile, us", "{:,.0f}", False),
    "1 ms": Measure("tasks of 1 ms per second", "{:,.0f}", True),
    "10 ms": Measure("tasks of 10 ms per second", "{:,.1f}", True),
    "bytes": Measure(f"{MEGABYTES} MB bytes results, MB/s", "{:,.0f}", True),
    "array": Measure(f"{MEGABYTES} MB NumPy results, MB/s", "{:,.0f}", True),
    "arguments": Measure(f"{MEGABYTES} MB bytes arguments, MB/s", "{:,.0f}", True),
    "array arguments": Measure(f"{MEGABYTES} MB NumPy arguments, MB/s", "{:,.0f}", True),
    "first": Measure("first result after the interpreter's start, s", "{:.2f}", False),
    "first of all": Measure("a result of every slave, task's module with NumPy and SciPy, s", "{:.2f}", False),
    "mixed": Measure("1% of 1 s among 1 ms: share of the ideal", "{:.3f}", True),
    "mixed map": Measure("the same by map_unordered", "{:.3f}", True),
    "tail": Measure("8 slaves, one 4 x slower, speculation: share of the ideal", "{:.3f}", True),
    "burning": Measure("share of the time that slaves work while the loop burns 50 ms a result", "{:.3f}", True),
    "setup": Measure("a setup of 100 MB, MB/s", "{:,.0f}", True),
    "peak": Measure("master's growth reading 10 MB results, MB", "{:.0f}", False),
    "runner": Measure("memory of a runner, its own, MB", "{:.1f}", False),
    "runner shared": Measure("the same with its part of what is shared (PSS), MB", "{:.1f}", False),
    "agent": Measure("memory of an agent, its own, MB", "{:.1f}", False),
    "agent shared": Measure("the same with its part of what is shared (PSS), MB", "{:.1f}", False),
    "guard shared": Measure("memory of an agent's guard (PSS), MB", "{:.1f}", False),
    "idle": Measure("300 idle slaves together, percent of a core", "{:.2f}", False),
    "adding": Measure("adding a task before there are slaves, us of processor time", "{:.2f}", False),
    "waiting": Measure("memory of a task that waits, bytes beyond its pickle", "{:.0f}", False),
}
OWN_MEASURES = {  # of this library, against a revision of it
    **{name: MEASURES[name] for name in ("noop", "alone", "bytes", "array", "arguments")},
    "first": MEASURES["first"]._replace(form="{:.3f}"),
    "adding": MEASURES["adding"],
    "noop by TCP": Measure("no-op tasks per second, slaves by TCP", "{:,.0f}", True),
    "bytes by TCP": Measure(f"{MEGABYTES} MB bytes results by TCP, MB/s", "{:,.0f}", True),
}
NEED_NUMPY = ("array", "array arguments")


class Sizes(NamedTuple):
    """How much is done for one number."""

    tasks: int  # no-op, at most
    alone: int  # tasks
    busy: float  # seconds that all tasks of 1 ms, or of 10 ms, take together
    large: int  # tasks with a large result or argument
    adding: int  # tasks
    first: int  # interpreters started


USUAL = Sizes(tasks=100_000, alone=1000, busy=1.0, large=30, adding=200_000, first=3)
QUICK = Sizes(tasks=20_000, alone=100, busy=0.2, large=5, adding=50_000, first=1)


def have_numpy() -> bool:
    """Whether there is NumPy."""
    return have("numpy")


def have(module: str) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(module) is not None


def noop(peer: bench_peers.Peer, tasks: int) -> float:
    """No-op tasks per second."""
    return rate(peer, bench_peers.noop, min(200, tasks), tasks)


def alone(peer: bench_peers.Peer, count: int) -> tuple[float, float]:
    """Microseconds that one task alone takes: the median, and what one in a hundred exceeds."""
    drain(peer, bench_peers.noop, min(200, peer.tasks))
    times = []
    for _ in range(count):
        began = time.perf_counter()
        drain(peer, bench_peers.noop, 1)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6, sorted(times)[count - 1 - count // 100] * 1e6


def busy(peer: bench_peers.Peer, loops: int, count: int) -> float:
    """Tasks per second, each of which keeps a processor busy."""
    return rate(peer, functools.partial(bench_peers.work, loops), 50, count)


def large_tasks(name: str) -> bench_peers.Task:
    """The task of a measure whose results or arguments are of `MEGABYTES`."""
    if name.startswith("bytes"):
        return bench_peers.ten_megabytes
    if name == "array":
        return bench_peers.array
    argument = bench_peers.array() if name == "array arguments" else b"x" * (MEGABYTES * 1_000_000)
    return functools.partial(bench_peers.swallow, argument)


def large(peer: bench_peers.Peer, name: str, count: int) -> float:
    """MB/s of tasks with a result or an argument of `MEGABYTES`."""
    return MEGABYTES * rate(peer, large_tasks(name), 4, count)


def rate(peer: bench_peers.Peer, task: bench_peers.Task, before: int, count: int) -> float:
    """Tasks per second, after some that are not counted."""
    drain(peer, task, before)
    began = time.perf_counter()
    drain(peer, task, count)
    return count / (time.perf_counter() - began)


def drain(peer: bench_peers.Peer, task: bench_peers.Task, count: int) -> None:
    """Have the task run ``count`` times and look at every result."""
    for _ in peer.run(task, count):
        pass


def adding(count: int) -> float:
    """Microseconds of processor time for adding one task to a manager that has no slaves yet."""
    return adding_and_waiting(count)[0]


def adding_and_waiting(count: int) -> tuple[float, float]:
    """The same, and the bytes of memory of each: the function's pickle is one for all."""
    import parallel

    with parallel.Manager(output=None) as manager:
        add_task, task = manager.get_context().add_task, bench_peers.noop
        add_task(task)
        before, began = memory(), time.process_time()
        for _ in range(count):
            add_task(task)
        took = time.process_time() - began
        return took / count * 1e6, (memory() - before) / count


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(*adding_and_waiting(int(sys.argv[1])))
