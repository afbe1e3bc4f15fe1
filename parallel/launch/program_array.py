"""ProgramArray: slaves that commands start which run on this machine as long as the slaves do (mpirun, srun)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from .base import Slave, SlaveArray
from .job import Job
from .process import CommandProcess
from .staging import ArrayFolder

_TO_END = 2.0  # seconds for a command to end by itself when what it started has ended or will not start


class Start(NamedTuple):
    """One command, and the places in the array of the slave programs that it starts."""

    command: Sequence[str]
    places: Sequence[int]


class Placed(Slave):
    """A slave program that has a place in such an array, and ``runners`` slaves."""

    def __init__(self, name: str, runners: int = 1) -> None:
        self.name, self.runners = name, runners

    def __repr__(self) -> str:
        return self.name


class ProgramArray(SlaveArray):
    """See the module's text.  Derive from it and define `starts`."""

    together = True
    index = "index=$1"  # shell code for the script: see `job_script`

    def __init__(self, slaves: Sequence[Slave]) -> None:
        super().__init__(slaves)
        self._folder: ArrayFolder | None = None
        self._programs: list[tuple[CommandProcess, Sequence[int]]] = []
        self._since = 0.0

    def starts(self, script: str) -> list[Start]:
        """The commands that start the slaves: each runs ``script``, with or without arguments as `index` wants it."""
        raise TypeError(f"{type(self).__name__} must define starts(script)")

    def start(self, jobs: Sequence[Job]) -> None:
        """See `SlaveArray.start`."""
        assert self.staging is not None
        self._folder = self.staging.array(jobs, self.index)
        self._since = time.monotonic()
        try:
            for command, places in self.starts(self._folder.script):
                self._programs.append((CommandProcess(command, None), places))
        except BaseException:
            for program, _ in self._programs:
                program.stop()
            raise

    def poll(self) -> list[str | None]:
        """See `SlaveArray.poll`."""
        assert self._folder is not None
        self._folder.look()
        ends: list[str | None] = [None] * len(self.slaves)
        for program, places in self._programs:
            over = program.poll()
            for place in places:
                ends[place] = self._how(place, program, over)
        return ends

    def _how(self, place: int, program: CommandProcess, over: str | None) -> str | None:
        """How the slave program at this place ended; None if it did not: then what it does is noted."""
        assert self._folder is not None
        end, host = self._folder.end(place), self._folder.host(place)
        if end is not None:
            return end
        if over is not None and program.code:
            return f"the command that started it has ended: {over}"
        if host is not None:
            self.slaves[place].doing = f"started on {host}, and not connected"
        elif over is None:
            since = time.monotonic() - self._since
            self.slaves[place].doing = f"its command was started {since:.0f} s ago and runs, but has not started it"
        else:
            self.slaves[place].doing = "its command has ended with code 0, and it is not started yet"
        return None

    def stop(self, slaves: Sequence[Slave]) -> None:
        """End the programs of which no slave is left; others may not start theirs any more.

        A program whose slaves have not been started may be on its way to start them, and then ends by itself, for they
        find no orders.  Better than to stop it: mpirun leaves files behind if it is told to end that early.
        """
        if self._folder is None:
            return  # it was refused before anything was started
        stopped = [place for place, slave in enumerate(self.slaves) if any(slave is one for one in slaves)]
        for place in stopped:
            self._folder.withdraw(place)
        ends = self.poll()
        over = [
            (program, any(ends[place] is None and self._folder.host(place) is not None for place in places))
            for program, places in self._programs
            if all(place in stopped or ends[place] is not None for place in places)
        ]
        _stop([program for program, runs in over if runs], 0.0)
        _stop([program for program, runs in over if not runs], _TO_END)

    def finish(self) -> None:
        """See `SlaveArray.finish`: the commands may clean up."""
        _stop([program for program, _ in self._programs], _TO_END)


def _stop(programs: Sequence[CommandProcess], patience: float) -> None:
    """Stop programs that do not end by themselves within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    for program in programs:
        program.wait(max(0.0, deadline - time.monotonic()))
        program.stop()
