"""Numbers as users have them become plain ones, or are told from what is none."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from slave.machine import parse_size
from slave.plain_numbers import real, whole


class Index:
    """Like NumPy's whole numbers: no int."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


class Real:
    """Like NumPy's of 32 bits: no float."""

    def __float__(self) -> float:
        return 1.5


class Array:
    def __float__(self) -> float:
        raise TypeError("only arrays of one number")


def test_whole_numbers_are_plain_ones() -> None:
    assert [whole(value) for value in (3, Index(4), -1)] == [3, 4, -1]
    assert type(whole(Index(4))) is int
    none: tuple[Any, ...] = (True, 2.0, "2", None, b"2", Fraction(2), math.nan, [2])
    assert [whole(value) for value in none] == [None] * len(none)


def test_seconds_and_bytes_are_plain_ones() -> None:
    some: tuple[Any, ...] = (3, 2.5, Index(4), Real(), Fraction(1, 2), Decimal("0.25"), math.inf, 10**400, -(10**400))
    assert [real(value) for value in some] == [3.0, 2.5, 4.0, 1.5, 0.5, 0.25, math.inf, math.inf, -math.inf]
    assert {type(real(value)) for value in some} == {float}
    none: tuple[Any, ...] = (True, "2", None, b"2", 1j, [2], Array(), math.nan)
    assert all(math.isnan(real(value)) for value in none)


def test_sizes_too() -> None:
    assert parse_size(Index(4096)) == parse_size("4K") == 4096  # type: ignore[arg-type]
    for wrong in (True, math.nan, math.inf, -5, Array()):
        with pytest.raises(ValueError, match="is no size"):
            parse_size(wrong)  # type: ignore[arg-type]
