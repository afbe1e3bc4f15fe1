"""The agent's runners: start them, learn how they ended, end them."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from .mark import ANY_LEASE, DEADLINE, RECALL, SETUP, SHORTEST, TASK, Mark, new_mark
from .runner import Assignment, Closable
from .runner import main as runner_main

_AT_ONCE = 5.0  # seconds of life below which a runner that never ran a task "died at once"
_TRIES = 5  # deaths at once, in a row, after which a runner is not started again
_START_AGAIN = 1.0  # seconds after which a runner that could not be started is tried again
_TO_LEAVE = 1.0  # seconds that an idle runner gets to leave by itself, and a busy one to follow SIGTERM

# why an agent ended a runner; else a runner ended by itself, and `cause` is ''
TIMED_OUT = "timed out"  # the task that its mark names ran for too long
STOPPED = "stopped"  # a task was cancelled, or had its time just when the next one began
DRAINED = "drained"  # the slave was asked to end


class Ended(NamedTuple):
    """How a runner ended: ``exitcode`` as in multiprocessing (negative: a signal), what its mark said, and why."""

    number: int
    pid: int
    exitcode: int | None
    task: int
    setup: int
    cause: str


class Slot:
    """The place of one slave: its number and output file stay, its process may change."""

    def __init__(self, number: int, output: str | None) -> None:
        self.number, self.output = number, output
        self.process: multiprocessing.process.BaseProcess | None = None
        self.mark: Mark = None
        self.deaths_at_once = 0
        self.shielded = False  # its runner takes no notice of SIGTERM
        self.started = 0.0
        self.start_after = 0.0  # not before, since the last try failed
        self.stopped: tuple[str, int] | None = None  # why we end the process, and the task because of which
        self.draining = False  # its runner is to leave, and none comes after it
        self.drain_until = math.inf  # when a draining slave's task is ended

    @property
    def pid(self) -> int:
        """The runner's process id, 0 when there is none."""
        return self.process.pid or 0 if self.process is not None else 0

    @property
    def busy(self) -> bool:
        """Whether its runner has marked a task or a setup."""
        return bool(self.mark[TASK] or self.mark[SETUP])

    def end(self, cause: str, task: int) -> None:
        """End its process because of ``task``, unless that is under way."""
        if self.stopped is None:
            self.stopped = cause, task
            self.kill()

    def kill(self) -> None:
        """End its process, and what that started, now."""
        if self.process is not None:
            self.process.kill()
            _kill_group(self.pid)


class Crew:
    """All slots of one agent.

    ``assign`` makes the assignment for a slot, ``inherited`` lists what a fork must close.  Runners ring ``bell`` when
    the agent should look at the clock earlier than it planned.
    """

    def __init__(
        self,
        assign: Callable[[Slot], Assignment],
        inherited: Callable[[], Sequence[Closable]],
        bell: socket.socket,
        start_method: str | None = None,
    ) -> None:
        self.slots: dict[int, Slot] = {}
        self._assign, self._inherited, self._bell = assign, inherited, bell
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
        assignment = self._assign(slot)
        slot.shielded = assignment.shielded
        arguments = (assignment, slot.mark, self._bell, os.getpid(), inherited)
        process = self._context.Process(target=runner_main, args=arguments, name=f"slave {slot.number}")  # type: ignore[attr-defined]
        process.start()
        slot.process, slot.started, slot.stopped = process, time.monotonic(), None

    def alive(self) -> list[tuple[int, int, int]]:
        """Number, pid and running task of each runner whose process has not been found dead."""
        return [(slot.number, slot.pid, slot.mark[TASK]) for slot in self.slots.values() if slot.process is not None]

    def reap(self) -> Iterator[Ended]:
        """The runners that have ended since the last call; children that they left behind are killed."""
        for slot in self.slots.values():
            if slot.process is None or slot.process.exitcode is None:
                continue
            mark = slot.mark
            cause, because = slot.stopped or ("", 0)
            if slot.draining and not slot.process.exitcode:
                cause = DRAINED
            if cause == TIMED_OUT and because != mark[TASK]:
                cause = STOPPED  # the late task has just ended, and the next one had to die for it
            ended = Ended(slot.number, slot.pid, slot.process.exitcode, mark[TASK], mark[SETUP], cause)
            _kill_group(slot.pid)
            at_once = not cause and not slot.busy and time.monotonic() - slot.started < _AT_ONCE
            slot.process = None
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
        if not slot.draining:
            slot.mark[RECALL] = lease
        return int(slot.mark[TASK])

    def stop(self, number: int, lease: int, tasks: Sequence[int]) -> int | None:
        """Call a lease back of which ``tasks`` were cancelled, and end the runner if one of these runs.

        Returns as `recall`; None too if the runner was ended.
        """
        running = self.recall(number, lease)
        if running is None or running not in tasks:
            return running
        slot = self.slots[number]
        slot.end(STOPPED, running)
        return None

    def drain(self, number: int, grace: float) -> int | None:
        """Let the slave's runner finish what it runs, within ``grace`` seconds, and start nothing more; as `recall`."""
        running = self.recall(number, ANY_LEASE)
        if running is None:
            return None
        slot = self.slots[number]
        slot.draining, slot.drain_until = True, min(slot.drain_until, time.monotonic() + grace)
        if not slot.busy:
            slot.end(DRAINED, 0)  # it waits for tasks, or will see the recall before it starts one
        return running

    def stop_late(self) -> None:
        """End the runners whose task, or whose time to drain, is over."""
        now = time.monotonic()
        for slot in self._running():
            task = slot.mark[TASK]  # read before the deadline, so that this is not an earlier task's
            deadline = slot.mark[DEADLINE]
            if deadline and deadline <= time.monotonic_ns():
                slot.end(TIMED_OUT, task)
            elif slot.drain_until <= now:
                slot.end(DRAINED, task)

    def patience(self) -> float:
        """Seconds within which some runner's time may be over.

        A task with a time limit may begin at any moment; who looks again after the shortest limit of all, at the
        latest, sees it in time.
        """
        found = math.inf
        for slot in self._running():
            found = min(found, slot.drain_until - time.monotonic())
            if slot.stopped is None and slot.mark[SHORTEST]:
                found = min(found, slot.mark[SHORTEST] / 1e9)
                if slot.mark[DEADLINE]:
                    found = min(found, (slot.mark[DEADLINE] - time.monotonic_ns()) / 1e9)
        return max(0.001, found)

    def _running(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.process is not None]

    def end(self) -> None:
        """End all runners: idle ones get a moment to leave by themselves, busy ones SIGTERM, and at last SIGKILL."""
        slots = self._running()
        for slot in slots:
            slot.mark[RECALL] = ANY_LEASE  # for one that has just been started and finds no master any more
            if slot.busy and slot.shielded:
                slot.kill()
            elif slot.busy:
                slot.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + _TO_LEAVE
        for slot in slots:
            slot.process.join(max(0.0, deadline - time.monotonic()))  # type: ignore[union-attr]
        self.kill()

    def kill(self) -> None:
        """Kill all runners, and what they started, at once."""
        for slot in self.slots.values():
            if slot.process is not None:
                slot.kill()
                slot.process.join()
                slot.process = None
        self.slots.clear()


def _kill_group(leader: int) -> None:
    if hasattr(os, "killpg") and leader:
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left, which is the rule (macOS says EPERM for a group of zombies)
