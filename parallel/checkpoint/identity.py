"""Which task is which, from run to run.

A task is known again by its identity, which is a digest of its pickle and of its setup's, and by the how-manieth of
these it is; or by the key that the user gave it, which stands for all of that.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from slave.protocol import Buffer, Setup

from .index import Index

_LOW = struct.Struct("<Q8x").unpack
SMALL = (1 << 60) - 1  # numbers up to here take 32 bytes of memory
NO_SETUP = ""

Identity = bytes  # 16 of them


class Identities:
    """The identities of tasks that share a setup, whose pickles are ``setups``."""

    def __init__(self, setups: Sequence[Setup]) -> None:
        digest = hashlib.blake2b(digest_size=16)
        for setup in setups:
            digest.update(hashlib.blake2b(setup).digest())
        self.setup = digest.hexdigest() if setups else NO_SETUP
        self.begun = hashlib.blake2b(b"task\0" + self.setup.encode(), digest_size=16)  # of a task's pickle

    def of_pickle(self, payload: Buffer) -> Identity:
        """Of a task."""
        state = self.begun.copy()
        state.update(payload)
        return state.digest()


def of_key(key: bytes) -> Identity:
    """Of a task to which the user gave a key."""
    return hashlib.blake2b(b"key\0" + key, digest_size=16).digest()


class Counts:
    """How many tasks of each identity there are in this run, and so the how-manieth the next one is."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # by the identity's hash, not of those in the index that came once; of one that came once that hash itself: so
        # `seen.setdefault(bits, bits) is bits` tells at once, whatever other threads do, whether it is the first one
        self.seen: dict[int, int] = {}
        # whether the n-th task of an identity is just the n-th one that was seen: the file was empty
        self.begins = not index.records
        self._free: dict[Identity, list[int]] = {}  # counts of tasks that came to nothing

    def next(self, identity: Identity) -> tuple[int, int]:
        """The count of one more task of this identity, and its place in the index or -1."""
        if self._free and identity in self._free:
            counts = self._free[identity]
            count = counts.pop(0)
            if not counts:
                del self._free[identity]
            return count, self._index.find(_LOW(identity)[0], count)
        index, bits = self._index, hash(identity) & SMALL
        if not index.records:
            if self.seen.setdefault(bits, bits) is bits:
                return 0, -1
            count = self.seen[bits]
            count = 1 if count == bits else count
            self.seen[bits] = count + 1
            return count, -1
        low = _LOW(identity)[0]
        place = index.find(low, 0)
        if place >= 0 and index.take(place):
            return 0, place
        count = self.seen.get(bits, 0 if place < 0 else 1)
        self.seen[bits] = count + 1
        return count, index.find(low, count) if count else place

    def release(self, identity: Identity, count: int) -> None:
        """The task came to nothing, and is to be known by the same count if it is added again."""
        self.begins = False
        counts = self._free.setdefault(identity, [])
        counts.append(count)
        counts.sort()

    def is_used(self, identity: Identity) -> bool:
        """Whether there is such a task already, other than those that came to nothing."""
        if identity in self._free:
            return False
        place = self._index.find(_LOW(identity)[0], 0)
        if place >= 0 and not self._index.was_taken(place):
            return False
        return place >= 0 or hash(identity) & SMALL in self.seen
