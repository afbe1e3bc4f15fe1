"""Tasks and setups as they go to the slaves: pickled by reference, or, where there is nothing to refer to, by value."""

from __future__ import annotations

import importlib
import pickle
from typing import Any, Callable

from slave.by_value import ByValue
from slave.main_module import NAMES as MAIN_NAMES
from slave.pickling import explain, references
from slave.signals import came_from_handler

from .errors import UnpicklableError
from .program import Program

_REMEDIES = (
    "Put it into a module (a .py file beside you) and import it from there; or install cloudpickle where the master "
    "runs, python3 -m pip install cloudpickle, with which it can be sent by value"
)


def dump(value: object, name: str, program: Program) -> bytes:
    """The pickle of a task or setup.  Raises `UnpicklableError` naming what is to blame."""
    try:
        payload = program.dumps(value)
    except Exception as error:
        if came_from_handler(error):
            raise
        why = f"{name} cannot be sent to a slave: {explain(value, name, error)}"
        nameless = "<lambda>" in why or "<locals>" in why or "local object" in why or "__main__" in why
    else:
        left = stays_behind(payload) if program.main_stays else []
        if not left:
            return payload
        why = (
            f"{name} refers to something defined in this session, which has no file that a slave could import: "
            f"{', '.join(left[:3])}"
        )
        nameless = True
    trouble = ""
    dumps = _cloudpickle()
    if dumps is not None:
        try:
            return pickle.dumps(ByValue(_name_of(value), program.dumps(value, dumps)), 5)
        except Exception as error:
            if came_from_handler(error):
                raise
            trouble = f"; nor can it be sent by value, by cloudpickle: {error}"
    # not while another is handled: its traceback is all ours and tells nothing more
    raise UnpicklableError(why + (trouble or (f". {_REMEDIES}" if nameless and dumps is None else "")))


def quick_dump(name: str, program: Program, value: object) -> bytes:
    """The same, quicker where nothing is wrong."""
    payload = quick_pickle(value)
    if payload is None or (program.main_stays and stays_behind(payload)):
        return dump(value, name, program)
    return payload


def quick_pickle(value: object) -> bytes | None:
    """The pickle; None if there is none, and then `dump` tells why."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        if came_from_handler(error):
            raise
        return None


def stays_behind(payload: bytes) -> list[str]:
    """The names in it that stand for something in ``__main__``."""
    if not any(main.encode() in payload for main in MAIN_NAMES):  # else it may be a name, or a text in data
        return []
    return [attribute for module, attribute in references(payload) if module in MAIN_NAMES]


def _cloudpickle() -> Callable[[Any], bytes] | None:
    """What pickles by value, if it can be imported here."""
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
    except ImportError:
        return None
    return lambda value: cloudpickle.dumps(value, 5)


def _name_of(value: object) -> str:
    """How to call it in a message."""
    if type(value) is tuple:  # a task with arguments of its own
        value = value[0]
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__qualname__
