"""The command line of the slave program that a person starts, as options."""

from __future__ import annotations

import argparse
import os
import sys

from .cpus import usable_cpus
from .dial import Address, parse_address
from .machine import is_tag, parse_size
from .token import looks_secret

_EXIT_CODES = """exit codes: 0 the master is done; 2 wrong command line; 3 wrong key; 4 cannot reach the master; 5 the
master is gone;
6 protocol, encryption or Python version that cannot work together; 7 no usable key; 8 the master sent nonsense, or
somebody on the way changes what it sends; 9 no memory, or too many open files; 129, 130, 143 ended by SIGHUP (its
terminal was closed), Ctrl-C, SIGTERM"""


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What the arguments say.  Exits, as argparse does, for what they cannot say."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Run tasks of a master on this machine until the master is done.",
        epilog=_EXIT_CODES,
    )
    add = parser.add_argument
    add(
        "address",
        nargs="*",
        metavar="HOST:PORT",
        type=address,
        help="where the master is; several are tried side by side (default: it is looked for on the local network)",
    )
    add(
        "-n",
        "--runners",
        type=_positive,
        help=f"tasks to run at a time (default: usable CPUs, {usable_cpus()})",
    )
    add(
        "--key-file",
        type=key_file,
        metavar="FILE",
        help="the key or a token; - for stdin (default: $PARALLEL_AUTHKEY, else ~/.config/parallel/authkey, else you "
        "are asked)",
    )
    add(
        "--wait",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to look for a master (default: %(default)g)",
    )
    add(
        "--grace",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long running tasks may go on after Ctrl-C or SIGTERM (default: %(default)g); a second ends at once",
    )
    add("--keep", action="store_true", help="when the master is done or gone, wait for the next one, without end")
    add(
        "--master",
        type=_fingerprint,
        metavar="FINGERPRINT",
        help="which master to serve: its fingerprint, or 16 digits of it or more (default: whoever holds the key)",
    )
    add("--nice", type=_niceness, metavar="N", help="let other programs go first, by so much (1 to 19)")
    add("--cpus", metavar="N", help="use so many processors, or these: 0-3,8")
    add(
        "--max-memory",
        type=_size,
        default=0,
        metavar="SIZE",
        help="end a task during which its process, with what it started, grows beyond that: 500M, 2G",
    )
    add(
        "--idle-only",
        type=seconds,
        nargs="?",
        const=300.0,
        metavar="SECONDS",
        help="work when nobody else has used this machine for so long (%(const)g), and step back when somebody does",
    )
    add("--tag", action="append", type=_tag, default=[], help="what this machine has, for contexts that need it: gpu")
    add(
        "--no-encryption",
        action="store_true",
        help="also serve a master that does not encrypt; nothing can be changed on the way, and all can be read",
    )
    add("-v", "--verbose", action="count", default=0, help="say more")
    add("-q", "--quiet", action="count", default=0, help="say only what is wrong; twice: why it ends")
    return parser


def _program() -> str:
    name = os.path.basename(sys.argv[0])
    return f"python3 {name}" if name.endswith(".pyz") else "python3 -m slave"


def address(text: str) -> Address:
    """A master's address, on a command line."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(_told_as_secret(text) or str(error)) from None


def key_file(text: str) -> str:
    """The name of a file that holds a key or a token, on a command line."""
    told = None if os.path.lexists(text) else _told_as_secret(text)
    if told is not None:
        raise argparse.ArgumentTypeError(told)
    return text


def _told_as_secret(text: str) -> str | None:
    """What to say, without it, of a token or key that stands on a command line; None if it is none."""
    if not looks_secret(text):
        return None
    return (
        "this is a token or a key, which does not belong on a command line, where others can read it: paste it when "
        "you are asked, or put it into a file that only you can read, --key-file FILE"
    )


def _fingerprint(text: str) -> str:
    digits = text.lower()
    if not 16 <= len(digits) <= 64 or digits.strip("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a master's fingerprint: 16 to 64 hexadecimal digits")
    return digits


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _niceness(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 19:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 19")
    return int(text)


def _tag(text: str) -> str:
    if not is_tag(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no tag: letters, digits, '-', '_', '.', 64 at most")
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """Seconds from 0 on, on a command line."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
    return found
