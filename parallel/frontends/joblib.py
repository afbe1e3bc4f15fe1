"""joblib's backend: `joblib.Parallel`, and all that is built on it, on slaves.

    import joblib
    import parallel.frontends.joblib

    parallel.frontends.joblib.register()
    with joblib.parallel_config(backend="parallel"):                   # slaves on all cores of this machine
        ...
    with joblib.parallel_config(backend="parallel", manager=manager):  # those of a manager; also as an instance,
        ...                                                            # backend=ParallelBackend(manager)

joblib calls `ParallelBackend.submit` with a batch of calls, in the user's thread at first and then in the callback of
each batch that is done.  So callbacks take joblib's lock, ask the user's iterator for tasks, pickle and submit them:
each `joblib.Parallel` has a lane (lane.py), and its callbacks a thread.  joblib is needed here and nowhere else.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable

import joblib
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from slave.cpus import THREADS, prepare, usable_cpus

from .inline import inside_task
from .lane import AnyFuture, Callback, Lane
from .shared_arrays import SharedArrays
from .work import Work

if TYPE_CHECKING:
    from ..manager import Manager

if not hasattr(ParallelBackendBase, "submit"):
    raise ImportError(f"parallel.frontends.joblib needs joblib 1.5 or newer; this is joblib {joblib.__version__}")

log = logging.getLogger("parallel")

NAME = "parallel"
_FEWEST = 2  # with one job joblib would run all in this process, and never ask for a slave


def register(*, make_default: bool = False) -> None:
    """Make ``joblib.parallel_config(backend="parallel")`` known to joblib.

    ``make_default``: whatever uses joblib and names no backend uses this one.
    """
    register_parallel_backend(NAME, ParallelBackend, make_default=make_default)


class ParallelBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the calls of `joblib.Parallel` on slaves.

    ``manager``: whose slaves to use.  ``n_jobs`` is how many of them, -1 (the default) all, also those that come later;
    with 1 it is one slave at a time, and not this process.

    Without one: ``n_jobs`` local slaves of its own, -1 (the default) one for each CPU that this process may use.  They
    stay for the next call and end with the interpreter, or when another number is asked for.  With 1 there are none:
    the calls run in this process, as joblib's own backends have it.

    ``inner_max_num_threads``: how many threads BLAS, OpenMP and the like may start in a slave; default: its share of
    the machine's CPUs.  ``initializer(*initargs)`` runs once in each slave before its first call.  Other arguments of
    joblib's backends are accepted and have no effect.

    A NumPy array of ``max_nbytes`` (joblib's, 1 MB) or more that stands in several calls of one `Parallel` is sent once
    to each slave, and is read-only there; not so with ``max_nbytes=None`` or a ``mmap_mode`` other than 'r'.

    Functions that cannot be pickled by reference are sent by cloudpickle where that is installed.  `Parallel` calls
    inside a task run in that process, one call after the other.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        manager: Manager | None = None,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        **ignored: object,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.manager = manager
        self.parallel: Any = None  # the `joblib.Parallel` that was configured last
        self._initializer = initializer, tuple(initargs)
        self._kept = _own if manager is None else _Kept()
        # by `joblib.Parallel`
        self._lanes: weakref.WeakKeyDictionary[Any, tuple[Lane, SharedArrays]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()  # guards them

    # -- how many

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at a time, or 2 for one slave of a manager's.  Raises ValueError for 0."""
        if inside_task("joblib's backend of slaves"):
            return 1
        wanted = self._wanted(n_jobs)
        return wanted if self.manager is None else max(_FEWEST, min(wanted, self._available()))

    def _wanted(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        return max(1, self._available() + 1 + n_jobs) if n_jobs < 0 else n_jobs

    def _available(self) -> int:
        return usable_cpus() if self.manager is None else Work(self.manager, 0, None).max_workers

    # -- what joblib calls

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        max_nbytes: int | None = None,
        mmap_mode: str | None = "r",
        **ignored: object,
    ) -> int:
        """Make ready for the calls of ``parallel``; returns `effective_n_jobs`."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            log.info("parallel: joblib is to run one call at a time, and does so in this process (n_jobs=1, or a task)")
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        if initializer is None:
            initializer, initargs = self._initializer
        threads = self.inner_max_num_threads
        slaves = self._kept.take(self.manager, count, threads, initializer, tuple(initargs))
        wanted = self._wanted(n_jobs)
        most = wanted if self.manager is not None and wanted < self._available() else None
        shared = SharedArrays(slaves, max_nbytes if mmap_mode == "r" else None)
        weakref.finalize(parallel, shared.release).atexit = False
        with self._lock:
            self._lanes[parallel] = Lane(shared, most, _fail), shared
        return count

    def submit(self, func: Callable[[], object], callback: Callback | None = None) -> Lane:
        """Have a slave call it; then ``callback`` gets its future, in a thread of its `joblib.Parallel`'s."""
        lane = self._lane(getattr(callback, "parallel", self.parallel))
        lane.submit(func, callback)
        return lane

    def _lane(self, parallel: Any) -> Lane:
        with self._lock:
            return self._lanes[parallel][0]

    def retrieve_result_callback(self, out: AnyFuture) -> Any:
        """What the batch returned; raises what it raised, with the remote traceback as the cause."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the calls of the `joblib.Parallel` that is being aborted; the slaves stay."""
        with self._lock:
            lanes = [lane for parallel, (lane, _) in self._lanes.items() if getattr(parallel, "_aborting", True)]
        for lane in lanes:
            lane.cancel()

    def terminate(self) -> None:
        """The end of a call.  The slaves stay for the next one."""
        self.reset_batch_stats()
        with self._lock:
            over = [shared for lane, shared in self._lanes.values() if lane.idle]
        for shared in over:
            shared.release()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """For `Parallel` inside a task.  It travels with each batch, and is small."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _fail(callback: Any, error: BaseException) -> None:
    """A callback raised, say by asking the user's iterator, and joblib would wait for ever: its call raises that."""
    parallel = callback.parallel
    tracker = type(callback)(0, 1, parallel)
    parallel._register_new_job(tracker)
    tracker._register_outcome({"result": error, "status": "Error"})


class _Slaves:
    """A context on slaves, which ends when nobody has this any more and all is done."""

    def __init__(self, work: Work, key: object) -> None:
        self.work, self.key = work, key
        weakref.finalize(self, work.finish_soon).atexit = False

    @property
    def broken(self) -> bool:
        """Whether they cannot run anything."""
        return self.work.broken is not None


class _Kept:
    """Those that somebody has, and the ones that were asked for last: the next call finds them, and what they know."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held while they are looked for
        self._known: weakref.WeakSet[_Slaves] = weakref.WeakSet()
        self._last: _Slaves | None = None

    def take(
        self,
        manager: Manager | None,
        count: int,
        threads: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[object, ...],
    ) -> _Slaves:
        """``count`` slaves of its own, or the manager's, which have called these."""
        chosen = [os.environ.get(name) for name in THREADS]  # by the user, since the slaves were started
        key = os.getpid(), manager is None and count, threads, chosen, initializer, initargs
        with self._lock:
            for slaves in self._known:
                if slaves.key == key and not slaves.broken:
                    self._last = slaves
                    return slaves
            then = None if initializer is None else functools.partial(initializer, *initargs)
            setup = functools.partial(prepare, threads, then) if threads or then else None
            self._last = slaves = _Slaves(Work(manager, count, setup), key)
            self._known.add(slaves)
            return slaves


_own = _Kept()
