"""A plan: all that is to happen in one run, made from a seed; what is left out of it changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .world import Stream

# what may go wrong, or be asked for; `faults.py` says what each is
FAULTS = (
    "a runner dies", "a runner dies soon", "a runner dies when it has posted", "a runner is stopped",
    "an agent is killed", "an agent is stopped",
    "an agent is asked to end", "an agent is asked twice to end", "a machine is switched off", "a job is started again",
    "a runner's cable is cut", "an agent's cable is cut", "an answer to a runner is lost",
    "an answer to an agent is lost", "a runner is half cut", "an agent is half cut", "a machine is silent",
    "the master is stopped", "a launcher removes a slave", "a runner's end is told late",
)  # fmt: skip
WISHES = (
    "a task is cancelled", "a context is cancelled", "a context is dropped", "a slave is dismissed",
    "a local slave is added", "a reader leaves", "somebody waits for slaves", "a slave joins by hand",
)  # fmt: skip
# what makes no task run again: a runner comes back with what it holds and has posted
HARMLESS = frozenset({"a runner's cable is cut", "an answer to a runner is lost", *WISHES})
# how it ends, at last: those who are connected are told, the others have to see for themselves
SHUT_DOWN, KILLED = "the manager is shut down", "the master is killed"
OUT_OF_REACH = "the manager is shut down while no machine can be reached"
ENDS = (SHUT_DOWN, SHUT_DOWN, KILLED, OUT_OF_REACH)
KINDS = ("by hand", "by hand", "launched", "launched", "local", "open-ended")


class AgentPlan(NamedTuple):
    """An agent that comes.  ``speed``: how quick its machine is; ``output``: its slaves have output files."""

    at: float
    slaves: int
    kind: str = "by hand"
    speed: float = 1.0
    output: bool = False


class ContextPlan(NamedTuple):
    """A context.  ``setup``: none, returns, raises, raises here (on some slaves), dies (once).

    ``reading``: seconds that the reader takes for a result; ``feeds``: its tasks come from an iterable; ``maps``: they
    are the inputs of a map; ``speculates``: they may be started twice.  ``anew``: its setup is not the one that it had
    in the run before.
    """

    setup: str = "none"
    seconds: float = 0.0
    readers: int = 1
    reading: float = 0.0
    feeds: bool = False
    maps: bool = False
    speculates: bool = False
    anew: bool = False


class Restart(NamedTuple):
    """The master is killed at that time, and another one comes ``pause`` seconds later.

    ``anew``: contexts whose setups are other ones then; ``same``: it runs the same program.  ``wait``: seconds for
    which slaves wait for it.
    """

    at: float
    pause: float
    anew: Sequence[int] = ()
    same: bool = True
    wait: float = 30.0


class TaskPlan(NamedTuple):
    """A task.  ``what``: returns, raises, dies; the latter two ``times`` times, and then it returns.

    Or unfit here: half of the slaves cannot rebuild it.
    """

    context: int
    at: float
    seconds: float
    what: str = "returns"
    times: int = 0
    retries: int = 0
    limit: float | None = None
    size: int = 100


class Act(NamedTuple):
    """Something that goes wrong, or that somebody wants."""

    at: float
    what: str
    which: int = 0
    seconds: float = 0.0
    number: int = 0


class Plan(NamedTuple):
    """See the module's text."""

    seed: int
    term: float = 10.0
    max_attempts: int = 3
    may_join: bool = True
    result_bytes: float = 1e9
    slowness: float = 0.01
    agents: Sequence[AgentPlan] = ()
    contexts: Sequence[ContextPlan] = ()
    tasks: Sequence[TaskPlan] = ()
    acts: Sequence[Act] = ()
    end: str = SHUT_DOWN
    restart: Restart | None = None

    @property
    def calm(self) -> float:
        """When the last thing that goes wrong is over."""
        return max([0.0, *(act.at + act.seconds for act in self.acts), *(one.at for one in self.tasks)])


