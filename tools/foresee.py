"""How a run would go with more slaves and tasks than there are here: the real scheduler, in simulated time.

    python3 tools/foresee.py [--slaves 100000] [--tasks 1e7] [--seconds 0.1] [--slow 0.01] [--lost 0.001] [--check]

Slaves, agents and the network are simulated; who gets which tasks when, what comes back from a lost slave, and what is
called back from a slow one, parallel/core decides, as in every run.  What the master pays for a lease and for a task
(``--lease-cost``, ``--task-cost``, microseconds; tools/scale.md has where they come from) is charged to one simulated
processor, so that one sees when that is the limit.  ``--slow``: the share of slaves that take four times as long.
``--lost``: the share of them that die once, at a random time in the middle of a task.  One seed, one course.

``--check``: the same with few slaves beside a real run of sleeping tasks.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from parallel.core.chunk import Inputs  # noqa: E402 - found only after the lines above
from parallel.core.effects import Answer, Deliver, Granted, WantTasks  # noqa: E402
from parallel.core.scheduler import Scheduler  # noqa: E402
from slave.protocol import (  # noqa: E402
    BY_ITSELF,
    EnlistRequest,
    FetchRequest,
    JoinRequest,
    Ran,
    Recall,
    Role,
    RunnerBeat,
    RunnerEnded,
)

RUNNERS = 10  # of an agent
TERM = 30.0  # seconds of a lease
LATENCY = 0.0002  # seconds from a slave to the master, and as many back
SLOWER = 4.0
NONE = b"\x80\x05N."


class Costs(NamedTuple):
    """Seconds of the master's processor."""

    lease: float
    task: float


class Found(NamedTuple):
    """What came of a run.  Seconds; shares of one."""

    seconds: float
    ideal: float
    slaves_busy: float
    master_busy: float
    lost: int
    again: int  # tasks that were granted once more


class Slave:
    """A simulated slave.  ``version`` tells a word of before from one that counts."""

    __slots__ = ("agent", "began", "dies_at", "lease", "number", "pid", "seconds", "tasks", "version")

    def __init__(self, number: int, agent: str, seconds: float) -> None:
        self.number, self.agent, self.seconds = number, agent, seconds
        self.pid, self.version, self.lease, self.began = 1, 0, 0, 0.0
        self.tasks: list[int] = []
        self.dies_at = float("inf")


