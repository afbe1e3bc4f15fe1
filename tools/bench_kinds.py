"""What tools/bench.py measures of this library alone: kinds of work, large setups, and what slaves cost.

Each is taken in a process of its own (``python3 -m tools.bench_kinds NAME SLAVES QUICK``), so that no memory and no
thread of another measure is in it.  Tasks here sleep: what is measured is what a slave has to wait for, not whether
the machine has a core for it; and what a task took, by its own clock, is what the ideal is made of.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
LONG, SHORT = 1.0, 0.001  # seconds
MEGABYTE = 1_000_000
SETUP_MEGABYTES = 100
TAIL_SLAVES, TAIL_TASKS, SLOWER = 8, 65, 4.0
MOST_IDLE = 300  # slaves
BURNT = 0.05  # seconds of Python for each result
Found = dict[str, float]


def pause(seconds: float) -> tuple[float, float]:
    """The task: when it began and when it ended."""
    began = time.perf_counter()
    time.sleep(seconds)
    return began, time.perf_counter()


def manager_of(slaves: int) -> Any:
    """With so many local slaves."""
    import parallel

    return parallel.Manager.local(slaves, output=None)


# -- kinds of work


def mixed(slaves: int, quick: bool) -> Found:
    """Of a hundred tasks of 1 ms one takes a second: the share of the ideal, by `add_task` and by a map."""
    long = 3 if quick else 12
    lengths = [LONG] * long + [SHORT] * (99 * long)
    random.Random(1).shuffle(lengths)
    with manager_of(slaves) as manager:
        context = manager.get_context()
        list(context.map_unordered(pause, [SHORT] * 100 * slaves))

        def by_add() -> Iterator[Any]:
            for length in lengths:
                context.add_task(functools.partial(pause, length))
            return context.get_results_unordered()  # type: ignore[no-any-return]

        return {
            "mixed": share_of_ideal(by_add, slaves),
            "mixed map": share_of_ideal(lambda: context.map_unordered(pause, lengths), slaves),
        }


def share_of_ideal(run: Callable[[], Iterable[tuple[float, float]]], slaves: int) -> float:
    """What the tasks' times come to on slaves who never wait, as a share of what the run took."""
    began = time.perf_counter()
    times = sorted(run())
    took = time.perf_counter() - began
    free = [0.0] * slaves
    for start, end in times:
        heapq.heapreplace(free, free[0] + end - start)
    return max(free) / took


