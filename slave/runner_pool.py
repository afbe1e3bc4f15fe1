"""The agent's runners: start them, learn how they ended, end them."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Callable

from . import limits, machine, mp_adapter, process_tree
from .cpu_clock import CpuClock
from .gathering import SharedMemory, Watch, new_shared_memory
from .guard import Guard
from .handover import leave
from .protocol import OUTDATED, RunnerBeat, RunnerEnded
from .runner import Closable, RunnerConfig
from .runner import main as runner_main
from .session import ANY_LEASE
from .shared_status import (
    GOES_ON,
    KEEPS,
    LEAVES,
    NAPS,
    RECALL,
    RESTS,
    STAGE,
    TASK,
    SharedStatus,
    new_shared_status,
)
from .slave_state import SlaveState
from .template import Adopted, Forked, Template, TemplateGone

log = logging.getLogger("slave")

_LOOK_AT_MEMORY = 0.1  # seconds between two looks at how large a runner is
_LOOK_AT_IDLE = 300.0  # the same of one that idles, for what the master shows
_WORKED = 5_000_000  # nanoseconds of a processor, more than a runner that idles takes between two looks
_START_AGAIN = 1.0  # seconds after which a runner that could not be started is tried again
_START_TRIES = 30  # that failed in a row, after which a slave is given up
_DESCRIPTOR_TRIES = 2  # the same if this process may open no more files: seldom does it close some
_TO_BE_KNOWN = 0.2  # seconds for a process that was just forked to become a program, which can be known
_LOOK = 0.005  # seconds between two looks whether a process has ended
_KILLED_TOO = 0.3  # seconds within which whoever kills all processes of a job has killed the agent, too
_TO_LEAVE = 1.0  # seconds that an idle runner gets to leave by itself, and a busy one to follow SIGTERM


class Slave(SlaveState):
    """One slave of the agent: its number and output file stay, its runner process may change."""

    def __init__(self, number: int, output: str | None) -> None:
        super().__init__(number)
        self.output = output
        self.process: multiprocessing.process.BaseProcess | Adopted | None = None
        self.watch: Watch | None = None  # of the outcomes that its runner has gathered
        self.memory_of_runner: SharedMemory = None  # where they lie
        self.clock: CpuClock | None = None  # of its runner
        self._looks = 0, 0  # what its runner's process looked like
        self._used, self.look_at = 0, 0.0  # what its clock showed then, and when to look again in any case
        self.shielded = False  # its runner takes no notice of SIGTERM
        self.dead_since = 0.0  # when its runner was found killed; 0 if it was not
        self.failed_starts = 0  # in a row
        self.trouble: OSError | None = None  # why the last one failed

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

    def beat(self, now: float, anew: bool) -> RunnerBeat:
        """That its runner lives, for the master.

        Its memory costs more than all the rest to look up: a runner that idles, and has had no processor since the last
        look, is as it was then, but for what it has started.  ``anew``: a process was stopped or goes on, perhaps it.
        """
        used = 0 if self.clock is None else self.clock.read()
        if anew or self.busy or used - self._used > _WORKED or now >= self.look_at:
            self._used, self.look_at = used, now + _LOOK_AT_IDLE
            self._looks = machine.look_at(self.pid)
        return RunnerBeat(self.number, self.pid, self.status[TASK], *self._looks)

    def overdue(self) -> bytes:
        """Frames that its runner has gathered and that have waited for too long."""
        if self.watch is None or self.clock is None or not self.watch.on:
            return b""
        clock = self.clock
        clock.look()
        return self.watch.look(time.monotonic_ns(), lambda: clock.starved)

    def kill(self) -> None:
        """End its process, and what that started, now."""
        if self.process is not None:
            self.process.kill()
            process_tree.end_group(self.pid)

    @property
    def cannot_start(self) -> bool:
        """Whether no process could be had for it so often that another try is no use."""
        tries = _DESCRIPTOR_TRIES if limits.no_descriptor(self.trouble) else _START_TRIES
        return self.failed_starts >= tries

    def may_be_of_many(self, now: float) -> bool:
        """Whether its runner, found dead, may be one of many, of which this process is the next.

        Where a batch system kills all processes of a job, one after another, and this one is not the first, it must not
        tell what looks like the end of one task.
        """
        if not self.shielded or self.stopped is not None or self.process is None:
            return False
        if self.process.exitcode != -signal.SIGKILL:
            return False
        self.dead_since = self.dead_since or now
        return now - self.dead_since < _KILLED_TOO

    def ends(self, deadline: float) -> bool:
        """Wait until then for its process to end; whether it has."""
        while self.process is not None and self.process.exitcode is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True


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
        self.max_memory = 0  # bytes that a runner and what it started may use; 0: no limit
        self._agent, self._configure, self._inherited, self._waker = agent, configure, inherited, waker
        # fork is quick, and safe in an agent, which has one thread; on macOS system libraries break in forked processes
        self._method = start_method or ("fork" if hasattr(os, "fork") and sys.platform != "darwin" else "spawn")
        self._context = multiprocessing.get_context(self._method)
        self._mark = secrets.token_hex(8)
        self._guard = Guard(self._mark)
        self._adopts = process_tree.adopts_orphans()  # then orphans of runners become children of ours
        self._template = Template(self._mark)
        self._began = False  # to start runners
        self._known_orphans: set[int] = set()  # those that were there before: of runners that may live
        self._suspects: set[int] = set()  # those that came with the death of a runner
        self._judge_at = 0.0  # when to see whether they are its own

    def add(self, number: int, output: str | None) -> None:
        """Add a slave; `start_missing` starts its runner."""
        self.slaves[number] = Slave(number, output)

    def start_missing(self) -> list[OSError]:
        """Start a runner for each slave without; returns why some cannot be started: they are tried again.

        The first ones wait for the template, if there is one.
        """
        if self._template.look():  # a part of what the first tasks need does not survive a fork
            self._start_template(hold=False)
        if not self._began and self.slaves:
            self._began = True
            self._start_template()
        if self._template.holds(time.monotonic()):
            return []
        troubles = []
        for slave in self.slaves.values():
            if slave.process is None and time.monotonic() >= slave.start_after:
                try:
                    self._start(slave)
                except OSError as error:  # no process or no memory to be had just now
                    slave.process, slave.start_after = None, time.monotonic() + _START_AGAIN
                    slave.failed_starts, slave.trouble = slave.failed_starts + 1, error
                    if slave.failed_starts == 1:
                        troubles.append(error)
        return troubles

    @property
    def complete(self) -> bool:
        """Whether every slave has its runner."""
        return all(slave.process is not None for slave in self.slaves.values())

    @property
    def settled(self) -> bool:
        """Whether nothing is to be seen to until a process ends."""
        return self.complete and not self._suspects and not any(slave.dead_since for slave in self.slaves.values())

    def _start_template(self, hold: bool = True) -> None:
        """Have a process import what the first tasks will import, if its forks can become children of ours."""
        if (
            self._method != "fork"
            or not self._adopts
            or not any(slave.process is None for slave in self.slaves.values())
        ):
            return
        self._stand_guard()
        config = self._configure(next(iter(self.slaves.values())))._replace(mark=self._mark)
        self._template.start(config, self._waker, [*self._inherited(), self._guard], hold)
        if self._template.pid:
            self._guard.began(self._template.pid)

    @property
    def sources(self) -> list[socket.socket]:
        """What is readable when there is a reason for `start_missing`."""
        return self._template.sources

    def _start(self, slave: Slave) -> None:
        self._stand_guard()
        config = self._configure(slave)._replace(mark=self._mark, guarded=self._guard.stands)
        slave.shielded = config.shielded
        process, status, memory = self._forked(config) or self._fresh(config)
        slave.process, slave.watch, slave.clock = process, Watch(memory), CpuClock(process.pid or 0)
        slave.look_at = 0.0
        slave.memory_of_runner = memory
        slave.failed_starts, slave.dead_since = 0, 0.0
        self._guard.began(slave.pid)
        slave.begin(status, time.monotonic())

    # -- another master

    def keep(self) -> None:
        """The master is gone: runners are to leave it when they have ended what they run, and to rest."""
        for slave in self._running():
            slave.status[KEEPS] = LEAVES
            slave.status[RECALL] = ANY_LEASE

    @property
    def rests(self) -> bool:
        """Whether all of them do."""
        return all(slave.status[STAGE] == RESTS for slave in self._running())

    def change(self, agent: str, slots: Sequence[tuple[int, str | None]]) -> None:
        """There is another: these are the slaves from now on, number and output, in the place of those there were."""
        self._agent, self._began = agent, False
        self._template.end()
        before, self.slaves = list(self.slaves.values()), {}
        for number, output in slots:
            self.slaves[number] = slave = before.pop(0) if before else Slave(number, output)
            slave.number, slave.draining, slave.drain_until = number, False, math.inf

    def hand_over(self) -> None:
        """Have the runners that rest serve it; those that do not are ended."""
        for slave in self._running():
            config = self._configure(slave)._replace(environment={}, mark=self._mark, guarded=self._guard.stands)
            slave.status[RECALL] = 0
            rests = slave.lives and slave.status[STAGE] == RESTS
            if rests and leave(slave.memory_of_runner, pickle.dumps(config)):
                slave.begin(slave.status, time.monotonic())
                slave.status[KEEPS] = GOES_ON
                continue
            log.info(
                "slave %d gets a fresh process: the old one has not ended what it ran for the last master", slave.number
            )
            slave.kill()
            slave.process.join()  # type: ignore[union-attr]
            self._end_families([slave.pid])
            slave.process = None

    def _forked(self, config: RunnerConfig) -> Forked | None:
        """A process of the template; None if there is no template that can make it."""
        if not self._template.fits(config):
            return None
        try:
            return self._template.fork(config, _name(config), self._guard.began)
        except TemplateGone:
            return None

    def _fresh(self, config: RunnerConfig) -> tuple[multiprocessing.process.BaseProcess, SharedStatus, SharedMemory]:
        """A process that has imported nothing yet."""
        forks = self._method == "fork"
        status, memory = new_shared_status(forks), new_shared_memory(forks)
        inherited = [*self._inherited(), self._guard, self._template] if forks else ()
        arguments = (config, status, memory, self._waker, os.getpid(), inherited)
        process = self._context.Process(target=runner_main, args=arguments, name=_name(config))  # type: ignore[attr-defined]
        process.start()
        if forks:
            mp_adapter.spare_descriptors(process)
        return process, status, memory

    def _stand_guard(self) -> None:
        """See to it that there is a guard."""
        if not self._guard.stands or self._guard.is_gone():
            self._guard.start(filter(None, [self._template.pid, *(slave.pid for slave in self._running())]))

    def alive(self, anew: bool = True) -> list[RunnerBeat]:
        """The runners whose process has not been found dead.  ``anew``: see `Slave.beat`."""
        now = time.monotonic()
        return [slave.beat(now, anew) for slave in self._running()]

    def reap(self) -> Iterator[RunnerEnded]:
        """The runners that have ended since the last call; what they left behind is killed."""
        template = self._template.pid
        if self._template.has_ended():
            self._end_families([template])
        if self._guard.is_gone():
            self._stand_guard()
        now = time.monotonic()
        dead = [one for one in self._running() if one.process is not None and one.process.exitcode is not None]
        dead = [one for one in dead if not one.may_be_of_many(now)]
        if dead:
            self._end_families([slave.pid for slave in dead])
        self._judge()
        self.reap_orphans()
        for slave in dead:
            exitcode = slave.process.exitcode  # type: ignore[union-attr]
            death = slave.ended(exitcode, now)
            if death.cause == OUTDATED:
                self._template.end()  # it may have imported, for all, what is another now
            ended = RunnerEnded(self._agent, slave.number, slave.pid, exitcode, *death, slave.memory, self.max_memory)
            slave.process = None
            yield ended

    def _end_families(self, runners: Sequence[int]) -> None:
        """End what runners that are dead have started."""
        for runner in runners:
            process_tree.end_group(runner)
        orphans = self._orphans()
        if orphans or not self._adopts:
            process_tree.end_family(runners, self._marks(runners))
            self._suspects.update(set(orphans) - self._known_orphans)
            self._judge_at = time.monotonic() + _TO_BE_KNOWN
        for runner in runners:
            self._guard.ended(runner)

    def _judge(self) -> None:
        """End the orphans that came with the death of a runner, if nothing says that they are another one's.

        A program bears its runner's mark; what has been forked and runs none has no mark to be known by.
        """
        if self._suspects and time.monotonic() >= self._judge_at:
            living = self._living()
            left = self._suspects.intersection(self._orphans())
            process_tree.end_family(process_tree.strangers(left, living, self._marks(living)), ())
            self._suspects.clear()

    def _living(self) -> list[int]:
        return [slave.pid for slave in self._running() if slave.process is not None and slave.process.exitcode is None]

    def _marks(self, runners: Sequence[int]) -> list[str]:
        return [f"{self._mark}.{runner}." for runner in runners]

    def _orphans(self) -> list[int]:
        """Children of this process that it has not started: their parents, which tasks had started, have ended."""
        if not self._adopts:
            return []
        own = {self._guard.pid, self._template.pid, *(slave.pid for slave in self._running())}
        return [pid for pid in process_tree.children() if pid not in own]

    def reap_orphans(self) -> None:
        """Take note of the orphans that have ended, else they would stay as zombies, and of those that live."""
        orphans = self._orphans()
        for pid in orphans:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        self._known_orphans = set(orphans)

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
        if slave is None:
            return None
        now = time.monotonic()
        return slave.drain(now + grace, now)

    def hurry(self) -> None:
        """A batch system has asked all to end: what it kills from now on, it kills for that."""
        for slave in self.slaves.values():
            slave.hurried = slave.shielded

    def stop_late(self) -> None:
        """End the runners whose task, or whose time to drain, is over."""
        now = time.monotonic_ns()
        for slave in self._running():
            slave.stop_late(now)

    def be_nice(self) -> None:
        """Have the runners let all other programs go first."""
        for slave in self._running():
            machine.let_others_go_first(slave.pid)

    def stop_large(self) -> None:
        """End the runners that use more memory, with what they started, than they may."""
        for slave in self._running() if self.max_memory else ():
            memory = machine.memory_of(slave.pid) if slave.busy else None
            if memory is not None and memory > self.max_memory:
                slave.stop_large(memory)

    def patience(self) -> float:
        """Seconds within which some runner's time may be over."""
        now = time.monotonic_ns()
        found = min((slave.patience(now) for slave in self._running()), default=math.inf)
        if self._suspects:
            found = min(found, self._judge_at - now / 1e9)
        if self.max_memory and not self._may_nap():
            found = min(found, _LOOK_AT_MEMORY)
        found = min(found, self._template.patience(now / 1e9))
        if any(slave.dead_since for slave in self._running()):
            found = min(found, _KILLED_TOO)
        return max(0.001, found)

    def _may_nap(self) -> bool:
        """Whether nobody runs anything, and whoever begins to will wake us."""
        slaves = self._running()
        naps = not any(slave.busy for slave in slaves)
        told = all(slave.status[NAPS] for slave in slaves)
        for slave in slaves:
            slave.status[NAPS] = naps
        return naps and told  # if just now, one more look: somebody may have begun who had not seen it

    def _running(self) -> list[Slave]:
        return [slave for slave in self.slaves.values() if slave.process is not None]

    def end(self) -> None:
        """End all runners: idle ones get a moment to leave by themselves, busy ones SIGTERM, and at last SIGKILL."""
        slaves = self._running()
        for slave in slaves:
            slave.status[KEEPS] = 0
            slave.status[RECALL] = ANY_LEASE  # for one that has just been started and finds no master any more
            if slave.busy and slave.shielded:
                slave.kill()
            elif slave.busy:
                slave.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + _TO_LEAVE
        for slave in slaves:
            slave.ends(deadline)
        self.kill()

    def kill(self) -> None:
        """Kill all runners, and what they started, at once."""
        for slave in self.slaves.values():
            if slave.process is not None:
                slave.kill()
                slave.process.join()
                slave.process = None
        self._template.end()
        orphans = self._orphans()
        if orphans:
            process_tree.end_family(orphans, [f"{self._mark}."])
        self._guard.end()
        self.reap_orphans()
        self.slaves.clear()


def _name(config: RunnerConfig) -> str:
    return f"slave {config.slave}"
