"""Launchers that fail: what cannot be started, asked or stopped is told, and harms nobody else."""

from __future__ import annotations

import functools
import threading
import time

import pytest

import parallel
from parallel import closer
from parallel.launch import group
from tests.conftest import Make
from tests.launch.test_own_slave import SQUARES, PipeSlave, results
from tests.support import tasks
from tests.support.inside import inside
from tests.support.waiting import eventually


class Unstartable(parallel.Slave):
    """Its start raises."""

    def start(self, job: parallel.Job) -> None:
        raise PermissionError(13, "the queue is closed")

    def poll(self) -> str | None:
        raise AssertionError("it was never started")

    def stop(self) -> None:
        raise AssertionError("it was never started")


class Idle(parallel.Slave):
    """It never comes."""

    stopped = False

    def start(self, job: parallel.Job) -> None:
        pass

    def poll(self) -> str | None:
        return None

    def stop(self) -> None:
        self.stopped = True


class Unaskable(Idle):
    """Its poll raises."""

    def poll(self) -> str | None:
        raise ConnectionError("no word from the queue")


class Unstoppable(Idle):
    """Its stop raises."""

    def stop(self) -> None:
        super().stop()
        raise PermissionError(1, "not yours")


def test_a_launcher_that_raises_keeps_nobody_else_from_being_started(make: Make) -> None:
    manager = make(0)
    manager.add_slave(parallel.SlaveArray([Unstartable(), PipeSlave("good")]))
    manager.add_slave(parallel.LocalSlave())
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, "works"))
    with pytest.raises(PermissionError, match="the queue is closed"):
        context.get_results_unordered()
    assert [info.state == "ended" for info in manager.slaves] == [True, False, False]
    assert list(context.get_results_unordered()) == ["works"]
    manager.wait_for_slaves(2, 60)
    assert results(manager) == SQUARES


def test_a_slave_that_could_not_be_started_has_ended_and_says_why(make: Make) -> None:
    manager = make(0)
    manager.add_slave(Unstartable())
    context = manager.get_context()
    context.add_task(tasks.give)
    with pytest.raises(PermissionError):
        context.get_results_unordered()
    with pytest.raises(
        parallel.NoMoreSlavesError,
        match=r"(?s)the only slave has ended.*could not be started: PermissionError: \[Errno 13\] the queue is closed",
    ):
        list(context.get_results_unordered())


def test_local_slaves_that_cannot_be_started_have_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "no process to be had")

    manager = make(2)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, "works"))
    with monkeypatch.context() as broken:
        broken.setattr("subprocess.Popen", fail)
        with pytest.raises(OSError, match="^local slaves cannot be started: BlockingIOError: .*no process to be had"):
            context.get_results_unordered()
    with pytest.raises(parallel.NoMoreSlavesError, match=r"(?s)all 2 slaves.*could not be started.*no process to be"):
        list(context.get_results_unordered())
    manager.add_slave(parallel.LocalSlave())
    assert list(context.get_results_unordered()) == ["works"]


def test_a_launcher_that_cannot_say_how_its_slave_is_ends_that_slave_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_POLL_SECONDS", 0.05)
    manager = make(1)
    manager.add_slave(Unaskable())
    manager.wait_for_slaves(1, 60)
    eventually(lambda: [info.state == "ended" for info in manager.slaves] == [False, True])
    assert "no word from the queue" in inside(manager, lambda state: state.roster.ended[1].end)
    assert results(manager) == SQUARES


def test_a_launcher_that_cannot_stop_its_slave_is_told_and_the_others_are_stopped(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "_LATE_SECONDS", 60.0)  # on a busy machine too all get to their end
    manager = make(0)
    slaves = [Unstoppable(), Unaskable(), Idle()]
    manager.add_slave(parallel.SlaveArray(slaves))
    manager.begin()
    manager.shutdown()
    assert slaves[0].stopped and slaves[2].stopped
    assert "slave 0 (Unstoppable()) could not be stopped: [Errno 1] not yours" in caplog.text
    for line in caplog.text.splitlines():  # the watcher may have been there first
        assert "slave 1" not in line or "no word from the queue" in line


def test_a_launcher_that_cannot_stop_a_late_slave_does_not_end_the_watch_over_the_others(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "_POLL_SECONDS", 0.05)
    manager = make(0)
    manager.connect_timeout = 0.2
    slaves = [Unstoppable(), Idle()]
    manager.add_slave(parallel.SlaveArray(slaves))
    manager.begin()
    eventually(lambda: [info.state for info in manager.slaves] == ["ended"] * 2)
    assert "slave 0 (Unstoppable()) could not be stopped: [Errno 1] not yours" in caplog.text
    assert slaves[1].stopped


def test_a_launcher_that_does_not_come_back_harms_nobody_else(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for how its slave is, and hangs: others are added, work, and are shut down."""

    class Hanging(Idle):
        inside, free = threading.Event(), threading.Event()

        def poll(self) -> str | None:
            self.inside.set()
            assert self.free.wait(200)
            return None

    monkeypatch.setattr(group, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(group, "_LATE_SECONDS", 0.1)
    monkeypatch.setattr(closer, "_STOP_SECONDS", 0.2)
    manager, hanging = make(0), Hanging()
    manager.add_slave(hanging)
    manager.begin()
    assert hanging.inside.wait(60)
    begun = time.monotonic()
    manager.add_slave(parallel.LocalSlave())
    assert time.monotonic() - begun < 60.0
    assert results(manager) == SQUARES
    begun = time.monotonic()
    manager.shutdown()
    assert time.monotonic() - begun < 60.0
    assert f"parallel: {hanging!r} is left behind: its launcher's poll() has not returned" in caplog.text
    hanging.free.set()
    eventually(lambda: hanging.stopped)


def test_an_array_with_the_same_slave_twice_is_refused(make: Make) -> None:
    manager = make(0)
    slave = PipeSlave("x")
    with pytest.raises(parallel.InputError, match=r"PipeSlave\('x'\) was added before"):
        manager.add_slave(parallel.SlaveArray([slave, slave]))
    assert manager.slaves == []
    manager.add_slave(slave)
    assert len(manager.slaves) == 1


@pytest.mark.parametrize("what", ["PipeSlave", 7, None, PipeSlave])
def test_an_array_with_something_else_than_slaves_is_refused(make: Make, what: object) -> None:
    manager = make(0)
    members: list[object] = [PipeSlave("x"), what]
    with pytest.raises(parallel.InputTypeError, match=r"takes a Slave or a SlaveArray such as LocalSlave\(\), not"):
        manager.add_slave(parallel.SlaveArray(members))  # type: ignore[arg-type]  # that is the point
    assert manager.slaves == []
