"""Say why slaves do not come or run nothing: on the way from this machine to a master, or of the masters here.

With an address, for a slave's machine: name, reach, key, version, clock, large packets, packages. Without, for the
master's: the addresses that it offers, whether a firewall is likely, which slaves are missing and what launchers say.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from slave.dial import format_address, is_loopback
from slave.discovery import look
from slave.errors import SlaveError
from slave.keys import VARIABLE, default_file, find_key

from ..monitor import doctor
from ..monitor.doctor import BAD, OK, Finding
from .masters import EXIT_CODES, Master, add_master, wanted

SUMMARY = "why slaves do not come, or run nothing"
EPILOG = f"{EXIT_CODES[:-1]}; 12 something else is wrong. The first thing that is wrong gives the code."

_LOOK_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    add_master(parser, "all of yours on this machine")


def run(options: argparse.Namespace) -> int:
    """See the package's text."""
    code = 0
    for finding in _findings(options):
        if isinstance(finding, str):
            sys.stdout.write(f"{finding}\n")
        else:
            sys.stdout.write("".join(f"{line}\n" for line in doctor.lines([finding])))
            code = code or (finding.code if finding.kind == BAD else 0)
        sys.stdout.flush()  # some take their time
    return code


def _findings(options: argparse.Namespace) -> Iterator[Finding | str]:
    if isinstance(options.master, tuple):
        yield f"from this machine to the master at {format_address(options.master)}:"
        yield from _to(options)
        return
    masters = wanted(options)
    for master in masters:
        yield f"{master.name}:"
        yield from _of(master)
    if not masters:
        yield "no master of yours runs on this machine"
        yield from _around()


def _to(options: argparse.Namespace) -> Iterator[Finding]:
    reached = list(doctor.reach(options.master))
    yield from reached
    try:
        (master,) = wanted(options)
    except SlaveError as error:
        yield Finding(BAD, str(error), error.exit_code)
        return
    yield Finding(OK, f"the key is found: {_where(options)}")
    if any(one.kind == BAD for one in reached):
        return
    watcher = master.watcher()
    try:
        yield from doctor.conversation(watcher)
    finally:
        watcher.close()


def _where(options: argparse.Namespace) -> str:
    if options.key_file:
        return str(options.key_file)
    return f"the variable {VARIABLE}" if VARIABLE in os.environ else str(default_file())


def _of(master: Master) -> Iterator[Finding]:
    watcher = master.watcher()
    try:
        yield from doctor.of_master(watcher.status(), watcher.surroundings())
    except SlaveError as error:
        yield Finding(BAD, str(error), error.exit_code)
    finally:
        watcher.close()


def _around() -> Iterator[Finding]:
    """Masters of this user's key on the local network."""
    try:
        key = find_key()
    except SlaveError as error:
        yield Finding(BAD, str(error), error.exit_code)
        return
    found = look(key, _LOOK_SECONDS)
    for one in found:
        addresses = [format_address(address) for address in one.addresses if not is_loopback(address[0])]
        first = (addresses or [format_address(one.addresses[0])])[0]
        yield Finding(OK, f"{one.name} answers on the local network: python3 -m parallel doctor {first}")
    if not found:
        yield Finding(
            BAD,
            "no master of this key answers on the local network (they answer by UDP port 5757, if they have a port); "
            "name one: python3 -m parallel doctor HOST:PORT",
            4,
        )
