"""Failures: the last tasks whose outcome is an error, kept for whoever watches."""

from __future__ import annotations

from collections import deque
from typing import Any

from slave.named import NamedTuple

from .effects import Outcome
from .task import Label

_MOST, _LARGEST = 50, 128 * 1024  # that are kept; bytes of one


class FailedTask(NamedTuple):
    """One of them.  ``number``: it is the so-manieth; ``kind``, ``data``: as in `Outcome`, data None if it is large."""

    number: int
    time: float
    context: int
    task: int
    slave: str
    kind: int
    label: str
    data: Any
    payload: bytes  # the pickled task; b'' if it is large


class Failures:
    """See the module's text."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: deque[FailedTask] = deque(maxlen=_MOST)

    def note(self, context: int, outcome: Outcome, now: float) -> None:
        """Keep one."""
        self.count += 1
        label = str(outcome.tag) if type(outcome.tag) is Label else ""
        data = None if isinstance(outcome.data, bytes) and len(outcome.data) > _LARGEST else outcome.data
        payload = outcome.payload if type(outcome.payload) is bytes and len(outcome.payload) <= _LARGEST else b""
        kept = FailedTask(self.count, now, context, outcome.task, outcome.slave, outcome.kind, label, data, payload)
        self._kept.append(kept)

    def after(self, number: int) -> list[FailedTask]:
        """Those that are kept, later ones than that number."""
        return [one for one in self._kept if one.number > number]
