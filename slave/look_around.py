"""Which master to serve, when nobody says where it is: those of the local network are asked; several are listed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from .dial import format_address
from .discovery import Found, look
from .errors import SeveralMasters, Unreachable
from .keys import Key, can_ask

log = logging.getLogger("slave")

_LISTEN = 1.0  # seconds for masters to answer
_TRIES = 3  # to choose one


def look_around(key: Key, seconds: float, master: str, served: Sequence[str], choose: bool) -> Found:
    """The master to serve; looks for ``seconds`` until there is one.

    ``master``: how its fingerprint begins, or ''.  ``served``: the masters that were served, the last one at the end:
    of several that answer, the one that waits longest is next.  With ``choose`` the user chooses among several instead.
    Raises `Unreachable`, and `SeveralMasters` where nobody can choose.
    """
    deadline, told = time.monotonic() + seconds, False
    while True:
        found = look(key, _LISTEN, master)
        if len(found) > 1 and choose:
            return _chosen(found)
        if found:
            return min(found, key=lambda one: served.index(one.master) if one.master in served else -1)
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unreachable(
                "no master of this key, or token, answers on the local network; name its address, HOST:PORT (its "
                "program prints it), if it is in another network, has announce=False, or a firewall stops UDP"
            )
        if not told:
            log.warning("no master of this key, or token, answers on the local network yet; looking for %.0f s", left)
            told = True


def _chosen(found: Sequence[Found]) -> Found:
    """The one that the user names."""
    lines = [f"    {number}  {_text(one)}" for number, one in enumerate(found, 1)]
    if not can_ask():
        raise SeveralMasters("\n".join([f"{len(found)} masters answer; name one by its address:", *lines]))
    print("\n".join([f"slave: {len(found)} masters answer:", *lines]), file=sys.stderr)
    for _ in range(_TRIES):
        print(f"slave: which one? [1-{len(found)}] ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline().strip()
        if typed.isdigit() and 1 <= int(typed) <= len(found):
            return found[int(typed) - 1]
    raise SeveralMasters("none of them was chosen")


def _text(found: Found) -> str:
    return f"{format_address(found.addresses[0])}  {found.name}"
