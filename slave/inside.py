"""Whether this process runs tasks, and what it is in the middle of importing then: quick to import, for all who ask."""

from __future__ import annotations

from types import FrameType

_in_runner = False


def enter() -> None:
    """This process is a runner from now on."""
    global _in_runner
    _in_runner = True


def in_runner() -> bool:
    """Whether this process is a runner, or a fork of one."""
    return _in_runner


def imported_by(frame: FrameType | None) -> str | None:
    """The file whose import is under way in ``frame`` or its callers, up to a runner's own; None if there is none."""
    while frame is not None and frame.f_globals.get("__package__") != __package__:
        if frame.f_code.co_name == "<module>":
            return frame.f_code.co_filename
        frame = frame.f_back
    return None
