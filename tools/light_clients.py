"""Many slaves in one process: they speak the protocol and post None for every task, which they do not run.

    PARALLEL_AUTHKEY=... python3 tools/light_clients.py HOST:PORT [--agents 100] [--runners 10] [--core 1]
        [--come-and-go AT_A_TIME | --hold]

So the master's growth with the number of slaves can be measured on one machine (tools/scale.py does it): what a client
costs here is a socket and some microseconds a task.  The handshake is the library's own, blocking; after it there are
raw sockets and one loop.  Spoken is the protocol of the slave package that is found first on the path: that of
slave/protocol.py, or what came before it (commit 60c91b2).

Prints "dialing TIME" before the first connection and "joined TIME" when all runners have joined.  Ends with the master,
or, with --come-and-go, when every agent has come with its runners and left again.
"""

# ruff: noqa: D102 - what the methods of a protocol are for stands in the base class

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import os
import pickle
import platform
import resource
import selectors
import socket
import struct
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
    sys.path.insert(0, str(ROOT))

from slave import keys, wire  # noqa: E402 - found only after the lines above

Address = tuple[str, int]
Call = tuple[Any, str, tuple[Any, ...]]  # ident of the served object, method, arguments
Hear = Callable[[Any], None]
Ran = tuple[int, int, float]  # context, tasks, seconds

BEATS_PER_LEASE = 6
PATIENCE = 30.0  # seconds
NONE = pickle.dumps(None, 5)
_TOGETHER = 200  # values that a runner gathers in half a millisecond
HEAD = struct.Struct("!IQ")  # number of buffers, size of the body: slave/wire.py
WINDOW = memoryview(bytearray(1 << 18))  # what is read goes through it


class Welcome(NamedTuple):
    """What the master answers to an agent that enlists."""

    run: str
    lease: float  # seconds
    numbers: Sequence[int]
    done: bool


class Lease(NamedTuple):
    """Tasks for a runner: task, context and payload of each."""

    id: int
    entries: Sequence[tuple[int, int, Any]]


class Protocol(ABC):
    """What is said: the calls as they go over the wire, and what the answers mean."""

    @abstractmethod
    def role(self, kind: str, agent: str = "", slave: int = 0) -> tuple[Any, ...]:
        """Whose connection it is; ``kind``: 'runner', 'reports' or 'commands'."""

    @abstractmethod
    def enlist(self, agent: str, runners: int) -> Call:
        """An agent comes with so many slaves, which are to be numbered."""

    @abstractmethod
    def welcome(self, answer: Any) -> Welcome:
        """The answer to it."""

    @abstractmethod
    def join(self, slave: int, run: str) -> Call:
        """A runner comes."""

    @abstractmethod
    def fetch(self, slave: int, ran: Sequence[Ran]) -> Call:
        """A runner asks for tasks."""

    @abstractmethod
    def lease(self, answer: Any) -> Lease | None:
        """The answer to it; None when the master is done."""

    @abstractmethod
    def posts(self, slave: int, lease: int, context: int, tasks: Sequence[int]) -> Iterator[Call]:
        """Each of these tasks of a context returned None."""

    @abstractmethod
    def heartbeat(self, agent: str, slaves: Sequence[int]) -> Call:
        """These runners are alive."""

    @abstractmethod
    def commands(self, agent: str, acknowledged: int) -> Call:
        """An agent asks what it shall do."""

    def told(self, answer: Any) -> tuple[int, bool]:
        """The answer to it: the number of the last command, and whether one says that the master is done."""
        last, commands = answer
        return last, any(command[0] == "end" for command in commands)

    def leave(self, agent: str) -> Call:
        """An agent goes, and its slaves with it."""
        return "agents", "leave", (agent, "it was here for a measurement only")


