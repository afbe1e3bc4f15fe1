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

from .protocol import BY_ITSELF, DRAINED, STOPPED, TIME_LIMIT, RunnerBeat, RunnerEnded
from .runner import Closable, RunnerConfig
from .runner import main as runner_main
from .session import ANY_LEASE
from .shared_status import DEADLINE, RECALL, SETUP, SHORTEST, TASK, SharedStatus, new_shared_status

_AT_ONCE = 5.0  # seconds of life below which a runner that never ran a task "died at once"
_TRIES = 5  # deaths at once, in a row, after which a runner is not started again
_START_AGAIN = 1.0  # seconds after which a runner that could not be started is tried again
_TO_LEAVE = 1.0  # seconds that an idle runner gets to leave by itself, and a busy one to follow SIGTERM


class Slave:
    """One slave of the agent: its number and output file stay, its runner process may change."""

    def __init__(self, number: int, output: str | None) -> None:
        self.number, self.output = number, output
        self.process: multiprocessing.process.BaseProcess | None = None
        self.status: SharedStatus = None
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
        """Whether its runner runs a task or a setup, by its shared status."""
        return bool(self.status[TASK] or self.status[SETUP])

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
        slave.status = new_shared_status()
        inherited = self._inherited() if self._method == "fork" else ()
        config = self._configure(slave)
        slave.shielded = config.shielded
        arguments = (config, slave.status, self._waker, os.getpid(), inherited)
        process = self._context.Process(target=runner_main, args=arguments, name=f"slave {slave.number}")  # type: ignore[attr-defined]
        process.start()
        slave.process, slave.started, slave.stopped = process, time.monotonic(), None

    def alive(self) -> list[RunnerBeat]:
        """The runners whose process has not been found dead."""
        return [RunnerBeat(slave.number, slave.pid, slave.status[TASK]) for slave in self._running()]

    def reap(self) -> Iterator[RunnerEnded]:
        """The runners that have ended since the last call; children that they left behind are killed."""
        for slave in self.slaves.values():
            if slave.process is None or slave.process.exitcode is None:
                continue
            task, setup = slave.status[TASK], slave.status[SETUP]
            cause, because = slave.stopped or (BY_ITSELF, 0)
            if slave.draining and not slave.process.exitcode:
                cause = DRAINED
            if cause == TIME_LIMIT and because != task:
                cause = STOPPED  # the late task has just ended, and the next one had to die for it
            ended = RunnerEnded(self._agent, slave.number, slave.pid, slave.process.exitcode, task, setup, cause)
            _kill_group(slave.pid)
            at_once = cause == BY_ITSELF and not slave.busy and time.monotonic() - slave.started < _AT_ONCE
            slave.process = None
            slave.deaths_at_once = slave.deaths_at_once + 1 if at_once else 0
            yield ended

    def hopeless(self, number: int) -> bool:
        """Whether the slave's runners died at once so often that another try is no use."""
        return self.slaves[number].deaths_at_once >= _TRIES

    def recall(self, number: int, lease: int) -> int | None:
        """Call a lease back: the task that runs, after which its runner starts none; None if there is no runner."""
        slave = self.slaves.get(number)
        if slave is None or slave.process is None:
            return None
        if not slave.draining:
            slave.status[RECALL] = lease
        return int(slave.status[TASK])

    def stop(self, number: int, lease: int, tasks: Sequence[int]) -> int | None:
        """Call a lease back of which ``tasks`` were cancelled, and end the runner if one of these runs.

        Returns as `recall`; None too if the runner was ended.
        """
        running = self.recall(number, lease)
        if running is None or running not in tasks:
            return running
        slave = self.slaves[number]
        slave.end(STOPPED, running)
        return None

    def drain(self, number: int, grace: float) -> int | None:
        """Let the slave's runner finish what it runs, within ``grace`` seconds, and start nothing more; as `recall`."""
        running = self.recall(number, ANY_LEASE)
        if running is None:
            return None
        slave = self.slaves[number]
        slave.draining, slave.drain_until = True, min(slave.drain_until, time.monotonic() + grace)
        if not slave.busy:
            slave.end(DRAINED, 0)  # it waits for tasks, or will see the recall before it starts one
        return running

    def stop_late(self) -> None:
        """End the runners whose task, or whose time to drain, is over."""
        now = time.monotonic()
        for slave in self._running():
            task = slave.status[TASK]  # read before the deadline, so that this is not an earlier task's
            deadline = slave.status[DEADLINE]
            if deadline and deadline <= time.monotonic_ns():
                slave.end(TIME_LIMIT, task)
            elif slave.drain_until <= now:
                slave.end(DRAINED, task)

    def patience(self) -> float:
        """Seconds within which some runner's time may be over.

        A task with a time limit may begin at any moment; who looks again after the shortest limit of all, at the
        latest, sees it in time.
        """
        found = math.inf
        for slave in self._running():
            found = min(found, slave.drain_until - time.monotonic())
            if slave.stopped is None and slave.status[SHORTEST]:
                found = min(found, slave.status[SHORTEST] / 1e9)
                if slave.status[DEADLINE]:
                    found = min(found, (slave.status[DEADLINE] - time.monotonic_ns()) / 1e9)
        return max(0.001, found)

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
