"""This library beside itself as it was: see tools/bench.py, which has the command line."""

from __future__ import annotations

import argparse
import compileall
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tools import bench_peers
from tools.bench_measures import NEED_NUMPY, OWN_MEASURES, Sizes, adding, alone, have_numpy, large, noop

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "tools" / "bench.py"
TOLERANCE = 0.97  # ratio of a library to an older one below which it is worse


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
    kind = bench_peers.ParallelOverTcp if name.endswith("by TCP") else bench_peers.Parallel
    with kind(slaves) as peer:
        check_library(peer)
        if name.startswith("noop"):
            return noop(peer, sizes.tasks)
        if name == "alone":
            return alone(peer, sizes.alone)[0]
        return large(peer, name, sizes.large)


def check_library(peer: bench_peers.Peer) -> None:
    """Master and slaves must use the library of the folder that this process was started in."""
    import parallel

    for file in [str(parallel.__file__), *map(str, peer.run(bench_peers.where_slave_is, 1))]:
        if not file.startswith(os.path.realpath(os.getcwd()) + os.sep):
            sys.exit(f"the library of {os.getcwd()} was to be measured, and {file} was imported")


def against(options: argparse.Namespace) -> int:
    """Run the pairs and print the table; returns the exit code."""
    sizes = ["--quick"] if options.quick else []
    names = [name for name in options.only or OWN_MEASURES if name not in NEED_NUMPY or have_numpy()]
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
                    arguments = [str(BENCH), "--inside", name, *sizes, f"--slaves={options.slaves}", "--cores=0"]
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
    print(f"{conditions(options.slaves, options.cores)}, {len(rounds)} pairs; ratios above 1: now is better\n")
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


def conditions(slaves: int, cores: int) -> str:
    """Where and with what numbers were found."""
    used = f"{cores} cores" if cores else "all cores"
    return f"Python {platform.python_version()}, {slaves} slaves on {used}"
