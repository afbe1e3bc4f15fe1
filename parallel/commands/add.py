"""Start more slaves of a master, on the machine where that runs."""

from __future__ import annotations

import argparse
import sys

from .masters import EXIT_CODES, add_master, only_one
from .numbers import count

SUMMARY = "start more slaves on the master's machine"
EPILOG = EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument("count", metavar="N", type=count, help="how many")
    add_master(parser, "yours on this machine, if it is the only one")


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `SlaveError`."""
    watcher = only_one(options).watcher()
    try:
        watcher.add(options.count)
    finally:
        watcher.close()
    sys.stdout.write(f"{options.count} more slave{'s' if options.count > 1 else ''} will join\n")
    return 0
