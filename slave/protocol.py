"""Every message between master and slaves, once: both ends import it.

A call is ``(service, method, arguments, {})``, as `multiprocessing.managers` has it.  What is called, and how it is
answered, stands in `SERVICES`; what it says stands in the classes here.  On the wire each is a plain tuple
(``tuple(message)``, and ``Message(*parts)`` back), so that only builtins are ever rebuilt from a frame, and nobody
counts positions.  The two messages of which there is one for each task, `task_entry` and `outcome_message`, stay
tuples from end to end; their constructors name the parts.

Identifiers: a slave is its number, an agent a random hex text, a task, a context and a lease whole numbers from 1 on
that the master gives; 0 stands for none.
"""

from __future__ import annotations

import itertools
import mmap
import pickle
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Union

from .errors import ProtocolError
from .named import NamedTuple

RELEASE = "0.1.0"  # of this project
VERSION = 7  # of the protocol; see handshake.py for what happens when two differ

Buffer = Union[bytes, bytearray, memoryview, mmap.mmap, pickle.PickleBuffer]

NO_LEASE = 0
WHICHEVER = 0  # in `recalled`: whichever lease the slave holds

# -- who calls: the first message on a connection, by the method "accept_connection"

RUNNER, REPORTS, COMMANDS, MODULES, WATCHER = "runner", "reports", "commands", "modules", "watcher"


class Role(NamedTuple):
    """Whose connection this is.

    ``kind``: RUNNER, MODULES for a runner's second one, by which it gets modules, or for an agent REPORTS (what it
    tells) or COMMANDS (what it is told); WATCHER is no slave's, and asks how things are.  ``connection`` counts the
    connections that this process has made in this role, so that a stale one can be told.
    """

    kind: str
    slave: int  # for a runner
    agent: str  # for an agent
    pid: int
    connection: int


# -- what can be called

ANSWERED, ONE_WAY, GATHERED = "answered", "one way", "gathered"


class Service(NamedTuple):
    """An object of the master that slaves reach by proxy: its fixed id, and how each of its methods is called.

    ANSWERED: the caller waits.  ONE_WAY: there is no answer.  GATHERED: no answer, and calls that arrive together
    are carried out as one.
    """

    ident: str
    methods: Mapping[str, str]


TASK_QUEUE = Service(
    "tasks",
    {"join": ANSWERED, "fetch": ANSWERED, "setup_of": ANSWERED, "environment": ANSWERED, "times": ONE_WAY},
)
RESULT_QUEUE = Service(
    "results",
    {
        "post": GATHERED,
        "values": GATHERED,
        "post_and_wait": ANSWERED,
        "setup_failed": ANSWERED,
        "rebuild_failed": ANSWERED,
        "give_back": ANSWERED,
    },
)
AGENT_SERVICE = Service(
    "agents",
    {
        "enlist": ANSWERED,
        "commands": ANSWERED,
        "heartbeat": ONE_WAY,
        "runner_ended": ONE_WAY,
        "slave_closed": ONE_WAY,
        "recalled": ONE_WAY,
        "draining": ONE_WAY,
        "output": ONE_WAY,
        "records": ONE_WAY,
        "leave": ANSWERED,
    },
)
MODULE_SERVICE = Service("modules", {"find": ANSWERED, "piece": ANSWERED, "setup": ANSWERED, "setup_piece": ANSWERED})
# for watchers (parallel/monitor/client.py); what it answers is JSON
MONITOR_SERVICE = Service(
    "monitor",
    {
        "status": ANSWERED,
        "failures": ANSWERED,
        "output": ANSWERED,
        "surroundings": ANSWERED,
        "stop": ANSWERED,
        "drain": ANSWERED,
        "add": ANSWERED,
    },
)
SERVICES = (TASK_QUEUE, RESULT_QUEUE, AGENT_SERVICE, MODULE_SERVICE, MONITOR_SERVICE)

# for which an agent's call for commands, and a runner's for tasks, may wait in the master; then it is answered with
# nothing, and comes again.  The latter is seldom: of a runner that lives and idles its agent tells.
POLL_SECONDS, IDLE_SECONDS = 20.0, 300.0

# -- runners: tasks


class Parted:
    """A pickle and its large parts (parted.py); its length is that of all.  They are not changed any more."""

    __slots__ = ("parts", "pickled")

    def __init__(self, pickled: bytes, parts: Sequence[Buffer]) -> None:
        self.pickled, self.parts = pickled, parts

    def __len__(self) -> int:
        return len(self.pickled) + sum(map(len, self.parts))  # type: ignore[arg-type]  # they are memoryviews

    def message(self) -> tuple[Any, ...]:
        """As it goes over the wire."""
        return self.pickled, [pickle.PickleBuffer(part) for part in self.parts]


