"""`parallel.Executor`.  CPython's own tests are run by test_cpython.py; here is what they do not ask."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import pickle
import sys
import threading
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make, ours
from tests.support.waiting import eventually
from tests.whole.conftest import Run

SECONDS = 60
MARKS: list[str] = []


def initialize(mark: str) -> int:
    MARKS.append(mark)
    return 17  # which is no argument of the calls


def marks() -> list[str]:
    return MARKS


def speak(word: str) -> int:
    print("says", word)
    print("whispers", word, file=sys.stderr)
    return len(word)


class Unpicklable(Exception):
    """It holds what cannot be sent."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def raise_unpicklable(text: str) -> None:
    raise Unpicklable(text)


def library(count: int) -> tuple[int, list[int]]:
    """Library code that uses an executor."""
    with parallel.Executor(3, initializer=initialize, initargs=("inner",)) as executor:
        assert executor.submit(marks).result() == ["inner"]
        return os.getpid(), [*executor.map(abs, range(-count, 0)), executor.submit(os.getpid).result()]


def mark_and_wait(path: str) -> None:
    Path(path).touch()
    threading.Event().wait()


def die_once(path: str) -> int:
    if not Path(path).exists():
        Path(path).touch()
        os._exit(3)
    return 7


def test_it_is_an_executor_over_local_slaves_and_writes_no_file(own_folder: Path) -> None:
    before = set(os.listdir(own_folder))
    with parallel.Executor(2, initializer=initialize, initargs=("done",)) as executor:
        assert isinstance(executor, concurrent.futures.Executor) and executor._max_workers == 2
        assert executor.submit(pow, 2, 8).result(SECONDS) == 256
        assert executor.submit(marks).result(SECONDS) == ["done"]
        assert list(executor.map(pow, range(10), itertools.count())) == [n**n for n in range(10)]
        pid = executor.submit(os.getpid).result(SECONDS)
        assert pid in executor._processes and executor._processes[pid].pid == pid  # the other one may not have come yet
    assert set(os.listdir(own_folder)) == before
    eventually(lambda: not ours(), SECONDS, "the end of its threads")


def test_over_a_manager_whose_slaves_come_and_go(make: Make) -> None:
    manager = make()
    executor = parallel.Executor(manager=manager)
    assert executor._max_workers == 1 and list(executor.map(abs, range(-3, 0))) == [3, 2, 1]
    manager.add_slaves(2)
    assert executor._max_workers == 3
    manager.remove_slave(manager.slaves[0].number)
    assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1]
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)
    assert parallel.Executor(manager=manager).submit(abs, -1).result(SECONDS) == 1, "the manager is the user's"


def test_a_lost_process_costs_an_attempt_and_the_pool_goes_on(own_folder: Path) -> None:
    with parallel.Executor(1) as executor:
        assert executor.submit(die_once, str(own_folder / "died")).result(SECONDS) == 7
        killed = executor.submit(os._exit, 9)
        with pytest.raises(concurrent.futures.BrokenExecutor, match="exited with code 9"):
            killed.result(SECONDS)
        assert executor.submit(abs, -2).result(SECONDS) == 2


def test_what_cannot_be_pickled_fails_its_own_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with parallel.Executor(1) as executor:
        with pytest.raises(pickle.PicklingError, match="lambda"):
            executor.submit(lambda: 1).result(SECONDS)
        with pytest.raises(pickle.PicklingError, match="result cannot be sent"):
            executor.submit(threading.Lock).result(SECONDS)
        with pytest.raises(TypeError, match="cannot pickle '_thread.lock' object"):
            executor.submit(abs, threading.Lock()).result(SECONDS)
        with pytest.raises(pickle.PicklingError, match=r"(?s)Unpicklable: of mine.*raise_unpicklable") as raised:
            executor.submit(raise_unpicklable, "of mine").result(SECONDS)
        assert isinstance(raised.value, parallel.RemoteError)
        assert type(pickle.loads(pickle.dumps(raised.value))) is parallel.RemoteError
        assert executor.submit(abs, -2).result(SECONDS) == 2


