"""Why an object cannot be pickled: the path to the part of it that is to blame."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

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
