"""What can happen, as data: one class for each thing.  Log lines, progress and journals are made from these.

``slave`` is a slave's number, ``name`` the text by which messages name it, with host and process where they are known.
Events of single tasks (`TaskEvent`) are made only while somebody has subscribed: a run that nobody watches pays
nothing for them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slave.protocol import Times

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(frozen: bool) -> Any:
        """For type checkers `Event` and its subclasses are dataclasses; see there."""
        return lambda kind: kind


@dataclass(frozen=True)
class Event:
    """Something happened.  ``time``: when, by time.monotonic(), in seconds.

    Each class is a frozen dataclass to whoever uses it, made without that module: it compiles several methods for each
    class, which would cost every program 18 ms at its start.
    """

    time: float

    if not TYPE_CHECKING:
        fields = ("time",)

        def __init_subclass__(cls) -> None:
            own = cls.__annotations__ if sys.version_info >= (3, 10) else vars(cls).get("__annotations__", {})
            cls.fields = (*cls.fields, *own)

        def __init__(self, *values: object) -> None:
            if len(values) != len(self.fields):
                raise TypeError(f"{type(self).__name__} takes {self.fields}, not {values}")
            self.__dict__.update(zip(self.fields, values))

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} of an event cannot be changed")

        def __eq__(self, other: object) -> bool:
            return type(self) is type(other) and vars(self) == vars(other)

        def __hash__(self) -> int:
            return hash((type(self), self.time))

        def __repr__(self) -> str:
            told = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
            return f"{type(self).__name__}({told})"


# -- the manager


@dataclass(frozen=True)
class MasterWasStopped(Event):
    """The master was stopped or busy for ``seconds`` and heard nobody; nobody is taken for dead because of that."""

    seconds: float


@dataclass(frozen=True)
class Waiting(Event):
    """Somebody has waited for long without anything happening.

    ``context``: whose results, 0 for slaves.  ``wanted``: how many slaves are waited for, 0 for results.
    """

    context: int
    wanted: int
    left: int  # tasks
    connected: int
    busy: int
    longest: float  # seconds for which the longest running lease is held
    expected: Sequence[tuple[str, str]]  # slaves that have not connected: text, what they do
    lost: Sequence[str]
    may_join: bool


@dataclass(frozen=True)
class ManagerClosed(Event):
    """The manager was shut down."""


@dataclass(frozen=True)
class Missed(Event):
    """This subscriber was slow, and did not get ``count`` events that stood here."""

    count: int


# -- connections


@dataclass(frozen=True)
class ConnectionEvent(Event):
    """Something happened to a connection; ``peer``: its other end, as text."""

    peer: str


@dataclass(frozen=True)
class ConnectionRefused(ConnectionEvent):
    """Somebody could not prove that it holds the key, or did not try.

    ``ours``: it seems to be a slave program, of another version.
    """

    why: str
    ours: bool = False


@dataclass(frozen=True)
class NeedsUnmet(Event):
    """No slave has what a context needs.

    ``slaves``: how many are connected; ``tags``: what these have altogether; ``may_join``: another one may come.
    """

    context: int
    needs: Sequence[str]
    slaves: int
    tags: Sequence[str]
    may_join: bool


@dataclass(frozen=True)
class CannotAnnounce(Event):
    """Slaves that look for masters are not answered."""

    why: str


@dataclass(frozen=True)
class SlaveFileGiven(ConnectionEvent):
    """Somebody asked for slave.pyz, the slave program, and was given it."""


@dataclass(frozen=True)
class ConnectionCut(ConnectionEvent):
    """A key holder's connection is cut: what came made no sense, or it cannot be served.

    ``again``: that was told before of a connection for the same kind of reason.
    """

    why: str
    again: bool


@dataclass(frozen=True)
class CallFailed(ConnectionEvent):
    """A call of a slave's failed, and it was told so."""

    method: str
    traceback: str


@dataclass(frozen=True)
class CannotAccept(Event):
    """No connection can be accepted, for now or just then."""

    why: str


# -- agents and slaves


@dataclass(frozen=True)
class AgentCame(Event):
    """An agent has connected for the first time."""

    host: str
    pid: int
    version: str  # of Python
    release: str  # of the slave program


@dataclass(frozen=True)
class SlaveEvent(Event):
    """Something happened to a slave."""

    slave: int
    name: str


@dataclass(frozen=True)
class SlaveJoined(SlaveEvent):
    """A runner has joined as this slave."""


@dataclass(frozen=True)
class SlaveBack(SlaveEvent):
    """It was lost, and is heard again."""


