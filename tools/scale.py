"""How the master's cost grows: with slaves, with contexts, and with what is over.

    python3 tools/scale.py [--against REV] [--quick] [--only PART ...] [--json FILE]

The slaves are light clients (tools/light_clients.py): one process that speaks the protocol for all and runs nothing, so
that what is measured is the master.  It stays on one core and they on another, where there are two.  Each part runs in
a master process of its own; --against REV runs each with that revision's library, too, and shows the ratio.

A no-op task's rate is counted from the first `add_task` to the last result.  "Added first": all are added, then all
results are read (slaves are there, and begin at once).  "Added meanwhile": the loop over the results adds a task for
each result.  The contexts of a run come one after the other, on the same slaves.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
    sys.path.insert(0, str(ROOT))

from tools import bench_against, bench_peers, light_clients  # noqa: E402 - found only after the lines above

KEY = "a key for measurements on one machine"
RUNNERS = 10  # slaves of an agent
MANY = 50  # slaves, from which on what each costs can be told from what one page or thread more costs
PAGE = os.sysconf("SC_PAGE_SIZE")


class Sizes(NamedTuple):
    """How much is done."""

    slaves: Sequence[int]  # the numbers of slaves to measure with
    tasks: int  # of each context, at least
    each: int  # tasks for each slave of them, at least: fewer are a lease for each slave, and no more
    contexts: int  # one after the other
    patience: float  # seconds after which a run begins no further context
    agents_gone: int  # agents of 8 slaves that came and left
    dropped: int  # empty contexts
    waiting: int  # tasks, meanwhile
    live: int  # contexts with one task each
    round_trips: int


USUAL = Sizes((10, 100, 300, 1000), 60_000, 300, 10, 150.0, 2000, 6000, 200_000, 8000, 300)
QUICK = Sizes((10, 100, 1000), 20_000, 20, 3, 15.0, 200, 500, 50_000, 1000, 100)


class Row(NamedTuple):
    """A line of the table: one number or several.  ``to_reach``: at most that; 0: nothing was promised."""

    title: str
    numbers: Sequence[float]
    form: str
    more_is_better: bool
    to_reach: float = 0.0


# -- a master and its light clients


class Master:
    """A manager that light clients join, on the first core; entered and left like one."""

    def __init__(self) -> None:
        import parallel

        logging.getLogger("parallel").setLevel(logging.ERROR)
        self.manager = parallel.Manager(port=0, authkey=KEY.encode(), output=None)

    def __enter__(self) -> Master:
        return self

    def __exit__(self, *error: object) -> None:
        self.manager.shutdown()

    @contextlib.contextmanager
    def clients(self, agents: int, runners: int, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Light clients, dialing by now.  They end with the master, and with this block at the latest."""
        address = f"127.0.0.1:{self.manager.address[1]}"
        command = [sys.executable, light_clients.__file__, address, f"--agents={agents}", f"--runners={runners}"]
        command += [f"--core={core}" for core in cores()[1:2]]
        environment = {**os.environ, "PARALLEL_AUTHKEY": KEY}
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            told(process, "dialing")
            yield process
        finally:
            process.kill()
            process.communicate()

    def join(self, clients: subprocess.Popen[str], slaves: int) -> None:
        """Wait until so many are connected, by the master's word and theirs."""
        self.manager.wait_for_slaves(slaves, timeout=300)
        told(clients, "joined")

    def round_trips(self, count: int) -> Cost:
        """What a task alone takes, there and back: the median."""
        context = self.manager.get_context()
        costs = []
        for _ in range(count):
            watch = Watch()
            context.add_task(bench_peers.noop)
            for _ in context.get_results_unordered():
                pass
            costs.append(watch.read())
        return median_of(costs)


class Cost(NamedTuple):
    """Microseconds by the clock, and of this process's processor time, which hardly minds who else computes here."""

    clock: float
    processor: float

    def rows(self, what: str, since: Cost | None = None) -> list[Row]:
        """For the table; with how many times an earlier cost that is."""
        rows = [
            Row(f"{what}, us", [self.clock], "{:.0f}", False),
            Row("  master's processor time, us", [self.processor], "{:.0f}", False),
        ]
        if since is not None:
            times = [self.clock / since.clock, self.processor / since.processor]
            rows.append(Row("  so many times as much, both", times, "{:.2f}", False))
        return rows


class Watch:
    """Runs from the moment that it is made."""

    def __init__(self) -> None:
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def read(self, tasks: int = 1) -> Cost:
        """What each of so many tasks cost since then."""
        clock, processor = time.perf_counter() - self._clock, time.process_time() - self._processor
        return Cost(clock / tasks * 1e6, processor / tasks * 1e6)


