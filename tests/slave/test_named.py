"""NamedTuples that are quickly made are as those of `typing`."""

from __future__ import annotations

import copy
import pickle
import sys
import typing

import pytest

import parallel
from slave.named import NamedTuple


class Ours(NamedTuple):
    """Documented."""

    number: int
    names: dict[str, int]
    text: str | None = None
    many: float = 0.5

    @property
    def twice(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Theirs(typing.NamedTuple):
    """Documented."""

    number: int
    names: dict[str, int]
    text: str | None = None
    many: float = 0.5

    @property
    def twice(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Empty(NamedTuple):
    """Without fields."""


def test_they_are_those_of_typing() -> None:
    mine, other = vars(Ours), vars(Theirs)
    left_out = {"__orig_bases__", *(name for name in {*mine, *other} if name.startswith("__annot"))}  # by version
    assert mine.keys() - left_out == other.keys() - left_out
    for name in ("__doc__", "_fields", "_field_defaults", "__match_args__", "__module__", "__slots__"):
        assert mine.get(name) == other.get(name), name
    assert Ours.__qualname__ == "Ours" and Ours.__bases__ == (tuple,) and list(Ours.__annotations__) == [*Ours._fields]
    assert Ours(1, {}) == (1, {}, None, 0.5) == tuple(Theirs(1, {})) and Ours(3, {}, many=2).twice == 6
    assert repr(Ours(1, {})) == "Ours(number=1, names={}, text=None, many=0.5)"
    assert pickle.loads(pickle.dumps(Ours(1, {})))._replace(text="a") == copy.copy(Ours(1, {}, "a"))
    assert Empty() == () and Empty.__doc__ == "Without fields."
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'names'"):
        Ours(1)  # type: ignore[call-arg]


def test_all_have_the_fields_that_they_say() -> None:
    assert parallel
    found = 0
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("parallel", "slave"):
            for one in vars(module).values():
                if isinstance(one, type) and issubclass(one, tuple) and hasattr(one, "_fields"):
                    assert one._fields == tuple(getattr(one, "__annotations__", ())), one
                    found += 1
    assert found > 50