class NamedMessages(Protocol):
    """The protocol of slave/protocol.py."""

    def __init__(self) -> None:
        self._messages: Any = importlib.import_module("slave.protocol")
        self._outcome = self._messages.outcome_message

    def role(self, kind: str, agent: str = "", slave: int = 0) -> tuple[Any, ...]:
        return tuple(self._messages.Role(kind, slave, agent, os.getpid(), 1))

    def enlist(self, agent: str, runners: int) -> Call:
        request = self._messages.EnlistRequest(
            agent=agent,
            run="",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=platform.python_version(),
            connection=1,
            slaves=[None] * runners,
            runners=[],
        )
        return "agents", "enlist", (tuple(request),)

    def welcome(self, answer: Any) -> Welcome:
        reply = self._messages.EnlistReply(*answer)
        return Welcome(reply.run, reply.lease, reply.numbers, reply.done)

    def join(self, slave: int, run: str) -> Call:
        no_lease = self._messages.NO_LEASE
        return "tasks", "join", (tuple(self._messages.JoinRequest(slave, os.getpid(), 1, run, no_lease)),)

    def fetch(self, slave: int, ran: Sequence[Ran]) -> Call:
        return "tasks", "fetch", (tuple(self._messages.FetchRequest(slave, os.getpid(), 1, ran)),)

    def lease(self, answer: Any) -> Lease | None:
        if answer is None:
            return None
        message = self._messages.LeaseMessage(*answer)
        unpack = getattr(self._messages, "unpack_entries", list)  # revisions before had them as they are
        return Lease(message.lease, unpack(message.entries))

    def posts(self, slave: int, lease: int, context: int, tasks: Sequence[int]) -> Iterator[Call]:
        if not hasattr(self._messages, "ValuesMessage"):  # revisions before had no message for several
            for task in tasks:
                yield "results", "post", self._outcome(slave, lease, context, task, 0, NONE, ())
            return
        for at in range(0, len(tasks), _TOGETHER):
            values = [part for task in tasks[at : at + _TOGETHER] for part in (task, NONE)]
            yield "results", "values", (slave, lease, context, values)

    def heartbeat(self, agent: str, slaves: Sequence[int]) -> Call:
        pid = os.getpid()
        return "agents", "heartbeat", (agent, [tuple(self._messages.RunnerBeat(slave, pid, 0)) for slave in slaves])

    def commands(self, agent: str, acknowledged: int) -> Call:
        return "agents", "commands", (agent, acknowledged)


class CountedArguments(Protocol):
    """The protocol of 60c91b2, as its slave/link.py has it."""

    def role(self, kind: str, agent: str = "", slave: int = 0) -> tuple[Any, ...]:
        if kind == "runner":
            return "runner", slave, os.getpid(), 1
        return "agent", agent, "orders" if kind == "commands" else kind, 1

    def enlist(self, agent: str, runners: int) -> Call:
        card = {
            "agent": agent,
            "run": "",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": platform.python_version(),
            "connection": 1,
            "slots": [None] * runners,
            "runners": [],
        }
        return "agents", "enlist", (card,)

    def welcome(self, answer: Any) -> Welcome:
        return Welcome(answer["run"], answer["lease"], answer["numbers"], answer["done"])

    def join(self, slave: int, run: str) -> Call:
        return "tasks", "join", (slave, os.getpid(), 1, run, 0)

    def fetch(self, slave: int, ran: Sequence[Ran]) -> Call:
        return "tasks", "fetch", (slave, os.getpid(), 1, ran)

    def lease(self, answer: Any) -> Lease | None:
        if answer is None:
            return None
        (lease, entries, _limits), _forgotten = answer
        return Lease(lease, entries)

    def posts(self, slave: int, lease: int, context: int, tasks: Sequence[int]) -> Iterator[Call]:
        for task in tasks:
            yield "results", "post", (slave, lease, task, 0, NONE, ())

    def heartbeat(self, agent: str, slaves: Sequence[int]) -> Call:
        pid = os.getpid()
        return "agents", "beat", (agent, [(slave, pid, 0) for slave in slaves])

    def commands(self, agent: str, acknowledged: int) -> Call:
        return "agents", "orders", (agent, acknowledged)


def spoken() -> Protocol:
    """The protocol of the slave package on the path."""
    return CountedArguments() if importlib.util.find_spec("slave.protocol") is None else NamedMessages()


def frame(call: Call) -> bytes:
    """A call as bytes."""
    body = pickle.dumps((*call, {}), 5)
    return HEAD.pack(0, len(body)) + body


