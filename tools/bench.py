"""The benchmark: this library beside its peers, or beside itself as it was, as medians and ratios.

    python3 tools/bench.py [--rounds 5] [--slaves 2] [--cores 2] [--quick] [--part PART] [--json FILE] [peer ...]
    python3 tools/bench.py --checkpoint [--rounds 5] [--slaves 2] [--quick]
    python3 tools/bench.py --against REV [--control] [--pairs 7] [--quick] [--only MEASURE ...] [--now REV]

Beside its peers: those that are not installed are left out, which is said; to have all: pip install numpy scipy loky
mpi4py executorlib distributed parsl ray hyperqueue.  Rounds go through all peers in turn, each in a process of its own,
and through what the machine can do (bare sockets and processes, bench_floor.py): a slow minute hits all alike.
Each number is the median over the rounds, and each ratio the median of the rounds' ratios.  What 300 idle slaves take
is measured in the first round only.  This library runs three times: on local slaves (a Unix socket), and on slaves
that a program brings over the loopback, with TLS and with MACs only.

With a checkpoint: what it costs to have results written to a file, and to open one of a million results.

Against a revision of its own (or a folder with one): every measurement in a process of its own, in pairs, now this one
first and now that one; only the library is exchanged, by way of PYTHONPATH, and the benchmark is this file's.  What
counts is the median of the pairs' ratios.  With --control the revision is also paired with itself, which shows how much
of that is the machine's noise: the floor, below which a hundredth of such medians fall by chance.  Exit code 1: some
measure is more than 3% worse, and below that floor.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
    sys.path.insert(0, str(ROOT))
    # installed peers are compiled; where this is set, a checkout would be compiled at each start
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPATH"] = str(ROOT)  # for peers whose slaves do not search where their master does

from tools import (  # noqa: E402 - found only after the lines above
    bench_against,
    bench_checkpoint,
    bench_floor,
    bench_frontends,
    bench_kinds,
    bench_measures,
    bench_peers,
)
from tools.bench_measures import MEASURES, NEED_NUMPY, OWN_MEASURES, QUICK, USUAL, Sizes, have_numpy  # noqa: E402

OWN = "parallel"
TLS, SEALED = "parallel by TLS", "parallel, MACs only"
FLOORS = BARE, BARE_TLS = "bare sockets, processes", "bare TLS"
MAP, EXECUTOR, CHUNKS = "parallel map", "parallel Executor", "Pool, chunks of 64"
SLOW = ("Dask", "Parsl", "Ray", "executorlib", "HyperQueue")  # of which less is done in a round
BESIDE_BARE = "setup"  # of the kinds that which is compared with what the machine can do
SCIENTIFIC = ("numpy", "scipy")
MEASURES_OF: Mapping[str, Sequence[str]] = {  # those of which not all is measured
    bench_peers.SPAWNED: (),
    **dict.fromkeys(("Dask", "Parsl", "Ray"), ("noop", "alone", "late", "1 ms", "10 ms", "bytes", "array")),
    **dict.fromkeys(("loky", "mpi4py.futures", "executorlib"), ("noop", "alone", "late", "1 ms", "10 ms", "bytes")),
    **dict.fromkeys((TLS, SEALED), ("noop", "alone", "late", "bytes")),
    **dict.fromkeys((MAP, EXECUTOR, CHUNKS), ("noop", "alone", "late")),
    "HyperQueue": ("noop", "alone", "late"),
}

Rounds = Mapping[str, Sequence[Mapping[str, float]]]  # by peer, then one for each round


class Target(NamedTuple):
    """A ratio that is to be reached: of one column's measure to another's, or to another measure.

    ``to`` "": the number itself.
    """

    title: str
    measure: str
    column: str
    to: str
    wanted: float
    at_most: bool = False
    to_measure: str = ""


TARGETS = [
    Target("no-op tasks: parallel / Pool", "noop", OWN, "Pool", 4.0),
    Target("no-op tasks: parallel / ProcessPoolExecutor", "noop", OWN, "ProcessPoolExecutor", 20.0),
    Target("no-op calls: map_unordered / Pool with chunks of 64", "noop", MAP, CHUNKS, 0.5),
    Target("no-op calls: Executor / ProcessPoolExecutor", "noop", EXECUTOR, "ProcessPoolExecutor", 8.0),
    Target(
        "one call alone: Executor / ProcessPoolExecutor", "alone", EXECUTOR, "ProcessPoolExecutor", 1.2, at_most=True
    ),
    Target("no-op tasks: TLS / Unix socket", "noop", TLS, OWN, 0.9),
    Target("10 MB results: TLS / bare TLS", "bytes", TLS, BARE_TLS, 0.85),
    Target("one task alone: parallel / Pool", "alone", OWN, "Pool", 1.0, at_most=True),
    Target("one task alone: slowest of a hundred / median", "late", OWN, OWN, 3.0, at_most=True, to_measure="alone"),
    Target("1 ms tasks: parallel / bare processes", "1 ms", OWN, BARE, 0.97),
    Target("10 ms tasks: parallel / bare processes", "10 ms", OWN, BARE, 0.99),
    *(
        Target(f"10 MB {what}: parallel / bare TCP", measure, OWN, BARE, 0.6, to_measure="bytes")
        for measure, what in [
            ("bytes", "results"),
            ("array", "NumPy results"),
            ("arguments", "arguments"),
            ("array arguments", "NumPy arguments"),
        ]
    ),
    Target("a setup of 100 MB / bare TCP", "setup", OWN, BARE, 0.6, to_measure="bytes"),
    Target("first result: parallel / Pool, spawned", "first", OWN, bench_peers.SPAWNED, 1.5, at_most=True),
    Target("a result of all: parallel / Pool, spawned", "first of all", OWN, bench_peers.SPAWNED, 1.1, at_most=True),
    Target("mixed load", "mixed", OWN, "", 0.97),
    Target("mixed load by a map", "mixed map", OWN, "", 0.97),
    Target("long tail", "tail", OWN, "", 0.95),
    Target("slaves busy", "burning", OWN, "", 0.9),
    Target("master's growth: two results in flight, and two, MB", "peak", OWN, "", 40.0, at_most=True),
    Target("a runner, MB", "runner shared", OWN, "", 20.0, at_most=True),
    Target("an agent, MB", "agent shared", OWN, "", 15.0, at_most=True),
    Target("idle, percent", "idle", OWN, "", 0.1, at_most=True),
    Target("adding a task, us", "adding", OWN, "", 4.0, at_most=True),
    Target("a waiting task, bytes beyond its pickle", "waiting", OWN, "", 250.0, at_most=True),
]


# -- beside the peers


def measure(name: str, slaves: int, sizes: Sizes, loops: Mapping[str, int]) -> dict[str, float]:
    """One round of one peer."""
    found: dict[str, float] = {}
    if name in SLOW:
        sizes = QUICK
    kind = bench_peers.PEERS[name]
    tasks = min(sizes.tasks * kind.together, kind.tasks)
    with bench_peers.make(name, slaves) as peer:
        for one in MEASURES_OF.get(name, MEASURES):
            if one == "noop":
                found[one] = bench_measures.noop(peer, tasks)
            elif one == "alone":
                found[one], found["late"] = bench_measures.alone(peer, min(sizes.alone, tasks))
            elif one in loops:
                found[one] = bench_measures.busy(peer, loops[one], busy_tasks(one, slaves, sizes))
            elif one in ("bytes", "array", "arguments", "array arguments") and usable(one):
                found[one] = bench_measures.large(peer, one, sizes.large)
    return found


def measure_all(name: str, options: argparse.Namespace, loops: Mapping[str, int], number: int) -> dict[str, float]:
    """One round of one peer, in processes of their own; no numbers if it fails, which is said."""
    sizes, slaves = sizes_of(options), options.slaves
    if options.part == "kinds":
        return measure_kinds(options, number) if name == OWN else {}
    if name in FLOORS:
        return measure_floor(name, slaves, sizes, loops)
    try:
        found = beside(name, options, loops)
        if name not in (TLS, SEALED, MAP, EXECUTOR, CHUNKS):
            found["first"] = bench_peers.time_of_first(name, slaves)
    except (RuntimeError, subprocess.SubprocessError, ValueError) as error:
        print(f"{name} gave no numbers: {error}", file=sys.stderr)
        return {}
    if name in (OWN, bench_peers.SPAWNED) and all(map(bench_measures.have, SCIENTIFIC)):
        script = str(ROOT / "tools" / "bench_scientific.py")
        found["first of all"] = bench_peers.time_of_first(name, slaves, script)
    if name == OWN:
        found["adding"], found["waiting"] = adding(sizes.adding)
        found.update(measure_kinds(options, number))
    return found


def measure_kinds(options: argparse.Namespace, number: int) -> dict[str, float]:
    """One round of what only this library has: bench_kinds.py."""
    found: dict[str, float] = {}
    for kind in bench_kinds.KINDS if options.part != "peers" else [BESIDE_BARE]:
        if kind != "idle" or not number:
            found.update(bench_kinds.measure(kind, options.slaves, options.quick))
    return found


def beside(name: str, options: argparse.Namespace, loops: Mapping[str, int]) -> dict[str, float]:
    """What `measure` finds in a process of its own."""
    if not MEASURES_OF.get(name, MEASURES):
        return {}
    command = [sys.executable, __file__, "--beside", json.dumps(loops), f"--slaves={options.slaves}", "--cores=0", name]
    command += ["--quick"] if options.quick else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes_of(options: argparse.Namespace) -> Sizes:
    """How much is done."""
    return QUICK if options.quick else USUAL


def adding(tasks: int) -> tuple[float, float]:
    """As `bench_measures.adding_and_waiting`, in a process that has no memory of other measures to fill."""
    command = [sys.executable, "-m", "tools.bench_measures", str(tasks)]  # a script, whose tasks can travel
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    took, size = map(float, done.stdout.split())
    return took, size


def measure_floor(name: str, slaves: int, sizes: Sizes, loops: Mapping[str, int]) -> dict[str, float]:
    """One round of what the machine can do."""
    if name == BARE_TLS:
        return {"bytes": bench_floor.bare_tls(sizes.large)}
    busy = {
        one: bench_floor.bare_processes(slaves, count, busy_tasks(one, slaves, sizes)) for one, count in loops.items()
    }
    alone, late = bench_floor.bare_hops(slaves, sizes.alone)
    return {"bytes": bench_floor.bare_tcp(sizes.large), "alone": alone, "late": late, **busy}


def busy_tasks(name: str, slaves: int, sizes: Sizes) -> int:
    """How many tasks of "1 ms" or "10 ms"."""
    return round(sizes.busy * slaves * 1000 / int(name.split()[0]))


def usable(name: str) -> bool:
    """Whether a measure can be taken here."""
    return name not in NEED_NUMPY or have_numpy()


def beside_peers(options: argparse.Namespace) -> None:
    """Run the rounds and print the tables."""
    asked = options.peers or list(bench_peers.PEERS)
    peers = [name for name in asked if bench_peers.available(name)]
    for name in set(asked) - set(peers):
        print(f"{name} is left out: {bench_peers.PEERS[name].needs} is not installed here", file=sys.stderr)
    names = [*peers, *FLOORS] if options.part != "kinds" else [OWN]
    loops = {one: bench_floor.loops_of(int(one.split()[0]) / 1000) for one in ("1 ms", "10 ms")}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    end = time.monotonic() + options.seconds
    for number in range(options.rounds):
        if number and time.monotonic() > end:
            break
        for name in names:
            rounds[name].append(measure_all(name, options, loops, number))
            print(f"round {number + 1}: {name} {rounds[name][-1]}", file=sys.stderr)
    print(f"{conditions(options)}, median of {len(rounds[names[0]])} rounds\n")
    print_table(rounds)
    if options.part != "kinds":
        print("\nFor the README:\n")
        print_short_table(rounds)
    if options.json:
        Path(options.json).write_text(json.dumps(rounds, indent=1))


def print_table(rounds: Rounds) -> None:
    """Medians, in brackets how many times better `parallel` is, and the ratios that are to be reached."""
    print("| | " + " | ".join(rounds) + " | to reach |")
    print("|---" * (len(rounds) + 2) + "|")
    for key, (title, form, more_is_better) in MEASURES.items():
        cells = []
        for name in rounds:
            found = [one[key] for one in rounds[name] if key in one]
            cell = form.format(statistics.median(found)) if found else ""
            ratio = ratio_of(rounds, (OWN, key), (name, key))
            if name != OWN and ratio is not None:
                cell += f" ({ratio if more_is_better else 1 / ratio:.2f}x)"
            cells.append(cell)
        if any(cells):
            print(f"| {title} | " + " | ".join([*cells, targets_of(rounds, key)]) + " |")
    print("\nIn brackets: how many times better parallel is.")


SHORT_NAMES = {"noop": "no-op tasks a second", "alone": "one task alone, us", "1 ms": "1 ms tasks, share of the ideal"}
SHORT_PEERS = (
    OWN, "Pool", "ProcessPoolExecutor", "loky", "mpi4py.futures", "executorlib", "Dask", "Parsl", "Ray", "HyperQueue",
)  # fmt: skip
SHORT_MEASURES = ("noop", "alone", "1 ms", "bytes", "array", "first")


def print_short_table(rounds: Rounds) -> None:
    """Medians of the measures that all peers have, and how many times better parallel is."""
    names = [name for name in SHORT_PEERS if any(rounds.get(name, ()))]
    print("| | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for key in SHORT_MEASURES:
        title, form, more_is_better = MEASURES[key]
        cells = []
        for name in names:
            found = [one[key] for one in rounds[name] if key in one]
            share = ratio_of(rounds, (name, key), (BARE, key)) if key == "1 ms" else None
            cell = (f"{share:.2f}" if share else form.format(statistics.median(found))) if found else ""
            ratio = ratio_of(rounds, (OWN, key), (name, key))
            if name != OWN and ratio is not None:
                cell += f" ({ratio if more_is_better else 1 / ratio:.1f}x)"
            cells.append(cell)
        print(f"| {SHORT_NAMES.get(key, title)} | " + " | ".join(cells) + " |")


def targets_of(rounds: Rounds, measure: str) -> str:
    """The ratios of a measure that are to be reached, and what they are."""
    cells = []
    for target in TARGETS:
        if target.measure != measure:
            continue
        if target.to:
            ratio = ratio_of(rounds, (target.column, measure), (target.to, target.to_measure or measure))
        else:
            found = [one[measure] for one in rounds.get(target.column, ()) if measure in one]
            ratio = statistics.median(found) if found else None
        if ratio is not None:
            reached = ratio <= target.wanted if target.at_most else ratio >= target.wanted
            bound = "at most" if target.at_most else "at least"
            missed = "" if reached else ": **missed**"
            cells.append(f"{target.title} {ratio:.2f}, {bound} {target.wanted:g}{missed}")
    return "; ".join(cells)


def ratio_of(rounds: Rounds, one: tuple[str, str], other: tuple[str, str]) -> float | None:
    """The median of the rounds' ratios of one peer's measure to another's; None if they were not both taken."""
    pairs = zip(rounds.get(one[0], ()), rounds.get(other[0], ()))
    ratios = [mine[one[1]] / theirs[other[1]] for mine, theirs in pairs if one[1] in mine and other[1] in theirs]
    return statistics.median(ratios) if ratios else None


