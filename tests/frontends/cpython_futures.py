"""Runs CPython's own test suites for executors, of the interpreter that runs this, on `parallel.Executor`.

python3.13 tests/frontends/cpython_futures.py [-v] [name ...]

See cpython.py for what it prints.  Names that the suites give to private things are replaced: the logger that tells of
a failing initializer, the class of the cause that shows the remote traceback, and the thread and the queue that are
joined to see that all has ended.  What the suites give five seconds may take a minute, or begins when slaves are there:
this is one of many programs on a busy machine.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from concurrent.futures import process
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from test import support  # noqa: E402
from test.support import script_helper  # noqa: E402
from test.test_concurrent_futures import (  # noqa: E402
    test_as_completed,
    test_deadlock,
    test_init,
    test_process_pool,
    test_shutdown,
    test_wait,
    util,
)

import parallel  # noqa: E402
from tests.frontends import cpython  # noqa: E402
from tests.frontends.not_applicable import FUTURES  # noqa: E402
from tests.support.programs import without_waiting  # noqa: E402
from tests.support.waiting import eventually  # noqa: E402


class Ends:
    """Stands for the standard executor's thread and queue, which are joined: returns when all has ended."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def join(self) -> None:
        """Wait until the slaves have ended, and no thread is left."""
        manager = self._work.manager
        eventually(lambda: manager.closed, 120, "the end of the slaves")

    join_thread = join


class Executor(parallel.Executor):
    """Ours, with names for what the suites join."""

    @property
    def _executor_manager_thread(self) -> Ends:  # type: ignore[override]
        return Ends(self._work)

    _call_queue = _executor_manager_thread


class Mixin(util.ExecutorMixin):  # type: ignore[misc]
    """Has the suites test our executor."""

    executor_type = Executor

    def setUp(self) -> None:
        super().setUp()
        if self._testMethodName == "test_map_timeout":  # its five seconds are for the calls, not for slaves to start
            self.executor.submit(int).result()

    def get_context(self) -> Any:
        """What the suites ask of multiprocessing."""
        return multiprocessing.get_context("spawn")

    @contextlib.contextmanager
    def _assert_logged(self, text: str) -> Iterator[None]:
        with self.assertLogs("parallel", "WARNING") as found:
            yield
        kind, message = text.split(": ")
        assert any(kind in line and message in line for line in found.output), found.output


class Other(Executor):
    """For the tests that name the standard one."""


SUITES = {
    "ExecutorTest": test_process_pool.ProcessPoolExecutorTest,
    "WaitTest": test_wait.WaitTests,
    "AsCompletedTest": test_as_completed.AsCompletedTests,
    "ShutdownTest": test_shutdown.ProcessPoolShutdownTest,
    "InitializerTest": test_init.InitializerMixin,
    "FailingInitializerTest": test_init.FailingInitializerMixin,
    "DeadlockTest": test_deadlock.ExecutorDeadlockTest,
}
for _name, _base in SUITES.items():  # slaves find them here, too
    _own = {"__module__": __name__, "_assert_logged": Mixin._assert_logged}
    globals()[_name] = type(_name, (_base, Mixin, util.BaseTestCase), _own)


def python_ok(*arguments: str, **variables: str) -> Any:
    """Runs the suites' little programs with our executor."""
    program = arguments[-1].replace("from concurrent.futures import Executor", "from parallel import Executor")
    code, out, err = script_helper.assert_python_ok(
        *arguments[:-1], program, PYTHONPATH=str(ROOT), __isolated=False, **variables
    )
    return code, out, without_waiting(err)


def main(wanted: list[str]) -> None:
    """Run them all, or those that are named."""
    test_shutdown.assert_python_ok = python_ok
    patient = {**vars(signal), "alarm": lambda seconds: signal.alarm(12 * seconds)}
    test_shutdown.signal = types.SimpleNamespace(**patient)
    concurrent.futures.ProcessPoolExecutor = Other  # type: ignore[misc]
    process._RemoteTraceback = parallel.RemoteError  # type: ignore[misc, assignment]
    parallel.RemoteError.tb = property(lambda self: self.traceback)  # type: ignore[attr-defined]
    support.verbose = 0
    cpython.run([globals()[suite] for suite in SUITES], FUTURES, wanted)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    main(sys.argv[1:])
