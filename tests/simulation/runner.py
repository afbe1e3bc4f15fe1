"""A runner's process: what slave/runner.py does, around the real `RunnerSession`, one line after the other.

Between any two lines it may die or be stopped.  `conversation` is the loop of slave/runner.py; what it yields is done
by `Runner` in simulated time.  When the master was killed it rests, and may go on for another one (slave/handover.py).
"""

from __future__ import annotations

import pickle
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from slave.gathering import Gatherer, Watch
from slave.pieces import END, INT, head
from slave.protocol import FAILURE, RUNNER, VALUE, LeaseMessage, Role, ValuesMessage
from slave.session import RunnerSession
from slave.shared_status import (
    ANOTHER,
    DEADLINE,
    GOES_ON,
    JOINED,
    KEEPS,
    LEAVES,
    OUTDATED_CODE,
    RECALL,
    RESTS,
    SETUP,
    SHORTEST,
    STAGE,
    STARTING,
    TASK,
    UNHEARD,
    WORKED,
)

from .network import Broken, Connection
from .world import Process, World

if TYPE_CHECKING:
    from .agent import Agent, Slave

# what a runner does next
DIAL, ASK, POST, GATHER, PUT, TELL, PAUSE = "dial", "ask", "post", "gather", "put", "tell", "pause"
RUN, SET_UP, WAKE_AGENT = "run", "set up", "wake agent"
REST, CHANGE = "rest", "change"
LINE, BEGINS = ("line",), ("line", "a task is announced")
Steps = Generator[tuple[Any, ...], Any, Any]
_LINE = 2e-6  # seconds between two lines of a program
_LOOK = 0.1  # between two looks whether there is another master
_MEMORY, _LARGE = 4096, 4096  # bytes of the memory that the agent sees; of a value that is posted alone
_NANO = 1_000_000_000


class Leaves(Exception):
    """The process ends by itself, with exit code 0."""


class Resting(Exception):
    """The runner is to leave its master, which is gone, and wait for the next one."""


class Refused(Exception):
    """The master refused a call."""


class Data:
    """A result or failure: as many bytes as it says, who made it, and when."""

    __slots__ = ("at", "by", "size", "task")

    def __init__(self, task: int, by: int, size: int, at: float) -> None:
        self.task, self.by, self.size, self.at = task, by, size, at

    def __len__(self) -> int:
        return self.size


