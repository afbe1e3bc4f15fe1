"""Shows at the master what tasks print on slaves: whole lines, each with the slave's number, in each slave's order."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Callable, Union

from slave.protocol import WARNING

from ..core.events import Event, TaskOutput, TaskRecord

ShowOutput = Union[None, bool, "Callable[[int, str], object]"]

_FEW = 1000  # lines of a run that are shown where nobody has asked for more
_MOST_WARNINGS = 1000  # that are different
_TELL_SECONDS = 1.0  # between two words on lines that were left out


class Shower:
    """A subscriber of the events.  ``wanted``: as of `Manager`'s ``show_output``, and not False."""

    def __init__(self, wanted: ShowOutput) -> None:
        self._callback = wanted if callable(wanted) else None
        self._room = _FEW if wanted is None else 1 << 62
        self._left_out: dict[int, tuple[int, str]] = {}  # by slave: how many lines, and where they are
        self._told = 0.0  # when that was told last
        self._warned: set[tuple[str, str, str, int]] = set()

    def __call__(self, event: Event) -> None:
        """Something has happened."""
        if isinstance(event, TaskRecord) and event.kind == WARNING:
            self._show(event.slave, self._new_warning(event.data), "")
        if not isinstance(event, TaskOutput):
            return
        self._show(event.slave, event.data.decode("utf-8", "replace").split("\n")[:-1], event.output)
        if event.left_out and self._room > 0:
            count, _ = self._left_out.get(event.slave, (0, ""))
            self._left_out[event.slave] = count + event.left_out, event.output
        if self._left_out and time.monotonic() - self._told >= _TELL_SECONDS:
            self.tell_left_out()

    def _show(self, slave: int, lines: Sequence[str], output: str) -> None:
        if self._callback is not None:
            for line in lines:
                self._callback(slave, line)
        elif self._room > 0:
            shown = lines[: self._room]
            self._room -= len(shown)
            _write([f"slave {slave}: {_shown(line)}" for line in shown])
            if self._room <= 0:
                where = f" in {_name(output)} and the like" if output else " where their slaves print"
                _write([f"parallel: tasks print much: what comes now is{where} (show_output=True: here, too)"])

    def _new_warning(self, data: bytes) -> list[str]:
        """The lines of a warning; none if a slave has told of it before, as every process does once."""
        try:
            told: dict[str, Any] = json.loads(data)
            same = str(told["category"]), str(told["message"]), str(told["path"]), int(told["line"])
            lines = str(told["text"]).splitlines()
        except (ValueError, KeyError, TypeError):
            return []
        if same in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return []
        self._warned.add(same)
        return lines

    def tell_left_out(self) -> None:
        """Say how many lines were not shown, and where they are."""
        left_out, self._left_out = self._left_out, {}
        self._told = time.monotonic()
        for slave, (count, output) in left_out.items():
            where = f": see {_name(output)}" if output else ""
            text = f"{count:,} line{'' if count == 1 else 's'} left out{where}"
            if self._callback is not None:
                self._callback(slave, text)
            else:
                _write([f"slave {slave}: {text}"])


def output_is_wanted(wanted: ShowOutput) -> bool:
    """Whether what tasks print is to be shown; None: if somebody sits before ``sys.stderr``."""
    if wanted is not None:
        return wanted is not False
    if "IPython" in sys.modules:
        from . import notebook

        if notebook.shell() is not None:
            return True
    try:
        return os.isatty(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False


def _shown(line: str) -> str:
    """What harms no terminal: tabs stay, colors go."""
    return line if line.isprintable() else "".join(one for one in line if one.isprintable() or one == "\t")


def _name(path: str) -> str:
    """The path, as short as it can be from here."""
    folder, name = os.path.split(path)
    return name if folder == os.getcwd() else path


def _write(lines: list[str]) -> None:
    stream: Any = sys.stderr
    try:
        stream.write("".join(line + "\n" for line in lines))
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass  # nobody is there to take it
