"""Why an object cannot be pickled: the path to the part of it that is to blame.  And what a pickle refers to."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

from .protocol import Buffer

_DEEPEST = 6  # levels below which nobody reads a path any more


def explain(value: object, name: str, error: Exception) -> str:
    """One line: ``name.model.lock: cannot pickle '_thread.lock' object``.

    ``name`` is how the reader knows ``value`` ('the task'), ``error`` what pickling it raised.
    """
    path, blamed = _culprit(value, name, error, set(), 0)
    reason = str(blamed) or type(blamed).__name__
    if "<lambda>" in reason or "<locals>" in reason or "local object" in reason:
        reason += " (a lambda or a function inside a function has no name to import it by: define it at module level)"
    return f"{path}: {reason}"


def _culprit(value: object, path: str, error: Exception, seen: set[int], depth: int) -> tuple[str, Exception]:
    seen.add(id(value))
    if depth < _DEEPEST:
        for step, part in _parts(value):
            if id(part) in seen:
                continue
            try:
                pickle.dumps(part, 5)
            except Exception as inner:
                return _culprit(part, path + step, inner, seen, depth + 1)
    return path, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What ``value`` is made of, each with how a Python programmer would reach it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield f"{{{item!r}}}", item
    for attribute in ("func", "args", "keywords", "__self__"):  # partials and bound methods
        if not isinstance(value, type) and hasattr(value, attribute):
            yield f".{attribute}", getattr(value, attribute)
    if not isinstance(value, type):
        yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    yield f".{slot}", getattr(value, slot)


def references(payload: Buffer) -> list[tuple[str, str]]:
    """The modules and names in them that a pickle refers to, each once, in their order; none of it is imported or run.

    The pickle machine itself is asked, with a stand-in for each name: what looks like a name in data is none.
    """
    reader = _Reader(payload)
    try:
        reader.load()
    except Exception:
        pass  # a pickle that wants more of a class than a stand-in can give: what it referred to so far is known
    return list(reader.found)


class _StandIn:
    """An object, class or function that is not imported: it takes whatever a pickle does with it."""

    def __new__(cls, *args: object, **named: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """As a list subclass would."""

    def extend(self, items: object) -> None:
        """As a list subclass would."""

    def add(self, item: object) -> None:
        """As a set subclass would."""

    def __call__(self, *args: object, **named: object) -> _StandIn:
        return self


class _Reader(pickle.Unpickler):
    def __init__(self, payload: Buffer) -> None:
        super().__init__(io.BytesIO(payload))
        self.found: dict[tuple[str, str], None] = {}

    def find_class(self, module: str, name: str) -> Any:
        self.found[module, name] = None
        return type(name, (_StandIn,), {})

    def persistent_load(self, pid: object) -> object:
        return pid
