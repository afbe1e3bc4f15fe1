"""SideThreads: as many threads as there is work, and none after the end."""

from __future__ import annotations

import functools
import threading

import pytest

from parallel.service import side_threads
from parallel.service.side_threads import SideThreads
from tests.conftest import ours
from tests.support.waiting import eventually


def threads() -> int:
    return ours().count("parallel transfer")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is kept is kept for longer than any test waits."""
    monkeypatch.setattr(side_threads, "_IDLE_SECONDS", 3600.0)


def idle(side: SideThreads) -> int:
    return len(side.idle)


def test_an_idle_thread_does_the_next_work_and_ends_at_the_end() -> None:
    side = SideThreads()
    for _ in range(3):
        done = threading.Event()
        side.run(done.set)
        assert done.wait(30)
        eventually(lambda: idle(side) == 1, 30, "an idle thread")
    assert threads() == 1
    side.end()
    eventually(lambda: threads() == 0, 30, "the end of the idle thread")


def test_a_thread_that_works_at_the_end_is_not_kept_after_its_work() -> None:
    side, go_on = SideThreads(), threading.Event()
    busy = [threading.Event() for _ in range(2)]

    def work(began: threading.Event) -> None:
        began.set()
        go_on.wait(60)

    for one in busy:
        side.run(functools.partial(work, one))
    assert all(one.wait(30) for one in busy)
    side.end()
    assert threads() == 2
    go_on.set()
    eventually(lambda: threads() == 0, 30, "the end of threads that worked")
    assert idle(side) == 0


def test_work_after_the_end_is_done_and_its_thread_ends() -> None:
    side, done = SideThreads(), threading.Event()
    side.end()
    side.run(done.set)
    assert done.wait(30)
    eventually(lambda: threads() == 0, 30, "the end of the thread")
