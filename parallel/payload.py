"""Tasks and setups as they go to the slaves: pickled by reference, or, where there is nothing to refer to, by value."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
from types import FunctionType, ModuleType
from typing import Any, Callable

from slave.by_value import ByValue
from slave.foreign import message_of, name_and_message, set_cause, without_traceback
from slave.main_module import NAMES as MAIN_NAMES
from slave.named import NamedTuple
from slave.parted import LARGE
from slave.pickling import explain, references
from slave.protocol import Payload, Setup
from slave.signals import came_from_handler

from . import large
from .errors import UnpicklableError
from .program import Program

_NO_MODULE = ModuleType("none")
_REMEDIES = (
    "Put it into a module (a .py file beside you) and import it from there; or install cloudpickle where the master "
    "runs, python3 -m pip install cloudpickle, with which it can be sent by value"
)


def setup_dump(value: object, name: str, program: Program, *, in_parts: bool = True) -> Setup:
    """The pickle of a setup, in shared memory if it is large (large.py).  Raises as `dump`.

    ``in_parts``: large arrays may stand behind it; else it is the same as that of `dump`.
    """
    found = _dump(value, name, program, large.setup_dumps if in_parts else _pickle)
    return large.shared(found) if isinstance(found, bytes) else found


def digest_of(payload: Setup) -> bytes:
    """What tells it from others."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def dump(value: object, name: str, program: Program) -> bytes:
    """The pickle of a task or setup.  Raises `UnpicklableError` naming what is to blame."""
    found = _dump(value, name, program, _pickle)
    assert isinstance(found, bytes)
    return found


def _pickle(value: object) -> bytes:
    return pickle.dumps(value, 5)


def _dump(value: object, name: str, program: Program, dumps: Callable[[object], Setup]) -> Setup:
    try:
        payload = program.dumps(value, dumps)
    except Exception as error:
        if came_from_handler(error):
            raise
        original: Exception | None = without_traceback(error)
        why = f"{name} cannot be sent to a slave: {_in_call(explain(value, name, error))}"
        nameless = "<lambda>" in why or "<locals>" in why or "local object" in why or "__main__" in why
        nameless = nameless or "import of module" in why or "No module named" in why  # '__console__' of code.interact()
    else:
        left = stays_behind(payload) if program.main_stays else []
        if not left:
            return payload
        why = (
            f"{name} refers to something defined in this session, which has no file that a slave could import: "
            f"{', '.join(left[:3])}"
        )
        original, nameless = None, True
        del payload  # which the traceback would keep
    trouble = ""
    by_value = _cloudpickle()
    if by_value is not None:
        try:
            aside: list[pickle.PickleBuffer] = []
            keep = None if dumps is _pickle else aside.append
            data = program.dumps(value, lambda value: by_value(value, keep))
            return dumps(ByValue(_name_of(value), data, *aside))
        except Exception as error:
            if came_from_handler(error):
                raise
            if message_of(error) not in why:
                trouble = f"; nor can it be sent by value, by cloudpickle: {name_and_message(error)}"
    # not while another is handled: its traceback is all ours and tells nothing more
    refused = UnpicklableError(why + (trouble or (f". {_REMEDIES}" if nameless and by_value is None else "")))
    refused.original = original
    raise refused


def _in_call(why: str) -> str:
    """The path to the part that is to blame, as whoever has called ``add_task(function, *args)`` knows it."""
    for part, name in _PARTS:
        if why.startswith(part):
            return name + why[len(part) :]
    return why


_PARTS = (("the task[0][0]", "the task's args"), ("the task[0][1]", "the task's kwargs"), ("the task[1]", "the task"))


class PicklingTypeError(pickle.PicklingError, TypeError):
    """Both, since the standard library raises the one or the other."""


class PicklingAttributeError(pickle.PicklingError, AttributeError):
    """Both, since the standard library raises the one or the other."""


def standard_error(error: UnpicklableError) -> Exception:
    """What the standard pools and executors raise; with our message if pickle itself refused, and no user's code."""
    original = error.original
    if original is not None and not issubclass(type(original), (pickle.PicklingError, TypeError, AttributeError)):
        set_cause(original, error)
        return original
    if isinstance(original, TypeError):
        return PicklingTypeError(str(error))
    return (PicklingAttributeError if isinstance(original, AttributeError) else pickle.PicklingError)(str(error))


_FRAME = b"\x95"
_AROUND = 2, 11  # bytes: PROTO; and FRAME with its length
_WITH_ARGUMENTS = b"\x86."  # TUPLE2, STOP


