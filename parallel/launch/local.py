"""LocalSlave: a slave on this machine.  All of one manager share one agent process.

Starting one takes milliseconds and is done in the caller's thread.  Each agent has a thread that waits for its end, and
then starts another one in its place.  The first may have been started already: ahead.py.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Callable

from slave import limits
from slave.errors import OutOfResources
from slave.private_files import append_to
from slave.signals import came_from_handler

from ..errors import LaunchError
from ..exits import could_not_start, describe_slave_exit, last_lines, tails
from .ahead import Ahead, begin_agent, ends, hang_up
from .base import Slave
from .config import LaunchConfig
from .job import Job, as_line
from .run_command import temporary_file
from .slave_service import ExpectedSlave, SlaveService, SlaveView

log = logging.getLogger("parallel")

_SOON = 5.0  # seconds of life below which an agent "died soon", ...
_TRIES = 25  # ... and after so many such deaths in a row, between which no task was done, no other one is started
_STARVED = 5  # for so many counts one that says that it got no memory or descriptors: that seldom changes soon
_UNPUNISHED = 2  # such deaths in a row after which the next one is started without a pause
_PAUSE = 0.1, 2.0  # seconds before the one after that, and at most: each pause is twice the one before
_LOOK_SECONDS = 0.005  # between two looks whether what is waited for has happened
_DEATH_SECONDS = 2.0  # for the system to end a killed process


class LocalSlave(Slave):
    """One runner on this machine: add as many as there are CPUs to use."""


class LocalAgent:
    """The agent process of a manager's local slaves.  ``on_end`` is called, in another thread, when it has ended.

    ``inherits``: it and its runners print where this process does.  ``ahead``: a process that may be had for it.
    """

    def __init__(self, on_end: Callable[[str], None], inherits: bool = False, ahead: Ahead | None = None) -> None:
        self._on_end, self._inherits, self._ahead = on_end, inherits, ahead
        self.code: int | None = None  # its exit code, when it has ended
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False  # its start was interrupted: nobody is to hear of its end

    def start(self, job: Job) -> None:
        """Start the agent.

        Raises OSError if there is no such program, or its output file is refused (`open_output`); then, or if
        interrupted, nothing runs.
        """
        # without an output file its own words are kept, to be told if it ends
        output = append_to(job.output) if job.output else temporary_file()
        orders = job.stdin
        try:
            if self._ahead is not None and (job.output is None or os.path.isfile(job.output)):
                self._process = self._ahead.take(job.command)
            if self._process is None:
                streams = (_inherited(1), _inherited(2)) if self._inherits else (output, subprocess.STDOUT)
                self._process = begin_agent(job.command, *streams)
            elif self._ahead is not None and job.output is None:
                output.close()
                output = self._ahead.said
            elif self._ahead is not None:
                self._ahead.said.close()
                orders = as_line({**job.orders, "output": job.output})
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(orders)
                self._process.stdin.flush()  # and not closed: its end tells the agent that this process has ended
            except BrokenPipeError:
                pass  # it has ended already, and the thread below tells how
            arguments = (self._process, output, job.output)
            threading.Thread(target=self._watch, args=arguments, daemon=True, name="parallel local agent").start()
        except BaseException:
            self._given_up = True  # the thread may run already
            self.stop(0.0)
            output.close()
            if self._process is not None:
                hang_up(self._process)
            raise

    def _watch(self, process: subprocess.Popen[bytes], output: IO[bytes], path: str | None) -> None:
        self.code = process.wait()
        end = describe_slave_exit(self.code)
        hang_up(process)
        if self._given_up:
            return
        with output:
            self._on_end(end if path else end + last_lines(output, "; its last words"))

    def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for it to end, then kill it; its runners end with it.

        Takes no lock: a signal handler may call this in the middle of anything.
        """
        process = self._process
        if process is None or ends(process, grace):
            return
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended
        process.kill()
        ends(process, _DEATH_SECONDS)