def median_of(costs: Sequence[Cost]) -> Cost:
    """The median of each part."""
    return Cost(statistics.median(cost.clock for cost in costs), statistics.median(cost.processor for cost in costs))


def told(process: subprocess.Popen[str], word: str) -> None:
    """Wait for a word of the light clients."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith(word):
        sys.exit(f"the light clients ended, or said {line!r} instead of {word!r}")


def cores() -> list[int]:
    """Those that this program may use, before it has chosen."""
    text = os.environ.setdefault("SCALE_CORES", " ".join(map(str, sorted(os.sched_getaffinity(0)))))
    return [int(core) for core in text.split()]


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def bring(slaves: int) -> tuple[int, int]:
    """So many slaves as agents and runners of each."""
    return max(1, slaves // RUNNERS), min(slaves, RUNNERS)


# -- the parts


def added_first(sizes: Sizes, slaves: int) -> list[Row]:
    """Come, work, and go: everything about so many slaves."""
    master = Master()
    manager = master.manager
    before = memory()
    with master, master.clients(*bring(slaves)) as clients:
        began, worked = time.perf_counter(), time.process_time()
        master.join(clients, slaves)
        joined, busy = time.perf_counter() - began, (time.process_time() - worked) / slaves * 1e3
        each = (memory() - before) / slaves / 1e3
        costs = run_contexts(manager, for_each(sizes, slaves), first_add)
        began = time.perf_counter()
        manager.shutdown()
        shut = time.perf_counter() - began
        clients.wait(30)
    rows = [
        Row(f"{slaves:,} slaves: joined, s", [joined], "{:.2f}", False, 5.0),
        Row("  master's processor time for each, ms", [busy], "{:.2f}", False),
        Row(f"{slaves:,} slaves: master's memory for each, KB", [each], "{:.0f}", False, 100.0),
        *work_rows(slaves, "added first", costs),
        Row(f"{slaves:,} slaves: shut down, s", [shut], "{:.2f}", False, 2.0),
    ]
    return rows if slaves >= MANY else rows[3:5]


def added_meanwhile(sizes: Sizes, slaves: int) -> list[Row]:
    """The same work, added by the loop over the results."""
    with Master() as master, master.clients(*bring(slaves)) as clients:
        master.join(clients, slaves)
        sizes = for_each(sizes, slaves)
        backlog = min(sizes.tasks // 2, max(1000, 10 * slaves))
        work = functools.partial(add_meanwhile, backlog=backlog)
        costs = run_contexts(master.manager, sizes, work)
    return work_rows(slaves, "added meanwhile", costs)


def for_each(sizes: Sizes, slaves: int) -> Sizes:
    """With as many tasks as so many slaves need."""
    return sizes._replace(tasks=max(sizes.tasks, sizes.each * slaves))


def lost(sizes: Sizes) -> list[Row]:
    """All slaves are lost at once, each with a task."""
    slaves = sizes.slaves[-1]
    with Master() as master:
        context = master.manager.get_context()
        for _ in range(slaves):
            context.add_task(bench_peers.noop)
        dispatcher = master.manager.dispatcher
        state = dispatcher.scheduler.state  # of which no public name tells
        with master.clients(*bring(slaves), "--hold") as clients:
            master.join(clients, slaves)
            until(lambda: dispatcher.call(lambda now: len(state.leases.by_slave)) == slaves, "every slave holds a task")
            clients.kill()
            began, worked = time.perf_counter(), time.process_time()
            until(lambda: dispatcher.call(lambda now: state.backlog.waiting) == slaves, "all tasks wait again")
            took, busy = time.perf_counter() - began, time.process_time() - worked
        grace = importlib.import_module("parallel.core.agents").RECONNECT_SECONDS
    what = f"{slaves:,} slaves lost at once: all tasks wait again, s"
    return [
        Row(what, [took], "{:.2f}", False),
        Row(f"  the same after the {grace:g} s for which agents may come back", [took - grace], "{:.2f}", False, 1.0),
        Row("  master's processor time for each, ms", [busy / slaves * 1e3], "{:.2f}", False),
    ]


def idle(sizes: Sizes) -> list[Row]:
    """Slaves that wait: heartbeats, and calls for tasks that are answered with none every few minutes."""
    slaves, seconds = sizes.slaves[-1], 20.0 if sizes.patience < 60 else 60.0
    with Master() as master, master.clients(*bring(slaves)) as clients:
        master.join(clients, slaves)
        time.sleep(2.0)
        worked = time.process_time()
        time.sleep(seconds)
        busy = (time.process_time() - worked) / seconds
    what = f"{slaves:,} idle slaves: percent of a core that the master takes"
    return [
        Row(what, [busy * 100], "{:.2f}", False),
        Row("  each, us a second", [busy / slaves * 1e6], "{:.1f}", False),
    ]


def until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again."""
    end = time.perf_counter() + 60
    while not condition():
        if time.perf_counter() > end:
            sys.exit(f"for a minute it did not come true that {what}")
        time.sleep(0.005)


