"""tools/bench.py --frontends: `parallel.Pool` and `parallel.Executor` beside the standard library's.

Both are alive at the same time, and take turns: what else this machine does hits both alike.  Each number is the median
over the rounds of a round's median, or rate, and each ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import parallel
from tools import bench_peers

Calls = Callable[[Any], object]

_DATA = bytes(1_000_000)
_TURNS, _FEW_TURNS = 20, 4  # of each in a round


class Row(NamedTuple):
    """What is measured: ``calls`` of a pool or an executor, many times."""

    title: str
    kind: str  # "pool" or "executor"
    calls: Calls
    repeats: int
    amount: int = 0  # of what is made in one; then a rate is told, and not microseconds
    wanted: float | None = None  # of the ratio to the standard library's: at most, or of a rate at least


def nothing(_: object = None) -> None:
    """The call of which there are many."""


def busy(_: object) -> None:
    """One of 2 ms."""
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass


def sum_of(data: bytes, number: int) -> int:
    """One with large data."""
    return len(data) + number


def submit_all(executor: Any, count: int) -> None:
    """Submit no-op calls and look at every result."""
    for future in [executor.submit(nothing) for _ in range(count)]:
        future.result()


ROWS = [
    Row("Pool.map of 16 no-op calls, us", "pool", lambda pool: pool.map(nothing, range(16)), 400, wanted=1.2),
    Row("Pool.apply of a no-op call, us", "pool", lambda pool: pool.apply(nothing), 400),
    Row("Pool.map of 32 calls of 2 ms, us", "pool", lambda pool: pool.map(busy, range(32)), 20, wanted=1.02),
    Row(
        "Pool.map of 32 calls with 1 MB of data, us",
        "pool",
        lambda pool: pool.map(functools.partial(sum_of, _DATA), range(32)),
        40,
        wanted=1.0,
    ),
    Row("Pool.imap, no-op calls per second", "pool", lambda pool: list(pool.imap(nothing, range(10_000))), 1, 10_000),
    Row("Executor.submit, no-op calls per second", "executor", lambda one: submit_all(one, 10_000), 1, 10_000, 8.0),
    Row("Executor.submit of one call alone, us", "executor", lambda one: one.submit(nothing).result(), 400, wanted=1.2),
]


def section(slaves: int, rounds: int, quick: bool) -> None:
    """Measure and print a table."""
    found: dict[Row, list[tuple[float, float]]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        with multiprocessing.Pool(slaves) as pool, concurrent.futures.ProcessPoolExecutor(slaves) as executor:
            pool.map(bench_peers.work, [1] * 16)
            list(executor.map(bench_peers.work, [1] * 16))  # before there are other threads
            with parallel.Pool(slaves) as own_pool, parallel.Executor(slaves) as own_executor:
                for row in ROWS:
                    two = (own_pool, pool) if row.kind == "pool" else (own_executor, executor)
                    found[row].append(measure(row, two, quick))
    print("| | parallel | the standard library | ratio | to reach |\n|---|---|---|---|---|")
    for row, pairs in found.items():
        print(line(row, pairs))


def measure(row: Row, two: Sequence[Any], quick: bool) -> tuple[float, float]:
    """Microseconds, or calls per second, of the one and the other."""
    repeats = max(1, row.repeats // (4 if quick else 1) // _TURNS)
    times: list[list[float]] = [[], []]
    for turn in range((_FEW_TURNS if row.amount else _TURNS) + 1):
        for one, taken in zip(two, times):
            for _ in range(repeats):
                began = time.perf_counter()
                row.calls(one)
                if turn:  # the first one is not counted
                    taken.append(time.perf_counter() - began)
    first, second = (statistics.median(taken) for taken in times)
    return (row.amount / first, row.amount / second) if row.amount else (first * 1e6, second * 1e6)


def line(row: Row, pairs: Sequence[tuple[float, float]]) -> str:
    """One row of the table."""
    ratio = statistics.median(own / other for own, other in pairs)
    own, other = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    bound = ""
    if row.wanted is not None:
        reached = ratio >= row.wanted if row.amount else ratio <= row.wanted
        bound = f"{'at least' if row.amount else 'at most'} {row.wanted:g}{'' if reached else ': **missed**'}"
    return f"| {row.title} | {own:,.0f} | {other:,.0f} | {ratio:.2f} | {bound} |"
