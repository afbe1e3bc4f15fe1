"""Show where the time of a run went that was traced, Manager(trace="run.json"), and what would have helped.

Exit codes: 0 all is well; 2 wrong command line; 9 the file cannot be read, or is no such trace.
"""

from __future__ import annotations

import argparse
import json
import sys

from ..monitor.advice import advice
from ..monitor.report import text_of
from ..monitor.trace_reader import PARTS, NotATrace, events_of, summarize

SUMMARY = "where the time of a traced run went, and what would have helped"

_UNREADABLE = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument("trace", metavar="FILE", help="what Manager(trace=FILE) wrote; also while it is written")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON")


def run(options: argparse.Namespace) -> int:
    """See the package's text."""
    try:
        with open(options.trace, encoding="utf-8") as file:
            summary = summarize(events_of(file))
    except (OSError, UnicodeDecodeError, NotATrace) as error:
        why = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"parallel: {options.trace} cannot be reported on: {why}\n")
        return _UNREADABLE
    if options.json:
        told = {
            "program": summary.program,
            "seconds": summary.seconds,
            "tasks": summary.tasks,
            "failed": summary.failed,
            "lost": summary.lost,
            "bytes": summary.sent,
            "finished": summary.finished,
            "parts": {part: summary.total(part) for part in PARTS},
            "slaves": {number: slave.parts for number, slave in summary.slaves.items()},
            "advice": advice(summary),
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        sys.stdout.write(text_of(summary))
    return 0