class _Plain:
    """The stream of a release that has no transports (slave/transport.py): the bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fileno, self.close, self.set_blocking = sock.fileno, sock.close, sock.setblocking

    def write_some(self, views: Sequence[bytes]) -> int | None:
        """As `Transport.write_some`."""
        try:
            return self._sock.send(views[0])
        except BlockingIOError:
            return None

    def read_some(self, into: memoryview) -> int | None:
        """As `Transport.read_some`."""
        try:
            return self._sock.recv_into(into)
        except BlockingIOError:
            return None

    def has_more(self) -> bool:
        """As `Transport.has_more`."""
        return False


class Line:
    """One connection: calls out, answers in, in order."""

    def __init__(self, selector: selectors.BaseSelector, address: Address, key: bytes, role: tuple[Any, ...]) -> None:
        self._selector = selector
        sock = socket.create_connection(address, wire.HANDSHAKE_SECONDS)
        connection: Any = wire.introduce(sock, key, PATIENCE)
        self._stream: Any = getattr(connection, "transport", None) or _Plain(sock)
        self._stream.set_blocking(False)
        self._unread, self._unsent = b"", bytearray()
        self._waiting: deque[Hear] = deque()  # who hears the next answers
        self.is_open = True
        selector.register(self._stream, selectors.EVENT_READ, self)
        self.ask((None, "accept_connection", (role,)), lambda answer: None)

    def ask(self, call: Call, hear: Hear, before: Sequence[bytes] = ()) -> None:
        """Make a call; ``hear`` gets the answer.  ``before``: frames of one-way calls to send with it."""
        self._waiting.append(hear)
        self.send(b"".join([*before, frame(call)]))

    def send(self, data: bytes) -> None:
        """Send frames, now or when the master reads them."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._stream.write_some([data]) or 0
        except OSError:
            self.close()  # the master has gone
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._selector.modify(self._stream, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def serve(self, events: int) -> None:
        """Read and write what can be."""
        if events & selectors.EVENT_READ:
            self._read()
        if events & selectors.EVENT_WRITE and self.is_open:
            data, self._unsent = bytes(self._unsent), bytearray()
            self._selector.modify(self._stream, selectors.EVENT_READ, self)
            self.send(data)

    def close(self) -> None:
        """Hang up.  May be called twice."""
        if self.is_open:
            self.is_open = False
            self._selector.unregister(self._stream)
            self._stream.close()

    def _read(self) -> None:
        parts = [self._unread]
        try:
            while True:
                got = self._stream.read_some(WINDOW)
                if got == 0:
                    raise EOFError
                parts.append(bytes(WINDOW[: got or 0]))
                if not self._stream.has_more():
                    break
        except (OSError, EOFError):
            self.close()
            return
        data = b"".join(parts)
        at = 0
        for start, end, sizes in _frames(data):
            at, buffers = end, []
            for size in sizes:
                buffers.append(data[at : at + size])
                at += size
            kind, value = pickle.loads(memoryview(data)[start:end], buffers=buffers)
            if kind != "#RETURN":
                sys.exit(f"light clients: the master refused a call: {kind} {value}")
            self._waiting.popleft()(value)
        self._unread = data[at:]


def _frames(data: bytes) -> Iterator[tuple[int, int, Sequence[int]]]:
    """Where in ``data`` the bodies of its whole frames begin and end, and the sizes of the buffers behind each."""
    at = 0
    while len(data) - at >= HEAD.size:
        count, size = HEAD.unpack_from(data, at)
        start = at + HEAD.size + 8 * count
        if start > len(data):
            return
        sizes = struct.unpack_from(f"!{count}Q", data, at + HEAD.size)
        at = start + size + sum(sizes)
        if at > len(data):
            return
        yield start, start + size, sizes


class Agent:
    """An agent and its runners."""

    def __init__(self, clients: Clients, runners: int) -> None:
        self._clients, self._speak, self._runners = clients, clients.speak, runners
        self._id = uuid.uuid4().hex
        self._slaves: Sequence[int] = ()
        self._lines: list[Line] = []
        self._joined = 0
        self.is_over = False
        self.beat_due = float("inf")
        self.beat_every = 0.0
        self._reports = self._connect("reports")
        self._reports.ask(self._speak.enlist(self._id, runners), self._enlisted)

    def beat(self) -> None:
        """Say that all runners are alive."""
        self.beat_due = time.monotonic() + self.beat_every
        if self._reports.is_open:
            self._reports.send(frame(self._speak.heartbeat(self._id, self._slaves)))

    def leave(self) -> None:
        """Say goodbye and go."""
        self._reports.ask(self._speak.leave(self._id), lambda answer: self.close())

    def close(self) -> None:
        """Hang up all connections."""
        self.is_over = True
        self._clients.agent_gone(self)
        for line in self._lines:
            line.close()

    def _connect(self, kind: str, slave: int = 0) -> Line:
        line = self._clients.dial(self._speak.role(kind, self._id, slave))
        self._lines.append(line)
        return line

    def _enlisted(self, answer: Any) -> None:
        welcome = self._speak.welcome(answer)
        if welcome.done:
            self.close()
            return
        self._slaves, self.beat_every = welcome.numbers, welcome.lease / BEATS_PER_LEASE
        self.beat()
        self._clients.beating.append(self)
        commands = self._connect("commands")
        commands.ask(self._speak.commands(self._id, 0), lambda told: self._told(commands, told))
        for slave in self._slaves:
            line = self._connect("runner", slave)
            Runner(line, self._speak, slave, self._clients.hold).join(welcome.run, self._runner_joined)

    def _told(self, line: Line, answer: Any) -> None:
        last, is_end = self._speak.told(answer)
        if is_end:
            self.close()
        else:
            line.ask(self._speak.commands(self._id, last), lambda told: self._told(line, told))

    def _runner_joined(self) -> None:
        self._joined += 1
        if self._joined == self._runners:
            self._clients.agent_joined(self)


class Runner:
    """A runner: fetches, posts, fetches ...; with ``hold`` it keeps its first lease for ever."""

    def __init__(self, line: Line, speak: Protocol, slave: int, hold: bool) -> None:
        self._line, self._speak, self._slave, self._hold = line, speak, slave, hold

    def join(self, run: str, joined: Callable[[], None]) -> None:
        """Say who we are, and go on from there."""

        def hear(answer: Any) -> None:
            if not answer:
                sys.exit(f"light clients: the master does not want slave {self._slave}")
            self._line.ask(self._speak.fetch(self._slave, []), self._fetched)
            joined()

        self._line.ask(self._speak.join(self._slave, run), hear)

    def _fetched(self, answer: Any) -> None:
        lease = self._speak.lease(answer)
        if lease is None:
            self._line.close()
        elif not (self._hold and lease.entries):
            frames: list[bytes] = []
            ran = [self._run(lease, stretch, frames) for stretch in _stretches(lease)]
            self._line.ask(self._speak.fetch(self._slave, ran), self._fetched, frames)

    def _run(self, lease: Lease, stretch: Sequence[tuple[int, int, Any]], frames: list[bytes]) -> Ran:
        began, context = time.perf_counter(), stretch[0][1]
        frames += map(frame, self._speak.posts(self._slave, lease.id, context, [task for task, _, _ in stretch]))
        return context, len(stretch), time.perf_counter() - began


def _stretches(lease: Lease) -> Iterator[Sequence[tuple[int, int, Any]]]:
    """The lease's tasks, cut where the context changes."""
    entries = lease.entries
    if entries and entries[0][1] == entries[-1][1] and len({entry[1] for entry in entries}) == 1:
        yield entries
        return
    for _, stretch in itertools.groupby(entries, key=lambda entry: entry[1]):
        yield list(stretch)


class Clients:
    """All agents and their one loop."""

    def __init__(self, address: Address, key: bytes, options: argparse.Namespace) -> None:
        self._address, self._key, self._options = address, key, options
        self.speak = spoken()
        self.hold: bool = options.hold
        self.beating: deque[Agent] = deque()  # whose heartbeat is due first comes first
        self._selector = selectors.DefaultSelector()
        self._agents: set[Agent] = set()  # that are here
        self._joined = 0

    def dial(self, role: tuple[Any, ...]) -> Line:
        """A new connection to the master."""
        return Line(self._selector, self._address, self._key, role)

    def agent_gone(self, agent: Agent) -> None:
        """An agent has hung up."""
        self._agents.discard(agent)

    def agent_joined(self, agent: Agent) -> None:
        """All runners of an agent have joined."""
        self._joined += 1
        if self._joined == self._options.agents:
            print(f"joined {time.time()}", flush=True)
        if self._options.come_and_go:
            agent.leave()

    def run(self) -> None:
        """Bring all agents and serve them until they are gone."""
        print(f"dialing {time.time()}", flush=True)
        at_a_time = self._options.come_and_go or self._options.agents
        to_come = self._options.agents
        while to_come or self._agents:
            while to_come and len(self._agents) < at_a_time:
                to_come -= 1
                self._agents.add(Agent(self, self._options.runners))
                self._serve(0.0)  # what is here already need not wait for all to be dialed
            self._serve(self._until_beat())
            if self._agents and not self._selector.get_map():
                sys.exit("light clients: the master has gone without a word")

    def _serve(self, patience: float) -> None:
        for key, events in self._selector.select(patience):
            line = key.data
            if line.is_open:  # else it was closed a moment ago, with all of its agent
                line.serve(events)
        while self.beating and (self.beating[0].is_over or self.beating[0].beat_due <= time.monotonic()):
            agent = self.beating.popleft()
            if not agent.is_over:
                agent.beat()
                self.beating.append(agent)

    def _until_beat(self) -> float:
        return max(0.0, self.beating[0].beat_due - time.monotonic()) if self.beating else 1.0


def address_of(text: str) -> Address:
    """HOST:PORT, taken apart."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="HOST:PORT", type=address_of)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--runners", type=int, default=10, help="slaves of each agent")
    parser.add_argument("--core", type=int, help="stay on this one")
    parser.add_argument(
        "--come-and-go", type=int, default=0, metavar="AT_A_TIME", help="join, leave, make room for others"
    )
    parser.add_argument("--hold", action="store_true", help="keep the first lease and post nothing")
    return parser.parse_args()


def raise_descriptor_limit() -> None:
    """As many descriptors as this process may have: one for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Be the slaves."""
    options = parse()
    raise_descriptor_limit()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    Clients(options.address, keys.find_key(), options).run()


if __name__ == "__main__":
    main()
