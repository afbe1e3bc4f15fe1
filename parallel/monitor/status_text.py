"""A status as lines of text, for a terminal of some width and height."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from slave.machine import show_size

from .status import ContextStatus, EventStatus, SlaveStatus, Status
from .units import show_time

_MOST_CONTEXTS, _MOST_EVENTS, _MOST_FAILURES = 20, 10, 3
_LEAST_SLAVES = 3  # lines of slaves that are shown, however low the terminal is
_FIRST = (
    "stopped",
    "lost",
    "expected",
    "draining",
    "busy",
    "idle",
    "ended",
)  # what is shown if there is no room for all


def lines(
    status: Status, failures: Sequence[dict[str, Any]] = (), width: int = 10_000, height: int = 10_000
) -> list[str]:
    """The lines, none wider than ``width``; of slaves as many as ``height`` has room for."""
    made = [_head(status)]
    made += [f"  ! {text}" for text in status.trouble]
    made += ["", *_contexts(status)]
    told = [f"  {one['label'] or 'task'} ({one['task']}) on {one['slave']}: {_line(one['error'])}" for one in failures]
    after = ["", "failed last:", *told[-_MOST_FAILURES:]] if told else []
    after += ["", "what happened last:", *map(_event, status.events[-_MOST_EVENTS:])] if status.events else []
    room = max(_LEAST_SLAVES, height - len(made) - len(after) - 4)
    made += ["", *_slaves(status, room), *after]
    return [line[:width].rstrip() for line in made]


def _head(status: Status) -> str:
    state = ", shuts down" if status.closing else ""
    return f"{status.master} (release {status.release}), up {show_time(status.uptime)}{state}"


def _contexts(status: Status) -> list[str]:
    if not status.contexts:
        return ["no contexts"]
    shown = sorted(status.contexts, key=lambda one: (not one.left, one.id))[:_MOST_CONTEXTS]
    rows: list[tuple[str, ...]] = [("context", "done", "of", "failed", "running", "waiting", "a second", "left")]
    rows += [_context(one) for one in shown]
    if len(status.contexts) > 1:
        rows.append(_context(status.total, "all"))
    more = len(status.contexts) - len(shown)
    return [*_table(rows, left=1), *([f"({more} more contexts)"] if more else [])]


def _context(one: ContextStatus, label: str = "") -> tuple[str, ...]:
    known = f"{one.known:,}" + ("" if one.complete else "+")
    rate = f"{one.rate:,.3g}" if one.rate < 1000 else f"{one.rate:,.0f}"
    left = "" if one.time_left is None or not one.left else show_time(one.time_left)
    numbers = (f"{one.done:,}", known, f"{one.failed:,}", f"{one.running:,}", f"{one.waiting:,}")
    return (label or one.label or f"context {one.id}", *numbers, rate if one.rate else "", left)


def _slaves(status: Status, room: int) -> list[str]:
    if not status.slaves:
        return ["no slaves"]
    shown = status.slaves
    if len(shown) > room:
        rank = {state: place for place, state in enumerate(_FIRST)}
        chosen = sorted(shown, key=lambda one: (rank.get(one.state, len(rank)), -one.runs_for))[:room]
        shown = sorted(chosen, key=lambda one: one.number)
    rows = [("slave", "host", "state", "done", "busy", "memory", "heard", "lost", "for", "task")]
    made = _table([*rows, *map(_slave, shown)], left=3, last_left=True)
    more = len(status.slaves) - len(shown)
    ended = status.ended - sum(one.state == "ended" for one in status.slaves)
    rest = [f"{more} more"] * (more > 0) + [f"{ended} that have ended"] * (ended > 0)
    return [*made, *([f"({' and '.join(rest)} are not shown)"] if rest else [])]


def _slave(one: SlaveStatus) -> tuple[str, ...]:
    heard = "" if one.heard is None or one.state == "ended" else show_time(one.heard)
    doing = f"{one.label} ({one.task})" if one.label else f"task {one.task}" if one.task else one.words
    return (
        str(one.number),
        one.host,
        one.state,
        f"{one.done:,}",
        f"{one.busy:.0%}",
        show_size(one.memory) if one.memory else "",
        heard,
        str(one.losses or ""),
        show_time(one.runs_for) if one.task else "",
        _line(doing) if one.task or one.words else "",
    )


def _event(one: EventStatus) -> str:
    mark = "!" if one.level >= logging.WARNING else " "
    return f"  {mark} {show_time(one.ago):>10} ago  {_line(one.text)}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _table(rows: Iterable[Sequence[str]], left: int, last_left: bool = False) -> list[str]:
    """Columns that are as wide as they must be; the first ``left`` of them, and maybe the last, begin at the left."""
    rows = list(rows)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if place < left or (last_left and place == last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