def test_bad_arguments_are_refused_as_the_standard_library_does(make: Make) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            parallel.Executor(number)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        parallel.Executor(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be a callable"):
        parallel.Executor(1, initializer=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either max_workers or manager"):
        parallel.Executor(1, manager=make(0))
    executor = parallel.Executor(1)
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(abs, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        executor.map(abs, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        executor.map(abs, [1], buffersize=1.5)  # type: ignore[arg-type]
    executor.shutdown()


def test_with_a_buffer_the_inputs_may_be_endless() -> None:
    taken: list[int] = []

    def inputs() -> itertools.count[int]:
        return itertools.count(1)

    def counted() -> object:
        for number in inputs():
            taken.append(number)
            yield -number

    with parallel.Executor(2) as executor:
        results = executor.map(abs, counted(), buffersize=4)  # type: ignore[arg-type]
        assert list(itertools.islice(results, 10)) == list(range(1, 11))
        assert len(taken) <= 14
        results.close()  # type: ignore[attr-defined]


def test_terminating_the_workers_cancels_what_runs_and_what_waits(own_folder: Path) -> None:
    executor = parallel.Executor(1)
    assert isinstance(executor, concurrent.futures.ProcessPoolExecutor), "libraries ask for that"
    futures = [executor.submit(mark_and_wait, str(own_folder / "began")) for _ in range(3)]
    eventually((own_folder / "began").exists, SECONDS, "the task's begin")
    executor.terminate_workers()
    assert all(future.cancelled() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)


def test_shutdown_without_waiting_lets_all_be_done() -> None:
    executor = parallel.Executor(2)
    results = executor.map(abs, range(-5, 5))
    executor.shutdown(wait=False)
    executor.shutdown(wait=False)
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    eventually(lambda: not ours(), SECONDS, "the end of its threads")


def test_an_executor_that_is_forgotten_lets_all_be_done_and_ends() -> None:
    executor = parallel.Executor(2)
    results = executor.map(abs, range(-5, 5))
    del executor
    gc.collect()
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    eventually(lambda: gc.collect() >= 0 and not ours(), SECONDS, "the end of its threads")


def test_one_that_nobody_used_starts_nothing() -> None:
    with parallel.Executor(2):
        assert not ours()


def test_inside_a_task_it_runs_in_that_process() -> None:
    with parallel.Executor(2) as executor:
        pid, found = executor.submit(library, 3).result(SECONDS)
        assert found == [3, 2, 1, pid]


def test_asyncio_runs_calls_in_it_and_cancelling_the_coroutine_ends_the_call(own_folder: Path) -> None:
    async def main(executor: parallel.Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        endless = loop.run_in_executor(executor, mark_and_wait, str(own_folder / "began"))
        await asyncio.to_thread(eventually, (own_folder / "began").exists, SECONDS, "the task's begin")
        endless.cancel()
        return await asyncio.gather(*(loop.run_in_executor(executor, abs, -n) for n in range(20)))

    with parallel.Executor(1) as executor:
        assert asyncio.run(asyncio.wait_for(main(executor), SECONDS)) == list(range(20))


def test_what_calls_print_appears_and_all_is_done_before_the_interpreter_exits(run: Run) -> None:
    program = run(
        """
import parallel
from tests.frontends.test_executor import speak

if __name__ == "__main__":
    executor = parallel.Executor(1)
    executor.submit(speak, "apple")
    executor.submit(speak, "pear")
    other = parallel.Executor(1)
    other.submit(speak, "plum")
    other.shutdown(wait=False)
"""
    )
    assert program.ends() == 0, program.err
    assert sorted(program.out.splitlines()) == ["says apple", "says pear", "says plum"]
    assert sorted(program.complaints.splitlines()) == ["whispers apple", "whispers pear", "whispers plum"]