# What is an input of a map, or what a call returned: if it is one of these, it stands for itself, anywhere between the
# user's list and the user's loop; everything else is bytes, its pickle (or an input in parts).
ATOMS = frozenset((int, float, bool, type(None)))
Atom = Union[int, float, bool, None]


def as_pickle(value: bytes | Atom) -> bytes:
    """Its pickle."""
    return pickle.dumps(value, 5) if type(value) in ATOMS else value  # type: ignore[return-value]


Payload = Union[bytes, Parted]  # of a task, in the master
Setup = Union[bytes, mmap.mmap]  # the same of a setup
TaskEntry = tuple[int, int, Any]  # task, context, pickled callable (parted.py)


def task_entry(task: int, context: int, payload: Any) -> TaskEntry:
    """One task of a lease."""
    return task, context, payload


def unpack_entries(packed: Sequence[Any]) -> list[TaskEntry]:
    """The tasks of a lease as it comes over the wire: [context, [task, payload, task, payload ...], context ...].

    Tasks that follow one another may be told as (first task, [payload, payload ...]) in place of such a list.  Both are
    quicker to pickle, to look through and to rebuild than a tuple for each task.
    """
    entries: list[TaskEntry] = []
    for context, run in zip(packed[::2], packed[1::2]):
        if type(run) is tuple:
            first, payloads = run
            entries += zip(itertools.count(first), itertools.repeat(context), payloads)
        else:
            entries += zip(run[::2], itertools.repeat(context), run[1::2])
    return entries


class JoinRequest(NamedTuple):
    """Process ``pid`` is slave ``slave``'s runner and holds ``lease``; ``run`` names the master that it means."""

    slave: int
    pid: int
    connection: int
    run: str
    lease: int


class Ran(NamedTuple):
    """A stretch of one context's tasks in the last lease: how many, and the seconds they took altogether."""

    context: int
    tasks: int
    seconds: float


class FetchRequest(NamedTuple):
    """Slave ``slave`` holds no lease and asks for one."""

    slave: int
    pid: int
    connection: int
    ran: Sequence[Ran]


class LeaseMessage(NamedTuple):
    """Tasks for a slave, in the order in which to run them; ``lease`` NO_LEASE: there was nothing to do, ask again.

    ``entries``: on the wire as `unpack_entries` has them.

    ``limits``: by task the seconds that it may run, where there is a limit.  ``forget``: contexts that are gone.
    ``environment``: number of the master's environment that the tasks may need (slave/environment.py).
    ``most``: by context how many of its tasks one process may run, where there is such a limit.
    """

    lease: int
    entries: Sequence[TaskEntry]
    limits: Mapping[int, float]
    forget: Sequence[int]
    environment: int = 0
    most: Mapping[int, int] = MappingProxyType({})


class Times(NamedTuple):
    """When a runner did what with the tasks of ``lease``: told of a run that keeps a trace, before the next `fetch`.

    All times are nanoseconds by the runner's monotonic clock, which read ``clock`` when this was sent.  The lease was
    ``asked`` for and ``got`` then.  ``setups``: for each context, began, ended, whether it returned.  ``tasks``: for
    each the numbers of `TimesOfTask`, which point into ``names``, those of what was called.  Tasks that ``failed``, and
    their ``errors`` in one line.  ``left_out``: how many tasks are not told of.
    """

    slave: int
    lease: int
    clock: int
    asked: int
    got: int
    left_out: int
    setups: Sequence[int]
    tasks: Sequence[int]
    names: Sequence[str]
    failed: Sequence[int]
    errors: Sequence[str]


class TimesOfTask(NamedTuple):
    """The part of `Times` on one task; ``kind`` as below; bytes of the task and of what came of it."""

    task: int
    context: int
    begins: int  # to be rebuilt
    called: int
    returned: int
    posted: int
    kind: int
    size: int
    result_size: int
    name: int


SETUP_NUMBERS = 4  # of each setup in `Times.setups`


# -- runners: outcomes.  The kinds: a slave posts the first two, the others are made by the master.

VALUE = 0  # data: the pickled value; buffers: its out-of-band parts
FAILURE = 1  # data: slave/outcome.py, pack_failure
GIVEN_UP = 2  # data: a list of texts, how each attempt ended
TIMED_OUT = 3  # data: the limit in seconds

_POSTED = VALUE, FAILURE
_ARRIVED = bytes, bytearray, memoryview, mmap.mmap  # what a payload is when it has come

