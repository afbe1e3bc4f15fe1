"""Why does it not run?  What is found on the way from a slave's machine to a master, and what the master lacks.

Each finding is a line that says what is so and, if that is wrong, what to do.
"""

from __future__ import annotations

import calendar
import importlib.util
import platform
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from slave import limits
from slave.dial import Address, format_address, is_loopback
from slave.errors import OutOfResources, SlaveError
from slave.machine import show_size
from slave.missing import version_of
from slave.name_service import is_shortage, look_up
from slave.protocol import RELEASE

from .client import Watcher
from .plain_json import printable
from .status import Status

OK, NOTE, BAD = "ok", "--", "!!"

_CONNECT_SECONDS = 5.0
_LARGE = 60_000  # bytes of a question that large packets carry
_CLOCK = 5  # seconds by which two clocks may differ without a word
_MOST_MISSING = 12  # slaves that have a line


class Finding(NamedTuple):
    """``kind``: OK, NOTE or BAD.  ``code``: the exit code of what is wrong."""

    kind: str
    text: str
    code: int = 0


def lines(findings: Sequence[Finding]) -> list[str]:
    """As text."""
    return [f"  {one.kind}  {printable(one.text)}" for one in findings]


# -- from a slave's machine


def reach(address: Address) -> Iterator[Finding]:
    """Whether the master's machine can be found and its port reached."""
    host, port = address
    try:
        found = look_up(host, port)
    except OSError as error:
        if is_shortage(error):
            text = f"the address of {host} cannot be asked for: {limits.explained(error)}"
            yield Finding(BAD, text, OutOfResources.exit_code)
            return
        yield Finding(BAD, f"the name {host} is not known here: {error.strerror}; name the master's address instead", 4)
        return
    targets = list(dict.fromkeys((family, target) for family, _, _, _, target in found))
    if not any(host == target[0] for _, target in targets):
        yield Finding(OK, f"{host} is {', '.join(str(target[0]) for _, target in targets)}")
    answers = [_connect(family, target) for family, target in targets]
    for (_, target), answer in zip(targets, answers):
        where = format_address((str(target[0]), port))
        if not answer:
            yield Finding(OK, f"{where} can be reached")
        else:
            yield Finding(NOTE if "" in answers else BAD, f"{where} {answer}", 0 if "" in answers else 4)


def _connect(family: int, target: Any) -> str:
    """'' if it can be reached, else why not, and what to do."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_CONNECT_SECONDS)
            sock.connect(target)
            return ""
    except socket.timeout:
        return f"does not answer within {_CONNECT_SECONDS:g} s: a firewall is likely, there or on the way; or it is off"
    except ConnectionRefusedError:
        return "refuses: its machine is there, and nobody listens on that port (has the master ended? another port?)"
    except OSError as error:
        limit = limits.told(error)
        return f"cannot be reached: {error.strerror or error}" + (f"; {limit}" if limit else "")


def conversation(watcher: Watcher) -> Iterator[Finding]:
    """Key, version, encryption, large packets, clocks and packages, by asking the master.

    Ends with what is wrong, if the master cannot be asked at all.
    """
    try:
        there = watcher.surroundings()
    except SlaveError as error:
        yield Finding(BAD, str(error), error.exit_code)
        return
    yield Finding(OK, "the key is the master's, and the connection is protected as both sides want it")
    yield _release(str(there.get("release", "")))
    yield _python(str(there.get("python", "")))
    yield _clock(there.get("clock"))
    yield _large_packets(watcher)
    yield from packages(there.get("packages"), bool(there.get("ships")))


def _release(there: str) -> Finding:
    if there == RELEASE:
        return Finding(OK, f"release {RELEASE} on both sides")
    return Finding(NOTE, f"the master is of release {there}, this is {RELEASE}; they speak the same protocol")


def _python(there: str) -> Finding:
    here = platform.python_version()
    if there.split(".")[:2] == here.split(".")[:2]:
        return Finding(OK, f"Python {here} here, {there} on the master")
    return Finding(
        NOTE,
        f"Python {here} here, {there} on the master: they work together, but what cloudpickle sends by value, and "
        f"compiled packages, need the same minor version; slaves may be started with another Python",
    )


def _clock(there: object) -> Finding:
    if type(there) is not int:
        return Finding(NOTE, "the master does not tell its clock")
    apart = there - calendar.timegm(time.gmtime())
    if abs(apart) <= _CLOCK:
        return Finding(OK, "the clocks agree")
    word = "ahead of" if apart > 0 else "behind"
    text = f"the master's clock is {abs(apart):,} s {word} this one: that disturbs no slave, but whatever compares the "
    return Finding(NOTE, f"{text}times of files (make, rsync)")


def _large_packets(watcher: Watcher) -> Finding:
    try:
        watcher.output({"x" * _LARGE: 0})
    except SlaveError as error:
        why = f"{_LARGE:,} bytes do not get through, and small messages do ({error})"
        return Finding(BAD, f"{why}: perhaps large packets are lost on the way (the MTU of a tunnel or a VPN)", 4)
    return Finding(OK, "large packets get through")


def packages(there: object, ships: bool) -> Iterator[Finding]:
    """The installed packages that the master's program uses: whether this Python has them."""
    if not isinstance(there, dict):
        return
    missing = {str(name): str(version) for name, version in there.items() if not _is_here(str(name))}
    for name, version in missing.items():
        wanted = f"{name}=={version}" if version else name
        yield Finding(
            BAD,
            f"the package {name} is missing here, and the master's program uses it: python3 -m pip install {wanted}"
            + (f" (or Manager(ship=[{name!r}]), if it is pure Python)" if ships else ""),
            12,
        )
    other = [
        f"{name} {mine} (the master: {version})"
        for name, version in there.items()
        if name not in missing and (mine := version_of(str(name)).partition(" ")[2]) != version and version and mine
    ]
    if other:
        yield Finding(NOTE, f"packages of other versions here: {', '.join(other)}")
    if not missing and there:
        yield Finding(OK, f"the packages that the master's program uses are here: {', '.join(map(str, there))}")


