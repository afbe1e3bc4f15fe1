"""The slaves of a manager as the standard pools show their processes: by pid, in `_processes` and `_pool`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from ..manager import Manager

_LOOK_SECONDS = 0.01  # between two looks whether a process has ended


class Process:
    """A slave's process, on whatever machine.  The slave itself gets another one when this ends."""

    def __init__(self, manager: Manager, pid: int, number: int) -> None:
        self._manager, self.pid, self.number = manager, pid, number
        self.name = f"slave {number}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self.pid}>"

    def is_alive(self) -> bool:
        """Whether it runs, as far as the manager knows."""
        return not self._manager.closed and any(
            info.pid == self.pid and info.state != "ended" for info in self._manager.slaves
        )

    def terminate(self) -> None:
        """End it by SIGTERM, if it runs on this machine: its task goes to another one.  Raises OSError."""
        os.kill(self.pid, signal.SIGTERM)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for ``timeout`` seconds at most."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_alive() and (deadline is None or time.monotonic() < deadline):
            time.sleep(_LOOK_SECONDS)


class Processes(Mapping[int, Process]):
    """By pid, those that are connected just now.  ``manager``: gives the manager, or None before there is one."""

    def __init__(self, manager: Callable[[], Manager | None]) -> None:
        self._manager = manager

    def _now(self) -> dict[int, Process]:
        manager = self._manager()
        slaves = [] if manager is None or manager.closed else manager.slaves
        return {
            info.pid: Process(manager, info.pid, info.number)  # type: ignore[arg-type]  # no slaves without one
            for info in slaves
            if info.pid and info.state in ("idle", "busy", "draining")
        }

    def __getitem__(self, pid: int) -> Process:
        return self._now()[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())
