"""How many tasks one lease holds: about a tenth of a second of work, measured for each context.

A lease that long makes the round trip to the master (some 0.2 ms) cheap and is short enough that at the end of a run
nobody waits long for somebody else's last lease.

Where the master's own program keeps the interpreter busy, a question for tasks is answered only after several switches
of 5 ms between its thread and the dispatcher's: then leases are longer, so that slaves are seldom without work.
"""

from __future__ import annotations

import math

LEASE_SECONDS = 0.1
LEAST_SECONDS = 0.0005  # of work are granted in one lease, though many slaves share what waits: nobody would notice
LEASE_BYTES = 4 << 20  # payload bytes after which a lease takes no further task
MOST_TASKS = 40_000  # in one lease

MOST_LEASE_SECONDS = 0.4
_PER_TURN = 25  # a lease is so many times as long as the master takes for a turn
_TURN_KEPT = 0.98  # of the longest turn lately, from one turn to the next

_WEIGHT = 0.5  # of the newest measurement; small enough to forget an outlier, large enough to follow a trend


class Pacing:
    """The measured seconds per task of each context."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self.lease_seconds = LEASE_SECONDS  # of work in one lease, now
        self._turn = 0.0  # seconds that the master has taken for its longest turn lately

    def learn(self, context: int, tasks: int, seconds: float) -> None:
        """A slave ran ``tasks`` tasks of the context, one after the other, in ``seconds`` altogether."""
        if tasks <= 0 or not 0 <= seconds < math.inf:
            return
        measured = seconds / tasks
        known = self._seconds.get(context)
        self._seconds[context] = measured if known is None else known + _WEIGHT * (measured - known)

    def took_turn(self, seconds: float) -> None:
        """The master has taken so long from hearing its slaves to having answered them."""
        self._turn = max(seconds, _TURN_KEPT * self._turn)
        self.lease_seconds = min(MOST_LEASE_SECONDS, max(LEASE_SECONDS, _PER_TURN * self._turn))

    def seconds_per_task(self, context: int) -> float | None:
        """The current estimate; None before the first measurement."""
        return self._seconds.get(context)

    def forget(self, context: int) -> None:
        """The context is gone."""
        self._seconds.pop(context, None)

    def fits(self, context: int, seconds: float, most: int = MOST_TASKS) -> int:
        """How many of the context's tasks fit into ``seconds`` of work; 0 as long as nothing is known of them."""
        known = self._seconds.get(context)
        if known is None:
            return 0
        return most if known * most <= seconds else int(seconds / known)
