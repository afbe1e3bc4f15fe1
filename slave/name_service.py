"""Asking for the addresses of a host."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from typing import Any, Callable

log = logging.getLogger("slave")

_REMEMBER = 60.0  # seconds for which an answer of the name service holds
_TELL_SECONDS = 3.0  # for it to answer before somebody is told
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def look_up(host: str, port: int | None) -> list[Any]:
    """What the name service says, as `socket.getaddrinfo` has it.

    Raises socket.gaierror if it knows no such host, or does not answer; another OSError if this machine cannot ask.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        why = str(error).rpartition("UnicodeError: ")[2].rstrip(")")
        raise socket.gaierror(socket.EAI_NONAME, f"no host can have this name ({why})") from None
    except socket.gaierror as error:
        if error.errno == socket.EAI_MEMORY:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None
        _try_a_socket()
        raise


def _try_a_socket() -> None:
    """Raise OSError if none is to be had: without one, the C library says that it knows no host of that name."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        if is_shortage(error):
            raise OSError(error.errno, error.strerror) from None


def is_shortage(error: OSError) -> bool:
    """Whether this machine could not ask, for want of descriptors or memory, and the name may well be known."""
    return not isinstance(error, socket.gaierror) and error.errno in _SHORTAGES


def why_unknown(error: OSError) -> str:
    """Of what `look_up` has raised, in a few words."""
    if isinstance(error, socket.gaierror):
        return f"unknown host: {error.strerror}"
    return f"its address cannot be asked for: {error.strerror or error}"


class Names:
    """What the name service said, kept for a minute, and for as long as it is dead.

    So a lost master is dialled again and again at the address that it had, and nobody waits for ten seconds each time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, list[Any]]] = {}  # by host and port: until when, and what

    def answers(self, host: str, port: int) -> list[Any]:
        """As `look_up` has them.  Raises what that raises."""
        until, known = self._known.get((host, port), (0.0, []))
        if self._clock() < until:
            return known
        try:
            known = _patiently(host, port)
        except OSError:
            if not known:
                raise
        self._known[host, port] = self._clock() + _REMEMBER, known
        return known


def _patiently(host: str, port: int) -> list[Any]:
    """Look it up, and say so if it takes long.  No thread is left when this returns: agents fork."""
    if _is_numeric(host):
        return look_up(host, port)
    slow = threading.Timer(
        _TELL_SECONDS, log.warning, ("the name service has not answered yet; asked for the address of %s", host)
    )
    slow.daemon = True
    slow.start()
    try:
        return look_up(host, port)
    finally:
        slow.cancel()
        slow.join()


def _is_numeric(host: str) -> bool:
    for kind in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(kind, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False
