"""Runs CPython's own test suites for executors, of the interpreter that runs this, on `parallel.Executor`.

python3.13 tests/frontends/cpython_futures.py [-v] [name ...]

Prints one line of JSON for each test: its name, and "passed", or what went wrong, or "not applicable" and why (see
not_applicable.py).  Names that the suites give to private things are replaced: the logger that tells of a failing
initializer, and the class of the cause that shows the remote traceback.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import sys
import unittest
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
from tests.frontends.not_applicable import FUTURES  # noqa: E402


class Mixin(util.ExecutorMixin):  # type: ignore[misc]
    """Has the suites test our executor."""

    executor_type = parallel.Executor

    def get_context(self) -> Any:
        """What the suites ask of multiprocessing."""
        return multiprocessing.get_context("spawn")

    @contextlib.contextmanager
    def _assert_logged(self, text: str) -> Iterator[None]:
        with self.assertLogs("parallel", "WARNING") as found:
            yield
        kind, message = text.split(": ")
        assert any(kind in line and message in line for line in found.output), found.output


class Other(parallel.Executor):
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
    return script_helper.assert_python_ok(*arguments[:-1], program, PYTHONPATH=str(ROOT), __isolated=False, **variables)


class Result(unittest.TestResult):
    """Prints what came of each test."""

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self.said: list[str] = []

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.said.append(self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.said.append(self.failures[-1][1])

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.said.append(f"skipped: {reason}")

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        tell(name_of(test), "\n".join(self.said) or "passed")


def tell(test: str, outcome: str) -> None:
    """One line of JSON."""
    print(json.dumps([test, outcome]), file=sys.__stdout__, flush=True)


def name_of(test: Any) -> str:
    """'suite.test_name'."""
    return f"{type(test).__name__}.{test._testMethodName}"


def main(wanted: list[str]) -> None:
    """Run them all, or those that are named."""
    test_shutdown.assert_python_ok = python_ok
    concurrent.futures.ProcessPoolExecutor = Other  # type: ignore[misc, assignment]
    process._RemoteTraceback = parallel.RemoteError  # type: ignore[misc, assignment]
    parallel.RemoteError.tb = property(lambda self: self.traceback)  # type: ignore[attr-defined]
    support.verbose = 0
    result = Result()
    for suite in SUITES:
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(globals()[suite]):
            name = name_of(test)
            if wanted and name not in wanted and suite not in wanted:
                continue
            if name in FUTURES and name not in wanted:
                tell(name, f"not applicable: {FUTURES[name]}")
            else:
                test.run(result)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    main(sys.argv[1:])
