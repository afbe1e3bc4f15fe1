"""Runs CPython's own test suites for executors, of the interpreter that runs this, on `parallel.Executor`.

python3.13 tests/frontends/cpython_futures.py [-v] [name ...]

See cpython.py for what it prints.  Names that the suites give to private things are replaced: the logger that tells of
a failing initializer, the class of the cause that shows the remote traceback, and the thread and the queue that are
joined to see that all has ended.  What the suites give five seconds may take a minute, or begins when slaves are there,
and a call that is to be asleep while others are looked at sleeps for longer: this is one of many programs on a busy
machine.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
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


# in these a call that sleeps is still to be asleep when others are done, or when it is looked at or cancelled
ASLEEP = {
    "test_first_completed",
    "test_first_completed_some_already_completed",
    "test_first_exception",
    "test_first_exception_some_already_complete",
    "test_first_exception_one_already_failed",
    "test_timeout",
    "test_future_times_out",
    "test_cancel_futures",
}
SLEEPERS = test_wait, test_as_completed, test_shutdown


def nap(over: str, seconds: float) -> None:
    """Sleep ten times as long, or until that file is there."""
    until, pause = time.monotonic() + 10 * seconds, threading.Event()
    while time.monotonic() < until and not os.path.exists(over):
        pause.wait(0.02)


class Mixin(util.ExecutorMixin):  # type: ignore[misc]
    """Has the suites test our executor."""

    executor_type = Executor

    def setUp(self) -> None:
        self._over = Path(f"{self._testMethodName}.over").absolute()
        if self._testMethodName in ASLEEP:
            for module in SLEEPERS:
                module.time = types.SimpleNamespace(sleep=functools.partial(nap, str(self._over)))
        super().setUp()
        if self._testMethodName == "test_map_timeout":  # its five seconds are for the calls, not for slaves to start
            self.executor.submit(int).result()

    def tearDown(self) -> None:
        if self._testMethodName in ASLEEP:
            self._over.touch()
        super().tearDown()
        for module in SLEEPERS:
            module.time = time

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
