"""Ports that nobody has, and nobody gets by chance."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MANY = 10_000


def unused_port() -> int:
    """A port of the loopback at which nobody listens.

    Not one of those that the system gives to whoever asks for any: with many programs beside this one, such a port may
    be another's soon after it was tried.
    """
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    chosen = random.SystemRandom()
    while True:
        port = chosen.randrange(first - _MANY, first) if first > 2 * _MANY else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
