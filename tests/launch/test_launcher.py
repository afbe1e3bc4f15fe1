"""Launcher and Group over a strict fake of the service: who is called, by whom, and who waits for whom."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import pytest

import parallel
from parallel.launch import connecting, group, local
from parallel.launch.config import LaunchConfig
from parallel.launch.launcher import Launcher
from parallel.launch.slave_service import SlaveView
from tests.conftest import children
from tests.launch.fake_service import Ended, Expected, FakeService, Started
from tests.support.waiting import eventually

FOR_EVER = 1e9


class Fake(parallel.Slave):
    """Notes what it is asked, by which thread; ``end`` is what poll says."""

    def __init__(self, name: str = "x", runners: int | None = 1) -> None:
        self.name, self.runners = name, runners
        self.calls: list[str] = []
        self.threads: list[str] = []
        self.end: str | None = None

    def __repr__(self) -> str:
        return f"Fake({self.name!r})"

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.append(threading.current_thread().name)

    def start(self, job: parallel.Job) -> None:
        self.note("start")

    def poll(self) -> str | None:
        self.note("poll")
        return self.end

    def stop(self) -> None:
        self.note("stop")


class Blocking(Fake):
    """Its methods named in ``blocked`` wait for ``free``."""

    def __init__(self, *blocked: str) -> None:
        super().__init__("blocking")
        self.blocked, self.free, self.inside = blocked, threading.Event(), threading.Event()

    def note(self, call: str) -> None:
        super().note(call)
        if call in self.blocked:
            self.inside.set()
            assert self.free.wait(200)


class Together(parallel.SlaveArray):
    """Started by one command, and it must clean up."""

    together = True

    def __init__(self, slaves: Sequence[parallel.Slave]) -> None:
        super().__init__(slaves)
        self.calls: list[str] = []
        self.problem: BaseException | None = None

    def __repr__(self) -> str:
        return f"Together({len(self.slaves)})"

    def start(self, jobs: Sequence[parallel.Job]) -> None:
        self.calls.append("start")
        if self.problem is not None:
            raise self.problem

    def poll(self) -> list[str | None]:
        return [slave.poll() for slave in self.slaves]

    def stop(self, slaves: Sequence[parallel.Slave]) -> None:
        self.calls.append("stop " + " ".join(map(repr, slaves)))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.fixture
def service() -> Iterator[FakeService]:
    made = FakeService("out%d")
    yield made
    made.nothing_left()


Build = Callable[..., Launcher]


@pytest.fixture
def build(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Makes the launcher, which is stopped when the test is over."""
    monkeypatch.setattr(group, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(group, "_LATE_SECONDS", 60.0)  # on a busy machine too all get to their end
    monkeypatch.setattr(connecting, "_LOOK_SECONDS", 0.0)
    made: list[Launcher] = []

    def launcher(python: str | None = None, output: str | None = "out%d") -> Launcher:
        config = LaunchConfig(python, "/the/root", b"k" * 32, output, lambda local: [("127.0.0.1", 9)])
        made.append(Launcher(service, config))
        return made[0]

    yield launcher
    for one in made:
        one.stop(0.0)


def add(launcher: Launcher, service: FakeService, slave: parallel.Slave, number: int = 0) -> Expected:
    launcher.add(slave)
    return service.take(Expected, number)


def started(launcher: Launcher, service: FakeService, slave: parallel.Slave, number: int = 0) -> None:
    """A slave that was added and started."""
    add(launcher, service, slave, number)
    launcher.start(FOR_EVER)
    service.take(Started, number)


# -- what is added


def test_what_is_expected_says_what_the_service_must_know(build: Build, service: FakeService) -> None:
    launcher = build()
    many = Fake("many", runners=None)
    one = add(launcher, service, many)
    assert [tuple(slave) for slave in one.slaves] == [("Fake('many')", True, True)]
    three = add(launcher, service, Fake("three", runners=3), 1)
    assert [tuple(slave) for slave in three.slaves] == [("Fake('three')", False, True)] * 3
    assert three.numbers == [1, 2, 3] and three.agent != one.agent
    first = add(launcher, service, parallel.LocalSlave(), 4)
    assert [tuple(slave) for slave in first.slaves] == [("LocalSlave()", False, False)]
    assert add(launcher, service, parallel.LocalSlave(), 5).agent == first.agent


def test_the_same_object_twice_is_refused_and_leaves_no_trace(build: Build, service: FakeService) -> None:
    launcher, twice = build(), Fake("twice")
    with pytest.raises(parallel.InputError, match=r"Fake\('twice'\) was added before"):
        launcher.add(parallel.SlaveArray([Fake(), twice, twice]))
    assert not launcher.leaves_this_machine
    add(launcher, service, twice)
    assert launcher.leaves_this_machine


def test_several_slaves_need_several_output_files(build: Build, service: FakeService) -> None:
    launcher, second = build(output="one"), Fake()
    add(launcher, service, Fake())
    with pytest.raises(parallel.InputError, match="names one file for several slaves"):
        launcher.add(second)
    with pytest.raises(parallel.InputError, match="names one file for several slaves"):
        launcher.add(second)


def test_the_numbers_of_a_slave_are_those_too_that_its_agent_brings(build: Build, service: FakeService) -> None:
    launcher, slave, here = build(), Fake(runners=None), parallel.LocalSlave()
    add(launcher, service, slave)
    add(launcher, service, here, 1)
    add(launcher, service, parallel.LocalSlave(), 2)
    brought = service.bring(0)
    assert launcher.numbers_of(slave) == [0, brought]
    assert launcher.numbers_of(here) == [1]
    assert launcher.numbers_of(Fake()) == []
    assert not launcher.withdraw(brought), "its agent must end it"
    assert not launcher.withdraw(99)


# -- a launcher that blocks


def test_a_poll_that_hangs_holds_up_nobody_else(build: Build, service: FakeService, processes: Processes) -> None:
    launcher, slow = build(), Blocking("poll")
    started(launcher, service, slow)
    assert slow.inside.wait(60)
    try:
        begun = time.monotonic()
        launcher.add(parallel.LocalSlave())
        launcher.start(FOR_EVER)
        other = Fake("other")
        launcher.add(other)
        launcher.start(FOR_EVER)
        assert launcher.withdraw(2)
        took = time.monotonic() - begun
        assert "poll" in slow.calls and not slow.free.is_set()
        assert took < 30.0
        for number in (1, 2):
            service.take(Expected, number)
            service.take(Started, number)
        assert service.take(Ended, 2).why == "it was removed before it came"
        eventually(lambda: "stop" in other.calls)
    finally:
        slow.free.set()
    launcher.stop(0.0)
    assert processes.ended()


def test_a_start_that_hangs_holds_up_nobody_else(build: Build, service: FakeService) -> None:
    launcher, slow, quick = build(), Blocking("start"), Fake("quick")
    add(launcher, service, slow)
    thread = threading.Thread(target=launcher.start, args=(FOR_EVER,))
    thread.start()
    assert slow.inside.wait(60)
    add(launcher, service, quick, 1)
    launcher.start(FOR_EVER)
    service.take(Started, 1)
    assert quick.calls[0] == "start" and thread.is_alive()
    slow.free.set()
    thread.join(60)
    service.take(Started, 0)


@pytest.mark.parametrize("call", ["poll", "stop", "start"])
def test_what_hangs_at_shutdown_is_left_behind_by_name(
    build: Build,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    monkeypatch.setattr(group, "_LATE_SECONDS", 0.0)
    monkeypatch.setattr("parallel.launch.calls._STOP_SECONDS", 0.1)
    is_late = group.Group.is_late
    launcher, slow, other = build(), Blocking(call), Fake("other")

    def hangs(self: group.Group, now: float) -> bool:  # nobody else is late, however busy the machine is
        return "blocking" in self.name and slow.inside.is_set() and not slow.free.is_set() and is_late(self, now)

    monkeypatch.setattr(group.Group, "is_late", hangs)
    started(launcher, service, other)
    add(launcher, service, slow, 1)
    starter = threading.Thread(target=launcher.start, args=(FOR_EVER,))
    starter.start()
    if call != "start":
        service.take(Started, 1)
    if call != "stop":
        assert slow.inside.wait(60)
    begun = time.monotonic()
    launcher.stop(0.2)
    assert time.monotonic() - begun < 30.0
    assert [record.message for record in caplog.records] == [
        f"parallel: Fake('blocking') is left behind: its launcher's {call}() has not returned"
    ]
    assert other.calls[-1] == "stop"
    (hung,) = [thread for thread in threading.enumerate() if thread.name == "parallel launcher of Fake('blocking')"]
    assert hung.daemon
    slow.free.set()
    eventually(lambda: slow.calls[-1] == "stop", what="the end of what was left behind")
    starter.join(60)
    if call == "start":
        service.take(Started, 1)
    launcher.stop(0.2)
    assert len(caplog.records) == 1


def test_a_stop_that_takes_its_time_gets_some(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The slaves have used all of theirs, and mpirun or the queue needs a moment to end them."""
    monkeypatch.setattr("parallel.launch.calls._STOP_SECONDS", 60.0)
    launcher, slow = build(), Blocking("stop")
    started(launcher, service, slow)
    stopper = threading.Thread(target=launcher.stop, args=(0.05,))
    stopper.start()
    assert slow.inside.wait(60)
    monkeypatch.setattr(group, "_LATE_SECONDS", 0.0)
    stopper.join(0.2)
    assert stopper.is_alive()
    slow.free.set()
    stopper.join(60)
    assert not stopper.is_alive() and caplog.records == []


def test_the_last_launcher_that_was_left_behind_removes_the_staging_folder(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_LATE_SECONDS", 0.0)
    removed = threading.Event()
    monkeypatch.setattr("parallel.launch.staging.StagingFolder.remove", lambda self: removed.set())
    launcher, slow = build(), Blocking("poll")
    started(launcher, service, slow)
    assert slow.inside.wait(60)
    launcher.stop(0.0)
    assert not removed.is_set(), "its watchdog deletes the jobs should this process end now"
    slow.free.set()
    assert removed.wait(60)


def test_stop_returns_when_the_staging_folder_is_gone_whichever_thread_removes_it(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last group's thread may come just between the end of the waiting for it and the clean-up."""
    monkeypatch.setattr("parallel.launch.launcher._CLEAN_UP_SECONDS", 60.0)
    removing, free, order = threading.Event(), threading.Event(), list[str]()

    def remove(self: object) -> None:
        removing.set()
        assert free.wait(30)
        order.append("removed")

    monkeypatch.setattr("parallel.launch.staging.StagingFolder.remove", remove)
    launcher = build()
    started(launcher, service, Fake())

    def stop() -> None:
        launcher.stop(0.0)
        order.append("stopped")

    launcher._gave_up = True  # as when `stop` has just ceased to wait
    stopper = threading.Thread(target=stop)
    stopper.start()
    assert removing.wait(60)
    stopper.join(0.2)
    free.set()
    stopper.join(30)
    assert "removed" in order[: order.index("stopped")]  # the other thread may find that it is gone, before or after


def test_a_group_that_another_thread_begins_to_start_during_the_stop_is_told_to_close(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launcher, slow = build(), Blocking("start")
    add(launcher, service, slow)
    starter = threading.Thread(target=launcher.start, args=(FOR_EVER,))

    def meanwhile(self: local.LocalGroup, grace: float, interrupting: Callable[[], bool]) -> None:
        if not starter.ident:
            launcher._closing = False  # the starter has looked before the stop
            starter.start()
            assert slow.inside.wait(60)
            launcher._closing = True

    def close(self: group.Group, deadline: float) -> None:
        real(self, deadline)
        slow.free.set()

    real = group.Group.close
    monkeypatch.setattr(local.LocalGroup, "stop", meanwhile)
    monkeypatch.setattr(group.Group, "close", close)
    launcher.stop(10.0)
    slow.free.set()
    starter.join(60)
    service.take(Started, 0)
    assert slow.calls[-1] == "stop" and caplog.records == []


def test_each_launcher_is_called_by_one_thread_at_a_time_and_after_its_start_by_its_own(
    build: Build, service: FakeService
) -> None:
    launcher, slave = build(), Fake()
    started(launcher, service, slave)
    eventually(lambda: slave.calls.count("poll") > 2)
    launcher.stop(0.0)
    assert slave.calls[0] == "start" and slave.calls[-1] == "stop" and slave.calls.count("stop") == 1
    assert slave.threads[0] == threading.current_thread().name
    assert set(slave.threads[1:]) == {"parallel launcher of Fake('x')"}


# -- start


def test_what_cannot_be_started_just_now_is_tried_again(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "_RETRY", (0.01, 0.02))

    class Busy(Fake):
        def start(self, job: parallel.Job) -> None:
            super().start(job)
            if len(self.calls) < 4:
                raise parallel.TryAgain(f"the queue is busy ({len(self.calls)})")
            self.name = "job 12"

    launcher, busy = build(), Busy()
    add(launcher, service, busy)
    launcher.start(FOR_EVER)
    for number in (1, 2, 3):
        assert service.take(Started, 0).doing == f"the queue is busy ({number})"
    assert service.take(Started, 0).names == {0: "Fake('job 12')"}
    assert [record.message for record in caplog.records] == [
        "parallel: Fake('x') cannot be started just now: the queue is busy (1); trying again"
    ]
    launcher.start(FOR_EVER)
    eventually(lambda: busy.calls[4:])
    assert busy.calls[:4] == ["start"] * 4 and "start" not in busy.calls[4:]


def test_what_is_tried_again_may_turn_out_to_be_impossible(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "_RETRY", (0.01, 0.02))
    launcher, array = build(), Together([Fake("a"), Fake("b")])
    array.problem = parallel.TryAgain("later")
    launcher.add(array)
    for number in (0, 1):
        service.take(Expected, number)
    launcher.start(FOR_EVER)
    array.problem = PermissionError(13, "not you")
    for number in (0, 1):
        assert service.take(Started, number).doing == "later"
        assert service.take(Ended, number).why == "it could not be started: PermissionError: [Errno 13] not you"
    told = "parallel: Together(2) cannot be started: [Errno 13] not you"
    eventually(lambda: told in caplog.text, 60, "a line in the log")  # it comes after the slaves' end
    eventually(lambda: array.calls[-1] == "stop Fake('a') Fake('b')", what="the end of what may have been started")
    launcher.stop(0.0)
    assert "finish" not in array.calls
    service.take_all()  # it may have been tried more than once before


def test_what_cannot_be_started_has_ended_when_the_error_comes(build: Build, service: FakeService) -> None:
    class Impossible(Fake):
        def start(self, job: parallel.Job) -> None:
            super().start(job)
            raise PermissionError(13, "the queue is closed")

    launcher, wrong, right = build(), Impossible(), Fake()
    launcher.add(parallel.SlaveArray([wrong, right]))
    with pytest.raises(PermissionError):
        launcher.start(FOR_EVER)
    assert service.states() == ["ended", "expected"]
    ended = service.take(Ended, 0)
    assert ended.why == "it could not be started: PermissionError: [Errno 13] the queue is closed"
    assert ended.numbers == [0] and right.calls == []
    launcher.start(FOR_EVER)
    service.take(Started, 1)
    for number in (0, 1):
        service.take(Expected, number)
    launcher.stop(0.0)
    assert wrong.calls == ["start"], "it was never started"
    assert launcher.withdraw(0), "it has ended already"


def test_an_output_file_that_cannot_be_written(build: Build, service: FakeService) -> None:
    launcher, slave, array = build(output="no/such/folder/%d"), Fake(), Together([Fake()])
    add(launcher, service, slave)
    launcher.add(array)
    service.take(Expected, 1)
    for number in (0, 1):
        with pytest.raises(parallel.InputError, match="the output file .* cannot be written"):
            launcher.start(FOR_EVER)
        assert service.take(Ended, number).why.startswith("it could not be started: InputError: the output file")
    launcher.stop(0.0)
    assert slave.calls == [] and array.calls == [], "their launchers have nothing to do with that"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_start_that_is_interrupted_is_stopped(
    build: Build, service: FakeService, interrupt: type[BaseException]
) -> None:
    class Interrupted(Fake):
        def start(self, job: parallel.Job) -> None:
            super().start(job)
            raise interrupt

    launcher, slave, next_one = build(), Interrupted(), Fake("next")
    add(launcher, service, slave)
    add(launcher, service, next_one, 1)
    with pytest.raises(interrupt):
        launcher.start(FOR_EVER)
    assert service.take(Ended, 0).why.startswith(f"it could not be started: {interrupt.__name__}")
    eventually(lambda: slave.calls == ["start", "stop"])
    assert next_one.calls == []
    launcher.start(FOR_EVER)
    service.take(Started, 1)


# -- removal


def test_what_is_removed_before_the_start_is_not_started(build: Build, service: FakeService) -> None:
    launcher, slave = build(), Fake()
    add(launcher, service, slave)
    add(launcher, service, parallel.LocalSlave(), 1)
    for number in (0, 1):
        assert launcher.withdraw(number)
        ended = service.take(Ended, number)
        assert (ended.why, ended.numbers) == ("it was removed before it came", [number])
    assert launcher.withdraw(0)
    launcher.start(FOR_EVER)
    launcher.stop(0.0)
    assert slave.calls == []


def test_what_is_removed_of_an_array_before_the_start_is_stopped_after_it(build: Build, service: FakeService) -> None:
    launcher, array = build(), Together([Fake("a"), Fake("b")])
    launcher.add(array)
    for number in (0, 1):
        service.take(Expected, number)
    assert launcher.withdraw(0)
    service.take(Ended, 0)
    launcher.start(FOR_EVER)
    service.take(Started, 1)
    eventually(lambda: array.calls == ["start", "stop Fake('a')"])
    launcher.stop(0.0)
    assert array.calls == ["start", "stop Fake('a')", "stop Fake('b')", "finish"]


def test_what_is_removed_is_stopped_also_if_the_service_takes_its_time_to_hear_of_that(
    build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*arguments: Any, **named: Any) -> list[int]:
        threading.Event().wait(0.1)  # in which the group's thread looks whether anybody is left
        return ended(*arguments, **named)

    ended = service.ended
    monkeypatch.setattr(service, "ended", slowly)
    launcher, slave = build(), Fake()
    started(launcher, service, slave)
    assert launcher.withdraw(0)
    service.take(Ended, 0)
    eventually(lambda: slave.calls[-1] == "stop")


def test_what_has_come_is_left_to_its_agent(build: Build, service: FakeService) -> None:
    launcher, slave = build(), Fake()
    started(launcher, service, slave)
    service.come(0)
    assert not launcher.withdraw(0)
    slave.end = "it exited with code 0"
    assert service.take(Ended, 0).why == "it exited with code 0"
    assert launcher.withdraw(0), "nothing is left to be done"


# -- watch


def test_an_end_is_told_with_the_last_words_of_all_slaves(build: Build, service: FakeService) -> None:
    launcher, slave = build(), Fake(runners=2)
    started(launcher, service, slave)
    service.come(0, 1)
    service.bring(0)
    with open("out1", "w") as file:
        file.write("Segmentation fault\n")
    with open("out2", "w") as file:
        file.write("cannot reach the master\n")
    slave.end = "it exited with code 139"
    ended = service.take(Ended, 0)
    assert (ended.why, ended.numbers, ended.successor) == ("it exited with code 139", None, None)
    assert ended.last_words == {
        1: "; the end of out1:\n    | Segmentation fault",
        2: "; the end of out2:\n    | cannot reach the master",
    }


def test_who_cannot_reach_the_master_is_told_what_to_do(
    build: Build, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    launcher, slave = build(), Fake()
    slave.doing = "started on n1"
    started(launcher, service, slave)
    assert service.take(Started, 0).doing == "started on n1"
    with open("out0", "w") as file:
        file.write("no master yet (timed out)\n")
    said = service.take(Started, 0).doing
    assert said is not None and said.startswith("started on n1; its last words: no master yet (timed out) (if it tries")
    eventually(lambda: caplog.records)
    assert caplog.records[0].message.startswith("parallel: slave 0 (Fake('x')) cannot come: no master yet (timed out)")
    slave.end = "it exited with code 4"
    assert service.take(Ended, 0).why.startswith("it exited with code 4 (if it tries the wrong addresses")
    assert len(caplog.records) == 1


def test_who_does_not_connect_in_time_is_stopped(build: Build, service: FakeService) -> None:
    launcher, late, punctual = build(), Fake("late"), Fake("punctual")
    add(launcher, service, late)
    add(launcher, service, punctual, 1)
    service.come(1)
    launcher.start(0.05)
    for number in (0, 1):
        service.take(Started, number)
    ended = service.take(Ended, 0)
    assert ended.why == "it did not connect within 0.05 s (connect_timeout)"
    assert late.calls[-1] == "stop"
    eventually(lambda: punctual.calls.count("poll") > 10)
    assert service.states() == ["ended", "came"]


def test_the_launcher_is_told_when_a_slave_is_lost(build: Build, service: FakeService) -> None:
    launcher, array = build(), Together([Fake("a")])
    launcher.add(array)
    service.take(Expected, 0)
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    service.come(0)
    eventually(lambda: "poll" in array.slaves[0].calls)  # type: ignore[attr-defined]  # it is a Fake
    assert not array.urgent
    service.lose(0)
    eventually(lambda: array.urgent)
    launcher.stop(0.0)
    assert array.closing and not array.urgent


def test_a_large_array_is_looked_at_seldom(build: Build, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "_LOOK_SECONDS", 1000.0)
    looked: list[str] = []

    def look(agent: str) -> list[SlaveView]:
        looked.append(agent)
        return describe(agent)

    describe = service.describe
    monkeypatch.setattr(service, "describe", look)
    launcher, slave = build(), Fake()
    started(launcher, service, slave)
    eventually(lambda: slave.calls.count("poll") > 20)
    assert len(looked) == 1


# -- shutdown


def test_those_that_came_may_end_by_themselves_and_the_others_are_stopped_at_once(
    build: Build, service: FakeService
) -> None:
    class Obedient(Fake):
        """It takes notice of the end at the third poll after that."""

        polls = 0

        def poll(self) -> str | None:
            super().poll()
            self.polls += told.is_set()
            return "it has ended" if self.polls == 3 else None

    told = threading.Event()
    launcher, obedient, busy, absent = build(), Obedient("obedient"), Fake("busy"), Fake("absent")
    for number, slave in enumerate((obedient, busy, absent)):
        started(launcher, service, slave, number)
    service.come(0, 1)
    groups = list(launcher._groups)
    stopper = threading.Thread(target=launcher.stop, args=(200.0,))
    stopper.start()
    # what ended before its own thread has heard of the stop would be told as any other end
    eventually(lambda: all(one._array.closing for one in groups), 60, "all groups to wait for the ends")
    told.set()
    eventually(lambda: absent.calls[-1] == "stop" and obedient.polls >= 3, 60)
    assert stopper.is_alive() and "stop" not in busy.calls
    busy.end = "it has ended"
    stopper.join(60)
    assert not stopper.is_alive() and "stop" not in obedient.calls + busy.calls


def test_those_that_came_and_do_not_end_by_themselves_are_stopped(build: Build, service: FakeService) -> None:
    launcher, deaf = build(), Fake("deaf")
    started(launcher, service, deaf)
    service.come(0)
    launcher.stop(0.2)
    assert deaf.calls[-1] == "stop"


def test_what_was_never_started_is_not_stopped(build: Build, service: FakeService) -> None:
    launcher, slave = build(), Fake()
    add(launcher, service, slave)
    launcher.stop(0.0)
    launcher.start(FOR_EVER)
    assert slave.calls == []


# -- local slaves


class Processes:
    """The local agents that were started: programs that wait until they are ended."""

    def __init__(self) -> None:
        self.before = children()

    def running(self) -> list[int]:
        return [int(one.split(":")[0]) for one in children() if one not in self.before]

    def ended(self) -> bool:
        return eventually(lambda: not self.running())


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    waiting = "import sys, threading; sys.stdin.readline(); threading.Event().wait()"
    command = (sys.executable, "-c", waiting)
    monkeypatch.setattr("parallel.launch.config.slave_command", lambda python, root: command)
    return Processes()


def test_local_slaves_share_an_agent_that_starts_later_ones(
    build: Build, service: FakeService, processes: Processes
) -> None:
    launcher = build()
    agent = add(launcher, service, parallel.LocalSlave()).agent
    launcher.start(FOR_EVER)
    call = service.take(Started, 0)
    assert (call.agent, call.by_agent) == (agent, False)
    (pid,) = processes.running()
    add(launcher, service, parallel.LocalSlave(), 1)
    launcher.start(FOR_EVER)
    call = service.take(Started, 1)
    assert (call.agent, call.numbers, call.by_agent) == (agent, [1], True)
    assert os.path.exists("out1")
    assert processes.running() == [pid]
    assert not launcher.withdraw(0), "its agent must end it"
    launcher.stop(0.0)
    assert processes.ended()


def test_a_local_agent_that_dies_has_a_successor(build: Build, service: FakeService, processes: Processes) -> None:
    launcher = build()
    for number in (0, 1):
        add(launcher, service, parallel.LocalSlave(), number)
    launcher.start(FOR_EVER)
    first = service.take(Started, 0, 1).agent
    service.come(0, 1)
    with open("out1", "w") as file:
        file.write("the end\n")
    os.kill(processes.running()[0], signal.SIGKILL)
    ended = service.take(Ended, 0, 1)
    assert (ended.agent, ended.why) == (first, "it was killed by SIGKILL, perhaps out of memory")
    assert ended.numbers is None and ended.moved == [0, 1]
    assert ended.last_words == {1: "; the end of out1:\n    | the end"}
    second = service.take(Started, 0, 1)
    assert second.agent == ended.successor != first and not second.by_agent
    assert len(processes.running()) == 1
    with open("out1") as file:
        assert file.read() == "the end\n", "what the slaves said before is kept"
    add(launcher, service, parallel.LocalSlave(), 2)
    launcher.start(FOR_EVER)
    call = service.take(Started, 2)
    assert (call.agent, call.by_agent) == (second.agent, True)


def test_a_local_agent_that_dies_before_it_came_takes_its_slaves_along(
    build: Build, service: FakeService, processes: Processes
) -> None:
    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    launcher.start(FOR_EVER)
    first = service.take(Started, 0).agent
    add(launcher, service, parallel.LocalSlave(), 1)
    os.kill(processes.running()[0], signal.SIGKILL)
    assert service.take(Ended, 0, 1).moved == []
    launcher.start(FOR_EVER)
    assert processes.running() == []
    assert add(launcher, service, parallel.LocalSlave(), 2).agent != first
    launcher.start(FOR_EVER)
    service.take(Started, 2)
    assert len(processes.running()) == 1


def test_a_slave_that_waits_to_be_started_when_the_agent_dies_goes_to_the_next_one(
    build: Build, service: FakeService, processes: Processes
) -> None:
    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    service.come(0)
    add(launcher, service, parallel.LocalSlave(), 1)
    os.kill(processes.running()[0], signal.SIGKILL)
    ended = service.take(Ended, 0, 1)
    call = service.take(Started, 0, 1)
    assert call.agent == ended.successor and os.path.exists("out1")
    launcher.start(FOR_EVER)  # nothing is left to be started


def test_local_agents_that_die_again_and_again_are_given_up(
    build: Build, service: FakeService, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_PAUSE", (0.0, 0.0))
    monkeypatch.setattr(local, "_SOON", 1e9)  # however busy the machine is
    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    launcher.start(FOR_EVER)
    monkeypatch.setattr(local, "_TRIES", 4)
    for death in range(1, 11):
        service.take(Started, 0)
        service.come(0)
        service.work(0 if death > 6 else 1)  # as long as something gets done they are not
        os.kill(processes.running()[0], signal.SIGKILL)
        assert (service.take(Ended, 0).successor is None) == (death == 10)
    assert service.states() == ["ended"]
    assert processes.ended()


def test_a_local_agent_that_cannot_be_started_again(
    build: Build,
    service: FakeService,
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    service.come(0)
    (pid,) = processes.running()
    with monkeypatch.context() as broken:
        broken.setattr("parallel.launch.config.slave_command", lambda python, root: ("/no/such/program",))
        os.kill(pid, signal.SIGKILL)
        assert service.take(Ended, 0).moved == [0]
        assert service.take(Ended, 0).why.startswith("it could not be started: FileNotFoundError")
        eventually(lambda: "the local slaves cannot be started again: [Errno 2]" in caplog.text)


def test_local_slaves_that_an_interrupt_kept_from_being_started_are_started_by_the_next_call(
    build: Build, service: FakeService, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    with monkeypatch.context() as broken:
        broken.setattr("subprocess.Popen", interrupt)
        with pytest.raises(KeyboardInterrupt):
            launcher.start(FOR_EVER)
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    assert len(processes.running()) == 1


def test_a_local_agent_that_came_may_end_by_itself(build: Build, service: FakeService, processes: Processes) -> None:
    launcher = build()
    add(launcher, service, parallel.LocalSlave())
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    service.come(0)
    (pid,) = processes.running()
    stopper = threading.Thread(target=launcher.stop, args=(200.0,))
    stopper.start()
    eventually(lambda: launcher._local._closing, 60, "the stop: before that it would have a successor")
    assert stopper.is_alive()
    os.kill(pid, signal.SIGTERM)
    stopper.join(60)
    assert not stopper.is_alive() and processes.ended()


def test_a_queues_word_does_not_beat_a_slave_that_is_heard(build: Build, service: FakeService) -> None:
    """And is believed when that slave falls silent."""
    launcher, slave = build(), Fake()
    array = Together([slave])
    array.hearsay = True
    launcher.add(array)
    service.take(Expected, 0)
    launcher.start(FOR_EVER)
    service.take(Started, 0)
    service.come(0)
    slave.end = "job 12 left the queue"
    polls = len(slave.calls)
    eventually(lambda: len(slave.calls) > polls + 5, what="it to be asked some more times")
    assert service.states() == ["came"]
    service.lose(0)
    assert service.take(Ended, 0).why == "job 12 left the queue"
