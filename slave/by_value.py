"""What has no name to import it by, sent by value: lambdas, functions inside functions, those of a session.

The master has it pickled by cloudpickle, if that can be imported there; a slave gets cloudpickle from the master.  What
it makes is bytecode, which another version of Python would misread: it is loaded by an equal one only.  Where that was
done, results of classes that came that way go back by value, too; cloudpickle knows them again in the master.
"""

from __future__ import annotations

import importlib
import pickle
import socket
import sys
from typing import Any, Callable

_used = False  # something came by value to this process


class OtherPython(TypeError):
    """What was sent by value is for another version of Python than that of this slave."""


class ByValue:
    """Is pickled as the ``data`` that cloudpickle has made of something that is called ``name``.

    ``buffers``: what of it is out of band (PEP 574).
    """

    def __init__(self, name: str, data: bytes, *buffers: pickle.PickleBuffer) -> None:
        self._parts = (name, tuple(sys.version_info[:2]), data, *buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return load_by_value, self._parts


def load_by_value(name: str, version: tuple[int, int], data: bytes, *buffers: Any) -> Any:
    """What a `ByValue` stands for.  Raises `OtherPython`, and whatever loading it raises."""
    global _used
    if version != sys.version_info[:2]:
        theirs = ".".join(map(str, version))
        raise OtherPython(
            f"{name} was sent by value by a master of Python {theirs}, and this slave is one of Python "
            f"{sys.version.split()[0]} ({sys.executable} on {socket.gethostname()}): that works between equal "
            f"versions only. Define it in a module, or start slaves with Python {theirs}"
        )
    _used = True
    return pickle.loads(data, buffers=buffers)


def dumps(value: object, buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes | None:
    """The pickle of something that refers to what came by value; None if nothing did, or it cannot be pickled."""
    if not _used:
        return None
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
        data: bytes = cloudpickle.dumps(value, 5, buffer_callback=buffer_callback)
    except Exception:
        return None
    return data
