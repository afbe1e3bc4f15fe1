"""Admission: which strangers may wait at the master's port, when there are too many.

A stranger is a connection that has not proved yet that it holds the key.  They share a bounded number of places; who
comes when all are taken gets the place of the longest waiting one of the *fullest source*, so that a flood from one
address costs that address, and a slave that comes from elsewhere keeps its place however slow its link is.

A source is an IPv4 address, or the /64 network of an IPv6 address, which is what one household or machine is given (RFC
6177).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

MOST = 512  # strangers at one time
SHARE = 8  # they take no more than this part of the descriptors that the process may have ...
RESERVE = 24  # ... and none of the last ones, which are for the user's own files and for new processes
LEAST = 4  # strangers that may wait, however few descriptors there are

Stranger = TypeVar("Stranger", bound=Hashable)


def places(descriptors: float) -> int:
    """How many strangers may wait, where a process may have so many descriptors."""
    return int(max(LEAST, min(MOST, descriptors // SHARE)))


def unmapped(host: str) -> str:
    """An IPv4 address as people know it, where an IPv6 socket has it as ``::ffff:...``; others as they are."""
    return host[len("::ffff:") :] if host.startswith("::ffff:") and "." in host else host


def source_of(host: str) -> str:
    """The source of a peer's numeric address; '' for a Unix socket."""
    host = unmapped(host.partition("%")[0])
    if ":" not in host:
        return host
    head, gap, tail = host.partition("::")
    words = [word for word in head.split(":") if word]
    after = [word for word in tail.split(":") if word]
    whole = words + ["0"] * (8 - len(words) - len(after)) + after if gap else words
    return ":".join(word.lstrip("0") or "0" for word in whole[:4]) + "::/64"


class Admission(Generic[Stranger]):
    """Who waits, by source, the longest waiting first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._sources: dict[str, dict[Stranger, None]] = {}
        self._source_of: dict[Stranger, str] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def come(self, stranger: Stranger, host: str) -> Stranger | None:
        """Somebody comes; returns who is to go for it, who has been forgotten already."""
        goes = self.make_place() if len(self._source_of) >= self.most else None
        source = source_of(host)
        self._sources.setdefault(source, {})[stranger] = None
        self._source_of[stranger] = source
        return goes

    def make_place(self) -> Stranger | None:
        """Forget the longest waiting one of the fullest source and return it; None if nobody waits."""
        if not self._sources:
            return None
        fullest = max(self._sources.values(), key=len)
        goes = next(iter(fullest))
        self.leave(goes)
        return goes

    def leave(self, stranger: Stranger) -> None:
        """It has proved itself, or is gone.  May be called twice."""
        source = self._source_of.pop(stranger, None)
        if source is not None:
            del self._sources[source][stranger]
            if not self._sources[source]:
                del self._sources[source]

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        assert len(self._source_of) <= self.most, "too many wait"
        assert sum(map(len, self._sources.values())) == len(self._source_of), "somebody is counted twice"
        for stranger, source in self._source_of.items():
            assert stranger in self._sources[source], "somebody stands at another source than his own"


class Ration:
    """So many of something a second, and ``most`` at once: a token bucket (ITU-T I.371, annex A, as a leaky one)."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second, self._most = per_second, most
        self._left, self._seen = most, -math.inf

    def take(self, now: float) -> bool:
        """Whether there is one now; then it is taken."""
        self._left = min(self._most, self._left + max(0.0, now - self._seen) * self._per_second)
        self._seen = max(self._seen, now)
        if self._left < 1:
            return False
        self._left -= 1
        return True
