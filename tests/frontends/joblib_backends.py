"""Runs joblib's own tests of backends, of the joblib that is installed, on ours in the place of loky's.

python3 tests/frontends/joblib_backends.py [pytest arguments]

Prints one line of JSON for each test that names loky, and for those that take the default backend, which is loky: its
name, and "passed", or what went wrong, or "not applicable" and why (see not_applicable.py).  The suite's limits on how
long something may take are ten times as long: this is one of many programs on a busy machine.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
os.environ["PYTHONPATH"] = str(ROOT)

import joblib.testing  # noqa: E402
import pytest  # noqa: E402
from joblib import _parallel_backends  # noqa: E402

from parallel.frontends.joblib import ParallelBackend  # noqa: E402
from tests.frontends.not_applicable import JOBLIB  # noqa: E402

BESIDE = {  # tests of loky's that do not name it in their parameters
    "test_effective_n_jobs",
    "test_effective_n_jobs_None",
    "test_nested_loop_with_exception_with_loky",
    "test_parallel_kwargs",
    "test_parallel_pickling",
    "test_exception_dispatch",
    "test_nested_backend_in_sequential",
    "test_parallel_with_interactively_defined_functions_loky",
    "test_parallel_with_interactively_defined_bound_method_loky",
    "test_parallel_with_exhausted_iterator",
    "test_parallel_return_order_with_return_as_generator_parameter",
    "test_backend_hinting_and_constraints",
    "test_backend_hinting_always_running",
    "test_globals_update_at_each_parallel_call",
    "test_threadpool_limitation_in_child_loky",
    "test_threadpool_limitation_in_child_context",
    "test_threadpool_limitation_in_child_override",
    "test_loky_reuse_workers",
    "test_initializer_parallel",
    "test_initializer_reused",
    "test_initializer_not_reused",
}


# variants that try joblib's parts and not a backend's, or the same of a backend once more
REPEATED = "parallel_backend", "multiprocessing", "[args-", "[kwargs-", "-11-", "-100-"

# the suite has scripts run that name loky
PREFACE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import joblib
from parallel.frontends.joblib import ParallelBackend
joblib.parallel.BACKENDS["loky"] = ParallelBackend
"""


class Reporter:
    """A plugin of pytest's that picks the tests and tells what came of each."""

    def __init__(self, all_of_them: bool) -> None:
        self._all = all_of_them

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """See pytest."""
        ours = [item for item in items if "loky" in item.name or item.name.partition("[")[0] in BESIDE]
        items[:] = [item for item in ours if self._all or not any(word in item.name for word in REPEATED)]
        if not self._all:
            for item in items:
                if why_not(item.name):
                    tell(item.name, f"not applicable: {why_not(item.name)}")
            items[:] = [item for item in items if not why_not(item.name)]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """See pytest."""
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.partition("::")[2]
            tell(name, "passed" if report.outcome == "passed" else f"{report.outcome}: {report.longreprtext}")


def why_not(name: str) -> str | None:
    """Why a test cannot apply; None if it can."""
    return JOBLIB.get(name) or JOBLIB.get(name.partition("[")[0])


def tell(test: str, outcome: str) -> None:
    """One line of JSON."""
    print(json.dumps([test, outcome]), file=sys.__stdout__, flush=True)


def check_script(command: Sequence[str], timeout: float | None = 5, **named: Any) -> None:
    """As joblib's `check_subprocess_call`, with our backend in the script."""
    if command[1] == "-c":
        command = [*command[:2], PREFACE + command[2]]
    else:
        script = Path(command[1])
        script.write_text(PREFACE + script.read_text())
    joblib.testing.check_subprocess_call(command, None if timeout is None else 10 * timeout, **named)


def main(arguments: list[str]) -> int:
    """Run them."""
    _parallel_backends.LokyBackend = ParallelBackend
    joblib.parallel.BACKENDS["loky"] = ParallelBackend
    test_parallel: Any = importlib.import_module("joblib.test.test_parallel")
    test_parallel.check_subprocess_call = check_script
    test_parallel.time = types.SimpleNamespace(time=lambda: time.time() / 10, sleep=time.sleep)
    suite = Path(joblib.__file__).parent / "test" / "test_parallel.py"
    options = ["-p", "no:cacheprovider", "-p", "no:terminal", "-W", "ignore", "--rootdir", str(suite.parent)]
    return pytest.main([*options, str(suite), *arguments], [Reporter(bool(arguments))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