def work_rows(slaves: int, how: str, costs: Sequence[Cost]) -> list[Row]:
    """What `run_contexts` found."""
    rates = [1e3 / cost.clock for cost in costs]
    return [
        Row(f"{slaves:,} slaves, {how}: 1,000 tasks/s by context", rates, "{:.0f}", True),
        Row("  master's processor time a task, us", [cost.processor for cost in costs], "{:.1f}", False),
    ]


def run_contexts(manager: Any, sizes: Sizes, work: Callable[[Any, int], None]) -> list[Cost]:
    """What a task costs in each context in turn, as many as there is time for."""
    costs: list[Cost] = []
    end = time.perf_counter() + sizes.patience
    while len(costs) < sizes.contexts and time.perf_counter() < end:
        watch = Watch()
        work(manager.get_context(), sizes.tasks)
        costs.append(watch.read(sizes.tasks))
    return costs


def first_add(context: Any, tasks: int) -> None:
    """Add all tasks, then read all results."""
    for _ in range(tasks):
        context.add_task(bench_peers.noop)
    check(tasks, sum(1 for _ in context.get_results_unordered()))


def add_meanwhile(context: Any, tasks: int, backlog: int) -> None:
    """Keep ``backlog`` tasks unfinished as long as there are more."""
    for _ in range(backlog):
        context.add_task(bench_peers.noop)
    left, count = tasks - backlog, 0
    for _ in context.get_results_unordered():
        count += 1
        if left:
            left -= 1
            context.add_task(bench_peers.noop)
    check(tasks, count)


def check(expected: int, found: int) -> None:
    """No result may be missing or there twice."""
    if expected != found:
        sys.exit(f"{expected} tasks gave {found} results")


def gone(sizes: Sizes) -> list[Row]:
    """A round trip before and after many agents came and left."""
    with Master() as master, master.clients(1, 1) as clients:
        master.join(clients, 1)
        fresh = master.round_trips(sizes.round_trips)
        began = time.perf_counter()
        with master.clients(sizes.agents_gone, 8, "--come-and-go=20") as passing:
            told(passing, "joined")
            if passing.wait(60):
                sys.exit("the agents could not leave")
        seconds = time.perf_counter() - began
        after = master.round_trips(sizes.round_trips)
    agents = f"{sizes.agents_gone:,} agents of 8 slaves"
    return [
        *fresh.rows("round trip of one task, fresh manager"),
        *after.rows(f"the same after {agents} came and left", since=fresh),
        Row(f"{agents} come and leave, s", [seconds], "{:.1f}", False),
    ]


def dropped(sizes: Sizes) -> list[Row]:
    """Drop many empty contexts while tasks wait, which a slave has seen that is busy with the first one."""
    with Master() as master:
        manager = master.manager
        context = manager.get_context()
        for _ in range(sizes.waiting):
            context.add_task(bench_peers.noop)
        contexts = [manager.get_context() for _ in range(sizes.dropped)]
        with master.clients(1, 1, "--hold") as clients:
            master.join(clients, 1)
            look(manager, 2.5, collect=True)  # its call for tasks has all of them entered, and that may take a while
            idle, _ = look(manager, 2.5, collect=True)
            del contexts
            busy, longest = look(manager, 2.5, collect=True)
    each = max(0.0, busy - idle) / sizes.dropped * 1e6
    what = f"dropping {sizes.dropped:,} empty contexts while {sizes.waiting:,} tasks wait"
    return [
        Row(f"{what}: us each of processor time", [each], "{:.0f}", False),
        Row("  longest that manager.slaves took meanwhile, ms", [longest * 1e3], "{:.1f}", False),
    ]


def look(manager: Any, seconds: float, collect: bool = False) -> tuple[float, float]:
    """Look at the slaves again and again; seconds of processor time that went by, and the longest look.

    ``collect``: have garbage collected first (contexts may stand in circles).
    """
    began, longest = time.process_time(), 0.0
    if collect:
        gc.collect()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        asked = time.perf_counter()
        _ = manager.slaves
        longest = max(longest, time.perf_counter() - asked)
        time.sleep(0.005)
    return time.process_time() - began, longest


