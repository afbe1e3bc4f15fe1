"""Show where the key of masters and slaves is, make one if there is none, or replace it; show a join token.

The key itself is shown only with --show, and a token only with --token.
Exit codes: 0 all is well; 1 nothing was changed, as you wished; 4 no master answers; 2 wrong
command line; 7 there is a key that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from slave.dial import is_loopback
from slave.discovery import look
from slave.keys import VARIABLE, default_file, find_key, is_terminal, make_key
from slave.token import Token, new_once, reusable

from ..service.addresses import local_addresses

SUMMARY = "show where the key is, make one, replace it; how to bring it to another machine"

_UNCHANGED, _WRONG_USAGE, _NO_MASTER = 1, 2, 4
_LOOK_SECONDS = 1.0  # for masters
_SHOWN = 16  # digits of a fingerprint
_PLACE = ".config/parallel"  # as seen from the home folder

_OTHER_MACHINES = """\
To bring it to another machine, here named OTHER:
    ssh OTHER 'mkdir -p -m 700 {place}'
    scp -p {file} OTHER:{place}/authkey
or show a token here, and paste it there when the slave asks for it:
    here     python3 -m parallel key --token
    there    the command that your program prints when it starts
"""
_BY_VARIABLE = """\
The key is in the environment variable {variable}, and no file is looked at.
On another machine, set the variable there, or show a token here and paste it when the slave asks for it:
    here     python3 -m parallel key --token
    there    the command that your program prints when it starts
"""
_KEEP = "Masters and slaves that run keep the old key until they end; those with different keys do not work together.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument("--show", action="store_true", help="print the key alone: whoever has it can run code as you")
    parser.add_argument(
        "--token", action="store_true", help="print a join token: in place of the key, for slaves on other machines"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="with --token: for each master that answers, one that one slave can use",
    )
    parser.add_argument("--replace", action="store_true", help="make a new key in place of the one that there is")
    parser.add_argument("--yes", action="store_true", help="with --replace: do not ask")


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `KeyTrouble`."""
    if options.yes and not options.replace:
        return _wrong("--yes answers what --replace asks, and there is no --replace")
    if options.once and not options.token:
        return _wrong("--once says what kind of token to print, and there is no --token")
    by_variable = VARIABLE in os.environ
    if options.replace:
        if by_variable:
            return _wrong(f"the key is in the environment variable {VARIABLE}, which only you can set to another one")
        code = _replace(default_file(), options.yes)
        if code:
            return code
    new = not by_variable and not os.path.lexists(default_file())
    key = find_key(create=True)
    if new:
        sys.stderr.write(f"A new key was made: {default_file()}\n")
    if options.token and options.once:
        return _tokens_for_once(key)
    if options.token:
        sys.stdout.write(Token(reusable(key)).text() + "\n")
    elif options.show:
        sys.stdout.write(key.decode() + "\n")
    else:
        sys.stdout.write(_BY_VARIABLE.format(variable=VARIABLE) if by_variable else _by_file(default_file()))
    return 0


def _tokens_for_once(key: bytes) -> int:
    """Print one for each master of this key that answers on the local network; returns an exit code."""
    found = look(key, _LOOK_SECONDS)
    for one in found:
        addresses = [address for address in one.addresses if not is_loopback(address[0])]
        if not addresses:  # it runs on this machine
            addresses = [(host, one.addresses[0][1]) for host in local_addresses()]
        token = Token(new_once(key, one.run), addresses, one.master[:_SHOWN])
        sys.stdout.write(token.text() + "\n")
        if len(found) > 1:
            sys.stderr.write(f"    for {one.name}\n")
    if found:
        return 0
    sys.stderr.write(
        "parallel: no master of this key answers: start it first, with a port; one with announce=False does not answer "
        "and makes tokens itself, by its make_token()\n"
    )
    return _NO_MASTER


def _by_file(path: Path) -> str:
    where = f"The key is in the file {path}, which only you can read.\n"
    return where + _OTHER_MACHINES.format(file=shlex.quote(str(path)), place=_PLACE)


def _replace(path: Path, sure: bool) -> int:
    """Make a new key, if the user wants that; returns an exit code."""
    if not os.path.lexists(path):
        return 0
    if not sure and not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return _wrong("there is no terminal to ask whether the key is to be replaced: add --yes")
    if not sure and not _agreed(path):
        sys.stderr.write("Nothing was changed.\n")
        return _UNCHANGED
    make_key(path, replace=True)
    sys.stderr.write(f"A new key was made: {path}\n{_KEEP}")
    return 0


def _agreed(path: Path) -> bool:
    sys.stderr.write(f"{_KEEP}Replace the key in {path}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _wrong(text: str) -> int:
    sys.stderr.write(f"parallel: {text}\n")
    return _WRONG_USAGE
