"""What can be told of an exception, whatever its class does when it is looked at.

Its ``__str__`` may fail, its ``__getattr__`` raise KeyError, its properties exit.  What one of them hides, the others
tell all the same.  What a signal handler raises meanwhile comes out.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Callable, TypeVar

from .signals import came_from_handler

Told = TypeVar("Told")
SomeError = TypeVar("SomeError", bound=BaseException)
set_attribute = BaseException.__setattr__  # a frozen dataclass refuses its own
_TRACEBACK: Any = vars(BaseException)["__traceback__"]


def message_of(error: BaseException) -> str:
    """Its ``str()``, or what became of that."""
    return looked_at(lambda: exact(str(error)), lambda why: f"<str() of the exception failed: {why}>")


def name_and_message(error: BaseException) -> str:
    """'KeyError: 3'; without a message, 'KeyError'."""
    message, name = message_of(error), type(error).__name__
    return f"{name}: {message}" if message else name


def traceback_of(error: BaseException) -> str:
    """The text of the traceback from the user's first frame on."""
    inner: TracebackType | None = _TRACEBACK.__get__(error)
    while inner is not None and inner.tb_frame.f_globals.get("__package__") == __package__:
        inner = inner.tb_next
    trace = inner or _TRACEBACK.__get__(error)

    def frames(why: str) -> str:
        lines = "".join(traceback.format_tb(trace))
        hidden = f"  <what else there was cannot be shown: {why}>\n"
        return f"Traceback (most recent call last):\n{lines}{hidden}{name_and_message(error)}\n"

    return looked_at(lambda: exact("".join(traceback.format_exception(type(error), error, trace))), frames)


def looked_at(look: Callable[[], Told], else_: Callable[[str], Told]) -> Told:
    """What ``look`` finds out; if that raises, what ``else_`` makes of the name of what it raised."""
    try:
        return look()
    except BaseException as trouble:  # sys.exit in a user's __str__, too
        if came_from_handler(trouble):
            raise
        why = type(trouble).__name__
    return else_(why)


def set_cause(error: BaseException, cause: BaseException) -> None:
    """``raise error from cause``, for one that lets nobody set its attributes."""
    vars(BaseException)["__cause__"].__set__(error, cause)


def without_traceback(error: SomeError) -> SomeError:
    """The same, which keeps no frames alive any more."""
    _TRACEBACK.__set__(error, None)
    return error


def exact(text: str) -> str:
    """The text without a class of the user's: a subclass of str would be rebuilt in the master's server."""
    return str.__str__(text)
