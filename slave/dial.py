"""Reaching the master: every address it may have, tried side by side, handshake included; the first good one wins."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Callable

from . import introduction, limits, wire
from .errors import Incompatible, Intercepted, ProtocolError, SlaveError, Unreachable, WrongKey, WrongMaster
from .introduction import Steps
from .name_service import Names, is_shortage, why_unknown
from .named import NamedTuple
from .transport import UNIX, Transport, is_unix, unix_target

Address = tuple[str, int]  # host and port, or for a Unix socket ("unix:NAME", 0): see transport.unix_target

_STAGGER = 0.25  # seconds between two starts: RFC 8305 ("happy eyeballs"), section 5
_PER_ADDRESS = 5.0  # seconds for one address to answer a SYN
_NO_WAY = (
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM,
    errno.EAFNOSUPPORT,
)  # fmt: skip
_NOBODY_LISTENS = (errno.ECONNREFUSED, errno.ENOENT)  # the latter of a Unix socket's path


def parse_address(text: str) -> Address:
    """``HOST:PORT`` or ``[IPV6]:PORT``.  Raises ValueError naming what is expected."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not port.isdigit() or (":" in bare and bare == host):
        raise ValueError(f"{text!r} is not HOST:PORT (an IPv6 address goes in brackets: [::1]:5757)")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: there is no port {port}; ports are 1 to 65535")
    return bare, int(port)


