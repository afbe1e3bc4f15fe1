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
from typing import Callable

from .cpu_clock import CpuClock
from .gathering import Watch, new_shared_memory
from .protocol import RunnerBeat, RunnerEnded
from .runner import Closable, RunnerConfig
from .runner import main as runner_main
from .session import ANY_LEASE
from .shared_status import RECALL, TASK, new_shared_status
from .slave_state import SlaveState

_START_AGAIN = 1.0  # seconds after which a runner that could not be started is tried again
_TO_LEAVE = 1.0  # seconds that an idle runner gets to leave by itself, and a busy one to follow SIGTERM


class Slave(SlaveState):
    """One slave of the agent: its number and output file stay, its runner process may change."""

    def __init__(self, number: int, output: str | None) -> None:
        super().__init__(number)
        self.output = output
        self.process: multiprocessing.process.BaseProcess | None = None
        self.watch: Watch | None = None  # of the outcomes that its runner has gathered
        self.clock: CpuClock | None = None  # of its runner
        self.shielded = False  # its runner takes no notice of SIGTERM
        self.start_after = 0.0  # not before, since the last try failed

    @property
    def runs(self) -> bool:
        """Whether it has a runner, which has not been found dead."""
        return self.process is not None

    @property
    def lives(self) -> bool:
        """Whether its runner's process has not ended."""
        return self.process is not None and self.process.exitcode is None

    @property
    def pid(self) -> int:
        """The runner's process id, 0 when there is none."""
        return self.process.pid or 0 if self.process is not None else 0

    def overdue(self) -> bytes:
        """Frames that its runner has gathered and that have waited for too long."""
        if self.watch is None or self.clock is None or not self.watch.on:
            return b""
        clock = self.clock
        clock.look()
        return self.watch.look(lambda: clock.starved)

    def kill(self) -> None:
        """End its process, and what that started, now."""
        if self.process is not None:
            self.process.kill()
            _kill_group(self.pid)


class RunnerPool:
    """All slaves of agent ``agent``, and their runners.

    ``configure`` makes a runner's config, ``inherited`` lists what a fork must close.  Runners use ``waker`` when the
    agent should look at the clock earlier than it planned.
    """

    def __init__(
        self,
        agent: str,
        configure: Callable[[Slave], RunnerConfig],
        inherited: Callable[[], Sequence[Closable]],
        waker: socket.socket,
        start_method: str | None = None,
    ) -> None:
        self.slaves: dict[int, Slave] = {}
        self._agent, self._configure, self._inherited, self._waker = agent, configure, inherited, waker
        # fork is quick, and safe in an agent, which has one thread; on macOS system libraries break in forked processes
        self._method = start_method or ("fork" if hasattr(os, "fork") and sys.platform != "darwin" else "spawn")
        self._context = multiprocessing.get_context(self._method)

    def add(self, number: int, output: str | None) -> None:
        """Add a slave; `start_missing` starts its runner."""
        self.slaves[number] = Slave(number, output)

    def start_missing(self) -> list[OSError]:
        """Start a runner for each slave without; returns why some could not be started: they are tried again."""
        troubles = []
        for slave in self.slaves.values():
            if slave.process is None and time.monotonic() >= slave.start_after:
                try:
                    self._start(slave)
                except OSError as error:  # no process or no memory to be had just now
                    slave.process, slave.start_after = None, time.monotonic() + _START_AGAIN
                    troubles.append(error)
        return troubles

    @property
    def complete(self) -> bool:
        """Whether every slave has its runner."""
        return all(slave.process is not None for slave in self.slaves.values())

    def _start(self, slave: Slave) -> None:
        status = new_shared_status()
        inherited = self._inherited() if self._method == "fork" else ()
        config = self._configure(slave)
        slave.shielded = config.shielded
        memory = new_shared_memory(self._method == "fork")
        arguments = (config, status, memory, self._waker, os.getpid(), inherited)
        process = self._context.Process(target=runner_main, args=arguments, name=f"slave {slave.number}")  # type: ignore[attr-defined]
        process.start()
        slave.process, slave.watch, slave.clock = process, Watch(memory), CpuClock(process.pid or 0)
        slave.begin(status, time.monotonic())

    def alive(self) -> list[RunnerBeat]:
        """The runners whose process has not been found dead."""
        return [RunnerBeat(slave.number, slave.pid, slave.status[TASK]) for slave in self._running()]

    def reap(self) -> Iterator[RunnerEnded]:
        """The runners that have ended since the last call; children that they left behind are killed."""
        for slave in self.slaves.values():
            if slave.process is None or slave.process.exitcode is None:
                continue
            exitcode = slave.process.exitcode
            task, setup, cause = slave.ended(exitcode, time.monotonic())
            ended = RunnerEnded(self._agent, slave.number, slave.pid, exitcode, task, setup, cause)
            _kill_group(slave.pid)
            slave.process = None
            yield ended

    # -- outcomes that runners have gathered: see gathering.py

    def watches(self) -> bool:
        """Whether some runner is to be watched."""
        on = [slave.watch.heed() for slave in self._running() if slave.watch is not None]  # all are to be heeded
        return any(on)

    def overdue(self) -> list[bytes]:
        """Frames that have waited for too long."""
        return [frames for frames in map(Slave.overdue, self._running()) if frames]

    def watch_no_more(self) -> None:
        """Nothing can be sent to the master for now."""
        for slave in self._running():
            if slave.watch is not None:
                slave.watch.stop()

    # -- to end them

    def recall(self, number: int, lease: int) -> int | None:
        """See `SlaveState.recall`."""
        slave = self.slaves.get(number)
        return None if slave is None else slave.recall(lease)

    def stop(self, number: int, lease: int, tasks: Sequence[int]) -> int | None:
        """See `SlaveState.stop`."""
        slave = self.slaves.get(number)
        return None if slave is None else slave.stop(lease, tasks)

    def drain(self, number: int, grace: float) -> int | None:
        """See `SlaveState.drain`; within ``grace`` seconds."""
        slave = self.slaves.get(number)
        return None if slave is None else slave.drain(time.monotonic() + grace)

    def stop_late(self) -> None:
        """End the runners whose task, or whose time to drain, is over."""
        now = time.monotonic_ns()
        for slave in self._running():
            slave.stop_late(now)

    def patience(self) -> float:
        """Seconds within which some runner's time may be over."""
        now = time.monotonic_ns()
        return max(0.001, min((slave.patience(now) for slave in self._running()), default=math.inf))

    def _running(self) -> list[Slave]:
        return [slave for slave in self.slaves.values() if slave.process is not None]

    def end(self) -> None:
        """End all runners: idle ones get a moment to leave by themselves, busy ones SIGTERM, and at last SIGKILL."""
        slaves = self._running()
        for slave in slaves:
            slave.status[RECALL] = ANY_LEASE  # for one that has just been started and finds no master any more
            if slave.busy and slave.shielded:
                slave.kill()
            elif slave.busy:
                slave.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + _TO_LEAVE
        for slave in slaves:
            slave.process.join(max(0.0, deadline - time.monotonic()))  # type: ignore[union-attr]
        self.kill()

    def kill(self) -> None:
        """Kill all runners, and what they started, at once."""
        for slave in self.slaves.values():
            if slave.process is not None:
                slave.kill()
                slave.process.join()
                slave.process = None
        self.slaves.clear()


def _kill_group(leader: int) -> None:
    if hasattr(os, "killpg") and leader:
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left, which is the rule (macOS says EPERM for a group of zombies)
