"""Endpoint: where this master listens, and by which addresses slaves find it."""

from __future__ import annotations

import errno
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from typing import Callable

from slave.dial import Address
from slave.signals import came_from_handler

from ..core import events as ev
from ..errors import InputError, ManagerClosed, NetworkError
from .addresses import addresses_of, local_addresses
from .dispatcher import Dispatcher
from .identity import Identity
from .keyring import Keyring
from .server import QueueManager, QueueServer, Served

_LOOPBACK = "127.0.0.1"
_UNIX = "unix:"  # see slave/dial.py


class Endpoint:
    """Opens the server when it is first needed: for local slaves a Unix socket, for others a port.

    ``host``, ``port``: as the user gave them to Manager.  ``slave_file``: the bytes of slave.pyz.
    ``_lock`` guards the server and its ports while it is opened.  A signal's handler may have interrupted just that,
    and come here: it is refused, for it would wait for what waits for it.
    """

    def __init__(
        self,
        keyring: Keyring,
        host: str | None,
        port: int | None,
        objects: Sequence[Served],
        dispatcher: Dispatcher,
        identity: Identity,
        slave_file: Callable[[], bytes],
        announce: str | None = None,
    ) -> None:
        self._announce = announce
        self.identity, self.keyring, self._slave_file = identity, keyring, slave_file
        self._host, self._port, self._objects = host, port, objects
        self._dispatcher = dispatcher
        self._lock = threading.RLock()
        self._opening = self._closed = False
        self._server: QueueServer | None = None
        self._local: Address | None = None  # where local slaves find it
        self._lan_port = 0  # where others find it; 0: nowhere

    @property
    def open(self) -> bool:
        """Whether anybody listens."""
        return self._server is not None

    def listen(self, lan: bool, patience: float) -> None:
        """Listen, if that has not begun; with ``lan`` where other machines reach it too.

        ``patience``: seconds after which a silent machine is given up.  Raises `NetworkError`, `ManagerClosed` if the
        end has begun, be it just now, and `InputError` in a signal's handler that has interrupted this.
        """
        with self._lock:
            if self._opening:
                raise InputError(
                    "a signal's handler has interrupted the manager's start and needs it to be done: have the manager "
                    "start before such a signal can come, with manager.begin()"
                )
            try:
                self._opening = True
                if self._server is None:
                    self._local = _local_address()
                    server: QueueServer = QueueManager(self._local, self.keyring.key).get_server()
                    self._local = self._local[0], server.port
                    server.patience, server.identity = patience, self.identity
                    server.keyring, server.slave_file = self.keyring, self._slave_file
                    try:
                        server.serve(self._objects, self._dispatcher)
                        self._server = server
                    except BaseException:  # of a signal's handler: nobody else would end its thread
                        server.abandon()
                        raise
                if lan and not self._lan_port:
                    self.identity.context()
                    host = self._bound_to()
                    self._lan_port = self._server.listen(host, self._port or 0)
                    if self._announce is not None and not host:
                        self._begin_to_announce(self._server, self._announce)
            except OSError as error:
                if came_from_handler(error):
                    raise  # a TimeoutError of the user's alarm
                if self._closed:
                    raise _over() from None
                raise _cannot_listen(self._port or 0, error) from None
            finally:
                self._opening = False
                if self._closed and self._server is not None:  # looked at now: who closes later sees what was opened
                    self._server.abandon()
            if self._closed:
                raise _over()

    def _begin_to_announce(self, server: QueueServer, name: str) -> None:
        from slave.discovery import PORT  # of no use where all slaves are local

        from .announcer import Announcer

        master = self.identity.fingerprint(unix=False).hex()
        try:
            server.announce(Announcer(self.keyring, master, self._lan_port, name))
        except OSError as error:
            why = f"slaves cannot find this master by themselves: UDP port {PORT}: {error.strerror}"
            server.tell(ev.CannotAnnounce(time.monotonic(), why))

    def _bound_to(self) -> str:
        """The host to listen at: '' for every interface; a loopback address that the user named, and no other."""
        if self._host is not None:
            import ipaddress  # slow to import

            hosts = addresses_of(self._host)
            if hosts and all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for host in hosts):
                return self._host
        return ""

    def addresses(self, local: bool) -> list[Address]:
        """Where slaves find the server, which is open: ``local`` ones, or those that come from elsewhere.

        Raises `NetworkError` if this process has no descriptor left to ask the system with.
        """
        assert self._server is not None and self._local is not None
        if local or not self._lan_port:
            return [self._local]
        try:
            hosts = [self._host] if self._host else local_addresses()
        except OSError as error:
            raise NetworkError(f"cannot tell this machine's addresses: {reason_of(error)}") from None
        return [(host, self._lan_port) for host in hosts]

    def fingerprint(self, local: bool) -> str:
        """What those slaves find that this master proves to be, as hex digits."""
        unix = self.addresses(local)[0][0].startswith(_UNIX)
        return self.identity.fingerprint(unix).hex()

    def close_acceptor(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        server = self._server
        if server is not None:
            server.close_acceptor()

    def stop(self, grace: float) -> None:
        """Listen no more; whoever is connected has ``grace`` seconds to hang up."""
        server = self._server
        if server is not None:
            server.stop(grace)


def _local_address() -> Address:
    """A Unix socket that nobody else knows, in Linux without a place in the file system; else a port."""
    if sys.platform == "linux":
        return f"{_UNIX}parallel-{secrets.token_hex(16)}", 0
    return _LOOPBACK, 0


def reason_of(error: OSError) -> str:
    """What the system said, and what helps."""
    reason = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        whose = "this process" if error.errno == errno.EMFILE else "this machine"
        return f"{reason}: {whose} has no descriptor left; close files, or raise the limit (ulimit -n)"
    return reason


def _over() -> ManagerClosed:
    return ManagerClosed("the manager was shut down")


def _cannot_listen(port: int, error: OSError) -> NetworkError:
    reason = reason_of(error)
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use by another program; name another one, or 0 for any free port"
    elif error.errno == errno.EACCES:
        reason = "not permitted; ports below 1024 are for the administrator, name a higher one"
    return NetworkError(f"cannot listen on port {port}: {reason}")
