"""What would have helped a traced run: each rule looks at the numbers, and tells what it would have brought."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Callable

from .trace_reader import Summary
from .units import show_bytes, show_time

_MUCH = 0.15  # of the slaves' time: a part that is worth a word
_WORTH = 0.05  # of the run's time: what an advice must bring
_LARGE = 100_000  # bytes that go over the network for one task
_TOGETHER = 10  # tasks that are made one
_BUSY = 0.75  # share of work and set-up from which on more slaves help


def makespan(durations: Iterable[float], slaves: int) -> float:
    """Seconds until all tasks are done if each goes, in this order, to the slave that is free first."""
    free = [0.0] * slaves
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def longest_first(run: Summary) -> str | None:
    """The idle tail would have been shorter if the longest tasks had begun first."""
    if run.share("idle tail") < _MUCH / 2 or run.tasks < 2:
        return None
    slaves = len(run.slaves)
    saved = makespan(run.durations, slaves) - makespan(sorted(run.durations, reverse=True), slaves)
    if saved < _WORTH * run.seconds:
        return None
    return (
        f"longest tasks first: slaves idled at the end while others worked; had the longest tasks been added first, "
        f"the run would have ended about {show_time(saved)} sooner"
    )


def shorter_tasks(run: Summary) -> str | None:
    """One task took so long that all others had to wait for it at the end."""
    slaves, (longest, name, _) = len(run.slaves), run.longest
    if run.share("idle tail") < _MUCH / 2 or run.tasks < 2 or slaves < 2:
        return None
    ideal = run.total("work") / slaves
    saved = makespan(sorted(run.durations, reverse=True), slaves) - max(ideal, longest / 2)
    if longest < 1.2 * ideal or saved < _WORTH * run.seconds:
        return None
    return (
        f"smaller tasks: the longest one ({name}) took {show_time(longest)}, longer than the {show_time(ideal)} that "
        f"each slave would have worked; cut in two it would have ended the run about {show_time(saved)} sooner"
    )


def more_slaves(run: Summary) -> str | None:
    """All slaves were busy nearly all the time."""
    slaves = len(run.slaves)
    if run.share("work") + run.share("set-up") < _BUSY or run.tasks < 2 * slaves:
        return None
    now = run.total("work") / slaves
    saved = now - max(now / 2, run.longest[0])
    if saved < 2 * _WORTH * run.seconds:
        return None
    share = run.share("work") + run.share("set-up")
    these = "the only one was" if slaves == 1 else f"the {slaves} were"
    return (
        f"more slaves: {these} busy for {share:.0%} of the time; with {2 * slaves} of the same kind the run "
        f"would have taken about {show_time(run.seconds - saved)} in place of {show_time(run.seconds)}"
    )


def larger_tasks(run: Summary) -> str | None:
    """Short tasks: more time went into sending them than is worth it."""
    if not run.tasks or run.share("sending") < _MUCH or run.sent / run.tasks >= _LARGE:
        return None
    each, work = run.total("sending") / run.tasks, run.total("work") / run.tasks
    saved = run.total("sending") * (1 - 1 / _TOGETHER) / len(run.slaves)
    if saved < _WORTH * run.seconds:
        return None
    return (
        f"larger tasks: a task worked for {show_time(work)} and cost {show_time(each)} to send and unpack; {_TOGETHER} "
        f"of them in one (or context.map, which does that by itself) would have saved about {show_time(saved)}"
    )


def less_data(run: Summary) -> str | None:
    """Large tasks or results: they took their time on the way."""
    if not run.tasks or run.share("sending") < _MUCH or run.sent / run.tasks < _LARGE:
        return None
    saved = run.total("sending") / 2 / len(run.slaves)
    if saved < _WORTH * run.seconds:
        return None
    return (
        f"less data: {show_bytes(run.sent)} were sent, {show_bytes(run.sent / run.tasks)} for each task; half of that "
        f"would have saved about {show_time(saved)} (what all tasks need belongs into the setup; write large results "
        "to files)"
    )


def sooner_or_fewer(run: Summary) -> str | None:
    """Slaves had nothing to do while the run went on."""
    if run.share("waiting") < _MUCH:
        return None
    slaves = len(run.slaves)
    busy = run.share("work") + run.share("set-up") + run.share("sending") + run.share("in vain")
    enough = max(1, math.ceil(slaves * busy / (busy + run.share("waiting"))))
    fewer = f"; or {enough} in place of {slaves} slaves would have done" if enough < slaves else ""
    return (
        f"tasks sooner: slaves waited for tasks for {run.share('waiting'):.0%} of the time, since the program had "
        "added none (or read no results); had they been there, the run would have ended about "
        f"{show_time(run.total('waiting') / slaves)} sooner{fewer}"
    )


def cheaper_setup(run: Summary) -> str | None:
    """Set-up took a large part."""
    if run.share("set-up") < _MUCH or not run.setups:
        return None
    each, saved = run.total("set-up") / run.setups, run.total("set-up") / 2 / len(run.slaves)
    return (
        f"a shorter set-up: {run.setups} of them took {show_time(each)} each, {run.share('set-up'):.0%} of the time; "
        f"in half the time they would have ended the run about {show_time(saved)} sooner (load what they make from a "
        "file)"
    )


def slaves_earlier(run: Summary) -> str | None:
    """Slaves came late."""
    if run.share("starting") < _MUCH:
        return None
    last = max(slave.joined for slave in run.slaves.values()) - run.begins
    saved = run.total("starting") / len(run.slaves)
    return (
        f"slaves earlier: the last one came {show_time(max(0.0, last))} after the first task; had all been there, the "
        f"run would have ended about {show_time(saved)} sooner (start them before, manager.wait_for_slaves, or have "
        "them work for longer)"
    )


def fewer_losses(run: Summary) -> str | None:
    """Work was lost with slaves."""
    if run.share("in vain") < _WORTH or not run.lost:
        return None
    return (
        f"fewer losses: {show_time(run.total('in vain'))} of work ended with {run.lost} lost slaves; the trace says at "
        f"each how it ended"
    )


ADVICE: tuple[Callable[[Summary], str | None], ...] = (
    fewer_losses, less_data, larger_tasks, sooner_or_fewer, cheaper_setup, slaves_earlier, longest_first, shorter_tasks,
    more_slaves,
)  # fmt: skip


def advice(run: Summary) -> list[str]:
    """What would have helped, in lines; the worst waste first."""
    return [text for text in (rule(run) for rule in ADVICE) if text is not None]
