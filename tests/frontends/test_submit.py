"""`Context.submit`: genuine futures, filled without a thread that polls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.waiting import eventually

SECONDS = 60


def divide(x: float, y: float = 0.0) -> float:
    return x / y


def setup() -> tuple[int, int]:
    return 3, 4


def mark_and_wait(path: str) -> None:
    Path(path).touch()
    threading.Event().wait()


def exits_when_rebuilt() -> ExitsWhenRebuilt:
    return ExitsWhenRebuilt()


class ExitsWhenRebuilt:
    def __reduce__(self) -> tuple[Any, ...]:
        return exit, (1,)


def fail() -> None:
    raise LookupError("no data")


def test_a_future_is_one_of_the_standard_library_and_has_its_result(make: Make) -> None:
    future = make().get_context().submit(pow, 2, 8)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(SECONDS) == 256 and future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_arguments_come_before_setups_and_named_ones_too(make: Make) -> None:
    context = make().get_context(setup)
    assert context.submit(tasks.arguments_are, 1, 2).result(SECONDS) == (1, 2, 3, 4)
    assert context.submit(tasks.arguments_are).result(SECONDS) == (3, 4)
    context.add_task(tasks.arguments_are, 1)
    assert list(context.get_results_unordered()) == [(1, 3, 4)]
    plain = make().get_context()
    assert plain.submit(divide, 1, y=2.0).result(SECONDS) == 0.5
    plain.add_task(divide, 1, y=4.0)
    assert list(plain.get_results_unordered()) == [0.25]


def test_the_exception_is_the_original_one_and_its_cause_shows_the_remote_traceback(make: Make) -> None:
    future = make().get_context().submit(divide, 1.0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result(SECONDS)
    cause = caught.value.__cause__
    assert isinstance(cause, parallel.RemoteError) and "return x / y" in cause.traceback
    assert "divide(1.0)" in str(cause) and cause.task_id == future.task_id
    assert future.exception() is caught.value


def test_a_task_that_ends_its_process_again_and_again_breaks_no_other(make: Make) -> None:
    context = make(2).get_context()
    bad, good = context.submit(os._exit, 3), [context.submit(abs, -i) for i in range(20)]
    with pytest.raises(BrokenProcessPool, match="attempt 3: it exited with code 3") as caught:
        bad.result(SECONDS)
    assert isinstance(caught.value, parallel.TaskGivenUp)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.ends == caught.value.ends
    assert [future.result(SECONDS) for future in good] == list(range(20))


def test_a_result_that_exits_when_it_is_rebuilt_is_its_futures_affair(make: Make) -> None:
    future = make().get_context().submit(exits_when_rebuilt)
    with pytest.raises(parallel.ResultError, match="SystemExit"):
        future.result(SECONDS)
    assert isinstance(future.exception(), BrokenProcessPool)


def test_cancel_ends_a_running_task_and_its_slave_goes_on(make: Make, own_folder: Path) -> None:
    context = make().get_context()
    future = context.submit(mark_and_wait, str(own_folder / "began"))
    eventually((own_folder / "began").exists, SECONDS, "the task's begin")
    assert future.running() and not future.done()
    assert future.cancel() and future.cancelled() and future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert concurrent.futures.wait([future], 0).done == {future}
    later = context.submit(abs, -1)
    assert later.result(SECONDS) == 1 and not later.cancel()


def test_who_waits_for_a_future_that_is_cancelled_is_woken(make: Make) -> None:
    context = make(0, port=0, host="localhost").get_context()  # no slave, and one may come
    future = context.submit(abs, -1)
    seen: list[object] = []
    waiter = threading.Thread(target=lambda: seen.extend(concurrent.futures.as_completed([future])))
    waiter.start()
    future.add_done_callback(seen.append)
    assert future.cancel()
    waiter.join(SECONDS)
    assert seen == [future, future]


def test_callbacks_may_submit_more(make: Make) -> None:
    context = make(2).get_context()
    done = threading.Event()

    def once_more(future: concurrent.futures.Future[int]) -> None:
        if future.result() == 50:
            done.set()
        else:
            context.submit(abs, -future.result() - 1).add_done_callback(once_more)

    context.submit(abs, -1).add_done_callback(once_more)
    assert done.wait(SECONDS)


def test_a_callback_that_raises_or_blocks_holds_up_no_result(make: Make, own_folder: Path) -> None:
    context = make().get_context()
    called, release = threading.Event(), threading.Event()

    def block(future: object) -> None:
        called.set()
        release.wait()

    first = context.submit(tasks.wait_for, str(own_folder / "go"))
    first.add_done_callback(lambda future: 1 // 0)
    first.add_done_callback(block)
    (own_folder / "go").touch()  # not before: a callback of what is done is called at once, in this thread
    try:
        assert called.wait(SECONDS)
        assert context.submit(abs, -2).result(SECONDS) == 2
    finally:
        release.set()


def test_results_come_without_a_thread_for_each_context(make: Make) -> None:
    manager = make()
    contexts = [manager.get_context() for _ in range(20)]
    assert [context.submit(abs, -1).result(SECONDS) for context in contexts] == [1] * 20
    assert [thread.name for thread in threading.enumerate()].count("parallel courier") == 1
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("parallel")]) < 8


def test_work_goes_on_when_nobody_keeps_the_context_or_the_future(make: Make, own_folder: Path) -> None:
    manager = make()
    manager.get_context().submit(Path.touch, own_folder / "done")
    gc.collect()
    eventually((own_folder / "done").exists, SECONDS, "the task's work")
    eventually(lambda: gc.collect() >= 0 and not manager.dispatcher.mailboxes, SECONDS, "the end of the context")


def test_submitted_tasks_and_added_ones_do_not_meet(make: Make) -> None:
    context = make().get_context()
    futures = [context.submit(abs, -i) for i in range(100)]
    for i in range(100):
        context.add_task(abs, -1000 - i)
    assert sorted(context.get_results_unordered()) == list(range(1000, 1100))
    assert [future.result(SECONDS) for future in futures] == list(range(100))


def test_without_a_slave_a_future_fails_and_says_so(make: Make) -> None:
    with pytest.raises(parallel.NoMoreSlavesError, match="no slave"):
        make(0).get_context().submit(abs, -1).result(SECONDS)


def test_a_setup_that_raises_everywhere_fails_the_futures(make: Make) -> None:
    context = make(2).get_context(fail)
    for _ in range(2):
        with pytest.raises(parallel.RemoteError, match="setup .tried on 2 slaves.*LookupError: no data") as caught:
            context.submit(abs, -1).result(SECONDS)
        assert isinstance(caught.value, BrokenProcessPool)


def test_shutdown_fails_what_is_not_done(make: Make, own_folder: Path) -> None:
    manager = make()
    future = manager.get_context().submit(mark_and_wait, str(own_folder / "began"))
    eventually((own_folder / "began").exists, SECONDS, "the task's begin")
    manager.shutdown()
    with pytest.raises(parallel.ManagerClosed):
        future.result(SECONDS)
    with pytest.raises(parallel.ManagerClosed):
        manager.get_context()


def test_what_cannot_be_submitted_is_said_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    context = make().get_context()
    with pytest.raises(parallel.InputTypeError, match="must be callable"):
        context.submit(3)  # type: ignore[arg-type]
    with pytest.raises(parallel.UnpicklableError, match="lambda"):
        context.submit(lambda: 1)
    assert context.submit(abs, -1).result(SECONDS) == 1


def test_a_result_that_cannot_be_pickled_is_a_pickling_error(make: Make) -> None:
    future: concurrent.futures.Future[object] = make().get_context().submit(threading.Lock)
    with pytest.raises(pickle.PicklingError, match="result cannot be sent"):
        future.result(SECONDS)


def test_back_pressure_does_not_hold_futures_up(make: Make) -> None:
    context = make(2, result_bytes=100_000).get_context()
    futures = [context.submit(bytes, 30_000) for _ in range(60)]
    assert [len(future.result(SECONDS)) for future in futures] == [30_000] * 60


def test_many_threads_submit_and_wait(make: Make) -> None:
    context = make(2).get_context()
    found: list[list[float]] = []

    def work(number: int) -> None:
        futures = [context.submit(math.sqrt, float(number)) for _ in range(50)]
        found.append([future.result(SECONDS) for future in futures])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(found) == [[math.sqrt(float(number))] * 50 for number in range(8)]


def test_a_signal_handler_may_cancel_and_shut_down_whatever_it_interrupts(make: Make) -> None:
    manager = make(2)
    manager.begin()
    context = manager.get_context()
    until, latest, calls, inside = time.monotonic() + 0.5, time.monotonic() + SECONDS, 0, False

    def handler(*_: object) -> None:
        nonlocal calls, inside
        if not inside:  # else a busy machine would interrupt it again and again
            inside = True
            calls += 1
            context.submit(abs, -1).cancel()
            context.cancel()
            inside = False

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.003)
        while time.monotonic() < until or (calls <= 2 and time.monotonic() < latest):
            for future in [context.submit(abs, -1) for _ in range(20)]:
                try:
                    future.result(0.1)
                except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                    pass  # its task was cancelled by the handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > 2 and context.submit(abs, -2).result(SECONDS) == 2


def test_a_timeout_of_the_users_alarm_ends_the_wait_and_loses_nothing(make: Make, own_folder: Path) -> None:
    def too_late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError("too late")

    future = make(1).get_context().submit(tasks.wait_for, str(own_folder / "go"))
    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with pytest.raises(TimeoutError, match="too late"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # in here: it may come at once
            future.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    (own_folder / "go").touch()
    future.result(SECONDS)


def test_awaited_from_asyncio_and_cancelled_with_the_coroutine(make: Make, own_folder: Path) -> None:
    context = make().get_context()

    async def main() -> int:
        running = asyncio.ensure_future(asyncio.wrap_future(context.submit(mark_and_wait, str(own_folder / "began"))))
        await asyncio.to_thread(eventually, (own_folder / "began").exists, SECONDS, "the task's begin")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return await asyncio.wait_for(asyncio.wrap_future(context.submit(abs, -7)), SECONDS)

    assert asyncio.run(main()) == 7
