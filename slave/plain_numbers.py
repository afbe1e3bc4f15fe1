"""Numbers as users have them, NumPy's among them, as plain ones, which is what is sent, written and counted with."""

from __future__ import annotations

import math
import operator
from typing import Any


def whole(value: Any) -> int | None:
    """The whole number, None if it is none: True is none, nor is 2.0."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float:
    """The number, NaN if it is none: a text is none, nor is True.  A whole one too large for a float is infinite."""
    if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):  # of an array, say
        return math.nan
