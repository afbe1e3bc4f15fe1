"""Reaching the master: every address it may have, tried side by side, the first good one wins."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from . import wire
from .errors import Incompatible, ProtocolError, SlaveError, Unreachable, WrongKey

Address = tuple[str, int]

_STAGGER = 0.25  # seconds between two starts: RFC 8305 ("happy eyeballs"), section 5
_PER_ADDRESS = 5.0  # seconds for one address to answer a SYN


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
    """The inverse of `parse_address`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Candidate(NamedTuple):
    """One way to connect, and how a message names it."""

    family: int
    target: tuple[object, ...]
    label: str


def dial(addresses: Sequence[Address], key: bytes, patience: float) -> wire.Connection:
    """An authenticated connection to the first of ``addresses`` that can be reached.

    Raises `WrongKey` or `Incompatible` if a master was reached and refused, else `Unreachable` with a line for each
    address.
    """
    errors: dict[str, str] = {}
    refusal: SlaveError | None = None
    candidates = _resolve(addresses, errors)
    attempts = _Attempts(candidates, errors)
    try:
        while True:
            found = attempts.next_connected()
            if found is None:
                break
            candidate, sock = found
            try:
                return wire.introduce(sock, key, patience)
            except (WrongKey, Incompatible) as error:
                refusal = type(error)(f"{candidate.label}: {error}")
                sock.close()
            except (ProtocolError, EOFError, OSError) as error:
                errors[candidate.label] = _reason(error, "connected, but it did not complete the handshake: ")
                sock.close()
    finally:
        attempts.close()
    if refusal is not None:
        raise refusal
    message = "; ".join(f"{label}: {reason}" for label, reason in errors.items())
    raise Unreachable(message, attempts.refused, others=len(attempts.refused) < len(errors))


def _resolve(addresses: Sequence[Address], errors: dict[str, str]) -> list[Candidate]:
    found: dict[tuple[object, ...], Candidate] = {}
    for host, port in addresses:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            errors[format_address((host, port))] = f"unknown host: {error.strerror}"
            continue
        for family, _, _, _, target in answers:
            label = format_address((str(target[0]), port))
            found.setdefault(target, Candidate(family, target, label if host == target[0] else f"{host} ({label})"))
    return list(found.values())


class _Attempts:
    """Connects under way; `next_connected` waits for one of them."""

    def __init__(self, candidates: Sequence[Candidate], errors: dict[str, str]) -> None:
        self._waiting = list(candidates)
        self._errors = errors
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[socket.socket, float] = {}
        self.refused: set[Address] = set()

    def close(self) -> None:
        for sock in self._deadlines:
            sock.close()
        self._selector.close()

    def next_connected(self) -> tuple[Candidate, socket.socket] | None:
        """The next socket whose connect succeeded, blocking again; None when all have failed."""
        while self._waiting or self._deadlines:
            if self._waiting:
                self._start(self._waiting.pop(0))
            patience = _STAGGER if self._waiting else min(self._deadlines.values(), default=0) - time.monotonic()
            for event, _ in self._selector.select(max(0.0, patience)):
                sock, candidate = event.fileobj, event.data
                assert isinstance(sock, socket.socket)
                self._drop(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    sock.setblocking(True)
                    return candidate, sock
                self._fail(sock, candidate, OSError(code, os.strerror(code)))
            self._expire(time.monotonic())
        return None

    def _start(self, candidate: Candidate) -> None:
        try:
            sock = socket.socket(candidate.family, socket.SOCK_STREAM)
        except OSError as error:  # this machine does not know that family of addresses
            self._errors[candidate.label] = _reason(error)
            return
        sock.setblocking(False)
        code = sock.connect_ex(candidate.target)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._fail(sock, candidate, OSError(code, os.strerror(code)))
            return
        self._selector.register(sock, selectors.EVENT_WRITE, candidate)
        self._deadlines[sock] = time.monotonic() + _PER_ADDRESS

    def _expire(self, now: float) -> None:
        for sock in [one for one, deadline in self._deadlines.items() if deadline <= now]:
            candidate = self._selector.get_key(sock).data
            self._drop(sock)
            self._fail(sock, candidate, TimeoutError(f"no answer in {_PER_ADDRESS:g} s (a firewall?)"))

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        del self._deadlines[sock]

    def _fail(self, sock: socket.socket, candidate: Candidate, error: OSError) -> None:
        self._errors[candidate.label] = _reason(error)
        if error.errno == errno.ECONNREFUSED:
            self.refused.add((str(candidate.target[0]), int(str(candidate.target[1]))))
        sock.close()


def _reason(error: BaseException, prefix: str = "") -> str:
    if isinstance(error, socket.timeout) and not error.args[1:]:
        return prefix + (str(error) if "firewall" in str(error) else f"it was silent for {wire.HANDSHAKE_SECONDS:g} s")
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return prefix + (text[:1].lower() + text[1:] if text[1:2].islower() else text)