@dataclass(frozen=True)
class SlaveLost(SlaveEvent):
    """Its runner ended, or it is not heard of; what it held goes to others.

    ``end``: how, in words.  ``wanted``: we ended it ourselves.  ``tasks``: how many it held.  ``given_up``: the task
    that is not tried any more, since it ended its slaves too often; 0: none.
    """

    end: str
    last_words: str
    wanted: bool
    tasks: int
    given_up: int


@dataclass(frozen=True)
class SlaveLeaving(SlaveEvent):
    """Its agent was asked to end."""


@dataclass(frozen=True)
class SlaveEnded(SlaveEvent):
    """It has ended for good.  ``given_up``: by its agent, though nobody had asked it to end."""

    end: str
    given_up: bool = False


@dataclass(frozen=True)
class SetupRaised(SlaveEvent):
    """A context's setup raised on it; it is out for that context."""

    context: int
    type_name: str
    message: str


@dataclass(frozen=True)
class LeaseNotArrived(SlaveEvent):
    """A lease of so many ``tasks`` did not arrive there, though the slave is heard; ``times`` in a row."""

    times: int
    tasks: int


@dataclass(frozen=True)
class TaskNotRebuilt(SlaveEvent):
    """A task of the context could not be rebuilt there: it has not begun, and goes to others.

    ``module``: the one that is missing or older there; ``remedy``: what helps; each '' if it is not known.
    ``first``: it is the first such task of the context on this slave.
    ``out``: it could rebuild none of them, and gets no more.
    """

    context: int
    task: int
    type_name: str
    message: str
    module: str
    remedy: str
    first: bool
    out: bool


@dataclass(frozen=True)
class TaskOutput(SlaveEvent):
    """What tasks on it have printed: whole lines, each with its end, and how many others then were left out.

    Made only if somebody wants it.  ``output``: the file in which all of it stands; '' for none.
    """

    data: bytes
    left_out: int
    output: str


@dataclass(frozen=True)
class TaskRecord(SlaveEvent):
    """A task on it has logged something, or there was a warning in it; made only if somebody wants it.

    ``kind``, ``data``: as of `slave.protocol.RecordPart`.  ``left_out``: how many before were not told.
    """

    kind: int
    data: bytes
    left_out: int


# -- contexts


@dataclass(frozen=True)
class ContextEvent(Event):
    """Something happened to a context."""

    context: int


@dataclass(frozen=True)
class ContextMade(ContextEvent):
    """A context was made.  ``label``: what it is called; '' if that is not known yet."""

    label: str


@dataclass(frozen=True)
class ContextCancelled(ContextEvent):
    """Tasks were dropped: they have no outcome."""

    tasks: int


@dataclass(frozen=True)
class ContextDropped(ContextEvent):
    """Nobody can ask for its outcomes any more."""


@dataclass(frozen=True)
class ResultsWait(ContextEvent):
    """So many bytes of results wait to be read that its slaves pause."""

    size: float


# -- tasks


@dataclass(frozen=True)
class TaskEvent(ContextEvent):
    """Something happened to a task."""

    task: int


@dataclass(frozen=True)
class TasksAdded(ContextEvent):
    """Tasks were added."""

    tasks: Sequence[int]


@dataclass(frozen=True)
class TasksLeased(ContextEvent):
    """A slave got tasks, of several contexts perhaps (``context``: of the first); it runs one at a time."""

    slave: int
    lease: int
    tasks: Sequence[int]
    labels: Mapping[int, str]  # of those that have one


@dataclass(frozen=True)
class TaskCopied(TaskEvent):
    """It runs for long, and is started once more: ``slave`` gets it too, besides the one that has it, ``other``.

    Made whether or not somebody has subscribed: there are few.
    """

    slave: int
    other: int


@dataclass(frozen=True)
class TaskStarted(Event):
    """A slave has started a task, as its last sign of life said.  Short tasks end before that is said."""

    slave: int
    task: int


@dataclass(frozen=True)
class TasksTimed(Event):
    """When a slave did what, in a run that keeps a trace: ``times`` as in slave/protocol.py."""

    slave: int
    times: Times


@dataclass(frozen=True)
class TaskDone(TaskEvent):
    """Its outcome came: ``kind`` as in slave/protocol.py."""

    slave: int
    kind: int
    size: int


@dataclass(frozen=True)
class TaskRetried(TaskEvent):
    """It raised, and is tried again."""

    slave: int
    failures: int


@dataclass(frozen=True)
class TaskAttemptEnded(TaskEvent):
    """Its slave ended while it ran: one attempt of ``max_attempts`` is used up, and it is tried again."""

    slave: int
    attempts: int
    end: str
