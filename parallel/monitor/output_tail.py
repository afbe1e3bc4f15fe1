"""The last lines of slaves' output files, again and again: what has come since the last look, and not too much."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

_FIRST = 2_000  # bytes of a file that are shown when it is first looked at
_MOST_OF_ONE, _MOST = 8_000, 60_000  # bytes of one file and of all that are told at a time
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def lines(paths: Mapping[int, str], places: Mapping[str, Any]) -> dict[str, Any]:
    """The whole lines that have been written since.

    ``places``: by slave, as text, how many bytes of its file are known; what is returned has the new ones, and as
    ``lines`` a list of slave and text.  What comes too quickly is left out, and that is told in the place of it.
    """
    told: list[tuple[int, str]] = []
    new: dict[str, int] = {}
    left = _MOST
    for number, path in paths.items():
        known = places.get(str(number))
        at, some = _look(path, known if type(known) is int and known >= 0 else None, min(left, _MOST_OF_ONE))
        new[str(number)] = at
        left -= sum(len(line) + 1 for line in some)
        told += [(number, line) for line in some]
    return {"lines": told, "places": new}


def _look(path: str, known: int | None, most: int) -> tuple[int, list[str]]:
    """Where one file is read up to now, and its new lines; nothing of what is no ordinary file."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            return 0, []
        size = facts.st_size
        at = max(0, size - _FIRST) if known is None else 0 if known > size else known  # it was emptied
        if size <= at or most <= 0:
            return at, []
        skipped = max(0, size - at - most)
        handle = os.open(path, os.O_RDONLY | _NO_WAIT)
        try:
            os.lseek(handle, at + skipped, os.SEEK_SET)
            data = os.read(handle, most)
        finally:
            os.close(handle)
    except OSError:
        return known or 0, []
    end = data.rfind(b"\n") + 1 or (len(data) if len(data) >= most else 0)  # a line that is not whole waits
    found = data[:end].decode(errors="replace").splitlines()
    if known is None and at and found:
        del found[0]  # its beginning is not here
    if skipped:
        found.insert(0, f"({skipped:,} bytes left out: see {path})")
    return at + skipped + end, found