def _inherited(descriptor: int) -> int | None:
    """For Popen: this process's own stream, if it is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return subprocess.DEVNULL
    return None


class LocalGroup:
    """All local slaves of one manager.

    ``_turn`` is held by whoever starts an agent, or has the agent start slaves.  ``_id_lock`` keeps the agent's id, for
    the moment that it takes to expect slaves of it.  `stop` takes neither.
    """

    def __init__(self, service: SlaveService, config: LaunchConfig, ahead: Ahead | None = None) -> None:
        self._service, self._config, self._ahead = service, config, ahead
        self._turn, self._id_lock = threading.Lock(), threading.Lock()
        self._id = secrets.token_hex(16)  # of the agent that runs, or of the next one
        self._agent: LocalAgent | None = None  # the one that runs or is being started
        self._new: dict[int, str] = {}  # slaves to start, and the agent of which they were expected
        self._last = -1  # the number of the last one that was added
        self._since = 0.0  # when the agent was started
        self._deaths = 0  # how many have died soon, in a row
        self._in_vain = 0  # of these, those since a task was done
        self._done = 0  # tasks that its slaves had done when the last one died
        self._closing = False

    def add(self, slaves: Sequence[ExpectedSlave]) -> list[int]:
        """Slaves that `start` will start; returns their numbers."""
        with self._id_lock:
            try:
                numbers = self._service.expect(self._id, slaves)
                self._new.update(dict.fromkeys(numbers, self._id))
                self._last = numbers[-1]
            except BaseException:  # a signal's handler: nobody is to wait for what nobody will start
                lost = [view.number for view in self._service.describe(self._id) if view.number > self._last]
                for number in lost:
                    self._new.pop(number, None)
                if lost:
                    self._service.ended(self._id, "adding it was interrupted", numbers=lost)
                raise
        return numbers

    def withdraw(self, number: int) -> bool:
        """End a slave that was not started; False if it was."""
        agent = self._new.pop(number, None)
        if agent is None:
            return False
        self._service.ended(agent, "it was removed before it came", numbers=[number])
        return True

    def end_ahead(self) -> None:
        """End the process that was started ahead, if it is not the agent: see ahead.py."""
        if self._ahead is not None:
            self._ahead.end()

    @property
    def has_new(self) -> bool:
        """Whether some were added and not yet started."""
        return bool(self._new)

    def start(self) -> None:
        """Start what was added and not yet started.  Those that cannot be started have ended, and the error goes on."""
        taken: dict[int, str] = {}
        try:
            for number, agent in list(self._new.items()):
                taken[number] = agent  # before it leaves the others: a signal's handler may raise at any line
                if self._new.pop(number, None) is None:
                    del taken[number]
            if not taken:
                return
            for number in taken:
                self._config.make_output(number)
            with self._turn:  # and no loop: CPython 3.13 lets an interrupt in one pass the `with` by
                self._launch_taken(taken)
        except BaseException as error:
            self._new.update(taken)  # the next call starts them; an agent ignores what it has started already
            if isinstance(error, Exception) and not came_from_handler(error):
                for number in taken:
                    self._new.pop(number, None)
                self._service.ended(self._id, could_not_start(error), numbers=list(taken))
                if limits.shortage(error):
                    raise LaunchError(f"local slaves cannot be started: {limits.explained(error)}") from error
            raise

    def _launch_taken(self, taken: Mapping[int, str]) -> None:
        # those of an agent that has died meanwhile have ended with it, or got the next one
        self._launch([number for number, agent in taken.items() if agent == self._id])

    def _launch(self, numbers: Sequence[int]) -> None:
        """Have the agent that runs start them, or start one.  Needs ``_turn``."""
        if self._closing or not numbers:
            return
        if self._agent is not None:
            self._service.started(self._id, numbers, by_agent=True)
            return
        agent_id = self._id
        agent = self._agent = LocalAgent(lambda why: self._ended(agent_id, why), self._config.inherits, self._ahead)
        self._since = time.monotonic()
        try:
            agent.start(self._config.job(agent_id, numbers, local=True, fresh=False))
        except BaseException:
            self._agent = None
            raise
        self._service.started(agent_id, numbers)
        if self._closing:
            agent.stop(0.0)

    def _ended(self, agent: str, why: str) -> None:
        """The agent is gone.  Its slaves get another one, unless agents die soon again and again."""
        views = self._service.describe(agent)
        said = tails((view.number, view.output) for view in views if not view.ended)
        with self._turn:
            soon = time.monotonic() - self._since < _SOON
            starved = self._agent is not None and self._agent.code == OutOfResources.exit_code
            self._count(soon, views, _STARVED if starved else 1)
            with self._id_lock:
                self._id = secrets.token_hex(16)
            self._agent = None
            if self._closing:
                return
            successor = self._id if self._in_vain < _TRIES else None
            new = {number for number, one in list(self._new.items()) if one == agent and self._new.pop(number, "")}
            numbers = self._service.ended(agent, why, last_words=said, successor=successor)
        self._pause()
        with self._turn:
            try:
                for number in new & set(numbers):
                    self._config.make_output(number)
                self._launch(numbers)
            except Exception as error:
                self._service.ended(self._id, could_not_start(error), numbers=numbers)
                log.warning("parallel: the local slaves cannot be started again: %s", error)

    def _count(self, soon: bool, views: Sequence[SlaveView], weight: int) -> None:
        """One more agent has died.  As long as work gets done between two deaths, there is another one."""
        done = sum(view.done for view in views)
        worked, self._done = done > self._done, done
        self._deaths = self._deaths + 1 if soon else 1
        self._in_vain = 0 if worked else self._in_vain + weight if soon else weight

    def _pause(self) -> None:
        """Let some time pass if agents have died soon, and often."""
        doublings = self._deaths - _UNPUNISHED - 1
        end = time.monotonic() + (min(_PAUSE[1], _PAUSE[0] * 2**doublings) if doublings >= 0 else 0.0)
        while not self._closing and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)

    def stop(self, grace: float, interrupting: Callable[[], bool]) -> None:
        """End the agent, which has been told to end and has ``grace`` seconds.

        ``interrupting``: whether a thread in the middle of `add` or `start` cannot go on before we return.
        """
        self._closing = True
        self.end_ahead()
        deadline = time.monotonic() + grace
        while self._turn.locked() and not interrupting() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)  # an agent is being started
        agent = self._agent
        if agent is not None:
            came = any(view.came for view in self._service.describe(self._id))
            agent.stop(grace if came else 0.0)  # one that has not come yet will not hear that it is to end
