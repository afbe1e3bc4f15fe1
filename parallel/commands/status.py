"""Show how far masters are: their contexts and slaves, what these run, and what happened last."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from typing import Any

from slave.errors import BadRequest, MasterGone, SlaveError, Unreachable
from slave.keys import is_terminal

from ..monitor import doctor
from ..monitor.client import Watcher
from ..monitor.status import Status
from ..monitor.status_text import lines
from .masters import EXIT_CODES, Master, add_master, nobody_here, wanted
from .numbers import pause

SUMMARY = "how far masters are, and what their slaves do"
EPILOG = EXIT_CODES

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_PLAIN_PAUSE = 10.0  # seconds between two looks where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    add_master(parser, "all of yours on this machine")
    parser.add_argument("--watch", action="store_true", help="again and again; when the master has ended, of the next")
    parser.add_argument(
        "--every", metavar="SECONDS", type=pause, help="with --watch: how often (default: 1 in a terminal, else 10)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, a line for each master and look")


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `SlaveError`."""
    if options.watch:
        _Watch(options).forever()
    found = wanted(options)
    if not found:
        raise nobody_here()
    errors: list[SlaveError] = []
    for place, master in enumerate(found):
        watcher = master.watcher()
        try:
            text = _look(watcher, options.json)
        except SlaveError as error:
            if len(found) == 1:
                raise
            errors.append(error)
            sys.stderr.write(f"parallel: {master.name}: {error}\n")
        else:
            sys.stdout.write(("\n" if place and not options.json else "") + text)
        finally:
            watcher.close()
    return errors[0].exit_code if len(errors) == len(found) else 0


def _look(watcher: Watcher, as_json: bool, width: int = 10_000, height: int = 10_000) -> str:
    """What is to be said of one master.  Raises `SlaveError`."""
    status, failures = watcher.status(), watcher.failures(0)
    if as_json:
        return json.dumps({**status.as_dict(), "failures": failures}) + "\n"
    why = _why_not(watcher, status)
    return text_of(status, failures, width, height - len(why)) + "".join(f"{line}\n" for line in why)


def _why_not(watcher: Watcher, status: Status) -> list[str]:
    """What doctor says, if there are tasks and slaves are missing."""
    missing = any(slave.state in ("expected", "lost") for slave in status.slaves)
    if not status.total.left or (status.connected and not missing):
        return []
    findings = [one for one in doctor.of_master(status, watcher.surroundings()) if one.text not in status.trouble]
    return ["", "why it does not run (python3 -m parallel doctor):", *doctor.lines(findings)]


def text_of(status: Status, failures: list[dict[str, Any]], width: int, height: int) -> str:
    """A status as text."""
    return "\n".join(lines(status, failures, width, height)) + "\n"


class _Watch:
    """Looks again and again.  What becomes of masters is told, and the next one is waited for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        self._redraws = is_terminal(sys.stdout) and not dumb and not options.json
        self._pause = options.every or (1.0 if is_terminal(sys.stdout) else _PLAIN_PAUSE)
        self._watchers: dict[Master, Watcher] = {}
        self._told = ""  # what was said last of there being no master

    def forever(self) -> None:
        """Until it is interrupted.  Raises `SlaveError` for what does not pass: a wrong key, say."""
        try:
            while True:
                self._once()
                sys.stdout.flush()
                time.sleep(self._pause)
        finally:
            for watcher in self._watchers.values():
                watcher.close()

    def _once(self) -> None:
        masters = list(dict.fromkeys([*self._watchers, *self._wanted()]))  # one that has just gone is told as such
        size = shutil.get_terminal_size()
        each = max(8, size.lines // max(1, len(masters)) - 1)
        width, height = (size.columns, each) if self._redraws else (10_000, 10_000)
        texts = [text for master in masters if (text := self._of(master, width, height))]
        if not masters:
            self._say("no master of yours runs on this machine yet; waiting for one")
        if texts:
            self._told = ""
            between = "" if self._options.json else "\n"
            sys.stdout.write((_HOME_AND_CLEAR if self._redraws else "") + between.join(texts))
            if not self._redraws:
                sys.stdout.write(between)

    def _wanted(self) -> list[Master]:
        try:
            return wanted(self._options)
        except BadRequest:  # the process that was named
            if not self._watchers:
                raise
            raise MasterGone(f"{next(iter(self._watchers)).name} has ended") from None

    def _of(self, master: Master, width: int, height: int) -> str:
        watcher = self._watchers.setdefault(master, master.watcher())
        try:
            return _look(watcher, self._options.json, width, height)
        except MasterGone:
            watcher.close()
            del self._watchers[master]
            self._say(f"{master.name} has ended; waiting for the next")
        except Unreachable as error:
            watcher.close()
            del self._watchers[master]
            self._say(f"no master yet: {error}")
        return ""

    def _say(self, text: str) -> None:
        if text != self._told:
            sys.stderr.write(f"parallel: {text}\n")
            self._told = text
