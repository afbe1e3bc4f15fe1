"""Company: for how long the dispatcher may leave outcomes of short tasks unread, so that others come with them.

Outcomes of tasks of about a millisecond are sent one by one: nothing may hold them back where the next task runs.
What they cost is that the dispatcher and a reader wake for each of them, on processors that slaves keep busy.  So while
such outcomes come in a steady stream the dispatcher rests between two turns, and then reads several.  It does not if
somebody might notice: a slave waits, or is about to finish its lease, or somebody else has asked for something lately.
"""

from __future__ import annotations

import math

from .state import State

LONGEST = 0.0016  # seconds of a rest; an outcome may wait for 2 ms, and be read then
_SHORTEST = 0.0006  # seconds of a rest that is worth it
_OUTCOMES = 1.5  # so many are to be expected in a rest
_WEIGHT = 0.2  # of the newest interval between outcomes
_PAUSE = 0.01  # seconds; a longer interval counts as this
ASKED = 0.003  # seconds without a rest after a thread of this program has asked for something: it may ask on
WAITED = 0.05  # the same after a slave has, for all but a lease: with large results, say, which it sends one by one
_MOST_LEASES = 32  # of more slaves outcomes come together in any case


class Company:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._seen = 0  # outcomes
        self._at = 0.0  # when the last one came
        self._interval = _PAUSE  # seconds between two of them, lately
        self._disturbed_until = 0.0

    def disturb(self, now: float, seconds: float) -> None:
        """Somebody has asked for something, and may go on: no rest for so long."""
        self._disturbed_until = max(self._disturbed_until, now + seconds)

    def rest(self, now: float) -> float:
        """For how many seconds to rest, after a turn that began ``now``; 0: not at all."""
        state = self._state
        came = state.progress - self._seen
        if came:
            since, self._seen, self._at = now - self._at, state.progress, now
            self._interval += _WEIGHT * (min(since / came, _PAUSE) - self._interval)
        if state.idle or self._interval > LONGEST / _OUTCOMES or now < self._disturbed_until or state.closing:
            return 0.0
        if now < state.came_together + WAITED:
            return 0.0  # of shorter tasks, which have waited for each other already: slave/gathering.py
        leases = state.leases.by_slave
        if not 0 < len(leases) <= _MOST_LEASES:
            return 0.0
        longest = LONGEST
        for lease in leases.values():
            seconds = [state.pace.seconds_per_task(context) for context in lease.contexts]
            least = min((math.inf if one is None else one for one in seconds), default=math.inf)
            if least == math.inf:
                return 0.0
            longest = min(longest, (len(lease.tasks) - 1) * least)  # the first one may be about to end
        return longest if longest >= max(_SHORTEST, _OUTCOMES * self._interval) else 0.0
