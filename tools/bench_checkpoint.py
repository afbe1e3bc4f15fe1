"""What a checkpoint costs: tasks with one beside tasks without, results beside what the disk writes, opening one."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import parallel
from parallel.checkpoint import format as fmt
from parallel.checkpoint.disk import Disk
from parallel.checkpoint.format import RESULT, Entry
from parallel.checkpoint.results_file import ResultsFile

KEY = b"a key for the benchmark alone"
LARGE = 10_000_000  # bytes
RECORDS = 1_000_000
_WRITTEN = 1 << 20  # bytes at a time

OPEN = """
import sys, time
from tools.bench_checkpoint import open_file
open_file(sys.argv[1])
"""


def nothing(number: int) -> None:
    """A task."""


def large(number: int) -> bytes:
    """A task whose result cannot be made smaller."""
    return os.urandom(1000) * (LARGE // 1000)


def drained(results: Iterable[Any], began: float) -> float:
    """Results a second."""
    count = sum(1 for _ in results)
    return count / (time.perf_counter() - began)


def rate(manager: parallel.Manager, task: Any, count: int, checkpoint: Path | None) -> float:
    """Tasks a second."""
    context = manager.get_context(checkpoint=checkpoint)
    began = time.perf_counter()
    for number in range(count):
        context.add_task(task, number)
    return drained(context.get_results_unordered(), began)


def map_rate(manager: parallel.Manager, task: Any, count: int, checkpoint: Path | None) -> float:
    """Inputs a second."""
    context = manager.get_context(checkpoint=checkpoint)
    return drained(context.map_unordered(task, range(count)), time.perf_counter())


def disk_rate(folder: Path, total: int) -> tuple[float, float]:
    """Bytes a second that a plain program writes there: to the system's memory, and on to the disk."""
    data = os.urandom(_WRITTEN)
    began = time.perf_counter()
    with open(folder / "plain", "wb", buffering=0) as file:
        for _ in range(total // _WRITTEN):
            file.write(data)
        cached = time.perf_counter()
        os.fsync(file.fileno())
    synced = time.perf_counter()
    (folder / "plain").unlink()
    return total / (cached - began), total / (synced - began)


def large_rate(manager: parallel.Manager, folder: Path, results: int) -> tuple[float, float]:
    """Bytes a second of large results: to the file, and with a sync at the end."""
    path = folder / "large"
    began = time.perf_counter()
    context = manager.get_context(checkpoint=path)
    for number in range(results):
        context.add_task(large, number)
    drained(context.get_results_unordered(), began)
    written = time.perf_counter()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    synced = time.perf_counter()
    path.unlink()
    return results * LARGE / (written - began), results * LARGE / (synced - began)


def make_file(path: Path) -> None:
    """A checkpoint of so many small results."""
    disk = Disk(str(path), write=True)
    file = ResultsFile(disk, KEY, print)
    numbers = iter(range(RECORDS))
    while batch := [number for number, _ in zip(numbers, range(10_000))]:
        file.append(
            [
                (RESULT, Entry(hashlib.blake2b(b"%d" % number, digest_size=16).digest()), b"x" * 40, ())
                for number in batch
            ]
        )
    disk.close()


def open_file(path: str) -> None:
    """Open one in this process, and tell how long it took and how much memory the process needs."""
    began, worked = time.perf_counter(), time.process_time()
    disk = Disk(path, write=False)
    file = ResultsFile(disk, KEY, print)
    took, worked = time.perf_counter() - began, time.process_time() - worked
    status = Path("/proc/self/status").read_text().split("\n")
    memory = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    print(f"{took:.2f} {worked:.2f} {memory:.0f} {file.index.nbytes / max(1, len(file.index)):.0f}")
    disk.close()


def section(slaves: int, rounds: int, quick: bool) -> None:
    """Measure and print it all."""
    count, results = (5_000, 20) if quick else (50_000, 100)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        ratios: dict[str, list[float]] = {}
        for round_ in range(rounds):
            with parallel.Manager.local(slaves, output=None, progress=False) as manager:
                list(manager.get_context().map(nothing, range(100)))
                for what, measure in (("no-op tasks", rate), ("no-op calls of a map", map_rate)):
                    without = measure(manager, nothing, count, None)
                    other = measure(manager, nothing, count, folder / f"{what} {round_}")
                    print(f"{what}: {without:,.0f} a second, with a checkpoint {other:,.0f}", flush=True)
                    ratios.setdefault(what, []).append(other / without)
                # on a virtual machine memory that was not used lately may cost ten times as much as what is written
                # into it: before each of both as much as it needs has just been used
                disk_rate(folder, 2 * results * LARGE)
                plain = disk_rate(folder, results * LARGE)
                disk_rate(folder, 2 * results * LARGE)
                ours = large_rate(manager, folder, results)
            for what, one, other in zip(("the disk", "the system's memory"), reversed(ours), reversed(plain)):
                print(f"10 MB results: {one / 1e6:,.0f} MB/s, {what} {other / 1e6:,.0f} MB/s", flush=True)
                ratios.setdefault(f"10 MB results, of what {what} takes", []).append(one / other)
        for what, found in ratios.items():
            print(f"{what}: {statistics.median(found):.2f} x (wanted: 0.8)")
        path = folder / "million"
        make_file(path)
        told = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True)
        took, worked, memory, each = told.stdout.split()
        print(f"opening {RECORDS:,} small results: {took} s, {worked} s of a processor (wanted: 3)")
        print(f"memory: {memory} MB in all (wanted: 150)")
        print(f"index: {each} bytes a result (wanted: 120); a record without key has {fmt.FIXED} bytes and the pickle")