class Packer:
    """Pickles the tasks of one context.

    Most are one function again and again, with or without arguments.  A pickle has it by reference; to find out that
    its module's name for it still stands for it costs more than all else.  So its part of the pickle is kept, and
    put behind that of the arguments.

    ``in_parts``: whether large tasks may be `Parted`.  That a task is large is known when it is pickled, and then those
    that come after it are thought to be large, too: others pay nothing.
    """

    def __init__(self, program: Program, in_parts: bool) -> None:
        self._program, self._in_parts = program, in_parts
        self._large = False  # the last task was
        self._last: _Reference | None = None  # in one piece: several threads add tasks

    def task(self, task: object, args: tuple[object, ...], named: dict[str, object]) -> Payload:
        """The pickle of a task: of a callable or, with arguments, of ``((args, named), task)``.  Raises as `dump`."""
        if self._large:
            found = _in_parts(self._program, ((args, named), task) if args or named else task)
            self._large = found is not None and len(found) >= LARGE
            if found is not None:
                return found
        last = self._last
        if (
            last is None
            or last.function is not task
            or last.namespace.get(last.name) is not task
            or last.environment is not self._program.environment
        ):
            last = self._learn(task)
        if not args and not named:
            return self._noted(quick_dump("the task", self._program, task)) if last is None else last.pickled
        arguments = None if last is None else quick_pickle((args, named))
        if last is None or arguments is None:
            return self._noted(quick_dump("the task", self._program, ((args, named), task)))
        if len(arguments) >= LARGE:
            self._large = self._in_parts
        return b"%b%b%b" % (arguments[:-1], last.part, _WITH_ARGUMENTS)

    def input(self, item: object) -> Payload:
        """The pickle of a map's input.  Raises as `dump`."""
        found = _in_parts(self._program, item) if self._large else None
        if found is None:
            return self._noted(quick_dump("the input", self._program, item))
        self._large = len(found) >= LARGE
        return found

    def _noted(self, payload: bytes) -> bytes:
        self._large = self._in_parts and len(payload) >= LARGE
        return payload

    def _learn(self, task: object) -> _Reference | None:
        """Keep what is needed of a task; None if it is none of which there is a reference."""
        if type(task) is not FunctionType or "." in task.__qualname__ or self._program.main_stays:
            return None
        if task.__module__ == task.__qualname__:  # copy.copy: its pickle refers back to its own beginning
            return None
        namespace, environment = vars(sys.modules.get(task.__module__, _NO_MODULE)), self._program.environment
        pickled = quick_pickle(task) if namespace.get(task.__qualname__) is task else None
        if pickled is None:
            return None
        part = pickled[_AROUND[pickled[2:3] == _FRAME] : -1]
        self._last = last = _Reference(task, namespace, task.__qualname__, environment, pickled, part)
        return last


class _Reference(NamedTuple):
    """What is known of a function that is pickled by reference."""

    function: object
    namespace: dict[str, Any]  # of its module
    name: str  # by which it stands there
    environment: object  # of the program, when this was learnt
    pickled: bytes
    part: bytes  # of the pickle: that without beginning and end


def quick_dump(name: str, program: Program, value: object) -> bytes:
    """The same, quicker where nothing is wrong."""
    payload = quick_pickle(value)
    if payload is None or (program.main_stays and stays_behind(payload)):
        return dump(value, name, program)
    return payload


def _in_parts(program: Program, value: object) -> Payload | None:
    """The same, parted if it is large; None if it is not to be had so, and then `dump` tells why."""
    try:
        if not program.main_stays:
            return large.dumps(value, program.part_memory)
        alone, is_whole = large.without_parts(value)
        if not stays_behind(alone):
            return alone if is_whole else large.dumps(value, program.part_memory)
    except Exception as error:
        if came_from_handler(error):
            raise
        without_traceback(error)  # which would keep the parts
    by_value = _cloudpickle()
    if by_value is None:
        return None
    aside: list[pickle.PickleBuffer] = []
    try:
        data = program.dumps(value, lambda value: by_value(value, aside.append))
        return large.dumps(ByValue(_name_of(value), data, *aside), program.part_memory)
    except Exception as error:
        if came_from_handler(error):
            raise
        without_traceback(error)
        return None


def dump_by_value(name: str, program: Program, value: object) -> bytes:
    """The same; what ``__main__`` defines goes by value, if it can, so that slaves need not import the script."""
    payload = quick_pickle(value)
    if payload is None:
        return dump(value, name, program)
    if not stays_behind(payload):
        return payload
    return _by_value(value, program) or (dump(value, name, program) if program.main_stays else payload)


def _by_value(value: object, program: Program) -> bytes | None:
    """Its pickle by value, as cloudpickle makes it; None where there is none."""
    dumps = _cloudpickle()
    if dumps is None:
        return None
    try:
        data = program.dumps(value, lambda value: dumps(value, None))
        return pickle.dumps(ByValue(_name_of(value), data), 5)
    except Exception as error:
        if came_from_handler(error):
            raise
        return None


def quick_pickle(value: object) -> bytes | None:
    """The pickle; None if there is none, and then `dump` tells why."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        if came_from_handler(error):
            raise
        without_traceback(error)  # which would keep what the callers have until garbage is collected
        return None


def stays_behind(payload: Setup) -> list[str]:
    """The names in it that stand for something in ``__main__``."""
    if all(payload.find(main.encode()) < 0 for main in MAIN_NAMES):  # else it may be a name, or a text in data
        return []
    return [attribute for module, attribute in references(payload) if module in MAIN_NAMES]


def _cloudpickle() -> Callable[[Any, Callable[[pickle.PickleBuffer], object] | None], bytes] | None:
    """What pickles by value, if it can be imported here; its second argument takes out of band what can be so."""
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
    except ImportError:
        return None
    return lambda value, keep: cloudpickle.dumps(value, 5, buffer_callback=keep)


def _name_of(value: object) -> str:
    """How to call it in a message."""
    if type(value) is tuple:  # a task with arguments of its own
        value = value[0]
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__qualname__