class Conversation:
    """The loop of slave/runner.py."""

    def __init__(self, session: RunnerSession, status: list[int]) -> None:
        self.session, self.status = session, status
        self.connected = False
        self.set_up: dict[int, bool] = {}  # by context: whether its setup returned
        self._setups: dict[int, bytes] = {}  # by context: its setup
        self._kept: dict[bytes, int] = {}  # how often a setup has returned in the run before
        self._connections, self._shortest = 0, 1e9

    def work(self) -> Steps:
        """See `Runner.work` there."""
        first = True
        while True:
            try:
                if not first and not (yield from self._change_hands()):
                    return
                yield from self._serve()
                if self.status[KEEPS] != LEAVES:
                    return
            except Resting:
                pass
            first = False

    def _change_hands(self) -> Steps:
        status = self.status
        for cell in (TASK, SETUP, DEADLINE, UNHEARD):
            status[cell] = 0
        self.connected = False
        yield (REST,)
        status[STAGE] = RESTS
        while status[KEEPS] != GOES_ON:
            if not status[KEEPS]:
                raise Leaves
            yield PAUSE, _LOOK
        status[STAGE] = STARTING
        self.session, program = yield (CHANGE,)
        if (yield from self._ask("environment", self.session.slave)) != program:
            status[OUTDATED_CODE] = ANOTHER
            return False
        for context, setup in self._setups.items():
            if self.set_up.get(context):
                self._kept[setup] = self._kept.get(setup, 0) + 1
        self.set_up.clear()
        self._setups.clear()
        return True

    def _serve(self) -> Steps:
        session = self.session
        while not session.leaves(self.status[RECALL]):
            lease = yield from self._ask("fetch")
            session.fetched(lease)
            if lease is not None:
                for context in lease.forget:
                    self.set_up.pop(context, None)
                    self._setups.pop(context, None)
                yield from self._run_lease(lease)
        if session.unanswered:
            yield from self._ask("give_back", session.give_back())

    def _run_lease(self, lease: LeaseMessage) -> Steps:
        session, status, limits = self.session, self.status, lease.limits
        if limits and min(limits.values()) < self._shortest:
            self._shortest = min(limits.values())
            status[SHORTEST] = max(1, int(self._shortest * _NANO))
            yield (WAKE_AGENT,)
        current, count, began = 0, 0, 0.0
        if lease.entries:
            status[STAGE] = WORKED
        for task, context, payload in session.tasks():
            status[TASK] = task
            now = yield BEGINS
            if status[RECALL] and session.recalled(status[RECALL]):
                yield from self._ask("give_back", session.give_back())
                break
            if context != current:
                session.ran(current, count, now - began)
                current, count = 0, 0
                if not self.set_up.get(context) and not (yield from self._set_up(context)):
                    continue
                current = context
                began = yield LINE
            if not limits:
                ran = yield from self._stretch(context)
                count += ran
                if ran:
                    continue
            packed = yield RUN, task, payload, limits.get(task)
            if packed is None:
                told = self.session.rebuild_failed(b"no such module", "numpy", "")
                yield from self._ask("rebuild_failed", told)
            else:
                yield from self._post(packed)
                count += 1
        status[UNHEARD] = bool(session.unanswered)
        yield LINE
        status[TASK] = 0
        session.ran(current, count, (yield LINE) - began)

    def _stretch(self, context: int) -> Steps:
        """As slave/stretch.py: the session learns of values when they are sent, or at the end; returns how many ran."""
        session, status, ran = self.session, self.status, 0
        tasks = list(session.unstarted)
        for task, other, payload in tasks:
            if other != context:
                break
            if ran:
                status[TASK] = task
                yield BEGINS
                if status[RECALL] and session.recalled(status[RECALL]):
                    break
            packed = yield RUN, task, payload, None
            if packed is None:
                break
            ran += 1
            kind, data = packed
            if kind == VALUE and len(data) < _LARGE and session.keeps:
                try:
                    put = yield PUT, context, task, data, ran == len(tasks)
                except Broken:
                    self.connected = False
                    yield from self._ensure_connected()
                    continue
                if put:
                    continue
            yield (TELL,)
            yield from self._post(packed)
        yield (TELL,)
        return ran

    def _set_up(self, context: int) -> Steps:
        self.status[SETUP] = context
        yield LINE
        try:
            known = self.set_up.get(context)
            if known is None:
                setup = yield from self._ask("setup_of", self.session.slave, context)
                known = self.set_up[context] = setup is None or (
                    setup != b"" and (yield from self._made(context, setup))
                )
            if not known:
                yield from self._ask("setup_failed", self.session.setup_failed(context, b"it raised"))
            return known
        finally:
            self.status[SETUP] = 0

    def _made(self, context: int, setup: bytes) -> Steps:
        """As `Contexts._run`: whether what the setup returns is here."""
        self._setups[context] = setup
        if self._kept.get(setup):
            self._kept[setup] -= 1
            return True
        self._kept.clear()
        return (yield SET_UP, context)

    def _post(self, packed: tuple[int, Any]) -> Steps:
        message, one_way = self.session.outcome(*packed, ())
        if not one_way:
            yield from self._ask("post_and_wait", *message)
            return
        try:
            if packed[0] == VALUE:
                yield GATHER, message, not self.session.unstarted
            else:
                yield POST, message
        except Broken:
            self.connected = False
            yield from self._ensure_connected()

    def _ask(self, method: str, *arguments: Any) -> Steps:
        while True:
            try:
                yield from self._ensure_connected()
                told = arguments or (self.session.fetch_request(),)
                answer = yield ASK, method, told
                break
            except Broken:
                self.connected = False
        self.session.answered()
        self.status[UNHEARD] = 0
        return answer

    def _ensure_connected(self) -> Steps:
        session = self.session
        while not self.connected:
            try:
                number = yield (DIAL,)
                if not (yield ASK, "join", (session.join_request(number),)):
                    raise Leaves
                self.connected = True
                for message in session.unanswered:
                    yield POST, message
                session.joined()
                self.status[STAGE] = max(JOINED, self.status[STAGE])
            except Broken:
                self.connected = False
                if session.leaves(self.status[RECALL]):
                    raise (Resting if self.status[KEEPS] == LEAVES else Leaves) from None
                yield PAUSE, session.pause()


