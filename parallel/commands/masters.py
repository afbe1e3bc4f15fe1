"""Which masters a command is about: one at an address, one on this machine, or all of this user's on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from slave.dial import Address, format_address
from slave.errors import BadRequest, Unreachable
from slave.keys import Key, find_key
from slave.options import address, key_file
from slave.token import check_token, read_token

from ..monitor.client import Watcher
from ..service import registry

EXIT_CODES = (
    "Exit codes: 0 all is well; 2 wrong command line; 3 wrong key; 4 no master answers; 5 the master ended meanwhile; "
    "6 protocol or encryption that cannot work together; 7 no usable key; 8 what came makes no sense; 10 the master "
    "refuses; 130 ended by Ctrl-C."
)

_NONE_HERE = (
    "no master of yours runs on this machine, as far as can be seen from here; name another one by its HOST:PORT"
)


class Master(NamedTuple):
    """Where one is, and how to prove oneself.  ``name``: for messages."""

    name: str
    addresses: Sequence[Address]
    key: Key
    master: str | None = None
    encrypt: bool = True

    def watcher(self) -> Watcher:
        """A connection to it, which is made when something is asked."""
        return Watcher(self.addresses, self.key, master=self.master, encrypt=self.encrypt)


def add_master(parser: argparse.ArgumentParser, which: str) -> None:
    """The argument that names a master.  ``which``: the default, in words."""
    parser.add_argument(
        "master",
        nargs="?",
        metavar="HOST:PORT",
        type=_master,
        help=f"where the master listens, or the process id of one on this machine (default: {which})",
    )
    parser.add_argument(
        "--key-file",
        type=key_file,
        metavar="FILE",
        help="of another machine's master: the key or a token (default: as for slaves)",
    )
    parser.add_argument("--no-encryption", action="store_true", help="for a master that does not encrypt")


def wanted(options: argparse.Namespace) -> list[Master]:
    """The masters that the command line means; none if it names none and none runs here.

    Raises `BadRequest` if it names a process that is none, and `KeyTrouble`.
    """
    where = options.master
    if isinstance(where, tuple):
        key = find_key(key_file=options.key_file, check=check_token)
        token = read_token(key.decode("utf-8", "replace"))
        secret = key if token is None else token.key
        return [Master(format_address(where), (where,), secret, encrypt=not options.no_encryption)]
    here = [
        Master(entry.name, (entry.address,), entry.key, entry.master, entry.encrypt)
        for entry in registry.masters()
        if where is None or entry.pid == where
    ]
    if where is not None and not here:
        raise BadRequest(f"process {where} is no master of yours on this machine")
    return here


def only_one(options: argparse.Namespace) -> Master:
    """The one that the command line means.  Raises `BadRequest` if there are several, `Unreachable` if none is."""
    found = wanted(options)
    if not found:
        raise Unreachable(_NONE_HERE)
    if len(found) > 1:
        names = "; ".join(one.name for one in found)
        raise BadRequest(f"{len(found)} masters of yours run here, name one by its process id: {names}")
    return found[0]


def nobody_here() -> Unreachable:
    """What to raise if there is none."""
    return Unreachable(_NONE_HERE)


def _master(text: str) -> Address | int:
    return int(text) if text.isdigit() else address(text)
