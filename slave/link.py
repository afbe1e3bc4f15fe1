"""One connection to the master, and the proxies that call the master's services over it.

The proxies are those of multiprocessing.managers (mp_adapter.py), built by hand on the fixed ids of the services: no
connection is spent on creating them or on counting references.  Differences from the stock proxy: it uses the
connection of its `Link`, not one per thread; a call that fails half way drops the connection, so that no later call
can read its answer; and some calls are one-way, since the caller has better things to do than to wait.

What goes out is made plain here, and what comes in is made a message (protocol.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from . import wire
from .dial import Address, dial, format_address, is_loopback
from .errors import ProtocolError, Unreachable
from .gathering import Gatherer
from .introduction import HANDSHAKE_SECONDS
from .mp_adapter import Proxy
from .pieces import head, piece
from .protocol import (
    AGENT_SERVICE,
    IDLE_SECONDS,
    MODULE_SERVICE,
    RESULT_QUEUE,
    TASK_QUEUE,
    Buffer,
    CommandsReply,
    EnlistReply,
    EnlistRequest,
    FetchRequest,
    GiveBack,
    JoinRequest,
    LeaseMessage,
    ModuleReply,
    OutcomeMessage,
    OutputPart,
    RebuildFailure,
    RecordPart,
    Role,
    RunnerBeat,
    RunnerEnded,
    Service,
    SetupFailure,
    outcome_message,
    unpack_entries,
)
from .transport import UNIX

_LONGEST_WAIT = 1e6  # seconds; a lease may be longer than what a socket takes as a time limit

_LOOK_SECONDS, _LOOK_AGAIN = 0.5, 3.0  # for which a lost master is looked for on the local network; until the next time
_MOST_ADDRESSES = 16

log = logging.getLogger("slave")

ProxyType = TypeVar("ProxyType", bound="ServiceProxy")


class CallFailed(Exception):
    """The master refused a call or failed in it; ``str()`` is its traceback or reason."""


class Link:
    """A connection that can be made anew.  ``role`` tells the master whose it is; this counts its connections.

    ``master``, ``encrypt``: with whom, and how; see `introduction.introduce`.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        key: bytes,
        role: Role,
        patience: float = 30.0,
        *,
        master: str | None = None,
        encrypt: bool = True,
    ) -> None:
        self._addresses, self.key, self._role, self.patience = list(addresses), key, role, patience
        self.master, self._encrypt = master, encrypt
        self._connection: wire.Connection | None = None
        self.count = 0  # of connections
        self.stays_here = False  # the connection does not leave this machine: nobody is between
        self.gathered: Gatherer | None = None  # values that wait to be sent with what is sent next
        self._look_again = 0.0  # when it may be looked for on the local network

    @property
    def connection(self) -> wire.Connection:
        """The open connection.  Raises ConnectionError when there is none."""
        if self._connection is None:
            raise ConnectionError("not connected to the master")
        return self._connection

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def connect(self) -> None:
        """Dial the master and say who we are.  Raises what `dial` raises, OSError, EOFError or `CallFailed`."""
        self.drop()
        try:
            connection = self._dial()
        except Unreachable:
            if not self._found_elsewhere():
                raise
            connection = self._dial()
        try:
            self.count += 1
            role = self._role._replace(connection=self.count)
            connection.limit(HANDSHAKE_SECONDS)
            connection.send((None, "accept_connection", (tuple(role),), {}))
            _value(connection.recv())
            connection.limit(None)
        except BaseException:
            connection.close()
            self._addresses.append(self._addresses.pop(0))  # the next try begins with another one: see find_master.py
            raise
        if self.count == 1:  # if that breaks, for whatever reason, what is large is sent as any other bytes
            connection.lend()
        self._connection, self.stays_here = connection, connection.peer[0].startswith(UNIX)

    def _dial(self) -> wire.Connection:
        return dial(self._addresses, self.key, self.patience, master=self.master, encrypt=self._encrypt)

    def _found_elsewhere(self) -> bool:
        """Whether the master, which we know, answers on the local network from another address than it had.

        Its machine may have got another one.
        """
        now = time.monotonic()
        if not self.master or now < self._look_again or all(map(_stays_here, self._addresses)):
            return False
        self._look_again = now + _LOOK_AGAIN
        from .discovery import look  # of no use to most

        for found in look(self.key, _LOOK_SECONDS, self.master):
            new = [address for address in found.addresses if address not in self._addresses]
            if new:
                log.warning("the master answers from another address now: %s", format_address(new[0]))
                self._addresses = [*new, *self._addresses][:_MOST_ADDRESSES]
                return True
        return False

    def be_patient(self, seconds: float) -> None:
        """Take the other machine for gone after so many seconds of silence: now that the lease is known."""
        self.patience = seconds
        self.connection.be_patient(seconds)

    def drop(self) -> None:
        """Close the connection, if there is one.  What was gathered is forgotten here: session.py keeps it."""
        if self.gathered is not None:
            self.gathered.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(self, message: object) -> None:
        """Send a message, behind what was gathered.  If that fails half way, the connection is dropped."""
        connection, gathered = self.connection, self.gathered
        try:
            ahead = b"" if gathered is None else gathered.pieces
            connection.send(message, wire.frame_of_pieces(ahead) if ahead else b"")
            if ahead:
                gathered.clear()  # type: ignore[union-attr]
        except BaseException:
            self.drop()
            raise

    def send_gathered(self) -> None:
        """Send what was gathered; otherwise the same."""
        gathered = self.gathered
        assert gathered is not None
        self.send_frame(wire.frame_of_pieces(gathered.pieces))
        gathered.clear()

    def send_frame(self, frame: bytes) -> None:
        """Send a message that is a frame already; otherwise the same."""
        connection = self.connection
        try:
            connection.send_frame(frame)
        except BaseException:
            self.drop()
            raise

    def proxy(self, kind: type[ProxyType]) -> ProxyType:
        """A proxy of the given kind over this link."""
        return kind(self, self._addresses[0], self.key)


