"""Courier: one thread, whoever starts it, and whatever interrupts that."""

from __future__ import annotations

import threading
from typing import Any, Callable

import pytest

from parallel.service.courier import Courier
from tests.conftest import ours
from tests.support.waiting import eventually


def threads() -> int:
    return ours().count("parallel courier")


def who_does(courier: Courier, errands: int) -> set[int | None]:
    """The threads that have done so many."""
    found: list[int | None] = []
    for _ in range(errands):
        courier.send(lambda: found.append(threading.get_ident()))
    courier.flush()
    assert len(found) == errands
    return set(found)


def end(courier: Courier) -> None:
    courier.stop()
    eventually(lambda: threads() == 0, 30, "the end of the courier's threads")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_handler_that_starts_it_interrupts_its_start(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    courier, begin, inside = Courier(), threading.Thread.start, False

    def interrupted(thread: Any) -> None:
        nonlocal inside
        handle: Callable[[], None] | None = None if inside else courier.start
        inside = True
        if handle and when == "before":
            handle()
        begin(thread)
        if handle and when == "after":
            handle()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    courier.start()
    monkeypatch.undo()
    assert len(who_does(courier, 100)) == 1
    eventually(lambda: threads() == 1, 30, "one thread")
    end(courier)


def test_many_threads_start_one() -> None:
    courier, together = Courier(), threading.Barrier(8)

    def work() -> None:
        together.wait(30)
        courier.start()

    starters = [threading.Thread(target=work) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(30)
    assert len(who_does(courier, 100)) == 1
    eventually(lambda: threads() == 1, 30, "one thread")
    end(courier)


def test_a_thread_that_could_not_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    courier = Courier()

    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        courier.start()
    monkeypatch.undo()
    courier.flush()  # there is nobody to wait for
    courier.start()
    assert len(who_does(courier, 3)) == 1
    end(courier)


def test_errands_behind_the_end_are_done_one_at_a_time() -> None:
    courier = Courier()
    courier.start()
    end(courier)
    inside, most, done = 0, 0, []

    def errand() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        inside -= 1
        done.append(1)

    for _ in range(100):
        courier.send(errand)
    eventually(lambda: len(done) == 100, 30, "all errands")
    assert most == 1
    eventually(lambda: threads() == 0, 30, "the end of the courier's threads")