class Run:
    """One run of many tasks of equal length."""

    def __init__(self, slaves: int, tasks: int, seconds: float, slow: float, lost: float, costs: Costs) -> None:
        self._random, self._costs, self._seconds = random.Random(1), costs, seconds
        self.scheduler = Scheduler(TERM, 3, run="run", environment={}, may_join=False)
        self._state = self.scheduler.state
        self.now, self._free = 0.0, 0.0  # the time; until when the master is busy
        self._heap: list[tuple[float, int, str, Any, int]] = []
        self._count = 0
        self._left, self._done, self.lost, self.granted = tasks, 0, 0, 0
        self._total, self._charged, self._worked = tasks, 0.0, 0.0
        self._slaves: dict[int, Slave] = {}
        self._commands: dict[str, int] = {}
        self._enlist(slaves, slow, lost, tasks * seconds / slaves)
        context = self.scheduler.users.make_context(None, self.now)
        self._inputs = Inputs(context, None, 0)
        self._context = context
        self._feed()

    def _enlist(self, slaves: int, slow: float, lost: float, span: float) -> None:
        chance = self._random.random
        for first in range(0, slaves, RUNNERS):
            agent = f"agent {first}"
            wanted = [None] * min(RUNNERS, slaves - first)
            request = EnlistRequest(agent, "", agent, 1, "3", 1, wanted, [])
            reply = self.scheduler.agents.enlist(request, 1, self.now)
            for number in reply.numbers:
                slave = Slave(number, agent, self._seconds * (SLOWER if chance() < slow else 1.0))
                if chance() < lost:
                    slave.dies_at = chance() * span
                self._slaves[number] = slave
                self._later(chance() * 0.01, "join", slave)
            self._ask_commands(agent, 0)
            self._later(chance() * TERM / 6, "beat", agent)

    def _later(self, at: float, what: str, whom: Any, version: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, what, whom, version))

    def _charge(self, seconds: float) -> None:
        """The master is busy for so long, from now on or when it is done with what came before."""
        self._free = max(self._free, self.now) + seconds
        self._charged += seconds

    def go(self) -> Found:
        """Until the last result is known."""
        said = 0
        while self._done < self._total:
            if self._done * 10 // self._total > said:
                said = self._done * 10 // self._total
                print(f"{said}0% of the tasks are done at {self.now:,.1f} s", file=sys.stderr, flush=True)
            at, _, what, whom, version = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            if self.scheduler.due <= self.now:
                self.scheduler.tick(self.now, 0.0)
            getattr(self, "_" + what)(whom, version)
            self._apply()
        capacity = sum(1.0 / slave.seconds for slave in self._slaves.values())
        busy = self._worked / (self.now * len(self._slaves))
        again = self.granted - self._total
        return Found(self.now, self._total / capacity, busy, self._charged / self.now, self.lost, again)

    # -- what slaves and agents do

    def _join(self, slave: Slave, version: int) -> None:
        self.scheduler.runners.join(("join", slave), JoinRequest(slave.number, slave.pid, 1, "run", 0), self.now)

    def _fetch(self, slave: Slave, ran: Sequence[Ran] = ()) -> None:
        self.scheduler.runners.fetch(("fetch", slave), FetchRequest(slave.number, slave.pid, 1, ran), self.now)

    def _beat(self, agent: str, version: int) -> None:
        beats = [
            RunnerBeat(slave.number, slave.pid, 0)
            for slave in map(self._slaves.get, range(int(agent.split()[1]), int(agent.split()[1]) + RUNNERS))
            if slave is not None and slave.agent == agent
        ]
        self.scheduler.agents.heartbeat(agent, beats, self.now)
        self._later(self.now + TERM / 6, "beat", agent)

    def _ask_commands(self, agent: str, acknowledged: int) -> None:
        self.scheduler.agents.commands(("commands", agent), agent, acknowledged, self.now)

    def _granted(self, slave: Slave, lease: int, tasks: list[int]) -> None:
        self._charge(self._costs.lease + self._costs.task * len(tasks))
        slave.version += 1
        slave.lease, slave.tasks, slave.began = lease, tasks, self._free + LATENCY
        self.granted += len(tasks)
        self._plan(slave)

    def _plan(self, slave: Slave) -> None:
        ends = slave.began + slave.seconds * len(slave.tasks)
        if slave.dies_at < ends:
            self._later(max(slave.began, slave.dies_at), "dies", slave, slave.version)
        else:
            self._later(ends + LATENCY, "posts", slave, slave.version)

    def _posts(self, slave: Slave, version: int) -> None:
        """All of its lease is done; it asks for the next one."""
        if version != slave.version:
            return
        tasks, slave.tasks = slave.tasks, []
        seconds = slave.seconds * len(tasks)
        self._worked += seconds
        values = [part for task in tasks for part in (task, NONE)]
        self.scheduler.runners.outcomes([(slave.number, slave.lease, self._context, values)], self.now)
        self._fetch(slave, [Ran(self._context, len(tasks), seconds)])

    def _dies(self, slave: Slave, version: int) -> None:
        """In the middle of a task; its agent says so, and starts the next process."""
        if version != slave.version:
            return
        self.lost += 1
        running = slave.tasks[self._running(slave)]
        slave.dies_at, slave.tasks = float("inf"), []
        slave.version += 1
        self.scheduler.runner_disconnected(Role("runner", slave.number, "", slave.pid, 1), self.now)
        report = RunnerEnded(slave.agent, slave.number, slave.pid, -9, running, 0, BY_ITSELF)
        self.scheduler.agents.runner_ended(report, "it was killed by SIGKILL", "", self.now)
        slave.pid += 1
        self._later(self.now + 0.1, "join", slave)

    def _running(self, slave: Slave) -> int:
        return min(len(slave.tasks) - 1, max(0, int((self.now - slave.began) / slave.seconds)))

    def _recalled(self, slave: Slave, lease: int) -> None:
        if lease != slave.lease or not slave.tasks:
            return
        place = self._running(slave)
        self.scheduler.agents.recalled(slave.number, lease, slave.tasks[place], self.now)
        self.granted -= len(slave.tasks) - place - 1
        del slave.tasks[place + 1 :]
        slave.version += 1
        self._plan(slave)

    # -- what the master does

    def _feed(self) -> None:
        wanted = min(self._left, self.scheduler.users.tasks_wanted(self._context, 0.0, self.now))
        self._left -= wanted
        self._inputs.payloads.extend([NONE] * wanted)
        if wanted:
            self._state.incoming.append(self._inputs)
        if not self._left:
            self.scheduler.users.no_more_tasks(self._context, self.now)

    def _apply(self) -> None:
        effects: deque[Any] = deque(self.scheduler.take(self.now)[0])
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Deliver):
                self._done += sum(len(one.tasks) if hasattr(one, "tasks") else 1 for one in effect.outcomes)
            elif isinstance(effect, WantTasks):
                self._feed()
            elif isinstance(effect, Answer):
                what, whom = effect.call
                self._answered(what, whom, effect.value)
            if not effects:
                effects.extend(self.scheduler.take(self.now)[0])

    def _answered(self, what: str, whom: Any, value: Any) -> None:
        if what == "join":
            self._fetch(whom)
        elif what == "fetch":
            if isinstance(value, Granted) and value.lease is not None:
                self._granted(whom, value.lease.id, list(value.lease.tasks))
            elif value is not None:
                self._fetch(whom)
        elif value is not None:
            last, commands = value
            for command in commands:
                if isinstance(command, Recall):
                    self._recalled(self._slaves[command.slave], command.lease)
            self._ask_commands(whom, last)


