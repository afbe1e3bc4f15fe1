"""One connection to the master, and the proxies that call the master's queues over it.

The proxies are `multiprocessing.managers.BaseProxy` objects, built by hand on the fixed ids of the queues: no
connection is spent on creating them or on counting references.  Differences from the stock proxy: it uses the
connection of its `Link`, not one per thread; a call that fails half way drops the connection, so that no later call
can read its answer; and some calls are one-way, since the caller has better things to do than to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.managers import BaseProxy, Token
from typing import Any, TypeVar

from . import wire
from .dial import Address, dial
from .outcome import Packed

ProxyType = TypeVar("ProxyType", bound="QueueProxy")

Entry = tuple[int, int, wire.Buffer]  # task id, context id, payload
# lease id, tasks in the order in which to run them, and by task id the seconds that one may run, where there is a limit
Lease = tuple[int, list[Entry], dict[int, float]]


class CallFailed(Exception):
    """The master refused a call or failed in it; ``str()`` is its traceback or reason."""


class Link:
    """A connection that can be made anew.  ``role`` tells the master whose it is: ('runner', number, pid), ..."""

    def __init__(
        self, addresses: Sequence[Address], key: bytes, role: tuple[object, ...], patience: float = 30.0
    ) -> None:
        self._addresses, self._key, self._role, self._patience = list(addresses), key, role, patience
        self._connection: wire.Connection | None = None
        self.count = 0  # of connections; the current one's is the last part of its role

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
        connection = dial(self._addresses, self._key, self._patience)
        try:
            self.count += 1
            connection.send((None, "accept_connection", ((*self._role, self.count),), {}))
            _answer(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def be_patient(self, seconds: float) -> None:
        """Take the other machine for gone after so many seconds of silence: now that the lease is known."""
        self._patience = seconds
        self.connection.be_patient(seconds)

    def drop(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def proxy(self, kind: type[ProxyType]) -> ProxyType:
        """A proxy of the given kind over this link."""
        return kind(self, self._addresses[0], self._key)


class QueueProxy(BaseProxy):
    """What the proxies have in common.  ``ident`` is the fixed id of the object in the master's server."""

    ident = ""
    _id: str

    def __init__(self, link: Link, address: Address, key: bytes) -> None:
        super().__init__(Token(type(self).__name__, address, self.ident), wire.SERIALIZER, authkey=key, incref=False)
        self._link = link

    def _incref(self) -> None:
        """Nothing: the queues live as long as the master, and a forked process has no business with it."""

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = None) -> Any:
        self._tell(methodname, *args)
        return self._hear()

    def _tell(self, method: str, *args: object) -> None:
        """Send a call and do not wait."""
        connection = self._link.connection
        try:
            connection.send((self._id, method, args, {}))
        except BaseException:
            self._link.drop()
            raise

    def _hear(self) -> Any:
        """The answer to the call that was sent last."""
        try:
            return _answer(self._link.connection)
        except CallFailed:
            raise
        except BaseException:
            self._link.drop()
            raise


class TaskQueueProxy(QueueProxy):
    """Where a runner gets its tasks (parallel/service/queues.py: TaskQueue)."""

    ident = "tasks"

    def join(self, number: int, pid: int, run: str, lease: int) -> bool:
        """Say that ``pid`` is slave ``number`` and holds ``lease`` (0: none); False if this is another master."""
        return bool(self._callmethod("join", (number, pid, self._link.count, run, lease)))

    def fetch(self, number: int, pid: int, ran: Sequence[tuple[int, int, float]]) -> tuple[Lease, list[int]] | None:
        """A lease and the contexts to forget; None when the master is done.

        Waits for some seconds if there is nothing; the lease may be empty.  ``ran``: context, tasks, seconds of the
        last one.
        """
        found: tuple[Lease, list[int]] | None = self._callmethod("fetch", (number, pid, self._link.count, list(ran)))
        return found

    def setup_of(self, number: int, context: int) -> wire.Buffer | None:
        """The context's pickled setup; None if it has none."""
        payload: wire.Buffer | None = self._callmethod("setup_of", (number, context))
        return payload


class ResultQueueProxy(QueueProxy):
    """Where a runner posts what came of its tasks (parallel/service/queues.py: ResultQueue)."""

    ident = "results"

    def post(self, number: int, lease: int, task: int, outcome: Packed) -> None:
        """One task's outcome, one way: the next call's answer says that it arrived."""
        self._tell("post", number, lease, task, *outcome)

    def post_and_wait(self, number: int, lease: int, task: int, outcome: Packed) -> None:
        """The same, and wait until the master has it."""
        kind, data, buffers = outcome
        self._callmethod("post_and_wait", (number, lease, task, kind, wire.opaque(data), buffers))

    def setup_failed(self, number: int, context: int, data: wire.Buffer, lease: int, unstarted: Sequence[int]) -> None:
        """Setup of ``context`` raised here; the tasks ``unstarted`` of the lease go to other slaves."""
        self._callmethod("setup_failed", (number, context, data, lease, list(unstarted)))

    def hand_back(self, number: int, lease: int, unstarted: Sequence[int]) -> None:
        """These tasks of the lease were not started and will not be."""
        self._callmethod("hand_back", (number, lease, list(unstarted)))


class AgentDeskProxy(QueueProxy):
    """What an agent tells and asks (parallel/service/desk.py: AgentDesk)."""

    ident = "agents"

    def enlist(self, card: dict[str, Any]) -> dict[str, Any]:
        """Say who this agent is and which runners it has; the answer holds its id, their numbers and the lease."""
        reply: dict[str, Any] = self._callmethod("enlist", (card,))
        return reply

    def ask_orders(self, agent: str, acknowledged: int) -> None:
        """Begin to wait for orders after number ``acknowledged``; `orders` reads the answer when there is one."""
        self._tell("orders", agent, acknowledged)

    def orders(self) -> tuple[int, list[tuple[Any, ...]]]:
        """The orders that `ask_orders` asked for, and the number of the last."""
        found: tuple[int, list[tuple[Any, ...]]] = self._hear()
        return found

    def beat(self, agent: str, alive: Sequence[tuple[int, int, int]]) -> None:
        """These runners (number, pid, running task) are alive.  One way."""
        self._tell("beat", agent, list(alive))

    def runner_ended(
        self, agent: str, number: int, pid: int, exitcode: int | None, task: int, setup: int, cause: str
    ) -> None:
        """A runner died; ``task`` and ``setup`` are its mark, ``cause`` is why its agent ended it, if so.  One way."""
        self._tell("runner_ended", agent, number, pid, exitcode, task, setup, cause)

    def slot_closed(self, agent: str, number: int, why: str) -> None:
        """Slave ``number`` will not be started again.  One way."""
        self._tell("slot_closed", agent, number, why)

    def recalled(self, agent: str, number: int, lease: int, running: int) -> None:
        """Of the lease (0: whichever it holds) tasks after ``running`` will not be started.  One way."""
        self._tell("recalled", agent, number, lease, running)

    def drain(self, agent: str, numbers: Sequence[int]) -> None:
        """These slaves are to end when their running tasks have: they need no more leases.  One way."""
        self._tell("drain", agent, list(numbers))

    def leave(self, agent: str, why: str) -> None:
        """The agent ends; answered, so that the master has it before the connection closes."""
        self._callmethod("leave", (agent, why))


def _answer(connection: wire.Connection) -> Any:
    kind, value = connection.recv()
    if kind == "#RETURN":
        return value
    raise CallFailed(str(value))
