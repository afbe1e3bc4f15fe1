"""What a waiting user is told: one line on what is going on, and one paragraph when nothing can go on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..core.roster import SlaveRecord, SlaveState
from .books import Books

FIRST_WORD = 5.0  # seconds without progress until the waiting user is told why; the next words take twice as long each
SELDOM = 600.0  # seconds between two words at the most


def why_waiting(books: Books, context: int) -> str:
    """One line: how many tasks are left, and what each slave is doing.  Needs the lock."""
    tasks = books.left(context)
    return f"{tasks} task{'' if tasks == 1 else 's'} left; {what_slaves_do(books)}"


def what_slaves_do(books: Books) -> str:
    """Who is connected, who has not come, who is not heard of.  Needs the lock."""
    ready = books.roster.ready()
    expected = [slave for slave in books.roster.slaves.values() if slave.state is SlaveState.EXPECTED]
    lost = [slave for slave in books.roster.slaves.values() if slave.state is SlaveState.LOST]
    parts: list[str] = []
    if ready:
        leases = [books.table.leases[slave.number] for slave in ready if slave.number in books.table.leases]
        oldest = max((time.monotonic() - lease.granted for lease in leases), default=0.0)
        busy = f"{len(leases)} busy" + (f", the longest for {oldest:.0f} s" if leases else "")
        parts.append(f"{len(ready)} slave{'' if len(ready) == 1 else 's'} connected, {busy}")
    if expected:
        parts.append("not connected yet: " + "; ".join(_grouped({slave: slave.doing for slave in expected})))
    if lost:
        parts.append("not heard of: " + ", ".join(_names(lost)))
    if not ready and books.open_to_joiners:
        parts.append("no slave is connected; slaves may join by hand")
    return "; ".join(parts or ["no slave"])


def _grouped(told: Mapping[SlaveRecord, str], most: int = 4) -> list[str]:
    """What is told of slaves: those of whom the same is told together, not too many."""
    groups: dict[str, list[SlaveRecord]] = {}
    for slave, text in told.items():
        groups.setdefault(text, []).append(slave)
    texts = [", ".join(_names(some)) + (f": {text}" if text else "") for text, some in list(groups.items())[:most]]
    left = sum(len(some) for some in list(groups.values())[most:])
    return [*texts, f"{left} more"] if left else texts


def _names(slaves: Sequence[SlaveRecord], most: int = 4) -> list[str]:
    """The slaves as text, not too many."""
    texts = [str(slave) for slave in slaves[:most]]
    if len(slaves) > most:
        texts.append(f"{len(slaves) - most} more")
    return texts


def how_all_ended(books: Books) -> str:
    """For `NoMoreSlavesError`: how each slave ended, or what it does if there are too few.  Needs the lock."""
    slaves = list(books.roster.slaves.values())
    if not slaves:
        return "no slave was added: call add_slave, or give Manager a port and start slaves by hand"
    if any(slave.state is not SlaveState.ENDED for slave in slaves):
        summary = f"there are only {len(slaves)}:" if len(slaves) > 1 else "there is only one:"
    elif len(slaves) > 1:
        summary = f"all {len(slaves)} slaves have ended, and none is to come:"
    else:
        summary = "the only slave has ended:"
    return "\n  ".join([summary, *_grouped({slave: _obituary(slave) for slave in slaves}, most=20)])


def _obituary(slave: SlaveRecord) -> str:
    return slave.end if slave.state is SlaveState.ENDED else f"it is {slave.state.value}"
