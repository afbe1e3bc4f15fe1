"""A runner changes hands: when its master was killed it rests, and goes on for the next run of the same program.

    agent     says that it is to leave its master (KEEPS) and, when there is another one, leaves it a `RunnerConfig` in
              the memory that they share for outcomes (gathering.py), which a runner that rests does not use
    runner    ends what it runs, rests, and joins the next master.  If nothing tells that this runs another program
              than the last one did, it keeps what its setups have returned, by the digests of their pickles; else it
              leaves in the same place why, and a fresh process takes its place

That a program is the same is seen by its environment (`same_environment`), and its modules by what their files contain:
the same as when this process has imported them.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .gathering import SharedMemory, data_of
from .imported_files import ImportedFiles
from .shared_status import GOES_ON, KEEPS, RESTS, STAGE, SharedStatus

_LENGTH = struct.Struct("!I")
_LOOK = 0.1  # seconds between two looks whether there is an order
_MARGIN = 0.05  # seconds by which the clock of a file system may be late
_SAME = "version", "platform", "path", "cwd", "argv", "main_name", "main_path", "ship", "preload", "flags"


class Resting(Exception):
    """The runner is to leave its master, which is gone, and wait for the next one."""


def leave(memory: SharedMemory, data: bytes) -> bool:
    """Leave this for the other one; False if there is no room."""
    place = data_of(memory)
    if len(data) + _LENGTH.size > len(place):
        return False
    place[: len(data) + _LENGTH.size] = _LENGTH.pack(len(data)) + data
    return True


def take(memory: SharedMemory) -> bytes:
    """What was left; then it is there no more."""
    place = data_of(memory)
    size = min(_LENGTH.unpack_from(place)[0], len(place) - _LENGTH.size)
    data = bytes(place[_LENGTH.size : _LENGTH.size + size])
    place[: _LENGTH.size + size] = bytes(_LENGTH.size + size)
    return data


def next_config(status: SharedStatus, memory: SharedMemory) -> Any:
    """The next `RunnerConfig`, when there is one.  Raises SystemExit if there will be none."""
    status[STAGE] = RESTS
    while status[KEEPS] != GOES_ON:
        if not status[KEEPS]:
            sys.exit()
        time.sleep(_LOOK)
    return pickle.loads(take(memory))


def same_environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What tells that the descriptions of two masters (environment.py) are of different programs; '' if nothing does.

    The machine may be another one.  Variables are told to local slaves alone, which end with their master.
    """
    for name in _SAME:
        if old.get(name) != new.get(name):
            return f"the program's {name} has changed"
    if new.get("traced") or new.get("session") is not None:
        return "its tasks are traced, or it is an interactive session"
    for name in new["changed"]:
        if name in sys.modules:
            return f"{name} was loaded anew"
    return ""


class Files(ImportedFiles):
    """The files of the user's modules that this process has imported, and what they contain.

    ``sent``: whether a file is one that the master has sent, which never changes.
    """

    def __init__(self, before: Collection[str], sent: Callable[[str], bool]) -> None:
        super().__init__(before)
        self._sent, self._began = sent, time.time()
        self._digests: dict[str, bytes] = {}  # by path
        self._doubtful = ""  # one of which is not known what it was

    def note(self, main: str | None) -> None:
        """Look at those that were imported since the last time.  ``main``: that of ``__main__``, if that was."""
        self.learn()
        if main is not None and main not in self._digests:
            self._remember("", main)

    def _remember(self, name: str, path: str) -> None:
        if self._sent(path):
            return
        try:
            facts = os.stat(path)
            self._digests[path] = _digest(path)
            sure = max(facts.st_mtime, facts.st_ctime) < self._began - _MARGIN  # else it may be newer than the import
        except OSError:  # in a zip file, say
            sure = False
        if not sure:
            self._doubtful = path

    def changed(self) -> str:
        """One that has changed since it was imported, or may have; '' if there is none."""
        if self._doubtful:
            return self._doubtful
        for path, digest in self._digests.items():
            try:
                if _digest(path) != digest:
                    return path
            except OSError:
                return path
        return ""


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()
