"""Checks of what slaves say, before the scheduler sees it: each part of a message is what slave/protocol.py says.

A key holder that makes no sense is to cost its own connection and nothing else: an unhashable number or a text without
end in the scheduler's tables would be found much later, by whoever looks at them next.
"""

from __future__ import annotations

import itertools
import mmap
import reprlib
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

from slave.errors import ProtocolError
from slave.protocol import RECORD, WARNING, EnlistRequest, FetchRequest, OutputPart, Ran, RecordPart, RunnerBeat

_LARGEST = 1 << 63  # no number of ours is as large
_LONGEST = 1000  # characters of a text
_MOST_OUTPUT = 128 * 1024  # bytes of what a slave has printed, in one message
_LONGEST_TEXT = 100_000

_BEAT = len(RunnerBeat._fields)
_FETCH, _RAN = (int, int, int, list), (int, int, float)  # types of the parts, as slaves say it

Message = TypeVar("Message", bound="tuple[Any, ...]")


def message(kind: type[Message], parts: object) -> Message:
    """The message whose parts came.  Raises `ProtocolError` if they are none of this kind."""
    wanted = _wanted(kind)
    least = len(wanted) - len(getattr(kind, "_field_defaults", ()))  # an older release may say less
    if not isinstance(parts, (tuple, list)) or not least <= len(parts) <= len(wanted):
        raise ProtocolError(f"{kind.__name__} has {len(wanted)} parts, not {reprlib.repr(parts)}")
    for (name, right), part in zip(wanted, parts):
        if not right(part):
            raise ProtocolError(f"{kind.__name__} with {reprlib.repr(part)} for {name!r}")
    return kind(*parts)


def fetch_request(parts: object) -> FetchRequest:
    """As `message`, with what is in it; one comes with each lease, and is looked at in few steps if all is right."""
    if type(parts) is tuple and tuple(map(type, parts)) == _FETCH:
        quick = FetchRequest(*parts)
        if max(map(abs, parts[:3])) < _LARGEST and all(map(_is_ran, quick.ran)):
            return quick
    found = message(FetchRequest, parts)
    return found._replace(ran=[message(Ran, one) for one in found.ran])


def enlist_request(parts: object) -> EnlistRequest:
    """As `message`, with what is in it."""
    found = message(EnlistRequest, parts)
    return found._replace(runners=beats(found.runners))


def beats(runners: object) -> list[RunnerBeat]:
    """The runners that an agent names, of however many in few steps if all is right.  Raises `ProtocolError`."""
    if type(runners) is list and set(map(type, runners)) <= {tuple} and set(map(len, runners)) <= {_BEAT}:
        parts = list(itertools.chain.from_iterable(runners))
        if set(map(type, parts)) <= {int} and max(map(abs, parts), default=0) < _LARGEST:
            return list(map(RunnerBeat._make, runners))
    return _each(RunnerBeat, "runners", runners)


def output(parts: object) -> list[OutputPart]:
    """What an agent says that slaves have printed.  Raises `ProtocolError`."""
    found = _each(OutputPart, "output", parts)
    for part in found:
        size = memoryview(part.data).nbytes
        if size > _MOST_OUTPUT or part.left_out < 0:
            raise ProtocolError(f"slave {part.slave} cannot have printed {size} bytes at once")
    return found


def records(parts: object) -> list[RecordPart]:
    """What an agent says that tasks have logged.  Raises `ProtocolError`."""
    found = _each(RecordPart, "records", parts)
    for part in found:
        if memoryview(part.data).nbytes > _MOST_OUTPUT or part.left_out < 0 or part.kind not in (RECORD, WARNING):
            raise ProtocolError(f"slave {part.slave} cannot have logged a record of kind {part.kind}")
    return found


def number(value: object) -> int:
    """A whole number.  Raises `ProtocolError`."""
    if not _is_number(value):
        raise ProtocolError(f"a number cannot be {reprlib.repr(value)}")
    return value  # type: ignore[return-value]


def numbers(values: object) -> Sequence[int]:
    """Several.  Raises `ProtocolError`."""
    if not _are_numbers(values):
        raise ProtocolError(f"numbers cannot be {reprlib.repr(values)}")
    return values  # type: ignore[return-value]


def text(value: object) -> str:
    """A text.  Raises `ProtocolError`."""
    if not _is_text(value):
        raise ProtocolError(f"a text cannot be {reprlib.repr(value)}")
    return value  # type: ignore[return-value]


def seconds(value: object) -> float:
    """A time from 0 on.  Raises `ProtocolError`."""
    if type(value) not in (int, float) or not 0 <= value < _LARGEST:  # type: ignore[operator]
        raise ProtocolError(f"seconds cannot be {reprlib.repr(value)}")
    return float(value)  # type: ignore[arg-type]


def long_text(value: object) -> str:
    """A text of any characters, not without end.  Raises `ProtocolError`."""
    if type(value) is not str or len(value) > _LONGEST_TEXT:
        raise ProtocolError(f"a text cannot be {reprlib.repr(value)}")
    return value


def _is_number(value: object) -> bool:
    return type(value) is int and -_LARGEST <= value < _LARGEST


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= _LONGEST and value.isprintable()  # it goes into lines of the log


def _each(kind: type[Message], what: str, parts: object) -> list[Message]:
    """The messages that a list holds.  Raises `ProtocolError`."""
    if not _is_list(parts):
        raise ProtocolError(f"{what} cannot be {reprlib.repr(parts)}")
    return [message(kind, part) for part in parts]  # type: ignore[attr-defined]  # it is a list


def _is_ran(one: object) -> bool:
    if type(one) is not tuple or tuple(map(type, one)) != _RAN:
        return False
    return max(map(abs, one)) < _LARGEST and one[2] >= 0  # type: ignore[no-any-return]  # it is a bool


def _is_list(value: object) -> bool:
    return isinstance(value, (tuple, list))


def _are_numbers(value: object) -> bool:
    return isinstance(value, (tuple, list)) and all(map(_is_number, value))


_RIGHT: dict[str, Callable[[Any], bool]] = {
    "int": _is_number,
    "int | None": lambda value: value is None or _is_number(value),
    "float": lambda value: type(value) in (int, float) and 0 <= value < _LARGEST,
    "str": _is_text,
    "Buffer": lambda value: isinstance(value, (bytes, bytearray, memoryview, mmap.mmap)),
    "Sequence[int]": _are_numbers,
    "Sequence[str]": lambda value: _is_list(value) and all(map(_is_text, value)),
    "Sequence[int | None]": lambda value: _is_list(value) and all(one is None or _is_number(one) for one in value),
    "Sequence[Ran]": _is_list,
    "Sequence[RunnerBeat]": _is_list,
}
_known: dict[type[Any], list[tuple[str, Callable[[Any], bool]]]] = {}


def _wanted(kind: type[Any]) -> list[tuple[str, Callable[[Any], bool]]]:
    """By part of a message its name and what tells whether one is right, from the class's annotations."""
    found = _known.get(kind)
    if found is None:
        annotated = kind.__annotations__
        texts = {name: getattr(one, "__forward_arg__", one) for name, one in annotated.items()}
        found = _known[kind] = [(name, _RIGHT[str(texts[name])]) for name in kind._fields]
    return found
