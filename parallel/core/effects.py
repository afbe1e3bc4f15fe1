"""What the scheduler wants done: data, which the dispatcher carries out in order.

A *call* is whoever waits for an answer: a runner, an agent, or a thread of the user's.  To the scheduler it is a token
that it was given and gives back, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Union

from slave.named import NamedTuple
from slave.protocol import Atom, Buffer, Payload

from .leases import Lease

Call = Any


class Outcome(NamedTuple):
    """What came of a task, on its way to the user.  ``kind``, ``data``, ``buffers``: see slave/protocol.py.

    A value may be one of its `ATOMS`, too.
    """

    task: int
    kind: int
    slave: str  # as it was then, in words
    data: Any
    buffers: Sequence[Buffer]
    size: int = 0  # bytes of memory, about
    tries: int = 1  # how often the task ran until it raised for the last time
    payload: Payload = b""  # the pickled task; only where something went wrong, to say which it was
    tag: object = None  # the task's


class Values(NamedTuple):
    """What inputs of a map that stood in chunks have returned, as far as it came together.

    ``indices``: of the inputs; ``data``: the value of each, as protocol.py says at `ATOMS`; ``size``: bytes of memory
    of all, about.
    """

    slave: str
    tasks: Sequence[int]
    indices: Sequence[int]
    data: Sequence[bytes | Atom]
    size: int


class Answer(NamedTuple):
    """The call has waited for this."""

    call: Call
    value: Any


class Refuse(NamedTuple):
    """The call cannot be; the caller is told why."""

    call: Call
    reason: str


class Deliver(NamedTuple):
    """Outcomes for the user, in the order of completion; ``last``: no task of the context is left.

    Each is an `Outcome`; in a context whose tasks were `Inputs` there are `Values`, too.
    """

    context: int
    outcomes: Sequence[Any]
    last: bool = False


class WantTasks(NamedTuple):
    """The context's reader had better add tasks: fewer are left than the slaves may need until it looks next."""

    context: int


class Pause(NamedTuple):
    """``on``: enough results of the context wait to be read, and the scheduler wants to be told when some are."""

    context: int
    on: bool


class Forsaken(NamedTuple):
    """No slave can go on with tasks that have a tag, and no thread waits that could be told: they are dropped.

    ``reason``: as a reader would be told; ``tasks``: by id, the tag of each.
    """

    context: int
    reason: Verdict
    tasks: Mapping[int, object]


class HangUp(NamedTuple):
    """This connection of a runner's is to be closed: what it was sent over it seems not to have arrived."""

    slave: int
    pid: int
    connection: int


Effect = Union[Answer, Refuse, Deliver, WantTasks, Pause, Forsaken, HangUp]


class Granted(NamedTuple):
    """The value of an answer to `fetch`: a lease or none, and the contexts that are gone.

    ``most``: by context how many of its tasks one process may run, where there is such a limit.
    """

    lease: Lease | None
    forget: Sequence[int]
    most: Mapping[int, int] = MappingProxyType({})


# -- the value of an answer to a reader that waits


class News(NamedTuple):
    """An outcome is there, or another reader took it: look."""


class AllDone(NamedTuple):
    """No task of the context is left."""


class TasksWanted(NamedTuple):
    """None is ready; meanwhile tasks had better be added."""


class Closed(NamedTuple):
    """The manager is shut down."""


class NoSlaves(NamedTuple):
    """No slave can go on, and none is to come; ``ends``: of every slave its text, and how it ended or what it is.

    ``needs``: what none of those has that there are, if that is why.
    """

    left: int
    ends: Sequence[tuple[str, str]]
    all_ended: bool
    needs: Sequence[str] = ()


class SetupFailed(NamedTuple):
    """The context's setup failed on every slave that there is.

    ``data``: the packed failure on ``slave``, or how it ended that slave, in words.  ``tried``: on how many.
    """

    data: Any
    slave: str
    tried: int


Verdict = Union[News, AllDone, TasksWanted, Closed, NoSlaves, SetupFailed]