def format_address(address: Address) -> str:
    """The inverse of `parse_address`; of a Unix socket its name."""
    host, port = address
    if host.startswith(UNIX):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address means this machine, whoever looks at it."""
    return host.startswith("127.") or host in ("::1", "localhost")


class Candidate(NamedTuple):
    """One way to connect, and how a message names it."""

    family: int
    target: tuple[object, ...] | str | bytes
    label: str
    address: Address


def dial(
    addresses: Sequence[Address], key: bytes, patience: float, *, master: str | None = None, encrypt: bool = True
) -> wire.Connection:
    """An authenticated connection to the first of ``addresses`` with which a handshake is complete.

    ``master``, ``encrypt``: as `introduction.introduce` has them.  Raises `WrongKey` or `Incompatible` if all that was
    reached refused for that, and nothing failed in another way; else `Unreachable` with each address's error.
    """
    attempts = _Attempts(lambda sock: introduction.introduce(sock, key, master=master, encrypt=encrypt))
    try:
        transport = attempts.first_complete(_resolve(addresses, attempts))
    finally:
        attempts.close()
    if transport is None:
        raise attempts.failure()
    connection = wire.Connection(transport)
    try:
        transport.set_blocking(True)
        connection.be_patient(patience)
    except BaseException:
        connection.close()
        raise
    return connection


_names = Names()


def _resolve(addresses: Sequence[Address], attempts: _Attempts) -> list[Candidate]:
    found: dict[tuple[object, ...] | str | bytes, Candidate] = {}
    for host, port in addresses:
        if host.startswith(UNIX):
            if not hasattr(socket, "AF_UNIX"):
                attempts.errors[host] = "this system has no Unix sockets"
                continue
            found.setdefault(host, Candidate(socket.AF_UNIX, unix_target(host), host, (host, port)))
            continue
        try:
            answers = _names.answers(host, port)
        except OSError as error:
            attempts.fail_unresolved((host, port), error)
            continue
        for family, _, _, _, target in answers:
            address = str(target[0]), port
            label = format_address(address)
            label = label if host == target[0] else f"{host} ({label})"
            found.setdefault(target, Candidate(family, target, label, address))
    return list(found.values())


class _Attempt:
    """One candidate that is being tried.

    ``steps`` goes on whenever the socket is ready for what it yielded; ``deadline`` is that of the present stage.
    """

    def __init__(self, candidate: Candidate, introduce: Callable[[socket.socket], Steps]) -> None:
        self.candidate = candidate
        self._sock = socket.socket(candidate.family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self.descriptor = self._sock.fileno()  # it stays, when TLS wraps the socket
        self.connected = False
        self.deadline = time.monotonic() + _PER_ADDRESS
        self.steps = self._steps(introduce)

    def _steps(self, introduce: Callable[[socket.socket], Steps]) -> Steps:
        code = self._sock.connect_ex(self.candidate.target)
        # from a Unix socket EAGAIN says that too many wait there to be accepted, and nothing is under way (connect(2))
        if code == errno.EINPROGRESS or (code == errno.EWOULDBLOCK and not is_unix(self._sock)):
            yield selectors.EVENT_WRITE
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self.connected = True
        self.deadline = time.monotonic() + introduction.HANDSHAKE_SECONDS
        return (yield from introduce(self._sock))

    def too_late(self) -> OSError:
        """What went wrong if its deadline is over."""
        if self.connected:
            return socket.timeout(f"not within {introduction.HANDSHAKE_SECONDS:g} s")
        return socket.timeout(f"no answer in {_PER_ADDRESS:g} s (a firewall?)")

    def close(self) -> None:
        self.steps.close()
        self._sock.close()


class _Attempts:
    """The candidates that are being tried, and what became of the others."""

    def __init__(self, introduce: Callable[[socket.socket], Steps]) -> None:
        self._introduce = introduce
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Attempt] = {}  # by descriptor
        self._next_start = 0.0
        self.errors: dict[str, str] = {}  # by label
        self._refusals: list[SlaveError] = []
        self._refused: set[Address] = set()
        self._no_way: set[str] = set()  # of the errors' labels
        self._exhausted: OSError | None = None

    def close(self) -> None:
        for attempt in self._running.values():
            attempt.close()
        self._selector.close()

    def first_complete(self, candidates: Sequence[Candidate]) -> Transport | None:
        """Try them all, each with its own deadlines; None when all have failed."""
        waiting = list(candidates)
        while waiting or self._running:
            now = time.monotonic()
            if waiting and now >= self._next_start:
                self._next_start = now + _STAGGER
                transport = self._start(waiting.pop(0))
                if transport is not None:
                    return transport
            until = [attempt.deadline for attempt in self._running.values()] + [self._next_start] * bool(waiting)
            for key, _ in self._selector.select(max(0.0, min(until, default=now) - time.monotonic())):
                transport = self._go_on(self._running[key.fd])
                if transport is not None:
                    return transport
            self._expire(time.monotonic())
        return None

    def _start(self, candidate: Candidate) -> Transport | None:
        try:
            attempt = _Attempt(candidate, self._introduce)
        except OSError as error:  # this machine does not know that family of addresses
            self._fail(candidate, error)
            return None
        self._running[attempt.descriptor] = attempt
        self._selector.register(attempt.descriptor, selectors.EVENT_WRITE)
        return self._go_on(attempt)

    def _go_on(self, attempt: _Attempt) -> Transport | None:
        try:
            self._selector.modify(attempt.descriptor, next(attempt.steps))
        except StopIteration as done:
            self._forget(attempt)
            transport: Transport = done.value
            return transport
        except (SlaveError, EOFError, OSError) as error:
            self._drop(attempt, error)
        return None

    def _expire(self, now: float) -> None:
        for attempt in [one for one in self._running.values() if one.deadline <= now]:
            self._drop(attempt, attempt.too_late())

    def _drop(self, attempt: _Attempt, error: BaseException) -> None:
        self._forget(attempt)
        attempt.close()
        self._fail(attempt.candidate, error, attempt.connected)

    def _forget(self, attempt: _Attempt) -> None:
        self._selector.unregister(attempt.descriptor)
        del self._running[attempt.descriptor]

    def _fail(self, candidate: Candidate, error: BaseException, connected: bool = False) -> None:
        self._next_start = 0.0
        self.errors[candidate.label] = _reason(error, connected)
        if isinstance(error, OSError) and limits.no_descriptor(error):
            self._exhausted = error
        if isinstance(error, (WrongKey, Incompatible)):
            self._refusals.append(error)
        elif _is_elsewhere(error) or (not connected and getattr(error, "errno", 0) in _NOBODY_LISTENS):
            self._refused.add(candidate.address)
        elif _is_no_way(error, candidate, connected):
            self._no_way.add(candidate.label)

    def fail_unresolved(self, address: Address, error: OSError) -> None:
        """There is no candidate for it: ``error`` is what the question for its address ended with."""
        self.errors[format_address(address)] = why_unknown(error)
        if is_shortage(error) and (limits.no_descriptor(error) or limits.told(error)):  # the latter of memory
            self._exhausted = error

    def failure(self) -> SlaveError:
        """What to raise now that all have failed."""
        message = "; ".join(f"{label}: {reason}" for label, reason in self.errors.items())
        if self._refusals and len(self._refusals) == len(self.errors):
            return type(self._refusals[0])(message)
        others, no_way = len(self._refused) < len(self.errors), self._no_way == set(self.errors)
        return Unreachable(message, self._refused, others, no_way, self._exhausted)


def _is_no_way(error: BaseException, candidate: Candidate, connected: bool) -> bool:
    """Whether this machine's system says that there is no way."""
    number = getattr(error, "errno", 0)
    if isinstance(error, PermissionError) and candidate.label.startswith(UNIX):
        return True  # another user's process listens
    return not connected and number in _NO_WAY


def _is_elsewhere(error: BaseException) -> bool:
    """Whether the error shows that our master does not listen there any more: another one does, or another program."""
    return isinstance(error, (WrongMaster, ProtocolError)) and not isinstance(error, Intercepted)


def _reason(error: BaseException, connected: bool) -> str:
    if isinstance(error, (WrongKey, Incompatible, WrongMaster, Intercepted)):
        return str(error)
    prefix = "connected, but it did not complete the handshake: " if connected else ""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return prefix + (text[:1].lower() + text[1:] if text[1:2].islower() else text)
