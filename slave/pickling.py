"""Why an object cannot be pickled: the path to the part of it that is to blame.  And what a pickle refers to."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

from .foreign import message_of, name_and_message
from .protocol import Buffer

_DEEPEST = 6  # levels below which nobody reads a path any more


def explain(value: object, name: str, error: Exception) -> str:
    """One line: ``name.model.lock: cannot pickle '_thread.lock' object``.

    ``name`` is how the reader knows ``value`` ('the task'), ``error`` what pickling it raised.
    """
    try:
        path, blamed = _culprit(value, name, error, set(), 0)
    except Exception:  # an object whose own methods raise while we look at it; what pickling raised is known
        path, blamed = name, error
    reason = _text_of(blamed)
    if "<lambda>" in reason or "<locals>" in reason or "local object" in reason:
        reason += " (a lambda or a function inside a function has no name to import it by: define it at module level)"
    elif _FOR_CHILDREN in reason:
        reason += (
            " (that is between a process and its own children: a LocalSlave() can use what multiprocessing.Manager() "
            "makes in its place, as Manager().Queue() and Manager().Lock())"
        )
    return f"{path}: {reason}"


def _text_of(error: Exception) -> str:
    return message_of(error) if type(error) in _SAYS_ALL and error.args else name_and_message(error)


_OF_PICKLE = (pickle.PicklingError, TypeError, AttributeError, RecursionError)  # of which no part of a value is told
_FOR_CHILDREN = "through inheritance"  # say multiprocessing of its queues, locks, ..., and mp_adapter.py of its pipes
_SAYS_ALL = (*_OF_PICKLE, NotImplementedError)  # the message does


def _shown(value: object) -> str:
    """Its repr, if it has one."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _attribute(value: object, name: str) -> object:
    """An attribute, or `_MISSING`: whatever ``__getattr__`` raises means that there is none."""
    try:
        return getattr(value, name)
    except Exception:
        return _MISSING


_MISSING = object()


def _culprit(value: object, path: str, error: Exception, seen: set[int], depth: int) -> tuple[str, Exception]:
    seen.add(id(value))
    if depth < _DEEPEST:
        for step, part in _parts(value):
            if id(part) in seen:
                continue
            try:
                pickle.dumps(part, 5)
            except Exception as inner:
                if type(error) not in _OF_PICKLE and message_of(inner) != message_of(error):
                    continue  # a method of the value has refused it as a whole, whatever its parts are
                return _culprit(part, path + step, inner, seen, depth + 1)
    return path, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What ``value`` is made of, each with how a Python programmer would reach it."""
    kind: type[Any] = type(value)
    whole: Any = value
    if issubclass(kind, dict):
        for key, item in list(dict.items(whole)):
            yield f"[{_shown(key)}]", item
    elif issubclass(kind, (list, tuple)):
        for index, item in enumerate(whole):
            yield f"[{index}]", item
    elif issubclass(kind, (set, frozenset)):
        for item in whole:
            yield f"{{{_shown(item)}}}", item
    if issubclass(kind, type):
        return
    names = ["func", "args", "keywords", "__self__"]  # partials and bound methods
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [_mangled(base, slot) for slot in ((slots,) if isinstance(slots, str) else slots)]
    for name in names:
        part = _attribute(value, name)
        if part is not _MISSING and name not in ("__dict__", "__weakref__"):
            yield f".{name}", part
    own = _attribute(value, "__dict__")
    if isinstance(own, dict):
        yield from ((f".{name}", item) for name, item in list(own.items()))


def _mangled(kind: type, slot: str) -> str:
    """The attribute's real name: that of a private slot has its class in it."""
    private = slot.startswith("__") and not slot.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{slot}" if private else slot


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
