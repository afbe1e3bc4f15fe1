"""Have a slave of a master end: it gets no more tasks, and the one that it runs may go on."""

from __future__ import annotations

import argparse
import sys

from .masters import EXIT_CODES, add_master, only_one
from .numbers import number, seconds

SUMMARY = "have a slave end"
EPILOG = EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument("slave", metavar="SLAVE", type=number, help="its number, as status shows it")
    add_master(parser, "yours on this machine, if it is the only one")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds,
        help="how long its task may go on, before that goes to another slave (default: as long as it takes)",
    )


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `SlaveError`."""
    watcher = only_one(options).watcher()
    try:
        watcher.drain(options.slave, options.grace)
    finally:
        watcher.close()
    sys.stdout.write(f"slave {options.slave} gets no more tasks, and ends\n")
    return 0
