"""A source of looks that a test sets, and statuses to set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallel.monitor.status import ContextStatus, EventStatus, SlaveStatus, Status
from slave.errors import MasterGone

SCRIPT = "<script>document.title='hacked';window.hacked=1</script><img src=x onerror=window.hacked=2>"


def slave(number: int, state: str = "busy", **more: object) -> SlaveStatus:
    """A slave; ``more``: what is not as usual."""
    parts: dict[str, object] = {
        "number": number, "name": "LocalSlave()", "host": "here", "pid": 10, "state": state, "words": "", "task": 0,
        "label": "", "context": 0, "runs_for": 0.0, "done": 0, "busy": 0.5, "memory": 0, "heard": 0.1, "losses": 0,
        "output": None,
    }  # fmt: skip
    return SlaveStatus(**{**parts, **more})  # type: ignore[arg-type]


def context(id: int, **more: object) -> ContextStatus:
    """A context; ``more``: what is not as usual."""
    parts: dict[str, object] = {
        "id": id, "label": f"context {id}", "waiting": 0, "running": 0, "done": 0, "failed": 0, "coming": 0,
        "complete": True, "rate": 0.0, "time_left": None,
    }  # fmt: skip
    return ContextStatus(**{**parts, **more})  # type: ignore[arg-type]


def status(*slaves: SlaveStatus, contexts: tuple[ContextStatus, ...] = (), **more: Any) -> Status:
    """A status with these."""
    return Status(**{"master": "m", "release": "0", "uptime": 100.0, "closing": False, "contexts": list(contexts),
                     "slaves": list(slaves), **more})  # fmt: skip


def hostile() -> Status:
    """One with markup in each text."""
    return status(
        slave(0, task=7, label=f"label {SCRIPT}", host=f"host {SCRIPT}", name=SCRIPT, runs_for=3.0),
        slave(1, "ended", words=f"words {SCRIPT}", host="x" * 300),
        contexts=(context(1, label=f"context {SCRIPT}", done=3, waiting=10, failed=1),),
        master=f"master {SCRIPT}",
        events=[EventStatus(3.0, 30, f"event {SCRIPT}")],
        trouble=[f"trouble {SCRIPT}"],
    )


class FakeSource:
    """Gives what was set."""

    def __init__(self, first: Status) -> None:
        self.now = first
        self.failed: list[dict[str, Any]] = []
        self.lines: list[tuple[int, str]] = []
        self.gone = ""

    def status(self) -> Status:
        if self.gone:
            raise MasterGone(self.gone)
        return self.now

    def fail(self, **more: object) -> None:
        """One more task has failed."""
        number = len(self.failed) + 1
        usual: dict[str, Any] = {"number": number, "ago": 1.0, "task": 5, "label": "", "slave": "", "error": "E: e"}
        self.failed.append({**usual, "traceback": "", **more})

    def failures(self, after: int) -> list[dict[str, Any]]:
        return [one for one in self.failed if one["number"] > after]

    def output(self, places: Mapping[str, int]) -> dict[str, Any]:
        lines, self.lines = self.lines, []
        return {"lines": lines, "places": {"0": 1}}
