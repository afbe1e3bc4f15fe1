"""Serve a live page of a master, for a browser on this machine: its progress, slaves, timeline, failures and output."""

from __future__ import annotations

import argparse
import sys
import threading

from slave.errors import SlaveError

from ..monitor.live_page import LivePage
from .masters import EXIT_CODES, add_master, only_one

SUMMARY = "a live page of a master, in the browser"
EPILOG = EXIT_CODES


class NoPort(SlaveError):
    """The page cannot be served."""

    exit_code = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    add_master(parser, "yours on this machine, if it is the only one")


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `SlaveError`."""
    watcher = only_one(options).watcher()
    try:
        watcher.status()  # else what is wrong would be seen in the browser only
        page = LivePage(lambda: watcher, later=0.0)
    except OSError as error:
        raise NoPort(f"no page can be served: {error.strerror or error}") from None
    page.start()
    try:
        sys.stdout.write(f"{page.url}\n")
        sys.stdout.flush()
        sys.stderr.write("parallel: open that on this machine; Ctrl-C ends it\n")
        threading.Event().wait()
    finally:
        page.close()
        watcher.close()
    return 0
