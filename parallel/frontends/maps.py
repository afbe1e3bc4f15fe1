"""map and starmap: the builtin `map` and `itertools.starmap`, with the calls made by slaves."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from slave.cpus import usable_cpus

from ..checks import check_manager
from .inline import inside_task
from .work import Work

if TYPE_CHECKING:
    from ..context import Context
    from ..manager import Manager

Result = TypeVar("Result")


class _Default:
    """The slaves of maps without a manager: on all cores here, from the first call to the interpreter's exit."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held while it is made; a signal handler may map, too
        self._work: Work | None = None
        self._pid = 0

    def context(self) -> Context[Any]:
        """The context to map in; in a fork of the process another one."""
        with self._lock:
            if self._work is None or self._pid != os.getpid():
                self._work, self._pid = Work(None, usable_cpus(), None), os.getpid()
        return self._work.context


_default = _Default()


def map(
    function: Callable[..., Result],
    *iterables: Iterable[Any],
    manager: Manager | None = None,
    buffersize: int | None = None,
) -> Iterator[Result]:
    """The builtin `map`, with the calls made by slaves: on all cores of this machine, or those of ``manager``.

    The results come in the inputs' order; ``list(parallel.map(f, inputs))`` has them all.  An exception is the one that
    the call raised, with the remote traceback as its cause; the next results can be read behind it.  Inputs are taken
    as the slaves need them: they may be endless.  What calls print appears where this program prints.
    ``buffersize``: see `Context.map`.  Inside a task it is the builtin one.

    The slaves of this machine are started by the first call and end with the interpreter.

    Raises `InputTypeError`, `UnpicklableError` for what cannot be.  A call whose process died ``max_attempts`` times
    raises `TaskGivenUp`, one whose result cannot be rebuilt `ResultError`, an input that cannot be pickled
    `UnpicklableError`: each in its place.  Not raised as itself is an exception that cannot be rebuilt here: that is
    a `RemoteError`.
    """
    if inside_task("map"):
        return itertools.starmap(function, zip(*iterables))
    return _context(manager).map_inputs(function, iterables, True, None, buffersize, originals=True)


def starmap(
    function: Callable[..., Result],
    inputs: Iterable[Iterable[Any]],
    *,
    manager: Manager | None = None,
    buffersize: int | None = None,
) -> Iterator[Result]:
    """`itertools.starmap` in the same way: each input is the arguments of one call.  Raises what `map` raises."""
    if inside_task("starmap"):
        return itertools.starmap(function, inputs)
    return _context(manager).map_inputs(function, (inputs,), True, None, buffersize, starred=True, originals=True)


def _context(manager: Manager | None) -> Context[Any]:
    check_manager(manager)
    return _default.context() if manager is None else manager.get_context()
