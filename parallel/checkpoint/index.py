"""Which results a file holds, and where: some thirty bytes for each, for a file may hold millions.

Of an identity (128 bits) and count the table keeps 64 bits: where two results have those in common, which happens once
in some ten million files of a million results, one of them is not found, or found not to be the one when it is read.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # between the places of an identity's counts: an odd number without a pattern
_DROPPED = 0  # as an offset: the header is there


class Index:
    """Filled by `add` in the file's order, then `close`\\ d, then asked.

    The n-th place is the n-th record of results (or of their being dropped) in the file.
    """

    def __init__(self) -> None:
        self._words, self._offsets, self._origins = array("Q"), array("Q"), array("I")
        self._table = array("I", [0])  # by the last bits of the word: place + 1
        self._taken = bytearray()
        self.records = 0  # those that are not known any more among them
        self.live = 0  # results that are neither dropped nor made anew behind

    def add(self, low: int, count: int, origin: int, offset: int) -> None:
        """One more record."""
        self._words.append(word(low, count) if count else low)
        self._offsets.append(offset)
        self._origins.append(origin)

    def add_group(self, window: bytes, at: int, count: int, origin: int, offset: int) -> None:
        """So many results, whose identities stand there one behind the other; their places count from that one on."""
        self._words.extend(struct.unpack_from(f"<{2 * count}Q", window, at)[::2])
        self._offsets.extend(range(offset, offset + count))
        self._origins.extend((origin,) * count)

    def add_drop(self, low: int, count: int) -> None:
        """What is known by that identity so far is not any more."""
        self.add(low, count, 0, _DROPPED)

    def close(self) -> None:
        """All have been added."""
        words, offsets = self._words, self._offsets
        mask = (1 << max(3, (len(words) * 3 // 2).bit_length())) - 1
        table = array("I", bytes(4 * (mask + 1)))
        self.live, self.records = 0, len(words)
        for place, one in enumerate(words):
            slot = one & mask
            while True:
                other = table[slot]
                if not other:
                    break
                if words[other - 1] == one:  # the later one is what is known
                    self.live -= offsets[other - 1] != _DROPPED
                    offsets[other - 1] = _DROPPED
                    break
                slot = (slot + 1) & mask
            table[slot] = place + 1
            self.live += offsets[place] != _DROPPED
        self._table, self._taken = table, bytearray(len(words))

    def find(self, low: int, count: int) -> int:
        """Its place; -1 if it is not known."""
        one = word(low, count) if count else low
        table, words = self._table, self._words
        mask = len(table) - 1
        slot = one & mask
        while True:
            place = table[slot] - 1
            if place < 0:
                return -1
            if words[place] == one:
                return place if self._offsets[place] != _DROPPED else -1
            slot = (slot + 1) & mask

    def take(self, place: int) -> bool:
        """Whether it was not taken before; from now on it is."""
        first = not self._taken[place]
        self._taken[place] = 1
        return first

    def was_taken(self, place: int) -> bool:
        """Whether it was."""
        return bool(self._taken[place])

    def offset(self, place: int) -> int:
        """Where its record begins in the file, as it was added."""
        return self._offsets[place]

    def origin(self, place: int) -> int:
        """The number of what it comes from."""
        return self._origins[place]

    def places(self) -> Iterator[int]:
        """Of all that is known, in the file's order."""
        return (place for place, offset in enumerate(self._offsets) if offset != _DROPPED)

    def __len__(self) -> int:
        return self.live

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        parts = self._words, self._offsets, self._origins, self._table
        return sum(part.itemsize * len(part) for part in parts) + len(self._taken)


def word(low: int, count: int) -> int:
    """The bits by which an identity and its count are found."""
    return (low + count * _STEP) & _MASK
