"""The benchmark: this library beside its peers, or beside itself as it was, as medians and ratios.

    python3 tools/bench.py [--rounds 5] [--slaves 2] [--cores 2] [--json FILE] [name of a peer ...]
    python3 tools/bench.py --against REV [--control] [--pairs 7] [--quick] [--only MEASURE ...] [--now REV]

Beside its peers: peers that are not installed are left out; to have all: pip install numpy dask distributed parsl ray.
Rounds go through all peers in turn, so that a slow minute of the machine hits them alike.  Each number is the median
over the rounds.

Against a revision of its own (or a folder with one): every measurement in a process of its own, in pairs, now this one
first and now that one; only the library is exchanged, by way of PYTHONPATH, and the benchmark is this file's.  What
counts is the median of the pairs' ratios.  With --control the revision is also paired with itself, which shows how much
of that is the machine's noise: the floor, below which a hundredth of such medians fall by chance.  Exit code 1: some
measure is more than 3% worse, and below that floor.
"""

from __future__ import annotations

import argparse
import compileall
import functools
import importlib.util
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)  # for peers whose slaves do not search where their master does

from tools import bench_peers  # noqa: E402 - found only after the lines above

MEGABYTES = 10  # what bench_peers.ten_megabytes and array return
TOLERANCE = 0.97  # ratio of a library to an older one below which it is worse


class Measure(NamedTuple):
    """One number, and how it is written."""

    title: str
    form: str
    more_is_better: bool


MEASURES = {
    "noop": Measure("no-op tasks per second", "{:,.0f}", True),
    "alone": Measure("one task alone, there and back, us", "{:,.0f}", False),
    "bytes": Measure(f"{MEGABYTES} MB bytes results, MB/s", "{:,.0f}", True),
    "array": Measure(f"{MEGABYTES} MB NumPy results, MB/s", "{:,.0f}", True),
    "first": Measure("first result after the interpreter's start, s", "{:.2f}", False),
}
OWN_MEASURES = {  # of this library, against a revision of it
    **MEASURES,
    "first": MEASURES["first"]._replace(form="{:.3f}"),
    "arguments": Measure(f"{MEGABYTES} MB bytes arguments, MB/s", "{:,.0f}", True),
    "adding": Measure("adding a task before there are slaves, us", "{:.2f}", False),
}


class Sizes(NamedTuple):
    """How much is done for one number."""

    tasks: int  # no-op
    alone: int  # tasks
    large: int  # tasks with a large result or argument
    adding: int  # tasks
    first: int  # interpreters started


USUAL = Sizes(tasks=100_000, alone=200, large=40, adding=200_000, first=3)
QUICK = Sizes(tasks=20_000, alone=50, large=30, adding=50_000, first=1)


# -- one number


def noop(peer: bench_peers.Peer, tasks: int) -> float:
    """No-op tasks per second."""
    return rate(peer, bench_peers.noop, 200, tasks)


def alone(peer: bench_peers.Peer, count: int) -> float:
    """Median of the microseconds that one task alone takes."""
    drain(peer, bench_peers.noop, 200)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        drain(peer, bench_peers.noop, 1)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def large(peer: bench_peers.Peer, task: bench_peers.Task, count: int) -> float:
    """MB/s of tasks with a result or an argument of `MEGABYTES`."""
    return MEGABYTES * rate(peer, task, 4, count)


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
    """Microseconds for adding one task to a manager that has no slaves yet."""
    import parallel

    with parallel.Manager(output=None) as manager:
        add_task, task = manager.get_context().add_task, bench_peers.noop
        began = time.perf_counter()
        for _ in range(count):
            add_task(task)
        return (time.perf_counter() - began) / count * 1e6


# -- beside the peers


def measure(peer: bench_peers.Peer, tasks: int) -> dict[str, float]:
    """One round of one peer: everything but the first result, on slaves that are up."""
    with peer:
        found = {
            "noop": noop(peer, tasks),
            "alone": alone(peer, USUAL.alone),
            "bytes": large(peer, bench_peers.ten_megabytes, USUAL.large),
        }
        if importlib.util.find_spec("numpy") is not None:
            found["array"] = large(peer, bench_peers.array, USUAL.large)
    return found


