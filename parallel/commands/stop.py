"""Have a master shut down: its slaves end, and its program gets ManagerClosed where it waits for results."""

from __future__ import annotations

import argparse
import sys

from .masters import EXIT_CODES, add_master, only_one

SUMMARY = "have a master shut down"
EPILOG = EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    add_master(parser, "yours on this machine, if it is the only one")


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `SlaveError`."""
    master = only_one(options)
    watcher = master.watcher()
    try:
        watcher.stop()
    finally:
        watcher.close()
    sys.stdout.write(f"{master.name} shuts down\n")
    return 0
