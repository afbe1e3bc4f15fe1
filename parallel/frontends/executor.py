"""Executor: a `concurrent.futures.Executor` whose workers are slaves."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import multiprocessing
import operator
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from slave.calls import initialize
from slave.cpus import usable_cpus

from ..stays_here import stays_here
from . import work
from .processes import Processes

if TYPE_CHECKING:
    from ..manager import Manager

Result = TypeVar("Result")


class Executor(concurrent.futures.ProcessPoolExecutor):
    """Runs calls on slaves, behind the interface of the standard library's executors.

    It is a ``ProcessPoolExecutor`` for programs that ask whether it is one, and has nothing of it but its methods.

    ``max_workers``: as many local slaves of its own; default: the CPUs that this process may use.  ``manager``: use
    that manager's slaves instead, which may come and go.  ``initializer(*initargs)`` runs once in each slave, before
    its first call.  ``mp_context`` is accepted for the sake of programs that give one, and not used: a slave is a fresh
    process, never a copy of this one.  ``max_tasks_per_child``: after so many calls a slave's process is replaced.
    ``checkpoint``: a file to which results are written, and whose calls need not be made again; ``speculate``: calls
    that run for long are started twice; both as of `Manager.get_context`.

    It never breaks: a process that is lost costs the call that it ran an attempt, and the rest goes on.  A call that
    lost its process three times (the manager's ``max_attempts``) fails with `TaskGivenUp`, which is a
    ``BrokenProcessPool`` too.  Only an initializer that raises on every slave breaks it.  `Future.cancel` also ends a
    call that runs.  See `TaskFuture` for what is raised, and for the thread that callbacks run in.

    Inside a task, calls run in that process, one after the other.

    Raises ValueError unless ``max_workers`` and ``max_tasks_per_child`` are positive and no ``manager`` is given with
    the first, TypeError for an initializer that cannot be called.
    """

    __reduce__ = stays_here

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        manager: Manager | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        speculate: bool = False,
    ) -> None:
        if max_workers is not None:
            max_workers = int(operator.index(max_workers))  # as the standard's: NumPy's numbers too, and no 1.5
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_workers is not None and manager is not None:
            raise ValueError("either max_workers or manager: the manager's slaves are as many as it has")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child is not None and max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        self._given_context = mp_context
        setup = None if initializer is None else functools.partial(initialize, initializer, tuple(initargs))
        self._work = work.begin(
            "Executor",
            manager,
            max_workers or usable_cpus(),
            setup,
            max_tasks_per_child,
            checkpoint=checkpoint,
            speculate=speculate,
        )
        self._shutting = threading.RLock()  # held while a call is submitted: none comes behind the shutdown
        self._shutdown = False
        weakref.finalize(self, self._work.finish_soon).atexit = False

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Result]:
        """Have ``fn(*args, **kwargs)`` called by a slave; returns its future (see `TaskFuture`).

        What cannot be pickled fails its future with a PicklingError.  Raises RuntimeError after `shutdown`, and
        ``BrokenProcessPool`` when the initializer has raised on every slave.
        """
        with self._shutting:
            if self._shutdown or self._work.broken is not None or work.exiting():
                self._check_open()
            return self._work.submit(fn, args, kwargs)

    def _check_open(self) -> None:
        if self._work.broken is not None:
            raise self._work.broken
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if work.exiting():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def map(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Result]:
        """The results of ``fn`` for the iterables' items, in their order; all are submitted at once.

        ``buffersize``: only so many are submitted ahead of the results that were taken, and the iterables may be
        endless.  ``timeout``: seconds from now on after which the iterator raises TimeoutError.  ``chunksize`` needs
        not be given.  Leaving the iterator early cancels the rest.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        inputs = zip(*iterables)
        futures = deque(self.submit(fn, *args) for args in itertools.islice(inputs, buffersize))
        if buffersize is None:  # then what is returned does not keep this object
            return _results(futures, iter(()), fn, deadline)
        return _results(futures, inputs, functools.partial(self.submit, fn), deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the slaves end when all is done, if they are the executor's own.

        ``wait``: return when that is so.  ``cancel_futures``: cancel calls that no slave has got.
        """
        with self._shutting:
            self._shutdown = True
        if cancel_futures:
            self._work.cancel_waiting()
        if wait:
            self._work.finish()
        else:
            self._work.finish_soon()

    def terminate_workers(self) -> None:
        """Take no more calls and cancel all that are not done, those that run too.

        In the standard library from Python 3.14 on.
        """
        self.shutdown(wait=False, cancel_futures=True)
        self._work.abort()

    kill_workers = terminate_workers

    # -- what programs look at although it is private

    @property
    def _max_workers(self) -> int:
        return self._work.max_workers

    @property
    def _mp_context(self) -> Any:  # type: ignore[override]
        return self._given_context or multiprocessing.get_context("spawn")

    @property
    def _processes(self) -> Processes:  # type: ignore[override]
        its_work = self._work
        return Processes(lambda: its_work.manager)  # which does not keep this object

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return False if self._work.broken is None else str(self._work.broken)


def _results(
    futures: deque[concurrent.futures.Future[Result]],
    more: Iterator[tuple[Any, ...]],
    submit: Callable[..., Any],
    deadline: float | None,
) -> Iterator[Result]:
    """The results in order, each forgotten when it is given; the rest is cancelled if they are not asked for."""
    try:
        while futures:
            for args in itertools.islice(more, 1):
                futures.append(submit(*args))
            yield _result(futures, None if deadline is None else deadline - time.monotonic())
    finally:
        for future in futures:
            future.cancel()


def _result(futures: deque[concurrent.futures.Future[Result]], timeout: float | None) -> Result:
    """The first one's, which keeps no reference to it."""
    future = futures.popleft()
    try:
        return future.result(timeout)
    finally:
        future.cancel()  # if it is late
        del future
