"""Timeline: which slave ran what when, in the last minutes, as far as looks tell.

A task that is seen by two looks is a bar of its own, from when it began.  Many short ones of the same name, between
which no look can tell, are one bar that says how many they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from .status import SlaveStatus

SECONDS = 900.0  # for which bars are kept
_MOST, _MOST_OF_ONE = 20_000, 300  # bars; of one slave
_BETWEEN = 1e-3  # seconds


class _Bar:
    __slots__ = ("begins", "count", "ends", "kind", "label", "look", "number", "task")

    def __init__(self, number: int, kind: str, label: str, task: int, begins: float, ends: float) -> None:
        self.number, self.kind, self.label, self.task = number, kind, label, task
        self.begins, self.ends = begins, ends
        self.count = 1  # tasks in it
        self.look = 0  # when it has changed last


class _Row:
    """One slave's."""

    def __init__(self) -> None:
        self.bars: deque[_Bar] = deque()
        self.done = 0
        self.seen = 0.0


class Timeline:
    """See the module's text."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._count = 0  # bars that there ever were

    def add(self, slaves: Sequence[SlaveStatus], now: float, look: int) -> None:
        """A look at all slaves."""
        most = max(10, min(_MOST_OF_ONE, _MOST // max(1, len(slaves))))
        for slave in slaves:
            row = self._rows.get(slave.number)
            if row is None:
                row = self._rows[slave.number] = _Row()
                row.seen, row.done = now, slave.done
            self._look_at(row, slave, now, look)
            while row.bars and (len(row.bars) > most or row.bars[0].ends < now - SECONDS):
                row.bars.popleft()
            row.done, row.seen = slave.done, now
        if len(self._rows) > len(slaves):  # those that have ended long ago
            for number in [one for one, row in self._rows.items() if row.seen < now - SECONDS]:
                del self._rows[number]

    def _look_at(self, row: _Row, slave: SlaveStatus, now: float, look: int) -> None:
        if slave.state in ("lost", "stopped"):
            self._state(row, slave.state, now, look)
            return
        last = row.bars[-1] if row.bars else None
        done = max(0, slave.done - row.done)
        if slave.task and last is not None and last.kind == "task" and last.task == slave.task:
            last.ends, last.look, last.label = now, look, slave.label or last.label
            return
        if not slave.task and not done:
            return
        label = slave.label or (last.label if last is not None and not slave.task else "")
        begins = max(now - slave.runs_for, row.seen) if not done and slave.task else row.seen
        if (
            last is not None
            and last.kind == "task"
            and last.label == label
            and last.ends >= row.seen - _BETWEEN
            and done
        ):
            last.ends, last.look, last.task = now, look, slave.task
            last.count += done
            return
        if slave.task and not done and last is None:
            begins = now - slave.runs_for
        bar = self._new(row, "task", label, slave.task, max(0.0, begins), now, look)
        bar.count = max(1, done)

    def _state(self, row: _Row, state: str, now: float, look: int) -> None:
        last = row.bars[-1] if row.bars else None
        if last is not None and last.kind == state:
            last.ends, last.look = now, look
        else:
            self._new(row, state, state, 0, row.seen, now, look)

    def _new(self, row: _Row, kind: str, label: str, task: int, begins: float, ends: float, look: int) -> _Bar:
        self._count += 1
        bar = _Bar(self._count, kind, label, task, begins, ends)
        bar.look = look
        row.bars.append(bar)
        return bar

    def bars(self, since: int) -> dict[str, list[list[Any]]]:
        """By slave the bars that have changed after that look: number, kind, label, begins, ends, tasks."""
        found = {str(number): _changed(row, since) for number, row in self._rows.items()}
        return {number: bars for number, bars in found.items() if bars}


def _changed(row: _Row, since: int) -> list[list[Any]]:
    """From the end on, for only the last ones change."""
    made: list[list[Any]] = []
    for bar in reversed(row.bars):
        if bar.look <= since:
            break
        made.append([bar.number, bar.kind, bar.label[:200], round(bar.begins, 2), round(bar.ends, 2), bar.count])
    return made[::-1]
