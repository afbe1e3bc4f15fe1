"""`NamedTuple`: `typing.NamedTuple` for modules that make many, in a fraction of the time.

Nothing asks these classes for the types of their fields: to `typing` they are text here, each of which it compiles.
And for the constructor of each class `collections.namedtuple` compiles a line of source.  Here all classes with as many
fields share one, whose parameters get other names, and what else there is works for all.  Together that was a tenth of
what a slave's agent, and of what a master does before it is ready.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import _tuplegetter as _field  # as properties of tuple's items, in C

    _GLOBALS = {"_tuple_new": tuple.__new__, "__builtins__": {}}
    _codes: dict[int, CodeType] = {}  # of constructors, by how many fields there are

    def _constructor(name: str, fields: Sequence[str], defaults: Sequence[Any]) -> FunctionType:
        """``__new__`` of a class, with the names of its fields as those of its parameters."""
        code = _codes.get(len(fields))
        if code is None:
            parameters = "".join(f"_{number}, " for number in range(len(fields)))
            source = f"lambda _cls, {parameters}: _tuple_new(_cls, ({parameters}))"
            code = _codes[len(fields)] = eval(source).__code__
        named = code.replace(co_name="__new__", co_varnames=("_cls", *fields))
        made = FunctionType(named, _GLOBALS, "__new__", tuple(defaults))
        made.__qualname__ = f"{name}.__new__"
        return made

    def _make(cls: type, iterable: Iterable[Any]) -> Any:
        """Make a new object from a sequence or iterable."""
        result = tuple.__new__(cls, iterable)
        if len(result) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(result)}")
        return result

    def _replace(self: Any, /, **kwds: Any) -> Any:
        """Return a new object with specified fields replaced."""
        result = self._make(map(kwds.pop, self._fields, self))
        if kwds:
            raise ValueError(f"Got unexpected field names: {list(kwds)!r}")
        return result

    def _repr(self: Any) -> str:
        """Return a nicely formatted representation string."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self))})"

    def _asdict(self: Any) -> dict[str, Any]:
        """Return a new dict which maps field names to their values."""
        return dict(zip(self._fields, self))

    def _getnewargs(self: Any) -> tuple[Any, ...]:
        """Return self as a plain tuple, for copy and pickle."""
        return tuple(self)

    class _Maker(type):
        """As the metaclass of the same purpose in `typing`: the classes that it makes are no instances of it."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            types = namespace.pop("__annotations__", {})
            fields = tuple(types)
            defaults = {field: namespace.pop(field) for field in fields if field in namespace}
            made = {
                "__doc__": f"{name}({', '.join(fields)})",
                "__slots__": (),
                "_fields": fields,
                "_field_defaults": defaults,
                "__new__": _constructor(name, fields, list(defaults.values())),
                "_make": classmethod(_make),
                "_replace": _replace,
                "__repr__": _repr,
                "_asdict": _asdict,
                "__getnewargs__": _getnewargs,
            }
            if sys.version_info >= (3, 10):
                made["__match_args__"] = fields
            made.update(
                (field, _field(number, f"Alias for field number {number}")) for number, field in enumerate(fields)
            )
            if sys.version_info >= (3, 13):
                made["__replace__"] = _replace
            made.update(namespace)
            result = type(name, (tuple,), made)
            result.__annotations__ = types
            return result

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
