"""What HTCondor's event log of a job says, a text file that its shadow writes on the submitting machine.  Pure.

See "Job Event Log Events" in HTCondor's manual: an event is a line such as

    001 (013.002.000) 2026-11-25 21:53:45 Job executing on host: <10.0.0.7:9618?addrs=...>

with the number of the event, the cluster and the process, and more lines up to one of three dots.  The log tells at
once, and at no cost for the queue, what `condor_q` would have to be asked for again and again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable, NamedTuple

from .engine import TaskState

_HEAD = re.compile(r"^(\d{3}) \((\d+)\.(\d+)\.\d+\) \S+(?: \d\d:\d\d:\d\d\S*)? ?(.*)$")


class Event(NamedTuple):
    """One event: its ``number``, the job's ``cluster`` and ``process``, and its text without the head of its line."""

    number: int
    cluster: str
    process: int
    lines: tuple[str, ...]


class Progress(NamedTuple):
    """What the events so far say of one job.

    ``host``: where its program was started; None if it waits, or waits again.  ``exit_code``: as a shell would give
    it, 128 and the signal's number for one that was killed.  ``removed``: why it was taken out of the queue; '' if it
    was not.
    """

    state: TaskState
    host: str | None = None
    exit_code: int | None = None
    removed: str = ""


SUBMITTED = Progress(TaskState(False, "queued (idle)"))


def events(text: str) -> list[Event]:
    """The events in a text that were written whole."""
    found = []
    for block in text.split("\n...\n")[:-1]:
        lines = block.splitlines()
        head = _HEAD.match(lines[0]) if lines else None
        if head is not None:
            number, cluster, process, first = head.groups()
            told = (first, *(line.strip() for line in lines[1:]))
            found.append(Event(int(number), str(int(cluster)), int(process), told))
    return found


def after(before: Progress, event: Event) -> Progress:
    """What is known when an event has come."""
    make = _MEANINGS.get(event.number)
    return before if make is None else make(before, event)


def _submitted(before: Progress, event: Event) -> Progress:
    return SUBMITTED


def _executing(before: Progress, event: Event) -> Progress:
    slot = next((line.partition(":")[2].strip() for line in event.lines if line.startswith("SlotName:")), "")
    alias = re.search(r"[?&]alias=([^&>]+)", event.lines[0])
    address = re.search(r"<([^?>]+)", event.lines[0])
    host = slot.rpartition("@")[2] or (alias or address or [None, "a machine of the pool"])[1]
    return Progress(TaskState(True, f"running on {host}"), str(host))


def _terminated(before: Progress, event: Event) -> Progress:
    for line in event.lines[1:]:
        found = re.search(r"\(return value (-?\d+)\)|\(signal (\d+)\)", line)
        if found is not None:
            value, signum = found.groups()
            return before._replace(exit_code=int(value) if value is not None else 128 + int(signum))
    return before._replace(removed="ended, and the event log does not say how")


def _removed(before: Progress, event: Event) -> Progress:
    return before._replace(removed=f"was removed: {_reason(event) or 'HTCondor does not say why'}")


def _held(before: Progress, event: Event) -> Progress:
    return Progress(held(f"{event.cluster}.{event.process}", _reason(event)))


def _waits_again(before: Progress, event: Event) -> Progress:
    reason = next(
        (line.partition(":")[2].strip() for line in event.lines if line.startswith("Reason:")), _reason(event)
    )
    return Progress(TaskState(False, f"queued (idle) again: {reason}" if reason else "queued (idle) again"))


def _suspended(before: Progress, event: Event) -> Progress:
    return before._replace(state=TaskState(True, f"suspended on {before.host}"))


def _unreachable(before: Progress, event: Event) -> Progress:
    return before._replace(
        state=TaskState(True, f"HTCondor has lost the connection to {before.host}: {_reason(event)}")
    )


def _reached(before: Progress, event: Event) -> Progress:
    return before._replace(state=TaskState(True, f"running on {before.host}"))


def _released(before: Progress, event: Event) -> Progress:
    return Progress(TaskState(False, "queued (idle) again: released"))


def held(job: str, reason: str) -> TaskState:
    """The state of a job that HTCondor holds: it will not run before somebody has helped."""
    why = reason or "HTCondor does not say why"
    return TaskState(
        False, f"held: {why} (mend that, then 'condor_release {job}', or delete it: 'condor_rm {job}')", True
    )


def _reason(event: Event) -> str:
    """The first line of an event that gives no numbers."""
    for line in event.lines[1:]:
        if line and not re.match(r"\(\d\)|Code \d|Usr \d|\d+ +- |Partitionable|Reason unspecified", line):
            return line
    return ""


# by the event's number
_MEANINGS: Mapping[int, Callable[[Progress, Event], Progress]] = {
    0: _submitted,
    1: _executing,
    4: _waits_again,  # evicted
    5: _terminated,
    7: _waits_again,  # its shadow failed
    9: _removed,
    10: _suspended,
    11: _reached,  # unsuspended
    12: _held,
    13: _released,
    21: _waits_again,  # its starter or its shadow says that something is wrong
    22: _unreachable,  # the connection to its machine is lost
    23: _reached,  # ... and back
    24: _waits_again,  # ... or not
}
