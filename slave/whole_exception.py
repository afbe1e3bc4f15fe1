"""Exceptions as pickles that keep all of them: slots, file names, causes, and what their constructors do not take.

An exception's own pickle calls its class with its ``args``, which a constructor of one's own may turn into something
else or refuse, and knows nothing of what stands in slots.  So an exception whose class leaves it to Python how it is
pickled is made here without its ``__init__``, and given what it had; and so are those that it holds, wherever: its
cause, the parts of a group, a list of errors.  Causes may go round in a circle.
"""

from __future__ import annotations

import io
import pickle
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from . import by_value
from .foreign import set_attribute
from .signals import came_from_handler


def pickled(error: BaseException) -> bytes | None:
    """The exception with all that it has, as far as that is possible; None if it cannot be pickled at all."""
    ways = (_whole, _as_it_says) if _is_plain(type(error)) else (_as_it_says, _whole)
    for way in ways:
        try:
            data = way(error)
            if type(pickle.loads(data)) is type(error):
                return data
        except BaseException as trouble:  # one that exits when it is pickled, too
            if came_from_handler(trouble):
                raise
            # "an exception with a constructor of its own": its pickle calls cls(*args) with other arguments
    return by_value.dumps(error)


def _whole(error: BaseException) -> bytes:
    return _Pickler.dumps(error, {}, error)


def _as_it_says(error: BaseException) -> bytes:
    """As its class has it pickled; what it holds as far as possible whole, all the same."""
    return pickle.dumps(error, 5) if _is_plain(type(error)) else _Pickler.dumps(error, {})


_PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")


def _is_plain(kind: type[BaseException]) -> bool:
    """Whether its class leaves it to Python how it is pickled.

    That is: by the class, the arguments of the exception and its attributes, which the constructor may turn into
    something else, and without what stands in slots.
    """
    own = [vars(one) for one in kind.__mro__ if one.__module__ != "builtins"]
    return not any(name in one for one in own for name in _PICKLING)


# what an exception has that is no part of what it says: frames of this process, the object asked in vain; and what
# follows from its arguments
_LEFT_OUT = frozenset(
    ("__traceback__", "__context__", "__dict__", "__weakref__", "args", "obj", "exceptions", "message")
)

_Tried = dict[int, tuple[object, bool]]


class _Pickler(pickle.Pickler):
    """Pickles exceptions whole.

    ``tried``: what exceptions hold, by id, and whether it can be sent: each part is tried once, though each exception
    of a chain of causes holds all that come after it.  ``root``: is pickled whole, whatever its class says.
    """

    def __init__(self, file: io.BytesIO, tried: _Tried, root: BaseException | None) -> None:
        super().__init__(file, 5)
        self._tried, self._root = tried, root

    @classmethod
    def dumps(cls, value: object, tried: _Tried, root: BaseException | None = None) -> bytes:
        """The pickle of ``value``.  Raises whatever pickling it raises."""
        file = io.BytesIO()
        cls(file, tried, root).dump(value)
        return file.getvalue()

    def reducer_override(self, value: Any) -> Any:
        """How an exception is pickled; `NotImplemented` for all else."""
        kind = type(value)
        if not issubclass(kind, BaseException) or not (value is self._root or _is_plain(kind)):
            return NotImplemented
        state = dict(vars(value)), self._members(value)  # a state, since it may hold the exception itself
        return make_exception, (kind, value.args), state, None, None, restore_exception

    def _members(self, error: BaseException) -> dict[str, object]:
        """What stands in its slots, and in those of Python's own classes: a file name, the cause."""
        found: dict[str, object] = {}
        for kind in type(error).__mro__:
            own = kind.__module__ == "builtins"
            for name, what in vars(kind).items():
                if not isinstance(what, (MemberDescriptorType, GetSetDescriptorType)) or (own and name in _LEFT_OUT):
                    continue
                try:
                    value = what.__get__(error)
                    if (value is not None if own else True) and self._can_be_sent(value):
                        found.setdefault(name, value)
                except Exception:
                    continue  # it is not set
        return found

    def _can_be_sent(self, value: object) -> bool:
        known = self._tried.get(id(value))
        if known is None:
            self._tried[id(value)] = known = value, True  # while it is tried: it may hold itself
            try:
                pickle.loads(self.dumps(value, self._tried))
            except BaseException as trouble:
                if came_from_handler(trouble):
                    raise
                self._tried[id(value)] = known = value, False
        return known[1]


def make_exception(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """An exception without its ``__init__``."""
    base = next(one for one in kind.__mro__ if one.__module__ == "builtins" and issubclass(one, BaseException))
    error: BaseException = base.__new__(kind, *args)
    set_attribute(error, "args", args)
    return error


def restore_exception(error: BaseException, state: tuple[dict[str, object], dict[str, object]]) -> None:
    """Give it the attributes and members that it had when it was raised."""
    attributes, members = state
    for name, value in sorted(members.items()):  # the cause before __suppress_context__, which it sets
        try:
            set_attribute(error, name, value)
        except Exception:
            continue  # read only, or the class has changed
    error.__dict__.update(attributes)
