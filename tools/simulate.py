"""Simulated years: run seeds of tests/simulation on all cores, and tell the shortest story of what goes wrong.

    python3 tools/simulate.py --seconds 120            fresh seeds for so long; --minutes, --hours
    python3 tools/simulate.py --seed 4711              one seed, and if it fails its shortest story; --whole: all of it
    python3 tools/simulate.py --seeds 0 10000          these
    python3 tools/simulate.py --restart ...            the same, and in the midst of each the script is started again
    python3 tools/simulate.py --digest 40              of the stories of so many seeds: the same on every Python
    python3 tools/simulate.py --planted [words]        that bugs are found, as a table
    python3 tools/simulate.py --exhaustive 1000000     all orders of a small plan, up to so many states
    python3 tools/simulate.py --makespan               how long mixes of tasks take, as a table

It exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.simulation import exhaustive, makespan, planted_bugs
from tests.simulation.plan import make_plan, make_restart
from tests.simulation.run import Failure, Run
from tests.simulation.shrink import shrink, story

_AT_ONCE = 100  # seeds that a process runs before it tells how it went
_MOST_TOLD = 5  # kinds of failures whose story is told
_LARGEST = 1 << 40  # fresh seeds begin below


class Batch(NamedTuple):
    """What came of some seeds; ``seconds``: of the processor; ``years``: of simulated time."""

    seeds: int
    steps: int
    seconds: float
    years: float
    failures: list[tuple[int, Failure]]


def run_batch(first: int, restart: bool) -> Batch:
    """Run the seeds from ``first`` on."""
    make = make_restart if restart else make_plan
    steps, simulated, failures, began = 0, 0.0, [], time.process_time()
    for seed in range(first, first + _AT_ONCE):
        run = Run(make(seed))
        failure = run.to_the_end()
        steps += run.world.steps
        simulated += run.world.now
        if failure is not None:
            failures.append((seed, failure))
    return Batch(_AT_ONCE, steps, time.process_time() - began, simulated / (365.25 * 86400), failures)


def until(deadline: float, first: int) -> Iterator[int]:
    """Seeds to begin batches with, until it is that late."""
    for seed in itertools.count(first, _AT_ONCE):
        if time.monotonic() >= deadline:
            return
        yield seed


def run_many(starts: Iterator[int], jobs: int, restart: bool) -> int:
    """Run batches in ``jobs`` processes, tell how it went; 1 if something was wrong."""
    began, total, kinds = time.monotonic(), Batch(0, 0, 0.0, 0.0, []), dict[str, int]()
    with multiprocessing.Pool(jobs) as pool:
        running = [pool.apply_async(run_batch, (seed, restart)) for seed in itertools.islice(starts, 2 * jobs)]
        while running:
            batch = running.pop(0).get()
            for seed, failure in batch.failures:
                if failure.kind not in kinds:
                    print(f"seed {seed} fails: {failure.text}", flush=True)
                kinds.setdefault(failure.kind, seed)
            total = Batch(*(one + other for one, other in zip(total, batch)))  # type: ignore[operator]
            running += [pool.apply_async(run_batch, (seed, restart)) for seed in itertools.islice(starts, 1)]
    print(
        f"{total.seeds} seeds, {total.steps} steps, {total.years * 365.25:.1f} simulated days in "
        f"{time.monotonic() - began:.0f} s; "
        f"{total.steps / max(1e-9, total.seconds):.0f} steps a second of one processor; "
        f"{len(total.failures)} failed"
    )
    for seed in list(kinds.values())[:_MOST_TOLD]:
        tell(seed, restart)
    return int(bool(kinds))


def tell(seed: int, restart: bool, whole: bool = False) -> int:
    """Tell the shortest story of a seed that fails; 1 if it does."""
    plan = make_restart(seed) if restart else make_plan(seed)
    run = Run(plan)
    failure = run.to_the_end()
    if failure is None:
        print("\n".join(story(plan)) if whole else f"seed {seed}: all is well, after {run.world.steps} steps")
        return 0
    print(f"\nseed {seed} fails after {failure.steps} steps: {failure.text}")
    if not whole:
        plan, failure = shrink(plan, failure)
        print(f"so does, in short, {plan}")
    print("\n".join(story(plan)))
    return 1


def digest(count: int) -> str:
    """Of the stories of the first ``count`` seeds."""
    lines = (line for seed in range(count) for line in story(make_plan(seed)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--first", type=int, help="the first of the fresh seeds (default: a random one)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs=2)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--digest", type=int)
    parser.add_argument("--planted", nargs="*")
    parser.add_argument("--exhaustive", type=int)
    parser.add_argument("--makespan", action="store_true")
    options = parser.parse_args()
    if options.seed is not None:
        return tell(options.seed, options.restart, options.whole)
    if options.digest is not None:
        print(digest(options.digest))
        return 0
    if options.planted is not None:
        return min(1, planted_bugs.table(options.planted)[1])
    if options.exhaustive is not None:
        return int(not exhaustive.explore(options.exhaustive))
    if options.makespan:
        print("\n".join(makespan.table()))
        return 0
    if options.seeds:
        return run_many(iter(range(options.seeds[0], options.seeds[1], _AT_ONCE)), options.jobs, options.restart)
    seconds = options.seconds + 60 * options.minutes + 3600 * options.hours
    if not seconds:
        parser.error("say which seeds, or for how long")
    first = options.first if options.first is not None else int.from_bytes(os.urandom(5), "big") % _LARGEST
    print(f"seeds from {first} on")
    return run_many(until(time.monotonic() + seconds, first), options.jobs, options.restart)


if __name__ == "__main__":
    sys.exit(main())
