"""Whether a file was written before something happened: the one question for which the clock of files is asked."""

from __future__ import annotations

import time

_COARSE = 5  # Linux's CLOCK_REALTIME_COARSE, by which files are stamped


def by_clock(moment: float) -> float:
    """The time by the clock on the wall of what happened at this ``moment`` of `time.monotonic`.

    If this thread stands still meanwhile it is told as earlier, and never as later.
    """
    now = time.time()
    return now - (time.monotonic() - moment)


def written_before(stamp: object, then: float) -> bool:
    """Whether a file was written, as its stamp (slave/imported_files.py) tells, before ``then`` (see `by_clock`).

    What happened within one tick of the clock that stamps files counts as not before.
    """
    return isinstance(stamp, tuple) and stamp[0] / 1e9 <= then - _lag()


def _lag() -> float:
    """By how many seconds the time of a file may lag behind the clock, its own machine's."""
    try:
        return time.clock_getres(_COARSE)
    except (AttributeError, OSError):
        return 0.01