class Runner(Process):
    """A runner's process.  ``own_end``: None while it lives; then whether it died of itself."""

    def __init__(self, agent: Agent, slave: Slave, pid: int) -> None:
        world: World = agent.world
        super().__init__(world, f"slave {slave.number}")
        self.agent, self.slave, self.pid, self.users = agent, slave, pid, agent.users
        self.serves, self.program = agent.serves, agent.machine.master.program
        self.returned: set[bytes] = set()  # setups that have in this process
        self.has_kept: set[bytes] = set()  # of these those of the run before of which it has what they returned
        self.status = [0] * 16  # cells as of shared_status.py, and some
        memory = bytearray(_MEMORY)
        self.gatherer, self.watch = Gatherer(memory, agent.wake), Watch(memory)
        self.data: list[Data] = []  # of outcomes that it has gathered; a piece has the number of one in its place
        self.untold = self._told = 0  # values that its session does not know; those before them, in bytes of the memory
        self.session = RunnerSession(slave.number, pid, agent.run)
        self._conversation = Conversation(self.session, self.status)
        self._steps = self._conversation.work()
        self._connection: Connection | None = None
        self._dials = 0
        self._asked = self._posts = False  # it waits for the master's answer; to an outcome
        self.task = 0  # that it is to run, runs, or ran and has not posted the outcome of
        self.runs, self.began = False, 0.0  # it does run; and since when
        self.own_end: bool | None = None
        self.exitcode: int | None = None
        self.dies_in = 0  # after so many lines; 0: not
        self.dies_when_posted = False
        self.users.ledger.runners[pid] = self
        self.later(0.05, self._go_on, None)

    # -- what it does

    def _go_on(self, value: Any, error: BaseException | None = None) -> None:
        if self.dies_in:
            self.dies_in -= 1
            if not self.dies_in:
                self.die("is killed", -9)
                return
        try:
            step = self._steps.send(value) if error is None else self._steps.throw(error)
        except (StopIteration, Leaves, Refused):
            self._exit()
            return
        kind = step[0]
        if kind == POST:
            self._send("post", step[1])
        elif kind == GATHER:
            self._gather(step[1], step[2])
        elif kind == PUT:
            self._put(*step[1:])
        elif kind == TELL:
            self._tell()
            self._go_on(None)
        elif kind == ASK:
            self._ask(step[1], step[2])
        elif kind == RUN:
            self._run(*step[1:])
        elif kind == DIAL:
            self._dial()
        elif kind == SET_UP:
            self._set_up(step[1])
        elif kind == PAUSE:
            self.later(step[1], self._go_on, None)
        elif kind == REST:
            self._rest()
        elif kind == CHANGE:
            self._change()
        else:
            if kind == WAKE_AGENT:
                self.agent.wake()
            elif step is BEGINS:
                self.task = self.status[TASK]
            self.later(_LINE, self._go_on, self.world.now)
        if self.alive:
            self.session.check()

    def _send(self, method: str, arguments: tuple[Any, ...] | bytes) -> None:
        try:
            self._send_gathered()
            if isinstance(arguments, bytes):
                method, arguments = "values", joined(self.messages(arguments))
            self._link().send(method, *arguments)
        except Broken as error:
            self.later(_LINE, self._go_on, None, error)
        else:
            self._has_posted(arguments[3] if method == "post" else 0, "posts")

    def _has_posted(self, task: int, how: str, value: object = None) -> None:
        self.world.tell(f"{self.name} {how} task {task}" if task else f"{self.name} {how} values again")
        if task == self.task:
            self.task = 0  # from here on it has not died of it
        if self.dies_when_posted:
            self.die("is killed", -9)
        else:
            self.later(_LINE, self._go_on, value)

    def _link(self) -> Connection:
        if self._connection is None:
            raise Broken
        return self._connection

    # -- as link.py and gathering.py do

    def _gather(self, message: tuple[Any, ...], last: bool) -> None:
        """As `ResultQueueProxy.gather`; a piece has a number by which the data are known."""
        now, gatherer = int(self.world.now * _NANO), self.gatherer
        try:
            self._link()
            may_wait = gatherer.may_wait(now)
            self._begin(message[2])
            if not gatherer.put(self._piece(message[3], message[5]), now):
                self._link().send("post", *message)
            elif not (last or may_wait):
                self._send_gathered()
        except Broken as error:
            self.later(_LINE, self._go_on, None, error)
        else:
            self._has_posted(message[3], "gathers")

    def _put(self, context: int, task: int, data: Data, last: bool) -> None:
        """As `Stretch.run` does it, which goes on with whether there was room."""
        now, gatherer = int(self.world.now * _NANO), self.gatherer
        try:
            self._begin(context)
            if not self.untold:
                self._told = gatherer.used
            if not gatherer.put(self._piece(task, data), now):
                self._go_on(False)
                return
            self.untold += 1
            if not gatherer.may_wait(now, last) and not last:
                self._tell()
                self._send_gathered()
        except Broken as error:
            self.later(_LINE, self._go_on, None, error)
        else:
            self._has_posted(task, "gathers", True)

    def _begin(self, context: int) -> None:
        session, gatherer = self.session, self.gatherer
        if not gatherer.is_of(session.lease, context):
            self._send_gathered()
            gatherer.begin(session.lease, context, head(session.slave, session.lease, context))

    def _piece(self, task: int, data: Data) -> bytes:
        self.data.append(data)
        return INT.pack(b"J", task, b"J", len(self.data) - 1)

    def _tell(self) -> None:
        """As `Stretch._tell`."""
        if self.untold:
            self.session.values(self.untold, self.gatherer.pieces_from(self._told))
        self.untold = 0

    def _send_gathered(self) -> None:
        gathered = self.messages(self.gatherer.pieces)
        if gathered:
            self._link().send("values", *joined(gathered))
            self.gatherer.clear()

    def messages(self, message: bytes) -> list[tuple[Any, ...]]:
        """What these pieces, with their head, are of."""
        if not message:
            return []
        _, _, (slave, lease, context, values), _ = pickle.loads(message + END)
        pairs = zip(values[::2], values[1::2])
        return [(slave, lease, context, task, VALUE, self.data[number], ()) for task, number in pairs]

    def _ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._send_gathered()
            self._link().send(method, *arguments)
        except Broken as error:
            self.later(_LINE, self._go_on, None, error)
            return
        self._asked, self._posts = True, method == "post_and_wait"
        if self.world.story is not None:
            self.world.tell(f"{self.name} asks: {method}{_in_words(method, arguments)}")

    def _dial(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.gatherer.clear()
        self.agent.machine.dial(self, self._dialled)

    def _dialled(self, ok: bool) -> None:
        if not ok:
            self._go_on(None, Broken())
            return
        self._dials += 1
        role = Role(RUNNER, self.slave.number, "", self.pid, self._dials)
        self._connection = self.agent.machine.connect(self, role)
        self._go_on(self._dials)

    def heard(self, connection: Connection, value: Any) -> None:
        """The master has answered."""
        self.act(self._heard, connection, value)

    def _heard(self, connection: Connection, value: Any) -> None:
        if connection is self._connection and self._asked:
            self._asked = False
            if self._posts:
                self.task = 0
            if isinstance(value, Refused):
                self._go_on(None, value)
            else:
                self._go_on(value)

    def broken(self, connection: Connection) -> None:
        """A connection has ended: it learns of it if it waits for an answer there, else when it says something."""
        self.act(self._broken, connection)

    def _broken(self, connection: Connection) -> None:
        if connection is self._connection and self._asked:
            self._asked = False
            self._go_on(None, Broken())

    # -- another master

    def _rest(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.gatherer.clear()
        self.task = 0
        self.world.tell(f"{self.name} rests")
        self.later(_LINE, self._go_on, None)

    def _change(self) -> None:
        """As its agent has left it: who it is to be for the next master."""
        set_up = self._conversation.set_up
        self.has_kept = {self.users.setup_of(context) for context, returned in set_up.items() if returned} - {b""}
        self.name, self.users, self.serves = f"slave {self.slave.number}", self.agent.users, self.agent.serves
        self.users.ledger.runners[self.pid] = self
        self._dials, self.data, self.untold = 0, [], 0
        self.session = RunnerSession(self.slave.number, self.pid, self.agent.run)
        self.world.tell(f"process {self.pid} goes on as {self.name}")
        self.later(_LINE, self._go_on, (self.session, self.program))

    # -- tasks and setups

    def _run(self, task: int, payload: Any, limit: float | None) -> None:
        self.runs, self.began = True, self.world.now
        seconds = self.users.seconds_of(task) / self.agent.speed
        if limit is not None:
            self.status[DEADLINE] = int((self.world.now + limit) * _NANO)
        what = self.users.begins(task, self)
        if what == "unfit":
            self.world.tell(f"{self.name} cannot rebuild task {task}")
            self.status[DEADLINE], self.runs = 0, False
            self.later(_LINE, self._go_on, None)
            return
        self.world.tell(f"{self.name} begins task {task}")
        self.later(seconds, self._ran, task, what)

    def _ran(self, task: int, what: str) -> None:
        if what == "dies":
            self.die(f"dies of task {task}", -11)
            return
        self.status[DEADLINE] = 0
        self.runs = False
        data = self.users.ends(task, self, what)
        self._go_on((VALUE if what == "returns" else FAILURE, data))

    def _set_up(self, context: int) -> None:
        seconds, what = self.users.sets_up(context, self)
        self.later(seconds / self.agent.speed, self._has_set_up, context, what)

    def _has_set_up(self, context: int, what: str) -> None:
        if what == "dies":
            self.die(f"dies of the setup of context {context}", -11)
        else:
            self.world.tell(f"on {self.name} the setup of context {context} {what}")
            if what == "returns":
                self.returned.add(self.users.setup_of(context))
            self._go_on(what == "returns")

    # -- its end

    def _exit(self) -> None:
        self.die("leaves", 0)

    def die(self, how: str, exitcode: int, itself: bool = True) -> None:
        """Its process ends, of itself or because its agent or its machine did that."""
        if not self.alive:
            return
        self.alive = False
        self.own_end, self.exitcode = itself, exitcode
        self.world.tell(f"{self.name} {how}" + (f" while it runs task {self.task}" if self.task else ""))
        status = list(self.status)
        self._steps.close()
        self.status[:] = status  # which a process that dies leaves as it is
        self.users.stops(self)
        if self._connection is not None and self.agent.machine.on:
            self._connection.close()
        self.agent.runner_died(self)


def joined(outcomes: list[tuple[Any, ...]]) -> ValuesMessage:
    """As slave/pieces.py joins values of one lease and context."""
    slave, lease, context, *_ = outcomes[0]
    return slave, lease, context, [part for _, _, _, task, _, data, _ in outcomes for part in (task, data)]


def _in_words(method: str, arguments: tuple[Any, ...]) -> str:
    if method == "post_and_wait":
        return f" (task {arguments[3]})"
    if method == "give_back":
        return f" {list(arguments[0].unstarted)}"
    if method == "join":
        return f" (it holds lease {arguments[0].lease})"
    return ""