def show(found: Found, took: float) -> str:
    """In words."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{found.seconds:,.2f} s; with slaves always busy {found.ideal:,.2f} s ({found.ideal / found.seconds:.0%}); "
        f"slaves busy {found.slaves_busy:.0%}, the master {found.master_busy:.0%}; {found.lost:,} processes lost, "
        f"{found.again:,} tasks granted again\n(the scheduler itself needed {took:,.1f} s here, and {memory:,.0f} MB)"
    )


def real(slaves: int, tasks: int, seconds: float) -> float:
    """The seconds of a real run of sleeping tasks."""
    import parallel

    with parallel.Manager.local(slaves, output=None) as manager:
        context = manager.get_context()
        list(context.map_unordered(time.sleep, [seconds] * 4 * slaves))
        began = time.perf_counter()
        list(context.map_unordered(time.sleep, [seconds] * tasks))
        return time.perf_counter() - began


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slaves", type=int, default=100_000)
    parser.add_argument("--tasks", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--seconds", type=float, default=0.1, help="that a task takes")
    parser.add_argument("--slow", type=float, default=0.01)
    parser.add_argument("--lost", type=float, default=0.001)
    parser.add_argument("--lease-cost", type=float, default=60.0, metavar="US")
    parser.add_argument("--task-cost", type=float, default=3.4, metavar="US")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    costs = Costs(options.lease_cost / 1e6, options.task_cost / 1e6)
    if options.check:
        for slaves, tasks, seconds in [(2, 400, 0.01), (4, 2000, 0.005), (8, 800, 0.05)]:
            found = Run(slaves, tasks, seconds, 0.0, 0.0, costs).go()
            print(f"{slaves} slaves, {tasks} tasks of {seconds:g} s: foreseen {found.seconds:.2f} s, ", end="")
            print(f"real {real(slaves, tasks, seconds):.2f} s", flush=True)
        return
    gc.disable()  # nothing here stands in a circle, and looking for that takes half the time with 100,000 slaves
    began = time.process_time()
    found = Run(options.slaves, options.tasks, options.seconds, options.slow, options.lost, costs).go()
    print(show(found, time.process_time() - began))


if __name__ == "__main__":
    main()
