"""`parallel.Pool`.  CPython's own tests are run by test_cpython.py; here is what they do not ask."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.frontends import imap
from tests.conftest import Make, ours
from tests.frontends.test_executor import MARKS, die_once, initialize, mark_and_wait, marks, raise_unpicklable, speak
from tests.support.waiting import eventually
from tests.whole.conftest import Run

SECONDS = 60

__all__ = ["speak"]  # for the script below


def square(number: int) -> int:
    return number * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise KeyError(number)
    return number


def give_lock() -> Any:
    return threading.Lock()


def length(data: bytes, number: int) -> tuple[int, int]:
    return len(data) + number, os.getpid()


def count_up(counter: Any, number: int) -> int:
    with counter.get_lock():
        counter.value += number
    return number


def broken_initializer() -> None:
    raise OSError("no licence")


def library(count: int) -> tuple[int, list[Any]]:
    """Library code that uses a pool."""
    seen: list[int] = []
    with parallel.Pool(3, initialize, ("inner",)) as pool:
        assert pool.size == 1 and [one.pid for one in pool._pool] == [os.getpid()]
        assert pool.apply(marks) == ["inner"]
        endless = pool.imap(square, itertools.count())
        assert list(itertools.islice(endless, 4)) == [0, 1, 4, 9]
        assert list(pool.imap_unordered(abs, [-1, -2], 2)) == [1, 2]
        assert pool.starmap_async(pow, [(2, 3)], callback=seen.extend).get() == [8] == seen
        with pytest.raises(KeyError):
            pool.map(fail_at_three, range(5))
        return os.getpid(), [*pool.map(square, range(count)), pool.apply(os.getpid)]


@pytest.fixture
def pool() -> Iterator[parallel.Pool]:
    with parallel.Pool(2) as made:
        yield made


def test_the_methods_of_the_standard_pool(pool: parallel.Pool) -> None:
    assert pool.size == pool._processes == 2 and "state=RUN pool_size=2" in repr(pool)
    assert pool.apply(pow, (2, 5)) == 32 and pool.apply(int, ("11",), {"base": 2}) == 3
    assert pool.map(square, range(100), chunksize=7) == [n * n for n in range(100)]
    assert pool.starmap(pow, zip(range(5), itertools.repeat(2))) == [0, 1, 4, 9, 16]
    assert list(pool.imap(square, range(50), 4)) == [n * n for n in range(50)]
    assert sorted(pool.imap_unordered(square, range(50), 4)) == [n * n for n in range(50)]
    assert pool.map(square, []) == [] == list(pool.imap(square, ()))
    assert pool.apply(os.getpid) in [process.pid for process in pool._pool]
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(pool)


def test_callbacks_are_called_before_the_result_is_ready(pool: parallel.Pool) -> None:
    seen: list[Any] = []
    pool.map_async(square, range(10), callback=seen.append, error_callback=seen.append).wait(SECONDS)
    failed = pool.starmap_async(int, [("1",), ("x",)], callback=seen.append, error_callback=seen.append)
    failed.wait(SECONDS)
    assert seen[0] == [n * n for n in range(10)] and isinstance(seen[1], ValueError)
    assert failed.ready() and not failed.successful()
    with pytest.raises(ValueError, match="invalid literal"):
        failed.get()
    pool.map_async(square, [], callback=seen.append).wait(SECONDS)
    assert seen[2:] == [[]]


def test_a_callback_may_call_more_and_one_that_raises_harms_nobody(
    pool: parallel.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    more: list[Any] = []

    def again(value: int) -> None:
        more.append(pool.apply_async(square, (value,)))
        raise RuntimeError("of the callback")

    first = pool.apply_async(square, (3,), callback=again)
    assert first.get(SECONDS) == 9 and more[0].get(SECONDS) == 81
    eventually(lambda: "of the callback" in caplog.text, SECONDS, "the log")


def test_callbacks_are_called_where_no_task_came_of_the_calls() -> None:
    seen: list[Any] = []
    with parallel.Pool(1) as fresh:
        fresh.map_async(square, [], callback=seen.append).wait(SECONDS)
        refused: Any = fresh.apply_async(None, error_callback=seen.append)  # type: ignore[arg-type]
        refused.wait(SECONDS)
        assert refused.ready() and seen[0] == [] and isinstance(seen[1], TypeError)


def test_callbacks_are_called_when_the_manager_is_gone_and_behind_one_that_exits(make: Make) -> None:
    manager = make()
    manager.add_slaves(1)
    pool, seen = parallel.Pool(manager=manager), list[Any]()
    pool.apply_async(square, (2,), callback=sys.exit).wait(SECONDS)
    pool.apply_async(square, (3,), callback=seen.append).wait(SECONDS)
    manager.shutdown()
    late = [
        pool.map_async(square, [], callback=seen.append),
        pool.apply_async(None, error_callback=seen.append),  # type: ignore[arg-type]
    ]
    for result in late:
        result.wait(SECONDS)
        assert result.ready()
    assert seen[:2] == [9, []] and isinstance(seen[2], TypeError) and len(seen) == 3
    pool.terminate()


def test_an_input_that_raises_stands_in_its_place_in_imap(pool: parallel.Pool) -> None:
    results = pool.imap(fail_at_three, iter(range(6)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError) as raised:
        next(results)
    assert "fail_at_three" in raised.value.__cause__.traceback  # type: ignore[union-attr]
    assert list(results) == [4, 5]
    with pytest.raises(StopIteration):
        next(results)


def test_waiting_has_an_end(pool: parallel.Pool, own_folder: Path) -> None:
    gate = own_folder / "gate"
    slow, results = pool.apply_async(wait_for, (str(gate),)), pool.imap(wait_for, [str(gate)])
    with pytest.raises(multiprocessing.TimeoutError):
        slow.get(0.05)
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0.05)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not ready"):
        slow.successful()
    gate.touch()
    assert slow.get(SECONDS) and slow.successful() and results.next(SECONDS)  # type: ignore[attr-defined]


def wait_for(path: str) -> bool:
    return eventually(lambda: os.path.exists(path), SECONDS, "the gate")


def test_several_threads_may_wait_for_one_result(pool: parallel.Pool, own_folder: Path) -> None:
    gate = own_folder / "gate"
    result = pool.apply_async(wait_for, (str(gate),))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(result.get, SECONDS) for _ in range(4)]
        gate.touch()
        assert all(one.result(SECONDS) for one in waiting)


def test_what_cannot_be_pickled_is_the_standard_librarys_error(
    pool: parallel.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    for result in (
        pool.map_async(lambda x: x, [1]),
        pool.apply_async(lambda: 1),
        pool.map_async(abs, [threading.Lock()]),
        pool.imap(lambda x: x, [1]),
        pool.imap(abs, iter([threading.Lock()])),
    ):
        with pytest.raises(pickle.PicklingError, match=r"lambda|cannot pickle"):
            next(result) if isinstance(result, Iterator) else result.get(SECONDS)
    with pytest.raises(TypeError, match="cannot pickle '_thread.lock' object"):
        pool.map(abs, [threading.Lock()])
    with pytest.raises(MaybeEncodingError, match=r"<unlocked _thread.lock.*cannot pickle") as lock:
        pool.apply(give_lock)
    assert "_thread.lock" in lock.value.value and "TypeError" in lock.value.exc
    with pytest.raises(MaybeEncodingError, match="of mine") as error:
        pool.apply(raise_unpicklable, ("of mine",))
    assert "raise_unpicklable" in str(error.value.__cause__)
    with pytest.raises(TypeError):
        pool.map(3, [1])  # type: ignore[arg-type]
    assert pool.apply(abs, (-1,)) == 1


def test_bad_arguments_are_refused_as_the_standard_library_does(pool: parallel.Pool, make: Make) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="Number of processes must be at least 1"):
            parallel.Pool(number)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        parallel.Pool(1.5)  # type: ignore[arg-type]
    for most in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
            parallel.Pool(1, maxtasksperchild=most)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be a callable"):
        parallel.Pool(1, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either processes or manager"):
        parallel.Pool(1, manager=make(0))
    for method in (pool.map, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
            method(abs, [1], 0)


def test_a_closed_pool_says_so_and_lets_all_be_done() -> None:
    pool = parallel.Pool(2)
    gate = threading.Event()

    def inputs() -> Iterator[int]:
        yield 1
        gate.wait()
        yield 2

    results, squares = pool.imap(square, inputs()), pool.map_async(square, range(10))
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()
    pool.close()
    calls = lambda: pool.apply(abs, (1,)), lambda: pool.map(abs, [1]), lambda: pool.imap(abs, [1]), pool.__enter__
    for call in calls:
        with pytest.raises(ValueError, match="Pool not running"):
            call()
    gate.set()
    pool.join()
    assert list(results) == [1, 4] and squares.get(0) == [n * n for n in range(10)]
    eventually(lambda: not ours(), SECONDS, "the end of its threads")


def test_terminate_drops_what_is_not_done_and_nobody_waits_in_vain(own_folder: Path) -> None:
    called: list[object] = []
    with parallel.Pool(1) as pool:
        endless = pool.apply_async(mark_and_wait, (str(own_folder / "began"),), error_callback=called.append)
        results = pool.imap(square, itertools.count())
        eventually((own_folder / "began").exists, SECONDS, "the task's begin")
    with pytest.raises(concurrent.futures.CancelledError, match="the pool was terminated"):
        endless.get(SECONDS)
    with pytest.raises(concurrent.futures.CancelledError, match="the pool was terminated"):
        list(results)
    pool.join()
    pool.terminate()
    eventually(lambda: not ours() and not feeders(), SECONDS, "the end of its threads")
    assert not called


def feeders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "feeder" in thread.name]


def test_imap_takes_inputs_that_are_endless_or_wait_for_results() -> None:
    with parallel.Pool(2) as pool:
        room = threading.Semaphore(5)
        taken: list[int] = []

        def careful() -> Iterator[int]:
            for number in itertools.count():
                room.acquire()
                taken.append(number)
                yield number

        results = pool.imap(square, careful())
        for number in range(40):
            assert next(results) == number**2
            room.release()
        assert len(taken) <= 45
        room.release(100)


def test_results_that_nobody_takes_hold_up_the_inputs_until_the_pool_is_closed(
    pool: parallel.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "_MOST_UNTAKEN", 20)
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    ordered, unordered = pool.imap(square, inputs()), pool.imap_unordered(square, inputs(), 2)
    assert [next(ordered) for _ in range(3)] == [0, 1, 4]
    eventually(lambda: len(taken) >= 21 + 42, SECONDS, "as many inputs as may be taken")
    assert pool.map(abs, [-1]) == [1] and len(taken) <= 24 + 42
    pool.close()
    pool.join()
    assert list(ordered) == [n * n for n in range(3, 200)] and sorted(unordered) == [n * n for n in range(200)]


def test_a_large_function_is_sent_once_to_each_slave(pool: parallel.Pool) -> None:
    before = contexts_of(pool)
    large = functools.partial(length, bytes(1_000_000))
    for _ in range(3):
        assert [size for size, _ in pool.map(large, range(20))] == list(range(1_000_000, 1_000_020))
    assert [size for size, _ in pool.imap(large, range(20))] == list(range(1_000_000, 1_000_020))
    assert contexts_of(pool) == before + 2  # one of chunks and one of single calls
    for size in range(6):  # the oldest are given up
        assert pool.map(functools.partial(length, bytes(100_000 + size)), [0])[0][0] == 100_000 + size
    gc.collect()
    eventually(lambda: contexts_of(pool) <= before + 4, SECONDS, "fewer contexts")


def contexts_of(pool: parallel.Pool) -> int:
    manager = pool._work.manager
    assert manager is not None
    return len(manager.dispatcher.scheduler.state.contexts)


def test_a_lost_process_costs_an_attempt_and_the_pool_goes_on(own_folder: Path) -> None:
    with parallel.Pool(1) as pool:
        assert pool.apply(die_once, (str(own_folder / "died"),)) == 7
        with pytest.raises(parallel.TaskGivenUp, match="exited with code 9"):
            pool.map(os._exit, [9])
        assert pool.map(abs, [-1, -2]) == [1, 2]


def test_initializers_run_once_in_each_and_one_that_raises_is_told() -> None:
    MARKS.clear()
    with parallel.Pool(1, initialize, ("once",)) as pool:
        assert pool.map(square, range(5)) and pool.apply(marks) == ["once"]
    with parallel.Pool(1, broken_initializer) as pool, pytest.raises(parallel.RemoteError, match="no licence"):
        pool.map(square, range(5))


def test_a_proxy_of_the_standard_managers_reaches_its_server() -> None:
    server = multiprocessing.get_context("fork").Manager()
    with server, parallel.Pool(1) as pool:
        numbers = server.list()
        assert pool.map(numbers.append, range(4)) == [None] * 4 and list(numbers) == [0, 1, 2, 3]
    del server, numbers
    gc.collect()  # CPython 3.12.1 leaves a standard manager in a cycle, with a socket and two pipes


def test_over_a_manager_whose_slaves_come_and_go(make: Make) -> None:
    manager = make()
    pool = parallel.Pool(manager=manager)
    assert pool.size == 1 and pool.map(square, range(10)) == [n * n for n in range(10)]
    manager.add_slaves(2)
    assert pool.size == 3 and repr(manager) in repr(pool)
    manager.remove_slave(manager.slaves[0].number)
    assert list(pool.imap(square, range(10))) == [n * n for n in range(10)]
    waits = pool.map_async(time.sleep, [60] * 4)
    pool.terminate()
    with pytest.raises(concurrent.futures.CancelledError):
        waits.get(SECONDS)
    with parallel.Pool(manager=manager) as other:
        assert other.apply(abs, (-1,)) == 1, "the manager is the user's"


def test_one_that_is_forgotten_warns_and_lets_all_be_done() -> None:
    pool = parallel.Pool(2)
    result = pool.map_async(square, range(10))
    with pytest.warns(ResourceWarning, match=r"unclosed running multiprocessing pool .*pool_size=2"):
        del pool
        gc.collect()
    assert result.get(SECONDS) == [n * n for n in range(10)]
    eventually(lambda: gc.collect() >= 0 and not ours(), SECONDS, "the end of its threads")


def test_inside_a_task_it_runs_in_that_process(pool: parallel.Pool) -> None:
    pid, found = pool.apply(library, (3,))
    assert found == [0, 1, 4, pid] and pid != os.getpid()


def test_what_calls_print_appears_and_a_pool_in_use_ends_with_the_interpreter(run: Run) -> None:
    program = run(
        """
import time
import parallel
from tests.frontends.test_pool import speak

if __name__ == "__main__":
    pool = parallel.Pool(1)
    pool.map(speak, ["apple", "pear"])
    pool.apply_async(time.sleep, (1000,))
    manager = parallel.Manager(port=0)
    forgotten = parallel.Pool(manager=manager)
"""
    )
    assert program.ends() == 0, program.err
    assert "Exception ignored" not in program.err, program.err
    assert program.out.splitlines() == ["says apple", "says pear"]
    assert program.complaints.splitlines()[:2] == ["whispers apple", "whispers pear"]
