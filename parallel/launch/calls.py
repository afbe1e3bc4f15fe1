"""LauncherCalls: a launcher as its group calls it.  What it raises ends nothing but the call, except for start's."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from .base import SlaveArray
from .job import Job
from .unit import Unit

log = logging.getLogger("parallel")

_STOP_SECONDS = 4.0  # for a launcher to stop its slaves: SIGTERM and some patience, or the word of a batch system


class LauncherCalls:
    """The four calls, for one thread at a time; and for all others, without a lock, which of them is under way."""

    def __init__(self, array: SlaveArray, units: Sequence[Unit]) -> None:
        self.array, self._units = array, units
        self.name = repr(array) if array.together else units[0].name
        self.under_way = ""  # the method that is being called
        self._stop_since: float | None = None  # when stop or finish was called last

    def is_stopping(self, now: float) -> bool:
        """Whether it was told to stop its slaves so lately that it may well be about it."""
        return self._stop_since is not None and now < self._stop_since + _STOP_SECONDS

    def start(self, jobs: Sequence[Job]) -> None:
        """Raises what the launcher's start raises."""
        self.under_way = "start"
        try:
            self.array.start(jobs)
        finally:
            self.under_way = ""
        self.name = repr(self.array if self.array.together else self._units[0].slave)

    def poll(self) -> Sequence[str | None]:
        """For each unit how it ended; None if it has not."""
        self.under_way = "poll"
        try:
            return self.array.poll()
        except BaseException as error:  # a SystemExit too: the thread is not the launcher's to end
            return [f"its launcher cannot say how it is: {type(error).__name__}: {error}"] * len(self._units)
        finally:
            self.under_way = ""

    def stop(self, units: Sequence[Unit]) -> None:
        """Stop these, if there are any."""
        if not units:
            return
        self.under_way, self._stop_since = "stop", time.monotonic()
        try:
            self.array.stop([one.slave for one in units])
        except BaseException as error:
            numbers = ", ".join(str(number) for one in units for number in one.numbers)
            log.warning("parallel: slave %s (%s) could not be stopped: %s", numbers, self.name, error)
        finally:
            self.under_way = ""

    @property
    def has_finish(self) -> bool:
        """Whether `finish` does anything."""
        return type(self.array).finish is not SlaveArray.finish

    def finish(self) -> None:
        """Have it leave nothing behind."""
        self.under_way, self._stop_since = "finish", time.monotonic()
        try:
            self.array.finish()
        except BaseException as error:
            log.warning("parallel: %s could not clean up: %s", self.name, error)
        finally:
            self.under_way = ""
