"""What a pickle holds, told without running any of it: no module is imported, no class of the user's is made.

The pickle machine itself is run, with a stand-in for every name that the pickle refers to.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

from slave.protocol import Payload
from slave.signals import came_from_handler

_LONGEST = 200  # characters
_LARGEST = 1 << 20  # bytes of a pickle that is looked into for the sake of its description


class _StandIn:
    """An object of a class that is not imported: it keeps what it was made of."""

    name = ""

    def __new__(cls, *args: object, **named: object) -> _StandIn:
        self = super().__new__(cls)
        self.made_of, self.state, self.items = [*args, *named.items()], None, []
        return self

    made_of: list[object]
    state: object
    items: list[object]

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, item: object) -> None:
        """As a list subclass would."""
        self.items.append(item)

    def extend(self, items: list[object]) -> None:
        """As a list subclass would."""
        self.items.extend(items)

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        if self.name == "load_by_value" and self.made_of:
            return str(self.made_of[0])
        if self.name == "getattr" and len(self.made_of) == 2:  # a bound method
            return f"{_shown(self.made_of[0])}.{self.made_of[1]}"
        return f"{self.name}({', '.join(self._parts())})"

    def _parts(self) -> Iterator[str]:
        state = self.state
        if self.name == "partial" and isinstance(state, tuple) and len(state) == 4:
            function, args, named, _ = state
            yield from map(_shown, (function, *args))
            yield from (f"{key}={_shown(value)}" for key, value in (named or {}).items())
            return
        yield from map(_shown, (*self.made_of, *self.items))
        for fields in state if isinstance(state, tuple) else (state,):  # (None, slots), or the attributes
            if isinstance(fields, dict):
                yield from (f"{key}={_shown(value)}" for key, value in fields.items())


class _NameStandIn(type):
    """A class or function that is not imported."""

    name: str

    def __repr__(cls) -> str:
        return cls.name


def _shown(value: object) -> str:
    return repr(value)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _NameStandIn(name, (_StandIn,), {"name": name})

    def persistent_load(self, pid: object) -> object:
        return pid


def _is_call(value: Any) -> bool:
    """Whether it is a task with arguments of its own, as `Packer.task` packs it, and not one like it of a map's."""
    if type(value) is not tuple or len(value) != 2 or type(value[0]) is not tuple:
        return False
    return tuple(map(type, value[0])) == (tuple, dict)


def _call(function: object, args: tuple[object, ...], named: dict[str, object]) -> str:
    """A task with arguments of its own."""
    parts = [*map(_shown, args), *(f"{key}={_shown(value)}" for key, value in named.items())]
    return f"{_shown(function)}({', '.join(parts)})"


def name_in(payload: bytes) -> str:
    """The name of the callable in a pickled task, without what it is called with; '' if it cannot be told."""
    if len(payload) > _LARGEST:
        return ""
    try:
        value = _Reader(io.BytesIO(payload)).load()
    except Exception as error:
        if came_from_handler(error):
            raise
        return ""
    return _name_of(value[1] if _is_call(value) else value)[:_LONGEST]


def _name_of(value: object) -> str:
    if isinstance(value, _NameStandIn):
        return value.name
    if not isinstance(value, _StandIn):
        return type(value).__name__
    if value.name == "partial" and isinstance(value.state, tuple) and len(value.state) == 4:
        return _name_of(value.state[0])
    if value.name == "load_by_value" and value.made_of:
        return str(value.made_of[0])
    if value.name == "getattr" and len(value.made_of) == 2:
        return f"{_name_of(value.made_of[0])}.{value.made_of[1]}"
    return value.name


def describe(payload: Payload) -> str:
    """The pickled object as its repr would be if its class had the usual one, cut at 200 characters."""
    if type(payload) is not bytes or len(payload) > _LARGEST:  # parts are larger
        return f"an object of {len(payload)} bytes"
    try:
        value = _Reader(io.BytesIO(payload)).load()
        text = _call(value[1], *value[0]) if _is_call(value) else repr(value)
    except Exception as error:  # a pickle that wants more of a class than a stand-in can give
        if came_from_handler(error):
            raise
        text = f"an object that cannot be told: {type(error).__name__}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