class ServiceProxy(Proxy):
    """What the proxies have in common."""

    service: Service

    def __init__(self, link: Link, address: Address, key: bytes) -> None:
        super().__init__(self.service.ident, address, key, self._send_and_receive)
        self._link, self._ident = link, self.service.ident

    def _send_and_receive(self, method: str, args: tuple[Any, ...]) -> Any:
        self._link.send((self._ident, method, args, {}))
        return self._receive()

    def _send(self, method: str, args: tuple[Any, ...]) -> None:
        """Send a call and do not wait."""
        self._link.send((self._ident, method, args, {}))

    def _receive(self) -> Any:
        """The answer to the call that was sent last."""
        try:
            message = self._link.connection.recv()
        except BaseException:
            self._link.drop()
            raise
        return self._said(message)

    def _receive_if_here(self) -> Any:
        """The same if it is here whole, else None."""

        message = self._receive_one()
        return None if message is None else self._said(message)

    def _receive_one(self) -> Any:
        """The next message if it is here whole, else None; the connection is dropped if that fails half way."""
        try:
            return self._link.connection.receive_one()
        except BaseException:
            self._link.drop()
            raise

    def _said(self, message: Any) -> Any:
        """What an answer says.  Raises `CallFailed`; `ProtocolError` if it is none, and drops the connection."""
        try:
            return _value(message)
        except ProtocolError:
            self._link.drop()
            raise


