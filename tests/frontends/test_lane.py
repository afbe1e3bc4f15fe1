"""Lane: so many calls at a time, and callbacks that may wait for each other's."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any, Callable

import pytest

from parallel.frontends import lane as lanes
from parallel.frontends.lane import Lane
from tests.support.waiting import eventually

SECONDS = 60


class Slaves:
    """Takes calls; the test says when they are done."""

    def __init__(self) -> None:
        self.taken: list[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = []

    def submit_by_value(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.taken.append((function, future))  # from here on the test may take it
        return future

    def finish_next(self) -> None:
        function, future = self.taken.pop(0)
        future.set_result(function())


def lane_of(slaves: Slaves, most: int | None, failures: list[BaseException] | None = None) -> Lane:
    return Lane(slaves, most, lambda callback, error: failures.append(error) if failures is not None else None)


def idle(lane: Lane) -> None:
    eventually(lambda: lane.idle, SECONDS, "the last callback's return")


def test_no_more_than_so_many_calls_are_under_way_at_a_time() -> None:
    slaves, results = Slaves(), []
    lane = lane_of(slaves, 2)
    for number in range(5):
        lane.submit(lambda number=number: number, lambda future: results.append(future.result()))  # type: ignore[misc]
    for left in (2, 2, 2, 2, 1):
        eventually(lambda left=left: len(slaves.taken) == left, SECONDS, f"{left} calls")  # type: ignore[misc]
        slaves.finish_next()
    idle(lane)
    assert results == [0, 1, 2, 3, 4]


def test_a_callback_may_submit_and_wait_for_another_lanes_callback() -> None:
    slaves, came = Slaves(), threading.Event()
    first, second = lane_of(slaves, None), lane_of(slaves, None)
    waited: list[bool] = []

    def wait_for_the_other(future: object) -> None:
        first.submit(str, None)
        waited.append(came.wait(SECONDS))

    first.submit(int, wait_for_the_other)
    second.submit(list, lambda future: came.set())
    for _ in range(3):
        eventually(lambda: slaves.taken, SECONDS, "a call")
        slaves.finish_next()
    idle(first)
    idle(second)
    assert waited == [True]


def test_cancelled_calls_have_no_callback_and_the_lane_goes_on() -> None:
    slaves = Slaves()
    called: list[concurrent.futures.Future[Any]] = []
    lane = lane_of(slaves, 1)
    for _ in range(3):
        lane.submit(int, called.append)
    lane.cancel()
    idle(lane)
    assert slaves.taken.pop()[1].cancelled() and not slaves.taken, "two waited for the first"
    lane.submit(int, called.append)
    slaves.finish_next()
    idle(lane)
    assert [future.result() for future in called] == [0]


def test_who_cancels_waits_for_the_callback_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_CALLBACK", SECONDS)
    slaves, begun, go_on = Slaves(), threading.Event(), threading.Event()
    order: list[str] = []
    lane = lane_of(slaves, None)

    def slow(future: object) -> None:
        begun.set()
        go_on.wait(SECONDS)
        lane.cancel()  # from within it there is nothing to wait for
        order.append("callback")

    lane.submit(int, slow)
    lane.submit(int, lambda future: order.append("cancelled"))
    slaves.finish_next()
    assert begun.wait(SECONDS)

    def cancel() -> None:
        lane.cancel()
        order.append("cancel")

    canceller = threading.Thread(target=cancel)
    canceller.start()
    eventually(lambda: slaves.taken[0][1].cancelled(), SECONDS, "the other call's end")
    go_on.set()
    canceller.join()
    idle(lane)
    assert order == ["callback", "cancel"]


def test_what_a_callback_raises_is_told_and_the_next_is_called(caplog: Any) -> None:
    slaves, failures, results = Slaves(), [], []  # type: ignore[var-annotated]
    lane = lane_of(slaves, None, failures)
    lane.submit(int, lambda future: 1 / 0)
    lane.submit(int, lambda future: results.append(future.result()))
    slaves.finish_next()
    slaves.finish_next()
    idle(lane)
    assert [type(error) for error in failures] == [ZeroDivisionError] and results == [0]
    assert "a callback raised" in caplog.text


def test_slaves_that_refuse_a_call_fail_its_future() -> None:
    class Closed(Slaves):
        def submit_by_value(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
            raise RuntimeError("closed")

    errors: list[BaseException | None] = []
    lane = lane_of(Closed(), None)
    lane.submit(int, lambda future: errors.append(future.exception()))
    idle(lane)
    assert [str(error) for error in errors] == ["closed"]
