"""The BaseManager whose server the slaves' proxies call, and that server, made robust.

What differs from multiprocessing.managers.Server: strangers are met at the door (door.py) before they get a thread; the
three served objects stand under fixed ids and nothing can be created, counted, inspected or shut down from outside; a
method that is not on an object's own list is refused; one-way calls get no answer; the server runs in threads of the
user's process and leaves its stdout, its signals and its exit alone.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
import weakref
from collections.abc import Sequence
from multiprocessing import managers
from typing import Any, Callable, Protocol

from slave.errors import ProtocolError
from slave.wire import SERIALIZER, Connection, Listener, tune

from .books import log
from .door import Door

Role = tuple[Any, ...]
Request = tuple[str, str, tuple[Any, ...], dict[str, Any]]  # ident, method, arguments, {}

_MOST_GATHERED = 1000


class Served(Protocol):
    """An object that slaves reach by proxy."""

    @property
    def ident(self) -> str:
        """Its fixed id."""

    @property
    def exposed(self) -> Sequence[str]:
        """The methods that slaves may call."""

    @property
    def one_way(self) -> Sequence[str]:
        """Those that get no answer."""

    @property
    def gathered(self) -> Sequence[str]:
        """One-way methods of which the calls that came together are made as one, with a list."""


class QueueServer(managers.Server):
    """Serves a few fixed objects to whoever holds the key; one thread for each connection."""

    public = ["accept_connection"]  # noqa: RUF012 - as the base class has it

    def __init__(self, registry: dict[str, Any], address: tuple[str, int], authkey: bytes, serializer: str) -> None:
        super().__init__(registry, address, authkey, serializer)
        self.listener: Listener  # made by the line above, from the serializer
        self.stop_event = threading.Event()
        self.objects: dict[str, Served] = {}
        self.patience = 30.0  # seconds after which the kernel gives a silent peer's machine up
        self.on_disconnect: Callable[[Role], None] = lambda role: None
        self._connections: set[Connection] = set()  # guarded by the GIL: single operations only
        self._door = Door(self.listener.sockets, bytes(authkey), self._admit)
        _servers.add(self)

    @property
    def port(self) -> int:
        """Where it listened first."""
        return self.listener.address[1]

    def serve(self, objects: Sequence[Served]) -> None:
        """Start to serve ``objects``; returns at once."""
        self.objects = {one.ident: one for one in objects}
        self._door.start()

    def listen(self, host: str, port: int) -> int:
        """Listen on one more address; returns the port."""
        added = Listener((host, port))
        self.listener.sockets.extend(added.sockets)
        self._door.add(added.sockets)
        return added.address[1]

    def close_door(self) -> None:
        """Accept nobody any more."""
        self.stop_event.set()
        self._door.close()
        self.listener.close()

    def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for peers to hang up, then cut the rest off."""
        deadline = time.monotonic() + grace
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.005)
        for connection in list(self._connections):
            connection.shut()

    def forsake(self) -> None:
        """In a forked process: close its copies, so that a slave sees the end of the real master's connections."""
        closable: list[Any] = [*self.listener.sockets, *self._door.sockets(), *self._connections]
        for one in closable:
            try:
                one.close()
            except OSError:
                pass

    def _admit(self, sock: socket.socket, peer: str) -> None:
        connection = Connection(sock)
        self._connections.add(connection)
        try:
            tune(sock, self.patience)
            threading.Thread(
                target=self.handle_request, args=(connection,), daemon=True, name=f"parallel {peer}"
            ).start()
        except (OSError, RuntimeError) as error:  # RuntimeError: can't start new thread
            log.warning("parallel: the connection from %s cannot be served: %s", peer, error)
            self._hang_up(connection)

    def handle_request(self, conn: Any) -> None:
        """The life of one connection: introduce itself, then call."""
        role: Role = ()
        try:
            _, function, args, _ = conn.recv()
            if function not in self.public:
                conn.send(("#TRACEBACK", f"{function!r} is not for slaves"))
                return
            role = tuple(args[0])
            conn.send(("#RETURN", None))
            self.serve_client(conn)
        except (EOFError, OSError):
            pass  # it hung up, or its machine is gone; on_disconnect draws the conclusions
        except ProtocolError as error:
            log.warning("parallel: a connection is cut, since it made no sense: %s", error)
        except Exception:
            log.warning("parallel: a connection is cut, since it made no sense:\n%s", traceback.format_exc())
        finally:
            self._hang_up(conn)
            self.on_disconnect(role)

    def serve_client(self, conn: Any) -> None:
        """Answer calls until the peer hangs up."""
        request = conn.recv()
        while True:
            ident, name, args, _ = request
            target = self.objects.get(ident)
            if target is None or name not in target.exposed:
                conn.send(("#TRACEBACK", f"there is no {name!r} of {ident!r} for slaves"))
            elif name in target.gathered:
                batch, request = _gather(conn, request)
                getattr(target, name)(batch)
                if request is not None:
                    continue
            elif name in target.one_way:
                getattr(target, name)(*args)
            else:
                conn.send(_answer(getattr(target, name), args))
            request = conn.recv()

    def _hang_up(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()


class QueueManager(managers.BaseManager):
    """The manager of the queues: its server runs in this process's threads."""

    def __init__(self, address: tuple[str, int], authkey: bytes) -> None:
        super().__init__(address, authkey, serializer=SERIALIZER)

    def get_server(self) -> QueueServer:
        """The server, listening.  Raises OSError if the address cannot be had."""
        state: Any = self
        return QueueServer(state._registry, state._address, state._authkey, state._serializer)


def _gather(conn: Connection, request: Request) -> tuple[list[tuple[Any, ...]], Request | None]:
    """The arguments of ``request`` and of the calls like it that came with it, and the other call after them."""
    ident, name, args, _ = request
    batch = [args]
    while len(batch) < _MOST_GATHERED and conn.pending():
        after: Request = conn.recv()
        if after[1] != name or after[0] != ident:
            return batch, after
        batch.append(after[2])
    return batch, None


def _answer(method: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "#RETURN", method(*args)
    except Exception as error:
        log.info("parallel: a call of %s failed:\n%s", method.__name__, traceback.format_exc())
        return "#ERROR", f"{type(error).__name__}: {error}"


_servers: weakref.WeakSet[QueueServer] = weakref.WeakSet()


def _forsake_all() -> None:
    for server in list(_servers):
        server.forsake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forsake_all)