class TaskQueueProxy(ServiceProxy):
    """Where a runner gets its tasks (parallel/service/task_queue.py)."""

    service = TASK_QUEUE

    def join(self, request: JoinRequest) -> bool:
        """Say which slave this is; False if the master has no use for it."""
        return bool(self._callmethod("join", (tuple(request),)))

    def fetch(self, request: FetchRequest) -> LeaseMessage | None:
        """A lease, possibly of nothing after some seconds in which there was nothing; None when the master is done."""
        slave, pid, number, ran = request
        link, plain = self._link, (slave, pid, number, _plain(ran))
        if link.stays_here:  # and to set a limit costs more than all that the system does otherwise
            found = self._callmethod("fetch", (plain,))
        else:
            connection = link.connection
            # somebody between may swallow the answer
            connection.limit(min(_LONGEST_WAIT, IDLE_SECONDS + link.patience))
            found = self._callmethod("fetch", (plain,))
            connection.limit(None)
        if found is None:
            return None
        lease, entries, *rest = found
        return LeaseMessage(lease, unpack_entries(entries), *rest)

    def setup_of(self, slave: int, context: int) -> Buffer | None:
        """The context's pickled setup; None if it has none."""
        payload: Buffer | None = self._callmethod("setup_of", (slave, context))
        return payload

    def environment(self, slave: int) -> Mapping[str, Any]:
        """The master's environment as it is now."""
        found: Mapping[str, Any] = self._callmethod("environment", (slave,))
        return found


class ResultQueueProxy(ServiceProxy):
    """Where a runner posts what came of its tasks (parallel/service/result_queue.py)."""

    service = RESULT_QUEUE

    def post(self, outcome: OutcomeMessage) -> None:
        """One task's outcome, one way: the next call's answer says that it arrived."""
        self._send("post", outcome)

    def post_values(self, message: bytes) -> None:
        """The same for values of many tasks; ``message`` is made in pieces (pieces.py), and whole but for its end."""
        self._link.send_frame(wire.frame_of_pieces(message))

    def gather(self, outcome: OutcomeMessage, now: int, last: bool) -> None:
        """The same, but it may wait a little, so that others go with it: see gathering.py.

        ``now``: when the task ended, nanoseconds.  ``last``: the next thing to be sent is a question, at once.
        """
        gathered = self._link.gathered
        slave, lease, context, task, _, data, _ = outcome
        assert gathered is not None
        may_wait = gathered.may_wait(now, last)
        if not gathered.is_of(lease, context):
            if not gathered.empty:
                self._link.send_gathered()
            gathered.begin(lease, context, head(slave, lease, context))
        if not gathered.put(piece(task, data), now):
            self._send("post", outcome)
        elif not (last or may_wait):
            self._link.send_gathered()

    def post_and_wait(self, outcome: OutcomeMessage) -> None:
        """The same, and wait until the master has it."""
        slave, lease, context, task, kind, data, buffers = outcome
        large = outcome_message(slave, lease, context, task, kind, wire.opaque(data), buffers)
        self._callmethod("post_and_wait", large)

    def setup_failed(self, failure: SetupFailure) -> None:
        """A context's setup raised here."""
        self._callmethod("setup_failed", (tuple(failure._replace(data=wire.opaque(failure.data))),))

    def rebuild_failed(self, failure: RebuildFailure) -> None:
        """A task cannot be rebuilt here."""
        self._callmethod("rebuild_failed", (tuple(failure._replace(data=wire.opaque(failure.data))),))

    def give_back(self, back: GiveBack) -> None:
        """Some tasks of a lease will not be started here."""
        self._callmethod("give_back", (tuple(back),))


class ModuleServiceProxy(ServiceProxy):
    """Where a runner gets the master's modules (parallel/service/module_service.py)."""

    service = MODULE_SERVICE

    def find(self, slave: int, name: str, stamp: str) -> ModuleReply:
        """What the master has of a top-level module; ``stamp``: of what is here, or ''."""
        return ModuleReply(*self._callmethod("find", (slave, name, stamp)))

    def setup(self, slave: int, context: int) -> ModuleReply:
        """The hash and size of the context's setup, if it is large; else ABSENT."""
        return ModuleReply(*self._callmethod("setup", (slave, context)))

    def setup_piece(self, slave: int, context: int, offset: int) -> Buffer:
        """`SETUP_PIECE` bytes of it from ``offset`` on, or what is left."""
        found: Buffer = self._callmethod("setup_piece", (slave, context, offset))
        return found

    def piece(self, slave: int, digest: str, offset: int) -> Buffer:
        """`PIECE` bytes of an archive from ``offset`` on, or what is left."""
        found: Buffer = self._callmethod("piece", (slave, digest, offset))
        return found


