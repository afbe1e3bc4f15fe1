"""Modules of Python's library that pickles of another version of it call by another name."""

from __future__ import annotations

import importlib
import sys

_MOVED = {"pathlib._local": "pathlib"}  # Python 3.13, and no other, pickles paths by that name


def is_moved(error: BaseException) -> bool:
    """Whether a pickle could not be loaded for such a name alone.  It is known from now on: load the pickle again."""
    if type(error) is not ModuleNotFoundError or error.name not in _MOVED or error.name in sys.modules:
        return False
    sys.modules[error.name] = importlib.import_module(_MOVED[error.name])
    return True