OutcomeMessage = tuple[int, int, int, int, int, Any, Sequence[Any]]
ValuesMessage = tuple[int, int, int, "list[Any]"]  # slave, lease, context, [task, value, task, value ...]: pieces.py
_NUMBERS, _VALUES = {int}, {*ATOMS, bytes}


def outcome_message(
    slave: int, lease: int, context: int, task: int, kind: int, data: Buffer, buffers: Sequence[Buffer]
) -> OutcomeMessage:
    """What came of a task: the arguments of `post` and `post_and_wait`."""
    return slave, lease, context, task, kind, data, buffers


def checked_outcome(parts: Any) -> OutcomeMessage:
    """An outcome as it came.  Raises `ProtocolError` if it is none, before it is carried out with others'."""
    try:
        slave, lease, context, task, kind, data, buffers = parts
    except (TypeError, ValueError):
        raise ProtocolError("an outcome has seven parts") from None
    if type(slave) is int and type(context) is int and type(task) is int and kind in _POSTED:
        if type(data) is bytes and not buffers:
            return parts  # type: ignore[no-any-return]  # as nearly all are
        parted = isinstance(buffers, (tuple, list)) and all(isinstance(part, _ARRIVED) for part in (data, *buffers))
        if type(lease) is int and parted:
            return parts  # type: ignore[no-any-return]
    raise ProtocolError("an outcome has numbers, a kind and data that it cannot have")


def checked_values(parts: Any) -> ValuesMessage:
    """Values of many tasks as they came.  Raises `ProtocolError` if they are none."""
    try:
        slave, lease, context, values = parts
    except (TypeError, ValueError):
        raise ProtocolError("values have four parts") from None
    paired = type(values) is list and not len(values) % 2
    right = paired and set(map(type, values[::2])) <= _NUMBERS and set(map(type, values[1::2])) <= _VALUES
    if right and type(slave) is int and type(lease) is int and type(context) is int:
        return parts  # type: ignore[no-any-return]
    raise ProtocolError("values have numbers, tasks and data that they cannot have")


def outcomes_of(message: ValuesMessage) -> list[OutcomeMessage]:
    """The same, each as it would have been posted alone."""
    slave, lease, context, values = message
    return [
        outcome_message(slave, lease, context, task, VALUE, as_pickle(value), ())
        for task, value in zip(values[::2], values[1::2])
    ]


class SetupFailure(NamedTuple):
    """Setup of ``context`` raised on the slave; ``data`` is the packed failure; tasks of the lease not started."""

    slave: int
    context: int
    data: Buffer
    lease: int
    unstarted: Sequence[int]


class RebuildFailure(NamedTuple):
    """A task of the lease cannot be rebuilt on the slave, and so has not begun; ``data`` is the packed failure.

    ``module``: the one that is missing or older here; ``remedy``: what helps, in words; each '' if it is not known.
    """

    slave: int
    lease: int
    context: int
    task: int
    data: Buffer
    module: str
    remedy: str


class GiveBack(NamedTuple):
    """These tasks of the lease were not started and will not be."""

    slave: int
    lease: int
    unstarted: Sequence[int]


# -- runners: modules of the master's (slave/imports.py)

ABSENT, SAME, ARCHIVE = "absent", "same", "archive"
SETUP_PIECE = 1 << 20  # bytes of a setup that are asked for at a time
PIECE = 256 * 1024  # bytes of an archive that are asked for at a time: others' calls are answered between two


class ModuleReply(NamedTuple):
    """What the master has of a top-level module, by its name.

    ABSENT: nothing that can be sent.  SAME: what the slave has itself, as names, sizes and times of the files tell.
    ARCHIVE: the whole of it (slave/archive.py), to be fetched by the hash ``digest`` in pieces, ``size`` bytes.
    ``compiled``: full names of the extension modules in it, which are not sent.  ``requirement``: what to install
    where it is not, as pip wants it; '' if that is not known.  ``origin``: where the master has it; if it is ABSENT and
    there is neither of these, that is in its Python's library.
    """

    kind: str
    digest: str = ""
    size: int = 0
    compiled: Sequence[str] = ()
    requirement: str = ""
    origin: str = ""


# -- agents: reports


class RunnerBeat(NamedTuple):
    """A runner that is alive, and the task that its shared status names (0: none).

    ``memory``: bytes that it and what it started use, 0 if that is not known.  ``stopped``: 1 if its process is stopped
    (SIGSTOP).
    """

    slave: int
    pid: int
    task: int
    memory: int = 0
    stopped: int = 0


