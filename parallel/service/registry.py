"""Registry: this user's masters on this machine, so that `python3 -m parallel status` finds them without an address.

Each master that listens has a file in a folder which nobody else can look into: where it listens for this machine, and
a secret of its own that opens its door for watchers, and for nobody else (keyring.py).  It goes with the master; what a
killed one left is removed by whoever looks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

from slave import process_tree
from slave.dial import Address
from slave.keys import Key
from slave.named import NamedTuple
from slave.private_files import make_folder, user_folder, write_new

_ELSEWHERE = "no master can be found without its address"


class Entry(NamedTuple):
    """A master.  ``master``: its fingerprint; ``name``: what it is called."""

    pid: int
    name: str
    address: Address
    master: str
    encrypt: bool
    key: Key


def register(entry: Entry) -> str:
    """Make the file of this process's master; returns its path.  Raises OSError."""
    folder = os.path.join(user_folder(_base(), _ELSEWHERE), "masters")
    make_folder(folder)
    made = entry._replace(key=Key(b""))._asdict()
    made.update(
        secret=entry.key.decode(), ident=entry.key.ident.hex(), machine=_machine(), began=process_tree.began(entry.pid)
    )
    del made["key"]
    path = os.path.join(folder, f"{socket.gethostname()}-{entry.pid}-{entry.key.ident.hex()[-20:]}.json")
    write_new(path, json.dumps(made).encode())
    return path


def unregister(path: str) -> None:
    """Remove it."""
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody has cleaned up


def masters() -> list[Entry]:
    """The masters of this user that live on this machine, by their process ids."""
    return sorted(_found(), key=lambda entry: entry.pid)


def _found() -> Iterator[Entry]:
    for base in dict.fromkeys(_bases()):
        for folder in ("parallel", f"parallel-{os.geteuid()}" if hasattr(os, "geteuid") else "parallel"):
            yield from _in(os.path.join(base, folder, "masters"))


def _in(folder: str) -> Iterator[Entry]:
    try:
        facts = os.stat(folder)
        names = os.listdir(folder)
    except OSError:
        return
    if hasattr(os, "geteuid") and (facts.st_uid != os.geteuid() or facts.st_mode & 0o077):
        return  # somebody else may have put it there
    for name in names:
        entry = _read(os.path.join(folder, name))
        if entry is not None:
            yield entry


def _read(path: str) -> Entry | None:
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        if told["machine"] != _machine():
            return None  # the folder is shared with other machines
        if told["began"] != process_tree.began(told["pid"]) or not process_tree.exists(told["pid"]):
            unregister(path)
            return None
        key = Key(told["secret"].encode(), bytes.fromhex(told["ident"]))
        host, port = told["address"]
        return Entry(told["pid"], told["name"], (host, port), told["master"], told["encrypt"], key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # half written, just gone, or of another release


def _base() -> str:
    """Where the file goes: a folder that goes with this machine, if there is one."""
    return _bases()[0]


def _bases() -> list[str]:
    """Where files may be: what made them may have had other variables than what looks for them."""
    found = [os.environ.get("XDG_RUNTIME_DIR", "")]
    if hasattr(os, "geteuid"):
        found.append(f"/run/user/{os.geteuid()}")
    found.append(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"))
    usable = [one for one in found[:-1] if os.path.isabs(one) and os.access(one, os.W_OK | os.X_OK)]
    return [*usable, os.path.abspath(found[-1])]


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()
