"""Runs CPython's own test suites for pools, of the interpreter that runs this, on `parallel.Pool`.

python3.13 tests/frontends/cpython_pool.py [name ...]

See cpython.py for what it prints.  Names that the suites give to private things are replaced: the class of the cause
that shows the remote traceback, and in a test's little program the module that the pool is imported from.  The moment
that threads get to forget results is longer: this is one of many programs on a busy machine.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import unittest
from multiprocessing import pool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from test import _test_multiprocessing as suites  # noqa: E402
from test import support  # noqa: E402
from test.support import script_helper  # noqa: E402
from test.support.script_helper import assert_python_ok  # noqa: E402

import parallel  # noqa: E402
from tests.frontends import cpython  # noqa: E402
from tests.frontends.not_applicable import POOLS  # noqa: E402


class ProcessesMixin(suites.ProcessesMixin):  # type: ignore[misc]
    """Has the suites test our pool."""

    Pool = staticmethod(parallel.Pool)


SUITES = {
    "PoolTest": suites._TestPool,
    "PoolWorkerErrorsTest": suites._TestPoolWorkerErrors,
    "PoolWorkerLifetimeTest": suites._TestPoolWorkerLifetime,
}
for _name, _base in SUITES.items():  # slaves find them here, too
    globals()[_name] = type(_name, (_base, ProcessesMixin, unittest.TestCase), {"__module__": __name__})


class InitializersTest(suites.TestInitializers):  # type: ignore[misc]
    """That of pools."""

    test_manager_initializer = None


class StdinBadfiledescriptorTest(suites.TestStdinBadfiledescriptor):  # type: ignore[misc]
    """That of pools."""

    test_queue_in_process = None
    test_flushing = None


class PoolNotLeakOnFailureTest(suites.TestPoolNotLeakOnFailure):  # type: ignore[misc]
    """As it is."""


def python_ok(*arguments: str, **variables: str) -> Any:
    """Runs the suites' little programs with our pool."""
    program = arguments[-1].replace("from multiprocessing import Pool", "from parallel import Pool")
    return assert_python_ok(*arguments[:-1], program, PYTHONPATH=str(ROOT), __isolated=False, **variables)


def main(wanted: list[str]) -> None:
    """Run them all, or those that are named."""
    script_helper.assert_python_ok = python_ok
    suites.DELTA = 1.0
    multiprocessing.Pool = parallel.Pool  # type: ignore[assignment]
    pool.RemoteTraceback = parallel.RemoteError  # type: ignore[attr-defined]
    parallel.RemoteError.tb = property(lambda self: self.traceback)  # type: ignore[attr-defined]
    support.verbose = 0
    whole: list[type[unittest.TestCase]] = [InitializersTest, StdinBadfiledescriptorTest, PoolNotLeakOnFailureTest]
    cpython.run([*(globals()[name] for name in SUITES), *whole], POOLS, wanted)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    main(sys.argv[1:])
