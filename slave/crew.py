"""The agent's runners: start them, learn how they ended, end them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from .mark import RECALL, SETUP, TASK, Mark, new_mark
from .runner import Assignment, Closable
from .runner import main as runner_main

_AT_ONCE = 5.0  # seconds of life below which a runner that never ran a task "died at once"
_TRIES = 5  # deaths at once, in a row, after which a runner is not started again
_START_AGAIN = 1.0  # seconds after which a runner that could not be started is tried again
_TO_LEAVE = 1.0  # seconds that an idle runner gets to leave by itself, and a busy one to follow SIGTERM


class Ended(NamedTuple):
    """How a runner ended: ``exitcode`` as in multiprocessing (negative: a signal), and what its mark said."""

    number: int
    pid: int
    exitcode: int | None
    task: int
    setup: int


class Slot:
    """The place of one slave: its number and output file stay, its process may change."""

    def __init__(self, number: int, output: str | None) -> None:
        self.number, self.output = number, output
        self.process: multiprocessing.process.BaseProcess | None = None
        self.mark: Mark = None
        self.deaths_at_once = 0
        self.started = 0.0
        self.start_after = 0.0  # not before, since the last try failed

    @property
    def pid(self) -> int:
        """The runner's process id, 0 when there is none."""
        return self.process.pid or 0 if self.process is not None else 0


class Crew:
    """All slots of one agent.

    ``assign`` makes the assignment for a slot, ``inherited`` lists what a fork must close.
    """

    def __init__(
        self,
        assign: Callable[[Slot], Assignment],
        inherited: Callable[[], Sequence[Closable]],
        start_method: str | None = None,
    ) -> None:
        self.slots: dict[int, Slot] = {}
        self._assign, self._inherited = assign, inherited
        # fork is quick, and safe in an agent, which has one thread; on macOS system libraries break in forked processes
        self._method = start_method or ("fork" if hasattr(os, "fork") and sys.platform != "darwin" else "spawn")
        self._context = multiprocessing.get_context(self._method)

    def add(self, number: int, output: str | None) -> None:
        """Make a slot; `start_missing` starts its runner."""
        self.slots[number] = Slot(number, output)

    def start_missing(self) -> list[OSError]:
        """Start a runner in every slot that has none; returns why some could not be started: they are tried again."""
        troubles = []
        for slot in self.slots.values():
            if slot.process is None and time.monotonic() >= slot.start_after:
                try:
                    self._start(slot)
                except OSError as error:  # no process or no memory to be had just now
                    slot.process, slot.start_after = None, time.monotonic() + _START_AGAIN
                    troubles.append(error)
        return troubles

    @property
    def complete(self) -> bool:
        """Whether every slot has its runner."""
        return all(slot.process is not None for slot in self.slots.values())

    def _start(self, slot: Slot) -> None:
        slot.mark = new_mark()
        inherited = self._inherited() if self._method == "fork" else ()
        arguments = (self._assign(slot), slot.mark, os.getpid(), inherited)
        process = self._context.Process(target=runner_main, args=arguments, name=f"slave {slot.number}")  # type: ignore[attr-defined]
        process.start()
        slot.process, slot.started = process, time.monotonic()

    def alive(self) -> list[tuple[int, int, int]]:
        """Number, pid and running task of each runner whose process has not been found dead."""
        return [(slot.number, slot.pid, slot.mark[TASK]) for slot in self.slots.values() if slot.process is not None]

    def reap(self) -> Iterator[Ended]:
        """The runners that have ended since the last call; children that they left behind are killed."""
        for slot in self.slots.values():
            if slot.process is None or slot.process.exitcode is None:
                continue
            ended = Ended(slot.number, slot.pid, slot.process.exitcode, slot.mark[TASK], slot.mark[SETUP])
            _kill_group(slot.pid)
            slot.process = None
            idle = not ended.task and not ended.setup
            at_once = idle and time.monotonic() - slot.started < _AT_ONCE
            slot.deaths_at_once = slot.deaths_at_once + 1 if at_once else 0
            yield ended

    def hopeless(self, number: int) -> bool:
        """Whether the slot's runners died at once so often that another try is no use."""
        return self.slots[number].deaths_at_once >= _TRIES

    def recall(self, number: int, lease: int) -> int | None:
        """Call a lease back: the task its runner has marked, after which it starts none; None if there is no runner."""
        slot = self.slots.get(number)
        if slot is None or slot.process is None:
            return None
        slot.mark[RECALL] = lease
        return int(slot.mark[TASK])

    def end(self) -> None:
        """End all runners: idle ones get a moment to leave by themselves, busy ones SIGTERM, and at last SIGKILL."""
        slots = [slot for slot in self.slots.values() if slot.process is not None]
        for slot in slots:
            if slot.mark[TASK] or slot.mark[SETUP]:
                slot.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + _TO_LEAVE
        for slot in slots:
            slot.process.join(max(0.0, deadline - time.monotonic()))  # type: ignore[union-attr]
        self.kill()

    def kill(self) -> None:
        """Kill all runners, and what they started, at once."""
        for slot in self.slots.values():
            if slot.process is not None:
                slot.process.kill()
                _kill_group(slot.pid)
                slot.process.join()
                slot.process = None
        self.slots.clear()


def _kill_group(leader: int) -> None:
    if hasattr(os, "killpg") and leader:
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left, which is the rule (macOS says EPERM for a group of zombies)