def make_plan(seed: int) -> Plan:
    """The plan of a seed."""
    random = Stream(seed, "plan")
    term = random.of((2.0, 5.0, 10.0, 30.0))
    span = random.of((1.0, 4.0, 15.0))
    other = Stream(seed, "speculation")  # so that what a seed was known for stays
    contexts = [_context(random)._replace(speculates=other.chance(0.4)) for _ in range(random.of((1, 1, 2, 3)))]
    agents = [_agent(random, span if number else 0.1) for number in range(random.of((1, 1, 2, 3)))]
    quick = 0.9 if random.chance(0.2) else 0.0
    tasks = [_task(random, len(contexts), span, quick) for _ in range(random.of((3, 6, 12, 30)) if not quick else 60)]
    kinds = [random.of(FAULTS) for _ in range(random.of((0, 1, 1, 2, 3)))]
    kinds += [random.of(WISHES) for _ in range(random.of((0, 0, 1, 2)))]
    acts = [_act(random, random.of(kinds), span, term) for _ in range(random.of((1, 2, 4, 8)))] if kinds else []
    return Plan(
        seed,
        term,
        max_attempts=random.of((1, 2, 3)),
        may_join=random.chance(0.7),
        result_bytes=random.of((1e9, 1e9, 2000.0)),
        slowness=random.of((0.0, 0.001, 0.02, 0.3)),
        agents=sorted(agents),
        contexts=contexts,
        tasks=sorted(tasks, key=lambda task: task.at),
        acts=sorted(acts),
        end=random.of(ENDS),
    )


def make_restart(seed: int) -> Plan:
    """The plan of a seed, with a restart in the midst of it."""
    plan, random = make_plan(seed), Stream(seed, "restart")
    at = random.between(0.0, 1.2 * max(1.0, plan.calm if plan.calm < 20.0 else 20.0))
    anew = [index for index in range(len(plan.contexts)) if random.chance(0.3)]
    pause = random.of((0.01, 0.5, 2.5, 4.0, 9.0))
    return plan._replace(restart=Restart(at, pause, anew, random.chance(0.8), random.of((5.0, 30.0, 30.0))))


def _agent(random: Stream, span: float) -> AgentPlan:
    speed = random.of((1.0, 1.0, 0.3, 3.0))
    return AgentPlan(random.between(0.0, span), random.of((1, 1, 2, 3)), random.of(KINDS), speed, random.chance(0.3))


def _context(random: Stream) -> ContextPlan:
    setup = random.of(("none", "none", "returns", "returns", "raises here", "raises", "dies"))
    feeds, readers = random.chance(0.15), random.of((1, 1, 1, 2))
    seconds, reading = random.of((0.0, 0.05, 1.0)), random.of((0.0, 0.0, 0.2))
    maps = seconds > (0.1 if setup == "none" else 0.0)  # no draw of its own: what a seed was known for stays
    return ContextPlan(setup, seconds, readers, reading, feeds, maps)


def _task(random: Stream, contexts: int, span: float, quick: float) -> TaskPlan:
    """``quick``: how many of them take next to nothing, one after the other."""
    if random.chance(quick):
        return TaskPlan(random.below(contexts), 0.0, 0.00005)
    seconds = random.of((0.0005, 0.003, 0.003, 0.05, 0.5, 2.0, 12.0)) * random.between(0.9, 1.1)
    what = random.of(("returns",) * 12 + ("raises", "raises", "dies", "unfit here"))
    times = 0 if what in ("returns", "unfit here") else random.of((1, 1, 2, 99))
    return TaskPlan(
        random.below(contexts),
        random.of((0.0, 0.0, random.between(0.0, span))),
        seconds,
        what,
        times,
        random.of((0, 0, 0, 1, 3)),
        random.of((None,) * 8 + (0.4, 5.0)),
        random.of((100,) * 8 + (1000, 200_000, 300_000)),
    )


def _act(random: Stream, what: str, span: float, term: float) -> Act:
    seconds = random.of((0.01, 0.2, 0.9, 1.2, term / 4, 0.9 * term, 1.1 * term, 2.5 * term, 12 * term))
    if what == "a machine is silent" and random.chance(0.5):
        seconds = min(seconds, 2.5 * term)
    return Act(random.between(0.0, 1.2 * span), what, random.below(1 << 16), seconds, random.below(6))
