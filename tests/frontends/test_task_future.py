"""TaskFuture by itself: who comes in the middle of its being filled misses nothing."""

from __future__ import annotations

import concurrent.futures
import pickle
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from parallel.core.effects import Outcome
from parallel.program import Program
from parallel.service.mailbox import Mailbox
from parallel.task_future import TaskFuture
from slave.protocol import FAILURE, VALUE

SECONDS = 60
WAYS = ("result", "wait", "as_completed", "callback")


class NoMailbox:
    label, recorder = "", None

    def cancel_soon(self, task: int) -> None:
        pass

    def is_leased(self, task: int) -> bool:
        return False


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns very often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def make() -> TaskFuture[Any]:
    return TaskFuture(cast(Mailbox, NoMailbox()), None, Program())


def fill(future: TaskFuture[Any], value: object) -> None:
    """As the dispatcher does."""
    outcome = Outcome(1, VALUE, "slave 0", pickle.dumps(value), ())
    if not future.settle_at_once(outcome):
        future.settle(outcome)


def fill_all(futures: list[TaskFuture[Any]]) -> None:
    for number, future in enumerate(futures):
        fill(future, number)


def look(way: str, futures: list[TaskFuture[Any]], seen: dict[str, Any], called: list[object]) -> None:
    """Look at the futures in one of `WAYS`."""
    if way == "result":
        seen[way] = [future.result(SECONDS) for future in futures]
    elif way == "wait":
        seen[way] = len(concurrent.futures.wait(futures, SECONDS).done)
    elif way == "as_completed":
        seen[way] = [future.result() for future in concurrent.futures.as_completed(futures, SECONDS)]
    else:
        for future in futures:
            future.add_done_callback(called.append)
        seen[way] = True


def test_whoever_looks_in_whatever_way_while_it_is_filled_sees_it_once(often: None) -> None:
    """Random moments, and all ways to look at once; the seed is fixed, the moments are the machine's."""
    draw, program = random.Random(1), Program()
    for number in range(400):
        futures: list[TaskFuture[Any]] = [TaskFuture(cast(Mailbox, NoMailbox()), None, program) for _ in range(4)]
        called: list[object] = []
        seen: dict[str, Any] = {}
        chosen = draw.sample(sorted(WAYS), draw.randint(1, 4))
        threads = [threading.Thread(target=look, args=(way, futures, seen, called)) for way in chosen]
        threads.append(threading.Thread(target=fill_all, args=(futures,)))
        draw.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), f"round {number}: {chosen} wait in vain"
        if "result" in seen:
            assert seen["result"] == [0, 1, 2, 3]
        if "wait" in seen:
            assert seen["wait"] == 4
        if "as_completed" in seen:
            assert sorted(seen["as_completed"]) == [0, 1, 2, 3]
        if "callback" in seen:
            assert sorted(map(id, called)) == sorted(map(id, futures)), "each callback once"


def test_cancelling_and_filling_at_once_has_one_winner(often: None) -> None:
    program = Program()
    for _ in range(300):
        future: TaskFuture[Any] = TaskFuture(cast(Mailbox, NoMailbox()), None, program)
        cancelled: list[bool] = []
        threads = [
            threading.Thread(target=lambda future=future, cancelled=cancelled: cancelled.append(future.cancel())),
            threading.Thread(target=fill, args=(future, 7)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert cancelled == [future.cancelled()]
        if not future.cancelled():
            assert future.result(0) == 7


def test_what_a_future_shows_of_an_outcome_that_nobody_has_asked_for() -> None:
    value, error = make(), make()
    fill(value, 7)
    error.settle(Outcome(1, FAILURE, "slave 0", pickle.dumps(None), ()))
    assert repr(value).endswith("state=finished returned>") and repr(error).endswith("state=finished raised>")
    value.result()
    assert repr(value).endswith("state=finished returned int>")


def test_a_future_that_was_woken_for_another_waits_on() -> None:
    future = make()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    assert not future.done() and "pending" in repr(future)
    fill(future, [1])
    assert future.result() is future.result(), "it is rebuilt once"
