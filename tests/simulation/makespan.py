"""How long a mix of tasks takes on simulated slaves, against the ideal: what scheduling costs, and nothing else.

The ideal is the least time in which it can be done at all: all slaves busy from when they have joined until the end,
and no task shorter than it is on the quickest slave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .plan import AgentPlan, ContextPlan, Plan, TaskPlan
from .run import Run
from .world import Stream

_START = 0.2  # seconds from an agent's start until its slaves have joined


class Mix(NamedTuple):
    """A mix of tasks: how many, and how many seconds they take; in which order they are added."""

    name: str
    tasks: Sequence[float]


class Site(NamedTuple):
    """The slaves: for each machine when it comes, how many slaves it brings, and how quick it is.

    ``speculates``: tasks may be started twice.
    """

    name: str
    machines: Sequence[tuple[float, int, float]]
    speculates: bool = False


class Row(NamedTuple):
    """A line of the table."""

    mix: str
    site: str
    seconds: float
    ideal: float

    @property
    def ratio(self) -> float:
        """How many times as long as need be."""
        return self.seconds / self.ideal


def mixes() -> list[Mix]:
    """The mixes of tasks."""
    random = Stream(1, "mixes")
    heavy = [0.05 / (1.0 - 0.999 * random.random()) ** 0.8 for _ in range(400)]
    return [
        Mix("2,000 of 1 ms", [0.001] * 2000),
        Mix("1,000 of 20 ms", [0.02] * 1000),
        Mix("100 of 1 s", [1.0] * 100),
        Mix("1,000 of 10 ms, then 20 of 2 s", [0.01] * 1000 + [2.0] * 20),
        Mix("20 of 2 s, then 1,000 of 10 ms", [2.0] * 20 + [0.01] * 1000),
        Mix("1,000 of 10 ms, each fiftieth 2 s", [2.0 if number % 50 == 49 else 0.01 for number in range(1000)]),
        Mix("400, 50 ms to 12 s (few are long)", heavy),
    ]


SITES = [
    Site("8 equal", [(0.0, 8, 1.0)]),
    Site("4 and 4 at a third", [(0.0, 4, 1.0), (0.0, 4, 1 / 3)]),
    Site("4, and 4 after 5 s", [(0.0, 4, 1.0), (5.0, 4, 1.0)]),
    Site("64 equal", [(0.0, 64, 1.0)]),
    Site("7, and 1 at a quarter", [(0.0, 7, 1.0), (0.0, 1, 0.25)]),
    Site("the same, speculating", [(0.0, 7, 1.0), (0.0, 1, 0.25)], speculates=True),
]


def measure(mix: Mix, site: Site) -> Row:
    """Run it."""
    plan = Plan(
        1,
        term=30.0,
        slowness=0.0004,
        agents=[AgentPlan(at, slaves, speed=speed) for at, slaves, speed in site.machines],
        contexts=[ContextPlan(speculates=site.speculates)],
        tasks=[TaskPlan(0, _START, seconds) for seconds in mix.tasks],
    )
    run = Run(plan, check_every=1_000_000, helped=False)
    done = 0.0
    while run.users.to_add or run.ledger.unsettled:
        run.world.step()
        done = run.world.now
    return Row(mix.name, site.name, done - _START, ideal(mix, site))


def ideal(mix: Mix, site: Site) -> float:
    """The least time in which it can be done."""
    work, longest = sum(mix.tasks), max(mix.tasks)
    time, speed = 0.0, 0.0
    events = sorted((at, slaves * quick) for at, slaves, quick in site.machines)
    for index, (at, more) in enumerate(events):
        if work <= speed * (at - time):
            break
        work -= speed * (at - time)
        time, speed = at, speed + more
        if index + 1 == len(events):
            break
    return max(time + work / speed, longest / max(quick for _, _, quick in site.machines))


def table() -> list[str]:
    """The table in markdown."""
    lines = ["| tasks | " + " | ".join(site.name for site in SITES) + " |", "|---" * (1 + len(SITES)) + "|"]
    for mix in mixes():
        rows = [measure(mix, site) for site in SITES]
        cells = [f"{row.seconds:.2f} s of {row.ideal:.2f} ({row.ratio:.2f})" for row in rows]
        lines.append(f"| {mix.name} | " + " | ".join(cells) + " |")
    return lines
