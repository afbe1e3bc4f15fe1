"""The BaseManager whose server the slaves' proxies call, and that server: the connections of all slaves.

What differs from multiprocessing.managers.Server: strangers are met by the acceptor (acceptor.py) before they get here;
there is no thread for each connection, the dispatcher's reads them all and answers each call when the scheduler says
so; the three served objects stand under fixed ids and nothing can be created, counted, inspected or shut down from
outside; a method that slave/protocol.py does not list is refused; one-way calls get no answer; and the user's process
keeps its stdout, its signals and its exit.
"""

from __future__ import annotations

import itertools
import os
import re
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Protocol

from slave import mp_adapter
from slave.protocol import ANSWERED, COMMANDS, REPORTS, RUNNER, OutcomeMessage, Service, ValuesMessage
from slave.transport import Transport
from slave.wire import HANDSHAKE_SECONDS, WINDOW, Connection, Listener

from ..core import events as ev
from ..core.company import WAITED
from ..core.effects import HangUp
from .acceptor import Acceptor
from .dispatcher import Dispatcher
from .identity import Identity
from .keyring import Keyring
from .peer import NOBODY, Peer
from .ticket import Ticket

if TYPE_CHECKING:
    from .announcer import Announcer

_QUOTED, _NUMBERS = r"'[^'\n]*'|\b0x[0-9a-f]+", r"[\d\W]+"
_KIND = 80  # characters at the end of a reason that tell its kind, without numbers and what is quoted
_KINDS = 100  # that are remembered


class Served(Protocol):
    """An object that slaves reach by proxy: it has the methods of its ``service``.

    One that is GATHERED takes all that arrived together and the time; any other takes a `Call` (peer.py), to be
    answered now or later, and the call's arguments.
    """

    @property
    def service(self) -> Service:
        """Its fixed id and its methods."""