def beside_peers(options: argparse.Namespace) -> None:
    """Run the rounds and print the table."""
    peers = [name for name in options.peers or bench_peers.PEERS if bench_peers.available(name)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name in peers:
            found = measure(bench_peers.make(name, options.slaves), bench_peers.PEERS[name].tasks)
            found["first"] = bench_peers.time_of_first(name, options.slaves)
            rounds[name].append(found)
            print(f"round {number + 1}: {name} {found}", file=sys.stderr)
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in MEASURES if key in found[0]}
        for name, found in rounds.items()
    }
    print_peers(medians, options)
    if options.json:
        Path(options.json).write_text(json.dumps({"medians": medians, "rounds": rounds}, indent=1))


def print_peers(medians: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """Medians, and in brackets how many times better `parallel` is."""
    print(f"{conditions(options)}, median of {options.rounds} rounds\n")
    print("| | " + " | ".join(medians) + " |")
    print("|---" * (len(medians) + 1) + "|")
    for key, (title, form, more_is_better) in MEASURES.items():
        cells = []
        ours = medians.get("parallel", {}).get(key)
        for name, found in medians.items():
            if key not in found:
                cells.append("")
                continue
            cell = form.format(found[key])
            if name != "parallel" and ours:
                ratio = ours / found[key] if more_is_better else found[key] / ours
                cell += f" ({ratio:.1f}x)"
            cells.append(cell)
        print(f"| {title} | " + " | ".join(cells) + " |")
    print("\nIn brackets: how many times better parallel is.")


def conditions(options: argparse.Namespace) -> str:
    """Where and with what the numbers were found."""
    cores = f"{options.cores} cores" if options.cores else "all cores"
    return f"Python {platform.python_version()}, {options.slaves} slaves on {cores}"


# -- libraries: this checkout's, and that of a revision


@contextmanager
def library(source: str) -> Iterator[Path]:
    """A temporary folder with the library of a revision, or of a folder, and nothing else in it.

    So the benchmark's own code can be taken from here whichever library is measured, and nobody who works in the
    checkout meanwhile changes what is measured.
    """
    with tempfile.TemporaryDirectory(prefix="parallel-library-") as folder:
        into, worktree = Path(folder) / "library", Path(folder) / "worktree"
        if os.path.isdir(source):
            copy_library(Path(source), into)
        else:
            git("worktree", "add", "--quiet", "--detach", str(worktree), source)
            try:
                copy_library(worktree, into)
            finally:
                git("worktree", "remove", "--force", str(worktree))
        compileall.compile_dir(into, quiet=2)
        yield into


def copy_library(source: Path, into: Path) -> None:
    """Copy the two packages."""
    for package in ("parallel", "slave"):
        shutil.copytree(source / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))


def git(*arguments: str) -> None:
    """Run git in this checkout.  Ends the program with git's words if it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")


def run_with(folder: Path, arguments: Sequence[str], timeout: float) -> Any:
    """Run a tool in a process that finds the library of ``folder`` first; what it printed last, as JSON.

    Ends the program with the process's last words if it fails.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=environment, cwd=folder
        )
    except subprocess.TimeoutExpired as late:
        sys.exit(f"{' '.join(arguments)} took longer than {timeout:.0f} s:\n{late.stderr!r}")
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- against a revision


def inside(name: str, sizes: Sizes, slaves: int) -> float:
    """One measurement in this process, with the library that is found first."""
    if name == "adding":
        return adding(sizes.adding)
    if name == "first":
        return statistics.median(bench_peers.time_of_first("parallel", slaves) for _ in range(sizes.first))
    with bench_peers.Parallel(slaves) as peer:
        check_library(peer)
        if name == "noop":
            return noop(peer, sizes.tasks)
        if name == "alone":
            return alone(peer, sizes.alone)
        tasks: dict[str, bench_peers.Task] = {
            "bytes": bench_peers.ten_megabytes,
            "array": bench_peers.array,
            "arguments": functools.partial(bench_peers.swallow, b"x" * (MEGABYTES * 1_000_000)),
        }
        return large(peer, tasks[name], sizes.large)


def check_library(peer: bench_peers.Peer) -> None:
    """Master and slaves must use the library of the folder that this process was started in."""
    import parallel

    for file in [str(parallel.__file__), *map(str, peer.run(bench_peers.where_slave_is, 1))]:
        if not file.startswith(os.path.realpath(os.getcwd()) + os.sep):
            sys.exit(f"the library of {os.getcwd()} was to be measured, and {file} was imported")


