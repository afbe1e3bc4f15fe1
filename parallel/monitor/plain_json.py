"""Data that came from elsewhere, as the dataclasses that they should be: each field is looked at before it is taken."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any, TypeVar

from slave.errors import ProtocolError

T = TypeVar("T")

_MOST_ITEMS = 200_000  # of one list
_LONGEST = 100_000  # characters of a text


def shaped(kind: type[T], data: object) -> T:
    """``data``, of JSON, as an instance of the dataclass; what it has besides is left out.

    Texts lose what would move a terminal's cursor.  Raises `ProtocolError` if a field is missing or of another type.
    """
    if not isinstance(data, dict):
        raise ProtocolError(f"a {kind.__name__} cannot be {type(data).__name__}")
    parts: dict[str, Any] = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]  # it is one
        if one.name in data:
            wanted = one.type if isinstance(one.type, str) else one.type.__name__
            parts[one.name] = _part(kind, wanted, data[one.name], f"{kind.__name__}.{one.name}")
    try:
        return kind(**parts)
    except TypeError:
        missing = [one.name for one in dataclasses.fields(kind) if one.name not in parts]  # type: ignore[arg-type]
        raise ProtocolError(f"a {kind.__name__} lacks {', '.join(missing)}") from None


def _part(kind: type[Any], wanted: str, value: object, name: str) -> Any:
    """``wanted``: the annotation, as it is written, as `int | None`, or `list[X]` of dataclasses beside ``kind``."""
    if wanted.startswith("list["):
        if not isinstance(value, list) or len(value) > _MOST_ITEMS:
            raise ProtocolError(f"{name} is no list, or too long a one")
        return [_part(kind, wanted[5:-1], one, name) for one in value]
    options = wanted.split(" | ")
    inner = vars(sys.modules[kind.__module__]).get(wanted)
    if inner is not None:
        return shaped(inner, value)
    if value is None and "None" in options:
        return None
    if "str" in options and isinstance(value, str):
        return printable(value[:_LONGEST])
    if ("bool" in options and isinstance(value, bool)) or ("int" in options and type(value) is int):
        return value
    if "float" in options and type(value) in (int, float) and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    raise ProtocolError(f"{name} cannot be {str(value)[:50]!r}")


def printable(text: str) -> str:
    """The text without what is no letter, and would move a terminal's cursor or colour it; lines stay lines."""
    return text if text.isprintable() else "".join(one if one.isprintable() or one == "\n" else " " for one in text)
