"""Pool: the interface of ``multiprocessing.Pool``, whose workers are slaves."""

from __future__ import annotations

import functools
import operator
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from slave.calls import initialize
from slave.cpus import usable_cpus

from . import work
from .inline import InlineWork
from .pool_jobs import Callbacks, InlineJobs, Jobs, SlaveJobs
from .pool_results import AsyncResult

if TYPE_CHECKING:
    from ..manager import Manager

Result = TypeVar("Result")
Callback = Callable[[Any], object]

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"  # as in multiprocessing.pool


class Pool:
    """Runs calls on slaves, behind the interface of the standard library's pools.

    ``processes``: as many local slaves of its own; default: the CPUs that this process may use.  ``manager``: use that
    manager's slaves instead, which may come and go.  ``initializer(*initargs)`` runs once in each slave.
    ``maxtasksperchild``: after so many tasks, each of which is a call or a chunk of calls, a slave's process is
    replaced.  ``context`` is accepted, and not used: a slave is a fresh process, never a copy of this one.
    ``checkpoint``: a file to which results are written, and whose tasks need not run again, as of
    `Manager.get_context`; a map's chunks are single calls then, unless ``chunksize`` is given.  ``speculate``: tasks
    that run for long are started twice, as of `Manager.get_context`.

    It never breaks: a process that is lost costs the task that it ran an attempt, and the rest goes on.  A task that
    lost its process three times (the manager's ``max_attempts``) raises `TaskGivenUp`; an initializer that raises on
    every slave is raised by all results.  Callbacks run in a thread of the manager's, one after the other.

    `close` and `join` wait for all calls; `terminate`, the end of a ``with`` block and the interpreter's exit drop what
    is not done.  Results of a pool that was terminated raise ``concurrent.futures.CancelledError``.

    Inside a task, calls run in that process, one after the other.

    Raises as the standard library does for impossible arguments, and ValueError for ``processes`` with a ``manager``.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[object] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        manager: Manager | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        speculate: bool = False,
    ) -> None:
        self._state = "INIT"
        if processes is not None:
            processes = int(operator.index(processes))  # as the standard's: NumPy's numbers too, and no 1.5
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if processes is not None and manager is not None:
            raise ValueError("either processes or manager: the manager's slaves are as many as it has")
        if maxtasksperchild is not None and not (isinstance(maxtasksperchild, int) and maxtasksperchild > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        setup = None if initializer is None else functools.partial(initialize, initializer, tuple(initargs))
        count = processes or usable_cpus()
        self._work = work.begin("Pool", manager, count, setup, maxtasksperchild, True, checkpoint, speculate)
        self._jobs: Jobs = InlineJobs(self._work) if isinstance(self._work, InlineWork) else SlaveJobs(self._work)
        self._adding = threading.RLock()  # held while calls are added: none comes behind `close`
        self._jobs.start(sets_up=setup is not None and maxtasksperchild is None)
        weakref.finalize(self, self._jobs.close).atexit = False
        self._state = RUN

    def __del__(
        self,
        _warn: Callable[..., None] = warnings.warn,
        _run: str = RUN,
        _ending: Callable[[], bool] = sys.is_finalizing,  # then what its repr needs may be gone
    ) -> None:
        if self._state == _run and not _ending():
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        kind, manager = type(self), self._work.manager
        own = manager is None or getattr(self._work, "own", True)
        slaves = f"pool_size={self._work.max_workers}" if own else f"on the slaves of {manager!r}"
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} {slaves}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # -- single calls

    def apply(self, func: Callable[..., Result], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Result:
        """``func(*args, **kwds)``, called by a slave.  Raises what that raises."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[Result]:
        """The same without waiting; ``callback`` is called with the result, ``error_callback`` with the exception."""
        with self._adding:
            self._check_running()
            return self._jobs.apply(func, tuple(args), dict(kwds), Callbacks(callback, error_callback))

    # -- maps

    def map(self, func: Callable[[Any], Result], iterable: Iterable[Any], chunksize: int | None = None) -> list[Result]:
        """The results of ``func`` for the items, in their order.  Raises what the first call raises that fails.

        ``chunksize``: so many calls are one task; default: four tasks for each slave.
        """
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], Result],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[Result]]:
        """The same without waiting; callbacks as of `apply_async`."""
        return self._map(func, iterable, chunksize, False, Callbacks(callback, error_callback))

    def starmap(
        self, func: Callable[..., Result], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Result]:
        """As `map`, where each item is the arguments of a call."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[Result]]:
        """The same without waiting; callbacks as of `apply_async`."""
        return self._map(func, iterable, chunksize, True, Callbacks(callback, error_callback))

    def _map(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        starred: bool,
        callbacks: Callbacks,
    ) -> AsyncResult[list[Any]]:
        self._check_running()
        inputs: Sequence[Any] = list(iterable)
        if chunksize is None and getattr(self._work, "checkpoint", None) is not None:
            chunksize = 1  # whatever the machine has, the tasks are to be the same in the next run
        if chunksize is None:
            chunksize = self._jobs.chunksize(function, len(inputs))
        _check_chunksize(chunksize)
        chunks = [inputs[at : at + chunksize] for at in range(0, len(inputs), chunksize)]
        with self._adding:
            self._check_running()
            return self._jobs.map(function, chunks, starred, callbacks)

    def imap(self, func: Callable[[Any], Result], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Result]:
        """An iterator over the results of ``func`` for the items, in their order.

        The items are taken by a thread, some ahead of the calls.  ``next(timeout)`` of the iterator waits for so many
        seconds.  A call that raises does so in its place; the next results come.
        """
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(
        self, func: Callable[[Any], Result], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Result]:
        """The same in the order of completion."""
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self, function: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> Iterator[Any]:
        _check_chunksize(chunksize)
        with self._adding:
            self._check_running()
            return self._jobs.imap(function, iterable, chunksize, ordered)

    # -- the end

    def close(self) -> None:
        """Take no more calls; the slaves end when all is done, if they are the pool's own."""
        with self._adding:
            if self._state == RUN:
                self._state = CLOSE
                self._jobs.close()

    def terminate(self) -> None:
        """Drop what is not done, and end the slaves if they are the pool's own."""
        self._state = TERMINATE
        self._jobs.drop()

    def join(self) -> None:
        """Wait until all is done and the slaves have ended.  Raises ValueError before `close` or `terminate`."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state == CLOSE:
            self._jobs.join()

    # -- what programs look at, although some of it is private

    @property
    def size(self) -> int:
        """How many calls run at a time."""
        return self._work.max_workers

    @property
    def _processes(self) -> int:
        return self._work.max_workers

    @property
    def _pool(self) -> list[Any]:
        return self._jobs.processes(wait=self._state == RUN)

    def _repopulate_pool(self) -> None:
        """Processes that have ended are replaced without that."""


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")