def against(options: argparse.Namespace) -> int:
    """Run the pairs and print the table; returns the exit code."""
    sizes = ["--quick"] if options.quick else []
    names = [name for name in options.only or OWN_MEASURES if name != "array" or importlib.util.find_spec("numpy")]
    with ExitStack() as stack:
        then, now = (stack.enter_context(library(source)) for source in (options.against, options.now))
        sides = {"then": then, "now": now}
        if options.control:
            sides["control"] = then
        orders = itertools.cycle(itertools.permutations(sides))
        rounds: list[dict[str, dict[str, float]]] = []
        for number, order in zip(range(options.pairs), orders):
            found: dict[str, dict[str, float]] = {name: {} for name in names}
            for name in names:
                for side in order:
                    arguments = [__file__, "--inside", name, *sizes, f"--slaves={options.slaves}", "--cores=0"]
                    found[name][side] = run_with(sides[side], arguments, timeout=300)
            rounds.append(found)
            print(f"pair {number + 1}: {found}", file=sys.stderr)
    if options.json:
        Path(options.json).write_text(json.dumps(rounds, indent=1))
    return print_pairs(names, rounds, options)


def ratios(name: str, rounds: Sequence[Mapping[str, Mapping[str, float]]], side: str) -> list[float]:
    """How many times better than the old library that side was, in each pair."""
    more = OWN_MEASURES[name].more_is_better
    pairs = [(found[name][side], found[name]["then"]) for found in rounds]
    return [new / old if more else old / new for new, old in pairs]


def print_pairs(
    names: Sequence[str], rounds: Sequence[Mapping[str, Mapping[str, float]]], options: argparse.Namespace
) -> int:
    """The table; returns 1 if some measure is worse."""
    print(f"{conditions(options)}, {len(rounds)} pairs; ratios above 1: now is better\n")
    columns = ["", f"median of {options.against}", "median of now", "ratio", "min..max", "verdict"]
    if options.control:
        columns[5:5] = [f"{options.against} : itself", "min..max", "floor"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    worse = 0
    for name in names:
        title, form, _ = OWN_MEASURES[name]
        found = ratios(name, rounds, "now")
        ratio, least = statistics.median(found), TOLERANCE
        medians = [statistics.median(one[name][side] for one in rounds) for side in ("then", "now")]
        cells = [title, *map(form.format, medians), f"{ratio:.3f}", span(found)]
        if options.control:
            control = ratios(name, rounds, "control")
            least = min(least, floor(control))
            cells += [f"{statistics.median(control):.3f}", span(control), f"{floor(control):.3f}"]
        worse += ratio < least
        print("| " + " | ".join([*cells, "worse" if ratio < least else ""]) + " |")
    return 1 if worse else 0


def floor(control: Sequence[float]) -> float:
    """The median of as many ratios, drawn from a library's to itself, that one in a hundred falls short of."""
    both_ways = [*control, *(1 / ratio for ratio in control)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(both_ways, k=len(control))) for _ in range(4000))
    return medians[len(medians) // 100]


def span(numbers: Sequence[float]) -> str:
    """The smallest and the largest."""
    return f"{min(numbers):.2f}..{max(numbers):.2f}"


# -- the command line


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"of {', '.join(bench_peers.PEERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slaves", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="use so many of this machine's cores; 0: all")
    parser.add_argument("--json", help="write all numbers into this file")
    paired = parser.add_argument_group("against a revision of this library")
    paired.add_argument("--against", metavar="REV", help="a revision, or a folder with the library")
    paired.add_argument(
        "--now", metavar="REV", default=str(ROOT), help="what to compare with it; default: this checkout"
    )
    paired.add_argument("--pairs", type=int, help="default: 7, with --quick 3")
    paired.add_argument("--control", action="store_true", help="pair REV with itself, too")
    paired.add_argument("--quick", action="store_true", help="fewer tasks and pairs, for a first look")
    paired.add_argument("--only", nargs="+", choices=OWN_MEASURES, metavar="MEASURE", help=", ".join(OWN_MEASURES))
    paired.add_argument("--inside", choices=OWN_MEASURES, help=argparse.SUPPRESS)  # one measurement, in this process
    options = parser.parse_args()
    if options.pairs is None:
        options.pairs = 3 if options.quick else 7
    return options


def main() -> None:
    """Do what the command line says."""
    options = parse()
    if hasattr(os, "sched_setaffinity") and options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.inside:
        print(json.dumps(inside(options.inside, QUICK if options.quick else USUAL, options.slaves)))
    elif options.against:
        sys.exit(against(options))
    else:
        beside_peers(options)


if __name__ == "__main__":
    main()