class OutputPart(NamedTuple):
    """What a slave has printed since the last one: whole lines, each with its end, and how many others were left out.

    They may be left out at the end only.
    """

    slave: int
    data: Buffer
    left_out: int


RECORD, WARNING, LINES = range(1, 4)  # what a runner tells of a task that runs; LINES to its agent alone


class RecordPart(NamedTuple):
    """What a task has logged (RECORD), or a warning in it (WARNING), as JSON.

    ``left_out``: how many before were not told; ``data`` may be empty, if only that is to be said.
    """

    slave: int
    kind: int
    data: Buffer
    left_out: int


class EnlistRequest(NamedTuple):
    """An agent comes (``run`` is ''), or comes back after its connection broke.

    ``slaves``: the numbers of its slaves, None for one that the master is to number.  ``runners``: the processes that
    live now.  ``tags``: what its machine has, in the words of whoever started it.
    """

    agent: str
    run: str
    host: str
    pid: int
    version: str  # of Python
    connection: int
    slaves: Sequence[int | None]
    runners: Sequence[RunnerBeat]
    release: str = RELEASE  # of the slave program
    tags: Sequence[str] = ()


class EnlistReply(NamedTuple):
    """``run``: names the master.  ``lease``: seconds.  ``numbers``: of the slaves, in the order they were asked for.

    ``done``: the master has finished, there is nothing to do.  ``key``, ``ident``: for one that came with a token that
    can be used once, the secret to come with from now on, and its name; else '' and b''.
    """

    run: str
    lease: float
    environment: Mapping[str, Any]
    numbers: Sequence[int]
    done: bool
    key: str = ""
    ident: bytes = b""
    release: str = RELEASE  # of the master's program
    max_memory: int = 0  # bytes that a runner and what it started may use; 0: no limit
    shows: bool = False  # the master wants what tasks print
    levels: Mapping[str, int] | None = None  # of loggers by their names, '' for the root; None: it wants no records


# why an agent ended a runner; BY_ITSELF: it did not, the process ended by itself
BY_ITSELF = ""
TIME_LIMIT = "timed out"  # its task ran for longer than it may
STOPPED = "stopped"  # a task was cancelled, or had its time just when the next one began
DRAINED = "drained"  # the slave was asked to end
RECYCLED = "it has run as many tasks as one process is to run"
TOO_LARGE = "its process grew too large"  # while its task, or the context's setup, ran
OUTDATED = "it had imported code that the master has loaded anew since"


class RunnerEnded(NamedTuple):
    """A runner's process ended.

    ``exitcode`` as in multiprocessing: negative for a signal, None for unknown.  ``task``, ``setup``: what its shared
    status said that it ran.  ``cause``: one of the above.  ``memory``, ``allowed``: if it was TOO_LARGE, bytes.
    """

    agent: str
    slave: int
    pid: int
    exitcode: int | None
    task: int
    setup: int
    cause: str
    memory: int = 0
    allowed: int = 0


# -- agents: commands.  On the wire (name, *parts).


class StartRunner(NamedTuple):
    """Start a runner for a new slave, with its output in a file (None: where the agent's goes)."""

    slave: int
    output: str | None


class Recall(NamedTuple):
    """Have the slave start no further task of the lease."""

    slave: int
    lease: int


class StopTasks(NamedTuple):
    """The same, and end its runner if it runs one of these tasks, which were cancelled."""

    slave: int
    lease: int
    tasks: Sequence[int]


class Drain(NamedTuple):
    """Have the slave end: at once if idle, else when its task is done or ``grace`` seconds have passed."""

    slave: int
    grace: float


class End(NamedTuple):
    """The master is done."""


Command = Union[StartRunner, Recall, StopTasks, Drain, End]
_COMMANDS: dict[str, type[Any]] = {
    "start": StartRunner,
    "recall": Recall,
    "stop": StopTasks,
    "drain": Drain,
    "end": End,
}
_NAMES = {kind: name for name, kind in _COMMANDS.items()}


def encode_command(command: Command) -> tuple[Any, ...]:
    """A command as it goes over the wire."""
    return (_NAMES[type(command)], *command)


def decode_command(parts: Sequence[Any]) -> Command | None:
    """The inverse; None for a command that this release does not know."""
    kind = _COMMANDS.get(parts[0])
    return None if kind is None else kind(*parts[1:])


class CommandsReply(NamedTuple):
    """Answer to ``commands(agent, acknowledged)``: the encoded commands after number ``acknowledged``.

    ``last`` is the number of the last one.  They are given again until a later call acknowledges them, since the answer
    may be lost with its connection.
    """

    last: int
    commands: Sequence[tuple[Any, ...]]
