"""The benchmark: this library beside its peers, in one run, as medians and ratios.

    python3 tools/bench.py [--rounds 5] [--slaves 2] [--cores 2] [--json FILE] [name of a peer ...]

Peers that are not installed are left out; to have all: pip install numpy dask distributed parsl ray.  Rounds go through
all peers in turn, so that a slow minute of the machine hits them alike.  Each number is the median over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # for peers whose slaves do not search where their master does

from tools import bench_peers  # noqa: E402 - found only after the line above

MEGABYTES = 10  # what bench_peers.ten_megabytes and array return
MEASURES = {
    "noop": ("no-op tasks per second", "{:,.0f}", True),
    "alone": ("one task alone, there and back, us", "{:,.0f}", False),
    "bytes": (f"{MEGABYTES} MB bytes results, MB/s", "{:,.0f}", True),
    "array": (f"{MEGABYTES} MB NumPy results, MB/s", "{:,.0f}", True),
    "first": ("first result after the interpreter's start, s", "{:.2f}", False),
}


def measure(peer: bench_peers.Peer, tasks: int) -> dict[str, float]:
    """One round of one peer: everything but the first result, on slaves that are up."""
    found: dict[str, float] = {}
    with peer:
        drain(peer, bench_peers.noop, 200)
        began = time.perf_counter()
        drain(peer, bench_peers.noop, tasks)
        found["noop"] = tasks / (time.perf_counter() - began)
        times = []
        for _ in range(200):
            began = time.perf_counter()
            drain(peer, bench_peers.noop, 1)
            times.append(time.perf_counter() - began)
        found["alone"] = statistics.median(times) * 1e6
        for name, task in (("bytes", bench_peers.ten_megabytes), ("array", bench_peers.array)):
            if name == "array" and importlib.util.find_spec("numpy") is None:
                continue
            drain(peer, task, 4)
            began = time.perf_counter()
            drain(peer, task, 40)
            found[name] = 40 * MEGABYTES / (time.perf_counter() - began)
    return found


def drain(peer: bench_peers.Peer, task: Any, count: int) -> None:
    """Have the task run ``count`` times and look at every result."""
    for _ in peer.run(task, count):
        pass


def main() -> None:
    """Run the rounds and print the table."""
    options = parse()
    if hasattr(os, "sched_setaffinity") and options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    peers = [name for name in options.peers or bench_peers.PEERS if bench_peers.available(name)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name in peers:
            tasks = bench_peers.PEERS[name].tasks
            found = measure(bench_peers.make(name, options.slaves), tasks)
            found["first"] = bench_peers.time_of_first(name, options.slaves)
            rounds[name].append(found)
            print(f"round {number + 1}: {name} {found}", file=sys.stderr)
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in MEASURES if key in found[0]}
        for name, found in rounds.items()
    }
    print_table(medians, options)
    if options.json:
        Path(options.json).write_text(json.dumps({"medians": medians, "rounds": rounds}, indent=1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"of {', '.join(bench_peers.PEERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slaves", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="use so many of this machine's cores; 0: all")
    parser.add_argument("--json", help="write all numbers into this file")
    return parser.parse_args()


def print_table(medians: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """Medians, and in brackets how many times better `parallel` is."""
    cores = f"{options.cores} cores" if options.cores else "all cores"
    print(
        f"Python {platform.python_version()}, {options.slaves} slaves on {cores}, median of {options.rounds} rounds\n"
    )
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


if __name__ == "__main__":
    main()
