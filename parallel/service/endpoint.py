"""Endpoint: where this master listens, and by which addresses slaves find it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence

from slave.dial import Address

from ..errors import NetworkError
from .addresses import local_addresses
from .dispatcher import Dispatcher
from .server import QueueManager, QueueServer, Served

_LOOPBACK = "127.0.0.1"


class Endpoint:
    """Opens the server when it is first needed, on the loopback alone or on every interface.

    ``host``, ``port``: as the user gave them to Manager.  ``_lock`` guards the server and its ports while it is opened.
    """

    def __init__(
        self,
        key: bytes,
        host: str | None,
        port: int | None,
        objects: Sequence[Served],
        dispatcher: Dispatcher,
    ) -> None:
        self._key, self._host, self._port, self._objects = key, host, port, objects
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._server: QueueServer | None = None
        self._lan_port = 0  # where every interface listens; 0: none does

    @property
    def open(self) -> bool:
        """Whether anybody listens."""
        return self._server is not None

    def listen(self, lan: bool, patience: float) -> None:
        """Listen, if that has not begun; with ``lan`` on every interface.  Raises `NetworkError`.

        ``patience``: seconds after which a silent machine is given up.
        """
        with self._lock:
            try:
                if self._server is None:
                    address = ("" if lan else _LOOPBACK, self._port or 0)
                    server: QueueServer = QueueManager(address, self._key).get_server()
                    server.patience = patience
                    server.serve(self._objects, self._dispatcher)
                    self._server, self._lan_port = server, server.port if lan else 0
                elif lan and not self._lan_port:
                    self._lan_port = self._server.listen("", 0)
            except OSError as error:
                raise _cannot_listen(self._port or 0, error) from None

    def addresses(self, local: bool) -> list[Address]:
        """Where slaves find the server, which is open: ``local`` ones on the loopback."""
        assert self._server is not None
        if local or not self._lan_port:
            return [(_LOOPBACK, self._server.port)]
        hosts = [self._host] if self._host else local_addresses()
        return [(host, self._lan_port) for host in hosts]

    def close_acceptor(self) -> None:
        """Let nobody in any more."""
        server = self._server
        if server is not None:
            server.close_acceptor()

    def stop(self, grace: float) -> None:
        """Listen no more; whoever is connected has ``grace`` seconds to hang up."""
        server = self._server
        if server is not None:
            server.stop(grace)


def _cannot_listen(port: int, error: OSError) -> NetworkError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use by another program; name another one, or 0 for any free port"
    elif error.errno == errno.EACCES:
        reason = "not permitted; ports below 1024 are for the administrator, name a higher one"
    return NetworkError(f"cannot listen on port {port}: {reason}")