def slow_in_one(folder: str) -> float:
    """The setup: how many times longer than others this slave takes; the first that comes here is the slow one."""
    try:
        os.close(os.open(os.path.join(folder, "slow"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return 1.0
    return SLOWER


def slowed(seconds: float, factor: float) -> None:
    """The task on a slave that takes so many times longer."""
    time.sleep(seconds * factor)


def tail(slaves: int, quick: bool) -> Found:
    """The share of the ideal with eight slaves of which one takes four times as long, and speculation.

    The ideal is the least time in which so many whole tasks are done by the slaves' speeds.
    """
    with manager_of(TAIL_SLAVES) as manager, tempfile.TemporaryDirectory() as folder:
        if "speculate" not in inspect.signature(manager.get_context).parameters:
            return {}  # a release that has none
        seconds = 0.25 if quick else LONG
        context = manager.get_context(functools.partial(slow_in_one, folder), speculate=True)
        manager.wait_for_slaves(TAIL_SLAVES)
        began = time.perf_counter()
        for _ in range(TAIL_TASKS):
            context.add_task(functools.partial(slowed, seconds))
        list(context.get_results_unordered())
        took = time.perf_counter() - began
    times, done = 0, 0
    while done < TAIL_TASKS:
        times += 1
        done = (TAIL_SLAVES - 1) * times + int(times / SLOWER)
    return {"tail": times * seconds / took}


def burning(slaves: int, quick: bool) -> Found:
    """The share of the time in which slaves run tasks of 1 ms while the loop burns 50 ms of Python for each result."""
    seconds = 1.0 if quick else 3.0
    with manager_of(slaves) as manager:
        context = manager.get_context()
        list(context.map_unordered(pause, [SHORT] * 100 * slaves))
        for _ in range(int(1.2 * slaves * seconds / SHORT)):
            context.add_task(functools.partial(pause, SHORT))
        began = time.perf_counter()
        times = []
        for one in context.get_results_unordered():
            times.append(one)
            until = min(time.perf_counter() + BURNT, began + seconds)
            while time.perf_counter() < until:
                pass
    begin, end = began + 0.1, began + seconds
    inside = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in times)
    return {"burning": inside / (slaves * (end - begin))}


# -- large data


def length_of(data: bytes) -> int:
    """The large setup."""
    return len(data)


def nap(length: int) -> int:
    """A task that takes long enough for the others to get one, too; says where it ran."""
    time.sleep(0.02)
    return os.getpid()


def setup(slaves: int, quick: bool) -> Found:
    """MB/s of a setup that is sent with 100 MB: from the first task to a result of each slave, less a small one's."""
    took = []
    for size in (1, SETUP_MEGABYTES * MEGABYTE):
        with manager_of(slaves) as manager:
            manager.wait_for_slaves(slaves)
            context = manager.get_context(functools.partial(length_of, bytes(size)))
            began = time.perf_counter()
            all_of(context, nap, slaves)
            took.append(time.perf_counter() - began)
    return {"setup": SETUP_MEGABYTES / max(took[1] - took[0], 1e-6)}


def all_of(context: Any, task: Callable[..., int], slaves: int) -> None:
    """Until each slave has run one."""
    seen: set[int] = set()
    for _ in range(slaves):
        context.add_task(task)
    for process in context.get_results_unordered():
        seen.add(process)
        if len(seen) < slaves:
            context.add_task(task)


def ten_megabytes() -> bytes:
    """A large result."""
    return b"x" * (10 * MEGABYTE)


def peak(slaves: int, quick: bool) -> Found:
    """MB by which the master grows at most, with all that it shares, while it reads results of 10 MB one by one."""
    with manager_of(slaves) as manager:
        context = manager.get_context()
        list(context.map_unordered(pause, [SHORT] * 10 * slaves))
        Path("/proc/self/clear_refs").write_text("5")  # the highest that counts is that of from now on
        before = _status("VmRSS")
        for _ in range(20 if quick else 60):
            context.add_task(ten_megabytes)
        for result in context.get_results_unordered():
            del result
        return {"peak": (_status("VmHWM") - before) / 1e3}


def _status(key: str) -> int:
    """A line of /proc/self/status, in KB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


# -- slaves


def processes() -> dict[int, str]:
    """This process's descendants and their command lines, children first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
    found, front = {}, {os.getpid()}
    while front:
        front = {process for process, parent in parents.items() if parent in front}
        for process in front:
            found[process] = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def memory_of(process: int) -> tuple[float, float]:
    """MB of a process: its own, and with its share of what several have (PSS)."""
    sizes: dict[str, float] = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split()[:2]
        sizes[key.rstrip(":")] = float(value) / 1e3
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


def memory(slaves: int, quick: bool) -> Found:
    """MB of a runner that has run tasks, of the agent, and of what it has started besides: the guard."""
    with manager_of(slaves) as manager:
        context = manager.get_context()
        list(context.map_unordered(pause, [SHORT] * 200 * slaves))
        runners = {slave.pid for slave in manager.slaves}
        own = [memory_of(process) for process in runners]
        others = [memory_of(process) for process in processes() if process not in runners]
    found = {"runner": _mean([one for one, _ in own]), "runner shared": _mean([one for _, one in own])}
    found["agent"], found["agent shared"] = others[0]  # the master's only child
    return {**found, "guard shared": sum(one for _, one in others[1:])}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def idle(slaves: int, quick: bool) -> Found:
    """Percent of one core that 300 idle slaves and their agent take together (quick: 30, and ten times that)."""
    count, seconds = (MOST_IDLE // 10, 4.0) if quick else (MOST_IDLE, 24.0)
    with manager_of(count) as manager:
        manager.wait_for_slaves(count, 240)
        list(manager.get_context().map_unordered(pause, [SHORT] * 2 * count))
        threading.Event().wait(1.0 if quick else 3.0)  # what the start has left over is over
        before = {process: _nanoseconds(process) for process in processes()}
        threading.Event().wait(seconds)
        used = sum(_nanoseconds(process) - then for process, then in before.items())
    return {"idle": used / 1e9 / seconds * 100 * (MOST_IDLE / count)}


def _nanoseconds(process: int) -> int:
    """That a process has had a processor, with all of its threads."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


# -- the command line

KINDS: dict[str, Callable[[int, bool], Found]] = {
    "mixed": mixed,
    "tail": tail,
    "burning": burning,
    "setup": setup,
    "peak": peak,
    "memory": memory,
    "idle": idle,
}


def measure(name: str, slaves: int, quick: bool) -> Found:
    """One of them, in a process of its own."""
    command = [sys.executable, "-m", "tools.bench_kinds", name, str(slaves), str(int(quick))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The one that is named, as JSON."""
    from tools import bench_kinds  # whose tasks can travel

    name, slaves, quick = sys.argv[1:]
    print(json.dumps(bench_kinds.KINDS[name](int(slaves), quick == "1")))


if __name__ == "__main__":
    main()
