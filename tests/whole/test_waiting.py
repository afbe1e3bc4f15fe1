"""Waiting for slaves: what is said meanwhile, and how it ends."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time

import pytest

import parallel
from parallel.core import patience
from tests.conftest import Make
from tests.launch.test_failing_launchers import Idle, Unstartable
from tests.support.waiting import eventually


def test_who_waits_for_slaves_is_told_what_for_and_less_and_less_often(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(1)
    manager.add_slave(Idle())
    manager.wait_for_slaves(1, 60)
    with pytest.raises(TimeoutError, match=r"^1 of 2 slaves are connected after 0\.05 s$"):
        manager.wait_for_slaves(2, timeout=0.05)
    monkeypatch.setattr(patience, "FIRST_WORD", 0.1)

    def wait() -> None:
        with pytest.raises(parallel.ManagerClosed):
            manager.wait_for_slaves(2)
        closed.set()

    def words() -> list[str]:
        return re.findall(r"parallel: waiting for 2 slaves: (.*)", caplog.text)

    began, closed = time.monotonic(), threading.Event()
    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: len(words()) >= 3, 60, "three words")
    found, took = words(), time.monotonic() - began
    assert len(found) <= math.log2(took / 0.1 + 1), f"each after twice as long a time, in {took:.1f} s"
    assert set(found) == {"1 slave connected, 0 busy; not connected yet: slave 1 (Idle())"}
    manager.shutdown()
    waiter.join(60)
    assert closed.is_set()


def test_no_time_to_wait_is_over_at_once(make: Make) -> None:
    manager = make(0, port=0)
    with pytest.raises(TimeoutError, match=r"^0 of 1 slaves are connected after 0 s$"):
        manager.wait_for_slaves(1, timeout=0)


def test_waiting_for_slaves_that_have_ended_is_over_at_once(make: Make) -> None:
    manager = make(0)
    manager.add_slave(Unstartable())
    with pytest.raises(PermissionError):
        manager.wait_for_slaves(1)
    with pytest.raises(
        parallel.NoMoreSlavesError,
        match=r"(?s)^1 slaves cannot come: the only slave has ended:\n.*Unstartable.*it could not be started",
    ):
        manager.wait_for_slaves(1)


def test_waiting_for_more_slaves_than_there_are_says_how_many_there_are(make: Make) -> None:
    manager = make(1)
    manager.wait_for_slaves(1, 60)
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        manager.wait_for_slaves(3)
    assert re.fullmatch(
        r"3 slaves cannot come: there is only one:\n  slave 0 \(LocalSlave\(\) on \S+, pid \d+\): it is ready",
        str(caught.value),
    )


def test_a_slave_that_was_lost_may_come_back_and_is_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "FIRST_WORD", 0.1)
    manager = make(1, lease=2.0)
    manager.wait_for_slaves(1, 60)
    pid = manager.slaves[0].pid
    with open(f"/proc/{pid}/stat") as stat:
        agent = int(stat.read().rsplit(")", 1)[1].split()[1])
    for one in (agent, pid):
        os.kill(one, signal.SIGSTOP)
    try:
        eventually(lambda: manager.slaves[0].state == "lost")
        with pytest.raises(TimeoutError, match=r"^0 of 1 slaves"):
            manager.wait_for_slaves(1, timeout=0.3)
        waiter = threading.Thread(target=manager.wait_for_slaves, args=(1, 60))
        waiter.start()
        line = "waiting for 1 slaves: not heard of: slave 0 (LocalSlave()"
        eventually(lambda: line in caplog.text, what="the word")
        assert waiter.is_alive()
    finally:
        for one in (agent, pid):
            os.kill(one, signal.SIGCONT)
    waiter.join(60)
    manager.wait_for_slaves(1, timeout=60)


def test_a_manager_can_be_shown_at_any_time(make: Make) -> None:
    silent = make(0)
    assert repr(silent) == "<Manager not listening yet>"
    silent.shutdown()
    assert repr(silent) == "<Manager not listening yet>"
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 60)
    open_text = repr(manager)
    assert re.fullmatch(r"<Manager at unix:parallel-[0-9a-f]+>", open_text)
    manager.shutdown()
    assert repr(manager) == open_text and open_text in repr(context)
