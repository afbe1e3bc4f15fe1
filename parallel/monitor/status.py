"""How things are, as plain data: what `Manager.status` and `Context.progress` return.

All times are in seconds, and tell how long ago or how long something is: they mean the same on another machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ContextStatus:
    """A context and its maps, as one."""

    id: int
    label: str  # the one given to it, or else the name of its setup, or of what it runs
    waiting: int  # tasks that no slave runs yet
    running: int  # tasks that a slave runs just now
    done: int  # tasks that have their outcome, those that failed among them
    failed: int
    coming: int  # tasks that are still to come, out of iterables that tell how many they hold
    complete: bool  # no others are to come, as far as is known; False: an iterable is not at its end
    rate: float  # outcomes per second lately; 0.0: not known yet
    time_left: float | None  # seconds until all that is known is done, about; None: not known

    @property
    def known(self) -> int:
        """How many tasks there are or will be, those that were cancelled not counted."""
        return self.waiting + self.running + self.done + self.coming

    @property
    def left(self) -> int:
        """How many of them have no outcome yet."""
        return self.known - self.done


@dataclass(frozen=True)
class SlaveStatus:
    """A slave.  ``state``: 'expected', 'idle', 'busy', 'stopped', 'draining', 'lost' or 'ended'."""

    number: int
    name: str
    host: str
    pid: int  # of its process; 0: there is none
    state: str
    words: str  # what its launcher says that it does, while it is expected; how it ended, when it has
    task: int  # that it runs; 0: none
    label: str  # of that task
    context: int  # of that task
    runs_for: float  # seconds for which it runs that task
    done: int  # tasks
    busy: float  # the share of its time for which it ran tasks, from 0.0 to 1.0
    memory: int  # bytes that its process and what that started use; 0: not known
    heard: float | None  # seconds since its last sign of life; None: there was none
    losses: int  # how often its process ended, or was not heard of, against our will
    output: str | None  # the file with what its tasks print

    @property
    def connected(self) -> bool:
        """Whether it can be given tasks."""
        return self.state in ("idle", "busy", "stopped")


@dataclass(frozen=True)
class EventStatus:
    """Something that happened.  ``level``: as of `logging`."""

    ago: float  # seconds
    level: int
    text: str


@dataclass(frozen=True)
class Status:
    """A manager.  Slaves that have ended are left out, but for the last ones."""

    master: str  # its program, user, machine and process
    release: str
    uptime: float  # seconds since it was made
    closing: bool  # it was shut down
    contexts: list[ContextStatus] = field(default_factory=list)
    slaves: list[SlaveStatus] = field(default_factory=list)
    ended: int = 0  # slaves that have
    events: list[EventStatus] = field(default_factory=list)  # the last ones, the latest at the end
    trouble: list[str] = field(default_factory=list)  # what is wrong just now, in words
    slowest: str = ""  # the label of the task that took longest, of those that a slave ran alone
    slowest_seconds: float = 0.0  # which it took
    copies: int = 0  # tasks that were started twice, where `get_context(speculate=True)` allows it
    copies_first: int = 0  # of these, whose second copy was done first

    @property
    def total(self) -> ContextStatus:
        """All contexts as one."""
        return sum_of(self.contexts)

    @property
    def connected(self) -> int:
        """How many slaves can be given tasks."""
        return sum(slave.connected for slave in self.slaves)

    @property
    def working(self) -> int:
        """How many slaves run a task."""
        return sum(slave.task != 0 for slave in self.slaves)

    def as_dict(self) -> dict[str, Any]:
        """The same in dicts and lists, for JSON."""
        made = vars(self).copy()  # dataclasses.asdict would take 20 times as long, and of a thousand slaves that counts
        for name in ("contexts", "slaves", "events"):
            made[name] = [vars(one).copy() for one in made[name]]
        made["trouble"] = list(self.trouble)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Status:
        """The inverse; what another release adds is left out.  Raises TypeError, KeyError or ValueError for others."""
        parts: dict[str, Any] = _known(cls, data)
        for name, kind in (("contexts", ContextStatus), ("slaves", SlaveStatus), ("events", EventStatus)):
            parts[name] = [kind(**_known(kind, one)) for one in data[name]]
        return cls(**parts)


def sum_of(contexts: list[ContextStatus]) -> ContextStatus:
    """Several contexts as one, whose ``id`` is 0."""
    times = [one.time_left for one in contexts if one.left]
    longest = None if None in times else sum(time for time in times if time is not None)
    return ContextStatus(
        id=0,
        label="",
        waiting=sum(one.waiting for one in contexts),
        running=sum(one.running for one in contexts),
        done=sum(one.done for one in contexts),
        failed=sum(one.failed for one in contexts),
        coming=sum(one.coming for one in contexts),
        complete=all(one.complete for one in contexts),
        rate=sum(one.rate for one in contexts),
        time_left=longest,
    )


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: data[one.name] for one in dataclasses.fields(kind) if one.name in data}
