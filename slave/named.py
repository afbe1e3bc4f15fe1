"""`NamedTuple`: `typing.NamedTuple` for modules that make many, in half the time.

Nothing asks these classes for the types of their fields.  To `typing` they are text here, each of which it compiles;
that was a twentieth of what a slave's agent, and of what a master does before it is ready.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class _Maker(type):
        """As the metaclass of the same purpose in `typing`: the classes that it makes are no instances of it."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            fields = namespace.pop("__annotations__", {})
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            made = collections.namedtuple(name, fields, defaults=defaults, module=namespace.pop("__module__"))
            made.__annotations__ = fields
            for attribute, value in namespace.items():
                setattr(made, attribute, value)
            return made

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