class QueueServer(mp_adapter.Server):
    """Serves a few fixed objects to whoever holds the key.

    What is not for the constructor, `serve`, `listen`, `close_acceptor`, `stop` and `forsake` is for the dispatcher.
    """

    def __init__(self, address: tuple[str, int], authkey: bytes) -> None:
        super().__init__(address, authkey)
        self.listener: Listener
        self.dispatcher: Dispatcher
        self.objects: dict[str, Any] = {}
        self.kinds: dict[tuple[Any, Any], str] = {}  # by id and method
        self.patience = 30.0  # seconds after which the kernel gives a silent peer's machine up
        self.window = memoryview(bytearray(WINDOW))
        self.gathered: list[OutcomeMessage | ValuesMessage] = []  # outcomes that were read in this turn
        self.calls: list[tuple[Peer, str, str, str, Any]] = []  # the other calls
        self._coming: set[Transport] = set()  # those that were let in, and of which the dispatcher does not know yet
        self._peers: set[Peer] = set()
        self._admitted = itertools.count(1)  # numbers the connections
        self._nameless: dict[Peer, float] = {}  # those that have not said who they are, and until when they may
        self._cut_before: set[str] = set()
        self._when_empty: list[Ticket] = []
        self.identity: Identity
        self.keyring: Keyring
        self.slave_file: Callable[[], bytes] | None = None
        self._acceptor: Acceptor
        _servers.add(self)

    @property
    def port(self) -> int:
        """Where it listened first."""
        return self.listener.address[1]

    def serve(self, objects: Sequence[Served], dispatcher: Dispatcher) -> None:
        """Start to serve ``objects``; returns at once."""
        self.objects = {one.service.ident: one for one in objects}
        self.kinds = {
            (one.service.ident, method): kind for one in objects for method, kind in one.service.methods.items()
        }
        self.dispatcher = dispatcher
        dispatcher.connections = self
        self._acceptor = Acceptor(
            self.listener.sockets,
            self.keyring,
            self.identity,
            self._accepted,
            self.tell,
            self._acceptor_died,
            self.slave_file,
        )
        self._acceptor.start()

    def abandon(self) -> None:
        """Undo what was begun of `serve`, which was interrupted."""
        acceptor: Acceptor | None = getattr(self, "_acceptor", None)
        if acceptor is not None:
            acceptor.abandon()
        self.listener.close()

    def listen(self, host: str, port: int) -> int:
        """Listen on one more address; returns the port."""
        added = Listener((host, port))
        self.listener.sockets.extend(added.sockets)
        self._acceptor.add(added.sockets)
        return added.address[1]

    def announce(self, announcer: Announcer) -> None:
        """Answer those who look for this master."""
        self._acceptor.announce(announcer)

    def close_acceptor(self) -> None:
        """Accept nobody any more."""
        self._acceptor.close()
        self.listener.close()

    def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for peers to hang up, then cut the rest off."""
        ticket = Ticket()
        self.dispatcher.tell(self._answer_when_empty, ticket)
        self.dispatcher.wait_for(ticket, grace)
        self.dispatcher.call(lambda now: self.shut())
        while self._coming and self.dispatcher.failure is not None:  # it has died, and heard of them no more
            self._coming.pop().close()

    def _answer_when_empty(self, ticket: Ticket, now: float) -> None:
        if self._peers:
            self._when_empty.append(ticket)
        else:
            ticket.answer(None)

    def forsake(self) -> None:
        """In a forked process: close its copies, so that a slave sees the end of the real master's connections."""
        closable: list[Any] = [*self.listener.sockets, *self._acceptor.sockets()]
        closable += [peer.connection for peer in list(self._peers)]
        for one in closable:
            try:
                one.close()
            except OSError:
                pass
        if hasattr(self, "dispatcher"):
            self.dispatcher.forsake()

    # -- for the dispatcher's thread

    def carry_out(self, now: float) -> None:
        """Call the scheduler with what was read: outcomes first, all at once, since later calls rely on them."""
        gathered, calls = self.gathered, self.calls
        if gathered:
            self.gathered = []
            self.objects["results"].post(gathered, now)
            if calls:
                self.dispatcher.hand_over()  # who waits for an outcome wakes while we go on
        if calls:
            self.calls = []
            for peer, kind, ident, method, args in calls:
                if method != "fetch" and kind == ANSWERED:
                    self.dispatcher.company.disturb(now, WAITED)
                peer.carry_out(kind, ident, method, args, now)
        if self._nameless:
            self._hang_up_on_the_silent(now)

    def named(self, peer: Peer) -> None:
        """A connection has said whose it is."""
        self._nameless.pop(peer, None)

    def hang_up(self, whose: HangUp) -> None:
        """Hang up on a runner, unless something large is on its way to it or from it: that has a limit of its own."""
        for peer in list(self._peers):
            role = peer.role or NOBODY
            if role.kind == RUNNER and (role.slave, role.pid, role.connection) == whose and not peer.transfers:
                self.cut(peer.name, f"is cut: slave {whose.slave} was sent tasks long ago, and seems not to have them")
                peer.hang_up()

    def shut(self) -> None:
        """Hang up on all."""
        for peer in list(self._peers):
            peer.hang_up()

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""
        self._peers.discard(peer)
        self._nameless.pop(peer, None)
        scheduler = self.dispatcher.scheduler
        agents, role, now = scheduler.agents, peer.role or NOBODY, scheduler.state.now
        if role.kind == REPORTS:
            agents.disconnected(role.agent, role.pid, role.connection, now)
        elif role.kind == COMMANDS:
            agents.commands_disconnected(role.agent, peer.call, now)
        elif role.kind == RUNNER:
            scheduler.runner_disconnected(role, now)
        if not self._peers:
            for ticket in self._when_empty:
                ticket.answer(None)

    def _admit(self, transport: Transport, name: str, ident: bytes, now: float) -> None:
        """Somebody proved that it holds the secret of that name."""
        self._coming.discard(transport)
        connection = Connection(transport)
        try:
            connection.be_patient(self.patience)
            transport.set_blocking(False)
            peer = Peer(self, connection, name, ident, next(self._admitted))
            self.dispatcher.watch(connection, peer.readable)
            self._peers.add(peer)
            self._nameless[peer] = now + HANDSHAKE_SECONDS
            if transport.has_more():  # read ahead during the handshake
                peer.readable(now)
        except OSError as error:
            self.cut(name, f"cannot be served: {error}")
            connection.close()

    def cut(self, name: str, why: str) -> None:
        """A connection is cut; each kind of reason is told loudly once."""
        kind = re.sub(_NUMBERS, "#", re.sub(_QUOTED, "", why))[-_KIND:]
        again = kind in self._cut_before or len(self._cut_before) >= _KINDS
        self.tell(ev.ConnectionCut(time.monotonic(), name, why, again))
        if not again:
            self._cut_before.add(kind)

    def _hang_up_on_the_silent(self, now: float) -> None:
        """Who holds the key and does not even say who it is has no place here."""
        while self._nameless:
            peer, until = next(iter(self._nameless.items()))
            if until > now:
                return
            self.cut(peer.name, f"is cut, since it did not say who it is within {HANDSHAKE_SECONDS:g} s")
            peer.hang_up()

    # -- for the acceptor's thread

    def tell(self, event: ev.Event) -> None:
        """Something happened to a connection."""
        self.dispatcher.publisher.publish([event])

    def _accepted(self, transport: Transport, name: str, ident: bytes) -> None:
        self._coming.add(transport)
        self.dispatcher.tell(self._admit, transport, name, ident)

    def _acceptor_died(self, error: BaseException) -> None:
        self.dispatcher.fail(error)


class QueueManager(mp_adapter.Manager):
    """The manager of the queues: its server runs in this process."""

    def __init__(self, address: tuple[str, int], authkey: bytes) -> None:
        super().__init__(address, authkey, QueueServer)


_servers: weakref.WeakSet[QueueServer] = weakref.WeakSet()


def _forsake_all() -> None:
    for server in list(_servers):
        server.forsake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forsake_all)
