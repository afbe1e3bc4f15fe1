"""Whether a file was written before something happened: the one question for which the clock of files is asked."""

from __future__ import annotations

import time

_COARSE = 5  # Linux's CLOCK_REALTIME_COARSE, by which files are stamped


def written_before(stamp: object, age: float) -> bool:
    """Whether a file was written, as its stamp (slave/imported_files.py) tells, before what was ``age`` seconds ago.

    What happened within one tick of the clock that stamps files counts as not before.
    """
    return isinstance(stamp, tuple) and stamp[0] / 1e9 <= time.time() - age - _lag()


def _lag() -> float:
    """By how many seconds the time of a file may lag behind the clock, its own machine's."""
    try:
        return time.clock_getres(_COARSE)
    except (AttributeError, OSError):
        return 0.01
