"""The addresses by which other machines may reach this one.

The interfaces tell them.  A name service is asked only for a name that the user gave, and on systems whose interfaces
cannot be read; once, in the background, and nobody waits long for its answer: a dead one takes ten seconds and more.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

from slave.name_service import is_shortage, look_up

_LOOKUP_SECONDS = 2.0  # for the name service to answer
_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface
_PROBES = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737 and 3849: never sent to


def local_addresses() -> list[str]:
    """This machine's addresses as text, the one of the default route first, loopback only if there is no other.

    Link-local addresses are left out: they mean nothing without an interface.  Raises OSError if there is no
    descriptor to ask the system with.
    """
    found = [*_of_default_route(), *_of_interfaces()]
    if sys.platform != "linux":
        found += _of_host_name()
    useful = [
        address
        for address in dict.fromkeys(found)
        if not address.startswith(("127.", "169.254.", "fe80:", "::1", "0."))
    ]
    return useful or ["127.0.0.1"]


def _of_default_route() -> Iterator[str]:
    """Connecting a datagram socket sends nothing, and chooses the local address that such a packet would have."""
    for family, target in _PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((target, 9))
                yield str(sock.getsockname()[0])
        except OSError as error:
            if is_shortage(error):
                raise
            continue  # no route of that family


def _of_interfaces() -> Iterator[str]:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without an IPv4 address, or a system with another ioctl
            yield socket.inet_ntoa(answer[20:24])
    try:
        with open("/proc/net/if_inet6") as table:
            for line in table:
                yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))
    except OSError as error:
        if is_shortage(error):
            raise


def _of_host_name() -> list[str]:
    try:
        return addresses_of(socket.gethostname()) or []
    except OSError as error:
        if is_shortage(error):
            raise
        return []


class _Lookup:
    """One question to the name service, asked in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name, self._until = name, time.monotonic() + _LOOKUP_SECONDS
        self._over = threading.Event()
        self._found: list[str] = []
        self._error: OSError | None = None
        threading.Thread(target=self._ask, daemon=True, name=f"lookup of {name}").start()

    def _ask(self) -> None:
        try:
            answers = look_up(self._name, None)
            self._found = list(dict.fromkeys(str(found[4][0]) for found in answers))
        except OSError as error:
            self._error = error
        self._over.set()

    def answer(self) -> list[str] | None:
        if not self._over.wait(max(0.0, self._until - time.monotonic())):
            return None
        if self._error is not None:
            raise self._error
        return self._found


_lookups: dict[str, _Lookup] = {}  # by name: those that wait for an answer, or got one


def addresses_of(name: str) -> list[str] | None:
    """The addresses of a host, as text; None if the name service has not answered within two seconds.

    It is asked once for each name.  Raises OSError if there is no such host; then the next call asks again.
    """
    lookup = _lookups.get(name) or _lookups.setdefault(name, _Lookup(name))
    try:
        return lookup.answer()
    except OSError:
        _lookups.pop(name, None)
        raise
