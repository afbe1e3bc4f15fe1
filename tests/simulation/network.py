"""The network: connections that delay what is said, break, go silent in one direction or both, and deliver late.

What is said on one connection arrives in its order; what is said on two may overtake.  When a connection breaks, some
of what is on its way arrives and the rest is lost, and its two ends learn of it at different times: so a slave may be
back on a new connection while the master still reads the old one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from slave.protocol import Role

from .world import World

QUICK, SLOW = 0.0002, 0.02  # seconds on the way
END = ("end",)  # stands among what arrives for the end of the connection


class Broken(Exception):
    """There is no connection (any more)."""


class Client(Protocol):
    """Whoever made a connection."""

    name: str

    def heard(self, connection: Connection, value: Any) -> None:
        """The master has answered."""

    def broken(self, connection: Connection) -> None:
        """The connection has ended."""


class Server(Protocol):
    """The master, as connections know it."""

    accepted: Iterator[int]

    def arrived(self, connection: Connection) -> None:
        """Something is there to be read."""


class Direction:
    """What is on its way, one way."""

    __slots__ = ("arrived", "last", "limit", "quiet_until", "said")

    def __init__(self) -> None:
        self.said = self.arrived = 0  # how much was said and arrived so far
        self.limit = math.inf  # what is said after so much is lost
        self.last = 0.0  # when the last thing arrives
        self.quiet_until = 0.0  # nothing arrives before


class Connection:
    """A connection that ``client`` has made to the master.  ``role``: what it says first."""

    def __init__(self, world: World, server: Server, client: Client, role: Role, slowness: float) -> None:
        self._world, self._server, self.client, self.role = world, server, client, role
        self.name = f"{client.name}'s {'' if role.kind == 'runner' else role.kind + ' '}connection {role.connection}"
        self._random = world.stream(self.name)
        self._slowness = slowness
        self.up, self.down = Direction(), Direction()
        self.client_open = self.server_open = True
        self.accepted = next(server.accepted)
        self.unread: deque[Any] = deque()  # what has arrived at the master
        self.busy = False  # the master reads nothing here for now
        self.deferred: list[Any] = []  # calls that wait meanwhile
        self.waiting: Any = None  # the last call that waits for its answer
        self.lose_answer = False  # the next answer is lost, and the connection with it

    # -- speaking

    def send(self, method: str, *arguments: Any) -> None:
        """The client says something.  Raises `Broken` if it knows that there is no connection."""
        if not self.client_open:
            raise Broken
        self._say(self.up, self._arrive_up, (method, arguments))

    def answer(self, value: Any) -> None:
        """The master answers."""
        if self.lose_answer:
            self.lose_answer = False
            self._world.tell(f"the answer is lost with {self.name}")
            self.cut(0, 0, 0.001, 0.001)
        if self.server_open:
            self._say(self.down, self._arrive_down, value)

    def _say(self, way: Direction, arrive: Any, what: Any) -> None:
        way.said += 1
        delay = QUICK + self._slowness * self._random.random()
        way.last = max(way.last, self._world.now + delay, way.quiet_until)
        self._world.at(way.last, arrive, way.said, what)

    def _arrive_up(self, number: int, what: Any) -> None:
        way = self.up
        if number > way.limit or not self.server_open:
            return
        if self._world.now < way.quiet_until:
            self._world.at(way.quiet_until, self._arrive_up, number, what)
            return
        way.arrived = number
        self.unread.append(what)
        self._server.arrived(self)

    def _arrive_down(self, number: int, what: Any) -> None:
        way = self.down
        if number > way.limit or not self.client_open:
            return
        if self._world.now < way.quiet_until:
            self._world.at(way.quiet_until, self._arrive_down, number, what)
            return
        way.arrived = number
        if what is END:
            self._client_sees_end()
        else:
            self.client.heard(self, what)

    # -- ending

    def close(self) -> None:
        """The client closes it, or its process has died: what it has said still arrives, and then the end."""
        if self.client_open:
            self.client_open = False
            self._say(self.up, self._arrive_up, END)

    def hang_up(self) -> None:
        """The master closes it."""
        if self.server_open:
            self.server_open = False
            self.unread.clear()
            self._say(self.down, self._arrive_down, END)

    def cut(self, kept_up: int, kept_down: int, client_after: float, server_after: float) -> None:
        """It breaks: so much of what is on its way still arrives; the ends learn of it so many seconds later.

        What is kept of what the client said arrives just before the master learns of the end.
        """
        now = self._world.now
        self.up.limit = min(self.up.limit, self.up.arrived + kept_up)
        self.down.limit = min(self.down.limit, self.down.arrived + kept_down)
        if server_after > SLOW:
            self.up.quiet_until = max(self.up.quiet_until, now + server_after)
        self._world.after(max(client_after, 0.0), self._client_sees_end)
        self._world.at(max(now + server_after, self.up.quiet_until, self.up.last) + 1e-6, self._server_sees_end)

    def silence(self, seconds: float, patience: float, up: bool = True, down: bool = True) -> None:
        """Nothing arrives for so long.  An end that hears nothing for ``patience`` seconds takes it for broken."""
        now = self._world.now
        for way, wanted in ((self.up, up), (self.down, down)):
            if wanted:
                way.quiet_until = max(way.quiet_until, now + seconds)
        if seconds >= patience:
            self.up.limit = min(self.up.limit, self.up.arrived if up else self.up.said)
            self.down.limit = min(self.down.limit, self.down.arrived if down else self.down.said)
            self._world.after(patience * self._random.between(0.9, 1.1), self._client_sees_end)
            self._world.after(patience * self._random.between(0.9, 1.1), self._server_sees_end)

    def _client_sees_end(self) -> None:
        if self.client_open:
            self.client_open = False
            self.client.broken(self)

    def _server_sees_end(self) -> None:
        if self.server_open and (not self.unread or self.unread[-1] is not END):
            self.unread.append(END)
            self._server.arrived(self)
