"""The Trace Event Format, as its specification has it: what each kind of event must hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCOPES = {"g", "p", "t"}
_METADATA = {
    "process_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}
# reserved names of colours, as the trace viewer has them
_COLORS = {"good", "bad", "terrible", "thread_state_running", "thread_state_iowait", "generic_work", "grey"}


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a whole trace."""
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def read_cut(path: Path) -> list[dict[str, Any]]:
    """The same of one whose end is missing: "the ] at the end is optional"."""
    text = path.read_text().rstrip()
    found: list[dict[str, Any]] = json.loads(text if text.endswith("]") else text.rstrip(",") + "]")
    return found


def check(events: Sequence[dict[str, Any]]) -> None:
    """Raise AssertionError if it is no trace by the specification, or bars of a row overlap."""
    assert isinstance(events, list) and events
    for event in events:
        _check_event(event)
    rows: dict[tuple[int, int], float] = {}
    for bar in sorted((one for one in events if one["ph"] == "X"), key=lambda one: one["ts"]):
        row = bar["pid"], bar["tid"]
        assert bar["ts"] >= rows.get(row, 0.0) - 0.002, f"{bar} overlaps with what is before it"
        rows[row] = bar["ts"] + bar["dur"]


def _check_event(event: dict[str, Any]) -> None:
    assert isinstance(event.get("name"), str), event
    assert type(event.get("pid")) is int and type(event.get("tid")) is int, event
    assert _is_number(event.get("ts")) and event["ts"] >= 0, event
    assert isinstance(event.get("args", {}), dict), event
    assert event.get("cname", "good") in _COLORS, event
    kind = event["ph"]
    if kind == "X":
        assert _is_number(event["dur"]) and event["dur"] >= 0, event
        assert isinstance(event["cat"], str), event
    elif kind == "i":
        assert event["s"] in _SCOPES, event
    elif kind == "C":
        assert event["args"] and all(_is_number(value) for value in event["args"].values()), event
    elif kind == "M":
        part, wanted = _METADATA[event["name"]]
        assert isinstance(event["args"][part], wanted), event
    else:
        raise AssertionError(f"{event} is of a kind that is not used here")


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