class AgentServiceProxy(ServiceProxy):
    """What an agent tells and asks (parallel/service/agent_service.py)."""

    service = AGENT_SERVICE

    def enlist(self, request: EnlistRequest) -> EnlistReply:
        """Say who this agent is, and which slaves and runners it has."""
        plain = tuple(request._replace(runners=_plain(request.runners)))  # type: ignore[arg-type]
        return EnlistReply(*self._callmethod("enlist", (plain,)))

    def ask_commands(self, agent: str, acknowledged: int) -> None:
        """Begin to wait for commands after number ``acknowledged``; `commands` reads the answer when there is one."""
        self._send("commands", (agent, acknowledged))

    def commands(self) -> CommandsReply | None:
        """The commands that `ask_commands` asked for; None if they have not arrived whole."""
        answer = self._receive_if_here()
        return None if answer is None else CommandsReply(*answer)

    def listen(self) -> None:
        """Hear whether the master has hung up: then this raises EOFError, or what else `recv` raises."""
        if self._receive_one() is not None:
            raise ProtocolError("the master answered what nobody had asked")

    def heartbeat(self, agent: str, beats: Sequence[RunnerBeat]) -> None:
        """These runners are alive.  One way."""
        self._send("heartbeat", (agent, _plain(beats)))

    def runner_ended(self, ended: RunnerEnded) -> None:
        """A runner's process ended.  One way."""
        self._send("runner_ended", (tuple(ended),))

    def slave_closed(self, agent: str, slave: int, why: str) -> None:
        """The slave will not be started again.  One way."""
        self._send("slave_closed", (agent, slave, why))

    def recalled(self, agent: str, slave: int, lease: int, running: int) -> None:
        """Of the lease (WHICHEVER: the one it holds) tasks after ``running`` will not be started.  One way."""
        self._send("recalled", (agent, slave, lease, running))

    def draining(self, agent: str, slaves: Sequence[int]) -> None:
        """These slaves are to end when their running tasks have: they need no more leases.  One way."""
        self._send("draining", (agent, list(slaves)))

    def output(self, agent: str, parts: Sequence[OutputPart]) -> None:
        """What these slaves have printed.  One way."""
        self._send("output", (agent, _plain(parts)))

    def records(self, agent: str, parts: Sequence[RecordPart]) -> None:
        """What tasks on these slaves have logged.  One way."""
        self._send("records", (agent, _plain(parts)))

    def pass_on(self, pieces: bytes) -> None:
        """Values that a runner has gathered and cannot send, as it would have.  One way."""
        self._link.connection.send_frame(wire.frame_of_pieces(pieces))

    def leave(self, agent: str, why: str) -> None:
        """The agent ends; answered, so that the master has it before the connection closes."""
        self._callmethod("leave", (agent, why))


def _stays_here(address: Address) -> bool:
    """Whether it is an address of this machine, which is the same whatever becomes of the network."""
    host = address[0]
    return host.startswith(UNIX) or is_loopback(host)


def _plain(messages: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(message) for message in messages]


def _value(message: Any) -> Any:
    """What an answer says.  Raises `CallFailed` or `ProtocolError`."""
    if not isinstance(message, tuple) or len(message) != 2:
        raise ProtocolError("the master sent what is no answer")
    kind, value = message
    if kind == "#RETURN":
        return value
    raise CallFailed(str(value))
