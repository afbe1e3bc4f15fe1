"""Group: what one call of add_slave brought, other than local slaves, from its start to its end.

The user's thread starts it; from then on a thread of its own asks its launcher about once a second how its slaves are,
and stops them.  So a launcher that blocks holds up its own slaves only, and at the manager's end is left behind.
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Callable

from ..exits import UNREACHABLE, could_not_start, tails
from .base import SlaveArray, TryAgain
from .calls import LauncherCalls
from .config import LaunchConfig
from .connecting import Connecting, came, last_words
from .job import Job
from .slave_service import SlaveService
from .unit import Unit

log = logging.getLogger("parallel")

_POLL_SECONDS = 1.0  # between two questions to a launcher how its slaves are
_CLOSE_SECONDS = 0.05  # the same when they have been told to end
_RETRY = 2.0, 60.0  # seconds between two tries to start what cannot be started just now: at first, at most
_LATE_SECONDS = 1.0  # for a poll to return that was called while the slaves had time to end


class _Stage(enum.Enum):
    NEW = "start was not called, or has not returned"
    RETRYING = "cannot be started just now"
    STARTED = "started"
    FAILED = "cannot be started"


class Group:
    """One array, or one slave as an array of one.

    The launcher is called in `start`, and after that by the group's own thread only.  All else returns at once and
    takes no lock, so that a signal handler may call it in the middle of anything.  ``on_end`` is called when the
    group's thread ends, and nothing is left to be done.
    """

    def __init__(
        self,
        array: SlaveArray,
        units: Sequence[Unit],
        service: SlaveService,
        config: LaunchConfig,
        on_end: Callable[[Group], None],
    ) -> None:
        self._array, self._units = array, list(units)
        self._service, self._config, self._on_end = service, config, on_end
        self._launcher, self._connecting = LauncherCalls(array, self._units), Connecting(service, config)
        self._starting = threading.Lock()  # held by `start`; the group's thread begins when it is released
        self._stage = _Stage.NEW
        self._left = {unit.agent: unit for unit in units}  # not ended; whoever takes one out tells of its end
        self._withdrawn: deque[Unit] = deque()  # ended by `withdraw`, and to be stopped if they were started
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # a put() may interrupt another one
        self._jobs: list[Job] = []  # made for the first try to start it
        self._called, self._raised = False, False  # the launcher's start; and it raised an Exception
        self._connect_timeout = 0.0
        self._pause, self._again = _RETRY[0], 0.0  # until the next try to start it, and when that is
        self._closing, self._deadline = False, 0.0
        self.is_alive = False  # whether its thread has been started and has not ended

    @property
    def name(self) -> str:
        """What it is, in words."""
        return self._launcher.name

    # -- start

    @property
    def is_starting(self) -> bool:
        """Whether some thread is in `start`."""
        return self._starting.locked()

    @property
    def is_new(self) -> bool:
        """Whether nobody has begun to start it."""
        return self._stage is _Stage.NEW and not self.is_starting

    def start(self, connect_timeout: float) -> None:
        """Start it, once.  What cannot be started has ended, and the error goes on; or it is tried again later."""
        with self._starting:
            if self._stage is not _Stage.NEW:
                return
            if self._closing or not self._left:  # all were withdrawn
                self._stage = _Stage.FAILED
                self._on_end(self)
                return
            self._connect_timeout = connect_timeout
            try:
                threading.Thread(target=self._run, daemon=True, name=f"parallel launcher of {self.name}").start()
            except RuntimeError as error:  # there can be no more threads
                self._fail(error)
                self._on_end(self)
                raise
            self.is_alive = True  # in case that the thread has not come so far to say so itself
            self._try()

    def _try(self) -> None:
        """Call the launcher's start."""
        try:
            if not self._jobs:
                self._jobs = [
                    self._config.job(one.agent, one.numbers, local=False, output_of=self._output_of(one))
                    for one in self._units
                ]
            self._called = True
            self._launcher.start(self._jobs)
        except TryAgain as error:
            if self._stage is _Stage.NEW:
                log.warning("parallel: %s cannot be started just now: %s; trying again", self.name, error)
            self._again = time.monotonic() + self._pause
            self._pause = min(_RETRY[1], 2 * self._pause)
            self._stage = _Stage.RETRYING
            for one in self._unended():
                self._service.started(one.agent, one.numbers, doing=str(error))
        except BaseException as error:
            self._fail(error)
            raise
        else:
            self._connecting.began(self._units, self._connect_timeout)
            self._stage = _Stage.STARTED
            for one in self._unended():
                name = repr(one.slave)  # it may have a better one than before
                names = dict.fromkeys(one.numbers, name) if name != one.name else None
                self._service.started(one.agent, one.numbers, names=names)

    def _fail(self, error: BaseException) -> None:
        self._stage, self._raised = _Stage.FAILED, isinstance(error, Exception)
        self._end(could_not_start(error))

    def _output_of(self, unit: Unit) -> Callable[[int], str | None]:
        """By place, the output files of a unit's slaves; those of slaves that its agent brings are made when asked."""
        numbers = list(unit.numbers)

        def output_of(place: int) -> str | None:
            if place >= len(unit.numbers):
                brought = {view.number for view in self._service.describe(unit.agent)} - set(numbers)
                numbers.extend(sorted(brought))
                if place >= len(numbers):
                    return None
                self._config.make_output(numbers[place])
            return self._config.output_of(numbers[place])

        return output_of

    # -- the group's thread

    def _run(self) -> None:
        self.is_alive = True
        with self._starting:
            pass  # the user's thread starts it
        try:
            while self._has_to_be_watched():
                self._sleep()
                self._guard(self._step)
            self._guard(self._close)
        finally:
            self.is_alive = False
            self._on_end(self)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            log.exception("parallel: a bug in the watch over %s, which goes on; please report it", self.name)

    def _has_to_be_watched(self) -> bool:
        if self._closing or self._stage not in (_Stage.STARTED, _Stage.RETRYING):
            return False
        return bool(self._left or self._withdrawn or self._launcher.has_finish)

    def _sleep(self) -> None:
        """Until the next thing is to be done, or `_wake` says that there is something else."""
        seconds: float | None = _POLL_SECONDS
        if self._stage is _Stage.RETRYING:
            seconds = max(0.0, self._again - time.monotonic())
        elif not self._left:
            seconds = None  # but for `finish`, when the manager ends, all is done
        try:
            self._wake.get(timeout=seconds)
        except queue.Empty:
            pass

    def _step(self) -> None:
        if self._closing:
            return
        if self._stage is _Stage.STARTED:
            self._stop_withdrawn()
            if self._left:
                self._watch()
        elif not self._left:
            self._stage = _Stage.FAILED  # all were withdrawn while it was tried again and again
        elif time.monotonic() >= self._again:
            try:
                self._try()
            except Exception as error:
                log.warning("parallel: %s cannot be started: %s", self.name, error)

    def _watch(self) -> None:
        """Ask the launcher how its slaves are; end those that have ended, or that have not connected in time."""
        self._connecting.look(self._unended(), self._array)
        for one, end in self._ends():
            late = self._connecting.overdue(one) if end is None else None
            why = end or late
            if why is None or (late is None and self._is_heard(one)) or self._left.pop(one.agent, None) is None:
                continue
            if late is not None:
                self._launcher.stop([one])
            if UNREACHABLE in last_words(self._config.output_of(one.numbers[0])):
                why += f" ({UNREACHABLE})"
            said = tails((view.number, view.output) for view in self._service.describe(one.agent) if not view.ended)
            self._service.ended(one.agent, why, last_words=said)
        self._connecting.tell(self._unended())

    def _is_heard(self, unit: Unit) -> bool:
        """Whether it lives, whatever its launcher says: a queue may not list what it has."""
        return self._array.hearsay and any(
            view.came and not view.lost and not view.ended for view in self._service.describe(unit.agent)
        )

    def _ends(self) -> list[tuple[Unit, str | None]]:
        """How those have ended that had not when they were asked before; None for those that have not."""
        return [(one, why) for one, why in zip(self._units, self._launcher.poll()) if one.agent in self._left]

    def _unended(self) -> list[Unit]:
        return list(self._left.values())

    # -- end

    def withdraw(self, unit: Unit) -> bool:
        """End one that has not come yet; False if it has, or is so near that its agent must end it."""
        if unit.agent not in self._left:
            return True
        if self._stage is _Stage.STARTED and came(self._service.describe(unit.agent)):
            return False
        if self._left.pop(unit.agent, None) is not None:
            self._withdrawn.append(unit)  # at once: else the group's thread, which finds nobody left, might end
            self._service.ended(unit.agent, "it was removed before it came", numbers=unit.numbers)
            self._wake.put(None)
        return True

    def close(self, deadline: float) -> None:
        """The slaves have been told to end: stop at ``deadline`` what has not ended then.  May be called again."""
        self._deadline, self._closing = deadline, True
        self._wake.put(None)

    @property
    def is_closing(self) -> bool:
        """Whether it was told to."""
        return self._closing

    def is_late(self, now: float) -> bool:
        """Whether to wait no longer for the end of a group that was told to close."""
        return now >= self._deadline + _LATE_SECONDS and not self._launcher.is_stopping(now)

    def what_it_does(self) -> str:
        """Why it is late, in words."""
        call = self._launcher.under_way
        return f"its launcher's {call}() has not returned" if call else "it has not ended yet"

    def _close(self) -> None:
        """The last thing to do: stop what still runs, or what was started before a start failed."""
        if self._stage is _Stage.STARTED:
            if self._left:
                self._wait_for_ends()
            self._stop_withdrawn()
            self._launcher.stop(self._unended())
            if self._closing:
                self._launcher.finish()
        elif self._stage is _Stage.RETRYING:
            self._launcher.stop(self._units)
            self._launcher.finish()
        else:
            if self._called and (self._array.together or not self._raised):
                self._launcher.stop(self._units)  # a part may have been started; or Ctrl-C came in the middle
            self._end("its start was interrupted")

    def _wait_for_ends(self) -> None:
        """Wait for the ends of those that had come; the others have not heard that they are to end."""
        self._array.urgent, self._array.closing = False, True
        awaited = {one.agent for one in self._unended() if came(self._service.describe(one.agent))}
        while True:
            for one, why in self._ends():
                if why is not None:
                    self._left.pop(one.agent, None)
            if not awaited & set(self._left) or time.monotonic() >= self._deadline:
                return
            time.sleep(_CLOSE_SECONDS)

    def _stop_withdrawn(self) -> None:
        self._launcher.stop([self._withdrawn.popleft() for _ in range(len(self._withdrawn))])

    def _end(self, why: str) -> None:
        """All that are left have ended."""
        for one in self._unended():
            if self._left.pop(one.agent, None) is not None:
                self._service.ended(one.agent, why, numbers=one.numbers)
