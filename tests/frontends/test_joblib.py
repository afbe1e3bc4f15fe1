"""joblib's backend: what joblib's own tests do not ask, and these (joblib_backends.py, not_applicable.py)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.frontends.not_applicable import JOBLIB
from tests.support.programs import ROOT, environment
from tests.support.waiting import eventually
from tests.whole.conftest import Run

joblib = pytest.importorskip("joblib", minversion="1.5", reason="joblib 1.5 or newer is not installed")
from joblib import Parallel, delayed, parallel_config  # noqa: E402
from joblib.parallel import BatchedCalls  # noqa: E402

from parallel.frontends.joblib import ParallelBackend  # noqa: E402

SECONDS = 60
MARKS: list[str] = []


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def inverse(number: int) -> float:
    return 1 / number


def touch_and_wait(path: str) -> None:
    Path(path).touch()
    threading.Event().wait()


def wait_or_raise(path: str, number: int) -> None:
    if number:
        touch_and_wait(path)
    eventually(Path(path).exists, SECONDS, "the other call's begin")
    raise LookupError(path)


def die_once(path: str, number: int) -> int:
    if number == 3 and not Path(path).exists():
        Path(path).touch()
        os._exit(3)
    return number


def nested(count: int) -> list[tuple[int, int]]:
    """Library code that uses joblib."""
    found: list[tuple[int, int]] = Parallel(n_jobs=2)(delayed(square)(number) for number in range(count))
    return found


def nested_by_name() -> list[tuple[int, int]]:
    """The same, and it asks for this backend."""
    with parallel_config(backend=ParallelBackend(), n_jobs=2):
        assert joblib.effective_n_jobs(-1) == 1
        return nested(3)


def mark(word: str) -> None:
    MARKS.append(word)


def marks(_: int) -> list[str]:
    return MARKS


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_over_a_manager_all_calls_are_made_by_its_slaves(make: Make) -> None:
    manager = make(2)
    manager.wait_for_slaves(2)
    with parallel_config(backend=ParallelBackend(manager)):
        for jobs in (None, -1, 2, 1):
            found = Parallel(n_jobs=jobs)(delayed(square)(number) for number in range(100))
            assert [value for value, _ in found] == [number * number for number in range(100)]
            assert os.getpid() not in {pid for _, pid in found}, f"n_jobs={jobs} ran calls here"
        assert joblib.effective_n_jobs(-1) == joblib.effective_n_jobs(8) == 2
        with pytest.raises(ValueError, match="n_jobs == 0"):
            Parallel(n_jobs=0)([delayed(square)(1)])


def test_with_one_slave_that_one_is_used(make: Make) -> None:
    with parallel_config(backend=ParallelBackend(make(1))):
        found = Parallel()(delayed(square)(number) for number in range(10))
        assert len({pid for _, pid in found} - {os.getpid()}) == 1


def test_by_name_after_it_was_registered(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib.parallel, "BACKENDS", dict(joblib.parallel.BACKENDS))
    parallel.frontends.joblib.register()
    with parallel_config(backend="parallel", manager=make(1)):
        assert Parallel()(delayed(abs)(-number) for number in range(3)) == [0, 1, 2]


def test_an_error_has_the_remote_traceback_and_the_next_call_works(make: Make) -> None:
    with parallel_config(backend=ParallelBackend(make(2))):
        with pytest.raises(ZeroDivisionError) as caught:
            Parallel()(delayed(inverse)(number) for number in (1, 2, 0, 3))
        assert isinstance(caught.value.__cause__, parallel.RemoteError)
        assert "in inverse" in caught.value.__cause__.traceback
        with pytest.raises(pickle.PicklingError, match=r"cannot be sent to a slave: the task\.items\[0\]\[1\]\[0\]"):
            Parallel()(delayed(abs)(threading.Lock()) for _ in range(3))
        assert Parallel()(delayed(inverse)(number) for number in (1, 2)) == [1, 0.5]


def test_in_a_with_block_an_error_ends_what_runs_and_the_next_call_works(make: Make, own_folder: Path) -> None:
    with Parallel(n_jobs=2, backend=ParallelBackend(make(2))) as call:
        with pytest.raises(LookupError):
            call(delayed(wait_or_raise)(str(own_folder / "began"), number) for number in range(2))
        assert call(delayed(inverse)(number) for number in (1, 2)) == [1, 0.5]


def test_generators_and_one_that_is_left_early(make: Make) -> None:
    backend = ParallelBackend(make(2))
    results = Parallel(backend=backend, return_as="generator")(delayed(abs)(-number) for number in range(50))
    assert list(results) == list(range(50))
    results = Parallel(backend=backend, return_as="generator_unordered")(delayed(abs)(-number) for number in range(50))
    assert sorted(results) == list(range(50))
    results = Parallel(backend=backend, return_as="generator")(delayed(abs)(-number) for number in range(10_000))
    assert next(results) == 0
    with pytest.warns(UserWarning, match="could benefit"):
        results.close()
    assert Parallel(backend=backend)(delayed(abs)(-number) for number in range(3)) == [0, 1, 2]


def test_one_calls_results_may_be_anothers_tasks(make: Make) -> None:
    """joblib asks for tasks under a lock that callbacks take: in one thread for all they would wait for each other."""
    with parallel_config(backend=ParallelBackend(make(2))):
        inner = Parallel(return_as="generator")(delayed(abs)(-number) for number in range(200))
        outer = Parallel(return_as="generator")(delayed(pow)(number, 2) for number in inner)
        assert list(outer) == [number**2 for number in range(200)]


def test_aborting_one_call_leaves_another_of_the_same_backend_alone(make: Make) -> None:
    with parallel_config(backend=ParallelBackend(make(2))):
        other = Parallel(return_as="generator")(delayed(abs)(-number) for number in range(500))
        with pytest.raises(ZeroDivisionError):
            Parallel()(delayed(inverse)(number) for number in (1, 0))
        assert list(other) == list(range(500))


def test_a_lost_process_costs_an_attempt_and_the_call_goes_on(make: Make, own_folder: Path) -> None:
    calls = (delayed(die_once)(str(own_folder / "died"), number) for number in range(8))
    assert Parallel(backend=ParallelBackend(make(2)))(calls) == list(range(8))


def test_a_manager_that_is_shut_down_fails_the_call(make: Make) -> None:
    manager = make(1)
    backend = ParallelBackend(manager)
    results = Parallel(backend=backend, return_as="generator")(delayed(abs)(number) for number in range(1_000_000))
    assert next(results) == 0
    manager.shutdown()
    with pytest.raises(parallel.ManagerClosed):
        list(results)
    with pytest.raises(parallel.ManagerClosed):
        Parallel(backend=backend)([delayed(abs)(1)])


def test_an_iterator_that_wants_to_exit_in_a_callback_is_heard(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def calls() -> Iterator[Any]:
        yield from (delayed(abs)(number) for number in range(100))
        raise SystemExit("enough")

    with pytest.raises(SystemExit, match="enough"):
        Parallel(backend=ParallelBackend(make(1)))(calls())
    assert "a callback raised" in caplog.text


def test_inside_a_task_calls_run_in_that_process_and_the_backend_that_travels_is_small(make: Make) -> None:
    backend = ParallelBackend(make(1))
    batch = BatchedCalls([(abs, (1,), {})], backend.get_nested_backend())
    assert len(pickle.dumps(batch)) < 250
    found, by_name = Parallel(backend=backend)([delayed(nested)(4), delayed(nested_by_name)()])
    assert [value for value, _ in found + by_name] == [0, 1, 4, 9, 0, 1, 4]
    assert len({pid for _, pid in found + by_name} - {os.getpid()}) == 1


def look_at(array: Any, number: int) -> tuple[float, bool, int]:
    return float(array[number]), array.flags.writeable, id(array)


def test_a_large_array_of_many_calls_is_sent_once_to_each_slave(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    large, small = numpy.arange(300_000.0), numpy.arange(30.0)
    manager = make(1)
    backend = ParallelBackend(manager, initializer=mark, initargs=("once",))

    def look(array: Any, **options: Any) -> list[tuple[float, bool, int]]:
        call = Parallel(backend=backend, batch_size=1, **options)
        return list(call(delayed(look_at)(array, number=number) for number in range(20)))

    found = look(large)
    assert [value for value, _, _ in found] == list(range(20))
    assert len({(writeable, id) for _, writeable, id in found[1:]}) == 1 and not found[-1][1]
    large += 1
    assert [value for value, _, _ in look(large)] == list(range(1, 21)), "the next call has it as it is then"
    assert all(writeable for _, writeable, _ in look(large, max_nbytes=None) + look(large, mmap_mode="c") + look(small))
    assert Parallel(backend=backend)([delayed(marks)(0)]) == [["once"]]
    with pytest.raises(ValueError, match="read-only"):
        Parallel(backend=backend, batch_size=1)(delayed(large.__class__.fill)(large, 1) for _ in range(6))


def test_threads_and_initializer_of_a_slave(make: Make) -> None:
    manager = make(1)
    with parallel_config(backend=ParallelBackend(manager), inner_max_num_threads=3):
        assert Parallel()([delayed(variable)("OMP_NUM_THREADS")]) == ["3"]
    backend = ParallelBackend(manager, initializer=mark, initargs=("begun",))
    for _ in range(2):
        assert Parallel(backend=backend)(delayed(marks)(number) for number in range(3)) == [["begun"]] * 3


def test_a_script_without_a_guard_on_slaves_of_its_own(run: Run) -> None:
    pytest.importorskip("cloudpickle")
    program = run(
        """
