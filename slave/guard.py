"""The guard: a process that ends the runners, and what their tasks started, when the agent has been killed.

An agent that ends in order does that itself.  When it cannot, since it was killed, whatever a task is doing would go on
and run a second time elsewhere.  So it forks, before the first runner, a process that has a session of its own and
waits for the end of a pipe of which the agent alone holds the other end:

    agent -> guard    "+PID" a runner has been started, "-PID" it has ended; "." the agent ends in order
                      the end of the pipe: the agent has ended
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from . import process_tree, streams

_MOST_SECONDS = 5.0  # for what was killed to vanish
_LOOK = 0.02  # seconds between two looks whether it has
_BEGINS = 0.64  # seconds for what a task had just forked to become a program, which can be known by its mark


class Guard:
    """The agent's end.  ``mark``: how the marks of its runners begin (process_tree.py)."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._pid, self._pipe = 0, -1

    @property
    def stands(self) -> bool:
        """Whether there is one, as far as is known."""
        return self._pid != 0

    @property
    def pid(self) -> int:
        """Its process id; 0 if there is none."""
        return self._pid

    def start(self, runners: Iterable[int]) -> None:
        """Start it, if it can be had, for these runners."""
        if not hasattr(os, "fork"):
            return
        near, far = os.pipe()
        try:
            pid = os.fork()
        except OSError:  # no process to be had just now
            os.close(near)
            os.close(far)
            return
        if not pid:
            try:
                _stand_by(near, self._mark)
            finally:
                os._exit(0)
        os.close(near)
        self._pid, self._pipe = pid, far
        for runner in runners:
            self.began(runner)

    def began(self, runner: int) -> None:
        """A runner was started."""
        self._say(f"+{runner}\n")

    def ended(self, runner: int) -> None:
        """A runner has ended, and what it started too."""
        self._say(f"-{runner}\n")

    def _say(self, line: str) -> None:
        if self._pipe >= 0:
            try:
                os.write(self._pipe, line.encode())
            except OSError:
                pass  # it was killed: `is_gone` will tell

    def is_gone(self) -> bool:
        """Whether it has been killed; then another one can be started."""
        if not self._pid or not _has_ended(self._pid):
            return False
        self.close()
        self._pid = 0
        return True

    def end(self) -> None:
        """Have it look for what is left of the runners' families, end that, and leave."""
        self._say(".\n")
        self.close()
        deadline = time.monotonic() + _MOST_SECONDS + 1.0
        while self._pid and not _has_ended(self._pid):
            if time.monotonic() > deadline:
                process_tree.send(self._pid, signal.SIGKILL)
            time.sleep(_LOOK / 4)
        self._pid = 0

    def close(self) -> None:
        """Close this end: a runner that was forked must not hold it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _stand_by(pipe: int, mark: str) -> None:
    """The body of the guard's process."""
    signal.set_wakeup_fd(-1)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD"):  # whoever signals a whole job means the agent
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.setsid()
    for fd in range(3):
        streams.to_nothing(fd)
    highest = max((int(name) for name in os.listdir("/dev/fd")), default=pipe) if os.path.isdir("/dev/fd") else 1023
    os.closerange(3, pipe)
    os.closerange(pipe + 1, highest + 1)
    runners, in_order = _listen(pipe)
    deadline = time.monotonic() + _MOST_SECONDS
    pause = _LOOK
    while time.monotonic() < deadline:
        if process_tree.end_family(runners, [mark]):
            pause = _LOOK
        elif in_order or pause > _BEGINS / 2:
            return
        else:
            pause *= 2
        time.sleep(pause)


def _listen(pipe: int) -> tuple[set[int], bool]:
    """The runners that live when the agent ends, and whether it ends in order: then it has seen to its orphans."""
    runners: set[int] = set()
    in_order = False
    with open(pipe) as lines:
        for line in lines:
            if line.endswith("\n"):
                if line[0] == ".":
                    in_order = True
                else:
                    (runners.add if line[0] == "+" else runners.discard)(int(line[1:]))
    return runners, in_order
