"""What code results come from: the user's own modules whose classes and functions a task refers to.

In a pickle each reference to a class or function has its module's name as a text, once at least.  So the modules are
those of the user's whose names stand in the pickle as texts: all that it refers to, and now and then one more, whose
name is also a piece of data.  (To run the pickle machine instead takes fifty times as long as to make the pickle.)
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from slave.main_module import NAMES as MAIN_NAMES
from slave.protocol import Setup
from slave.search_path import LIBRARY, PACKAGES

from ..program import Program, kind_of_module
from .results_file import Origin

_OURS = "parallel", "slave"
_NOTHING = re.compile(b"(?!)")
_DIGITS = 16  # of a digest, hexadecimal

Module = tuple[str, str, str]  # name, file, digest


class Code:
    """Finds the modules of pickles.  For one thread at a time."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._seen: tuple[int, object] = (-1, None)
        self._known: dict[str, tuple[tuple[object, object], Module]] = {}  # by name, with what tells it was loaded anew
        self._pattern = _NOTHING
        self._names: dict[bytes, str] = {}  # as they stand in pickles

    def names_in(self, payload: Setup) -> tuple[bytes, ...]:
        """What of the user's modules the pickle names: to be asked for by `modules`."""
        count, environment = self._seen
        if len(sys.modules) != count or environment is not self._program.environment:
            self._look((len(sys.modules), self._program.environment))
        found = self._pattern.findall(payload)
        return tuple(found) if found else ()

    def modules(self, *found: tuple[bytes, ...]) -> tuple[Module, ...]:
        """The modules that `names_in` has found in pickles, in the order of their names."""
        names = {self._names[text] for texts in found for text in texts}
        return tuple(self._module(name) for name in sorted(names))

    def loaded(self) -> Iterator[tuple[str, str]]:
        """Each of the user's modules that was looked at, and the digest of it."""
        return ((name, module[2]) for name, (_, module) in self._known.items())

    def _look(self, now: tuple[int, object]) -> None:
        names = sorted(name for name in sys.modules.copy() if self._spec_of(name) is not None)
        self._names.update((_as_pickled(name), name) for name in names)
        self._pattern = re.compile(b"|".join(map(re.escape, map(_as_pickled, names)))) if names else _NOTHING
        self._seen = now

    def _spec_of(self, name: str) -> Any:
        """By what a module of the user's was loaded, ``__main__`` by its file; None if it is none."""
        if name in MAIN_NAMES:
            return self._program.environment["main_path"]
        if name.partition(".")[0] in _OURS:
            return None
        spec = getattr(sys.modules.get(name), "__spec__", None)
        return spec if spec is not None and kind_of_module(spec) not in (LIBRARY, PACKAGES) else None

    def _module(self, name: str) -> Module:
        """As it was loaded: what is edited meanwhile, and not loaded again, changes nothing."""
        spec = self._spec_of(name)
        loaded = spec, self._program.environment["changed"].get(name)
        known = self._known.get(name)
        if known is None or known[0][1] != loaded[1] or not (known[0][0] is spec or isinstance(spec, str)):
            path = spec if isinstance(spec, str) else getattr(spec, "origin", None) or ""
            known = self._known[name] = loaded, (name, path, _digest(path, spec))
        return known[1]


def _as_pickled(name: str) -> bytes:
    """The text as protocols 4 and 5 of pickle write it."""
    data = name.encode()
    return b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + len(data).to_bytes(4, "little") + data


def _digest(path: str, spec: Any) -> str:
    """Of what a module's file contains, as far as it can be read."""
    try:
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
        else:  # in a zip file
            data = spec.loader.get_data(path)
    except (OSError, AttributeError):
        return ""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def changed(then: Origin, now: Origin, exactly: bool = False) -> list[str]:
    """The files of modules that are not what they were.

    Of tasks whose pickles are the same those that only one of both names are none that are referred to (see the
    module's text); ``exactly``: they are not known to be the same.
    """
    before = {name: (path, digest) for name, path, digest in then.modules}
    after = {name: (path, digest) for name, path, digest in now.modules}
    found = [path for name, (path, digest) in after.items() if before.get(name, ("", digest))[1] != digest]
    if exactly:
        found += [
            both[name][0] for both, other in ((before, after), (after, before)) for name in both if name not in other
        ]
    return found