import os
import joblib
import parallel.frontends.joblib

class Point:
    def __init__(self, x): self.x = x

def double(point, add=0):
    return Point(2 * point.x + add), os.getpid()

parallel.frontends.joblib.register()
pids = set()
with joblib.parallel_config(backend="parallel", n_jobs=2):
    for _ in range(3):
        found = joblib.Parallel()(joblib.delayed(double)(Point(x), add=1) for x in range(40))
        assert [type(point) for point, _ in found] == [Point] * 40
        assert [point.x for point, _ in found] == [2 * x + 1 for x in range(40)]
        pids |= {pid for _, pid in found}
    assert joblib.Parallel()(joblib.delayed(lambda x: x + 1)(x) for x in range(3)) == [1, 2, 3]
assert os.getpid() not in pids and len(pids) <= 2, "slaves stay for the next call"
with joblib.parallel_config(backend="parallel", n_jobs=1):
    assert joblib.Parallel()([joblib.delayed(os.getpid)()]) == [os.getpid()]
print("done")
"""
    )
    assert program.ends() == 0 and program.out == "done\n", program.err


def test_nothing_else_imports_joblib() -> None:
    code = "import sys, parallel; parallel.Executor, parallel.map; assert 'joblib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS, env=environment())


@pytest.mark.slow
def test_joblibs_own_tests_pass_that_can_apply(temporary_folder: Path) -> None:
    pytest.importorskip("cloudpickle")
    pytest.importorskip("threadpoolctl")
    theirs = temporary_folder / "theirs"  # where they may leave what they like
    theirs.mkdir()
    command = [sys.executable, str(ROOT / "tests" / "frontends" / "joblib_backends.py")]
    variables = {**os.environ, "TMPDIR": str(theirs)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=480, check=False, env=variables)
    shutil.rmtree(theirs)
    # joblib's own lines begin with "[Parallel("
    lines = [line for line in done.stdout.splitlines() if line.startswith('["test_')]
    outcomes = dict(map(json.loads, lines))
    names = {name.partition("[")[0] for name in outcomes}
    assert {name.partition("[")[0] for name in JOBLIB} <= names, "these are not in the suite any more"
    wrong = {name: text for name, text in outcomes.items() if text != "passed" and not text.startswith("not app")}
    assert not wrong and not done.returncode, f"{wrong}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert list(outcomes.values()).count("passed") > 100