def _is_here(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


# -- from the master


def of_master(status: Status, there: dict[str, Any]) -> Iterator[Finding]:
    """What a master offers, and which slaves it misses."""
    yield from offers(there)
    yield from missing(status)
    for text in status.trouble:
        yield Finding(BAD, text, 12)


def offers(there: dict[str, Any]) -> Iterator[Finding]:
    """By which addresses slaves elsewhere reach it, and what may keep them out."""
    addresses = [str(one) for one in there.get("addresses", ())]
    outside = [one for one in addresses if not _stays_here(one)]
    if not outside:
        yield Finding(NOTE, "it listens for slaves of this machine only; Manager(port=0) lets those of others in")
        return
    yield Finding(OK, f"slaves elsewhere find it at {', '.join(outside)}")
    for text in there.get("firewall", ()):
        yield Finding(BAD, f"a firewall may keep slaves of other machines out: {text}", 12)


def _stays_here(address: str) -> bool:
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0].strip("[]"))


def missing(status: Status) -> Iterator[Finding]:
    """Slaves that have not come, are lost or stopped, and what their launchers say."""
    gone = [one for one in status.slaves if one.state in ("expected", "lost", "stopped")]
    for one in gone[:_MOST_MISSING]:
        where = f" on {one.host}" if one.host else ""
        heard = f", heard last {one.heard:.0f} s ago" if one.state == "lost" and one.heard is not None else ""
        words = f": {' '.join(one.words.split())}" if one.words else ""
        state = "has not come yet" if one.state == "expected" else f"is {one.state}"
        yield Finding(
            NOTE if one.state == "expected" else BAD,
            f"slave {one.number} ({one.name}{where}) {state}{heard}{words}",
            12,
        )
    if len(gone) > _MOST_MISSING:
        yield Finding(NOTE, f"{len(gone) - _MOST_MISSING} more slaves are missing")
    ended = [one for one in status.slaves if one.state == "ended" and one.words]
    for one in ended[-3:]:
        yield Finding(NOTE, f"slave {one.number} ({one.name}) has ended: {' '.join(one.words.split())[:500]}")
    if not gone and status.connected:
        connected = "1 slave is" if status.connected == 1 else f"{status.connected} slaves are"
        yield Finding(OK, f"{connected} connected, none is missing")
    elif not status.slaves:
        yield Finding(NOTE, "it has no slaves: add_slave, or start some by hand")
    memory = sum(one.memory for one in status.slaves)
    if memory:
        yield Finding(OK, f"they use {show_size(memory)} of memory")
