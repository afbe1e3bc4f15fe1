"""The addresses by which other machines may reach this one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface
_PROBES = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737 and 3849: never sent to


def local_addresses() -> list[str]:
    """This machine's addresses as text, the one of the default route first, loopback only if there is no other.

    Link-local addresses are left out: they mean nothing without an interface.
    """
    found = [*_of_default_route(), *_of_interfaces(), *_of_host_name()]
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
        except OSError:
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
    except OSError:
        return


def _of_host_name() -> Iterator[str]:
    try:
        for _, _, _, _, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            yield str(address[0])
    except OSError:
        return