def conditions(options: argparse.Namespace) -> str:
    """Where and with what the numbers were found."""
    return bench_against.conditions(options.slaves, options.cores)


# -- the command line


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"of {', '.join(bench_peers.PEERS)}; default: all")
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after so many no further round begins")
    parser.add_argument("--slaves", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="use so many of this machine's cores; 0: all")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    words = "the peers' measures, those of this library alone, which mind less who else computes, or both"
    parser.add_argument("--part", choices=("peers", "kinds", "all"), default="all", help=words)
    parser.add_argument("--json", help="write all numbers into this file")
    parser.add_argument("--frontends", action="store_true", help="Pool and Executor beside the standard library's")
    parser.add_argument("--checkpoint", action="store_true", help="what a checkpoint costs")
    parser.add_argument("--beside", metavar="LOOPS", help=argparse.SUPPRESS)  # one round of one peer, in this process
    paired = parser.add_argument_group("against a revision of this library")
    paired.add_argument("--against", metavar="REV", help="a revision, or a folder with the library")
    paired.add_argument(
        "--now", metavar="REV", default=str(ROOT), help="what to compare with it; default: this checkout"
    )
    paired.add_argument("--pairs", type=int, help="default: 7, with --quick 3")
    paired.add_argument("--control", action="store_true", help="pair REV with itself, too")
    paired.add_argument("--only", nargs="+", choices=OWN_MEASURES, metavar="MEASURE", help=", ".join(OWN_MEASURES))
    paired.add_argument("--inside", choices=OWN_MEASURES, help=argparse.SUPPRESS)  # one measurement, in this process
    options = parser.parse_args()
    options.pairs = options.pairs or (3 if options.quick else 7)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def main() -> None:
    """Do what the command line says."""
    options = parse()
    if hasattr(os, "sched_setaffinity") and options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.inside:
        print(json.dumps(bench_against.inside(options.inside, sizes_of(options), options.slaves)))
    elif options.beside:
        (name,) = options.peers
        print(json.dumps(measure(name, options.slaves, sizes_of(options), json.loads(options.beside))))
    elif options.frontends:
        print(f"{conditions(options)}, median of {options.rounds} rounds\n")
        bench_frontends.section(options.slaves, options.rounds, options.quick)
    elif options.checkpoint:
        bench_checkpoint.section(options.slaves, options.rounds, options.quick)
    elif options.against:
        sys.exit(bench_against.against(options))
    else:
        beside_peers(options)


if __name__ == "__main__":
    main()