def live(sizes: Sizes) -> list[Row]:
    """One task in each of many contexts, beside one in each of ten, before and afterwards."""
    with Master() as master, master.clients(1, RUNNERS) as clients:
        master.join(clients, RUNNERS)
        rounds = max(10, sizes.round_trips // 6)
        each_of(master.manager, 10)
        costs = [each_of(master.manager, 10) for _ in range(rounds)]
        many = each_of(master.manager, sizes.live)
        few = median_of(costs + [each_of(master.manager, 10) for _ in range(rounds)])
    return [
        *few.rows("a task in each of 10 live contexts, each"),
        *many.rows(f"a task in each of {sizes.live:,} live contexts, each", since=few),
    ]


def each_of(manager: Any, count: int) -> Cost:
    """What a task costs when one is added to each of so many contexts, and then each is read."""
    contexts = [manager.get_context() for _ in range(count)]
    watch = Watch()
    for context in contexts:
        context.add_task(bench_peers.noop)
    check(count, sum(1 for context in contexts for _ in context.get_results_unordered()))
    return watch.read(count)


def run_part(part: str, sizes: Sizes) -> list[Row]:
    """A part by its name."""
    name, _, slaves = part.partition("-")
    if slaves:
        return {"first": added_first, "meanwhile": added_meanwhile}[name](sizes, int(slaves))
    return {"lost": lost, "idle": idle, "gone": gone, "dropped": dropped, "live": live}[name](sizes)


def parts(sizes: Sizes) -> list[str]:
    """The names of all parts."""
    return [
        *(f"{name}-{slaves}" for slaves in sizes.slaves for name in ("first", "meanwhile")),
        "lost",
        "idle",
        "gone",
        "dropped",
        "live",
    ]


# -- the table


def print_table(found: dict[str, list[Row]], columns: Sequence[str]) -> None:
    """A line for each row, a column for each library, and the ratio of the medians if there are two."""
    head = ["", *columns] + (["ratio"] if len(columns) == 2 else []) + ["to reach"]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for rows in zip(*(found[column] for column in columns)):
        title, _, form, more_is_better, to_reach = rows[0]
        cells = [title, *(" ".join(form.format(number) for number in row.numbers) for row in rows)]
        if len(rows) == 2:
            then, now = (statistics.median(row.numbers) for row in rows)
            better = (now / then if more_is_better else then / now) if then and now else 0.0
            cells.append(f"{better:.2f}")
        reached = statistics.median(rows[-1].numbers) <= to_reach
        cells.append(f"at most {to_reach:g}{'' if reached else ': **missed**'}" if to_reach else "")
        print("| " + " | ".join(cells) + " |")
    print_fall(found[columns[-1]])
    print(
        "\nSeveral numbers: the contexts in turn; fewer than the others have: there was no time for the rest."
        + ("\nRatio, of the medians: above 1 the right column is better." if len(columns) == 2 else "")
    )


def print_fall(rows: Sequence[Row]) -> None:
    """By how much the rate falls from the fewest slaves to the most, by the master's processor time."""
    first = [row for number, row in enumerate(rows) if number and "added first" in rows[number - 1].title]
    if len(first) > 1:
        few, many = (statistics.median(row.numbers) for row in (first[0], first[-1]))
        fall = 1 - few / many
        print(f"\nThe rate falls by {fall:.0%}, at most 20%{'' if fall <= 0.2 else ': **missed**'}.")


def measure(options: argparse.Namespace, sizes: Sizes) -> None:
    """Run all parts with all libraries, and print the table."""
    sources = {source: source for source in [options.against] if source} | {"now": options.now}
    found: dict[str, list[Row]] = {name: [] for name in sources}
    turns = itertools.cycle([list(sources), list(reversed(sources))])
    arguments = [__file__, *(["--quick"] if options.quick else []), "--inside"]
    with contextlib.ExitStack() as stack:
        folders = {name: stack.enter_context(bench_against.library(source)) for name, source in sources.items()}
        for part, turn in zip(options.only or parts(sizes), turns):
            for name in turn:
                rows = bench_against.run_with(folders[name], [*arguments, part], timeout=900)
                found[name] += [Row(*row) for row in rows]
                print(f"{part}, {name}: {rows}", file=sys.stderr)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    print_table(found, list(sources))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV", help="a revision, or a folder with the library")
    parser.add_argument("--now", metavar="REV", default=str(ROOT), help="what to measure; default: this checkout")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    names = ", ".join(parts(USUAL))
    parser.add_argument("--only", nargs="+", metavar="PART", help=names)
    parser.add_argument("--json", help="write all numbers into this file")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # one part, in this process
    return parser.parse_args()


def main() -> None:
    """Measure, or be the master of one part."""
    options = parse()
    sizes = QUICK if options.quick else USUAL
    if not options.inside:
        measure(options, sizes)
        return
    light_clients.raise_descriptor_limit()
    if len(cores()) > 1:
        os.sched_setaffinity(0, cores()[:1])
    print(json.dumps(run_part(options.inside, sizes)))


if __name__ == "__main__":
    main()
