"""The master goes on, whatever its user's code, its launchers and its own threads do; or it says so loudly."""

from __future__ import annotations

import functools
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel import closer
from parallel.core import events as ev
from parallel.service import acceptor
from tests.conftest import Make
from tests.support import deaths, tasks
from tests.support.inside import inside, readers
from tests.support.programs import script
from tests.support.waiting import eventually

log = logging.getLogger("parallel")


class Slow(logging.Handler):
    """Holds up whoever logs, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        self.let_go.wait(200)


def test_a_log_handler_that_sleeps_holds_up_no_result(make: Make) -> None:
    handler = Slow()
    manager = make(2)
    manager.wait_for_slaves(2, 60)
    log.addHandler(handler)
    try:
        context = manager.get_context()
        context.add_task(deaths.die)
        context.add_task(functools.partial(tasks.give, 7))
        eventually(handler.entered.is_set)
        with pytest.raises(parallel.TaskGivenUp):
            assert [7, *context.get_results_unordered()] == [7, 7]
        for number in range(20):
            context.add_task(functools.partial(tasks.give, number))
        assert set(context.get_results_unordered()) >= set(range(20))
        assert not handler.let_go.is_set()
    finally:
        handler.let_go.set()
        log.removeHandler(handler)


class Blocked(parallel.Slave):
    """Its poll does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def start(self, job: parallel.Job) -> None:
        pass

    def poll(self) -> str | None:
        self.entered.set()
        self.let_go.wait(200)
        return None

    def stop(self) -> None:
        pass


def test_a_launcher_whose_poll_hangs_holds_up_neither_other_slaves_nor_the_end(make: Make) -> None:
    manager, blocked = make(0), Blocked()
    manager.add_slave(blocked)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, 7))
    results = context.get_results_unordered()
    eventually(blocked.entered.is_set)
    try:
        began = time.monotonic()
        manager.add_slave(parallel.LocalSlave())
        assert list(results) == [7]
        assert time.monotonic() - began < 60, "it waited for the launcher"
        began = time.monotonic()
        manager.shutdown()
        assert time.monotonic() - began < 60, "the end waited for the launcher for longer than its grace"
    finally:
        blocked.let_go.set()


@pytest.fixture
def many_files() -> Iterator[None]:
    """1,100 descriptors are open, so that new ones are beyond what select() knows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"this user may open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_leases_expire_with_many_descriptors_as_with_ten(make: Make, own_folder: Path) -> None:
    manager = make(1, lease=2.0)
    manager.wait_for_slaves(1, 60)
    runner = manager.slaves[0].pid
    parent = int(Path(f"/proc/{runner}/stat").read_text().rsplit(")", 1)[1].split()[1])
    for pid in (parent, runner):
        os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: manager.slaves[0].state == "lost")
    finally:
        for pid in (runner, parent):
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: manager.slaves[0].state == "idle")


SIGNALS = """
import functools, os, signal, sys, threading
import parallel
from tests.support import tasks

what, count, calls = sys.argv[1], int(sys.argv[2]), []
deep = [0]  # handlers that interrupt each other: whoever waits for a thread that stands still is shot at meanwhile

def handler(*_):
    deep[0] += 1
    try:
        handle()
    finally:
        deep[0] -= 1

def handle():
    if what == 'cancel':
        context.cancel()
    elif what == 'shutdown':
        calls.append(1)  # else it is interrupted by itself for as long as it lasts, deeper and deeper
        m.shutdown()
        return
    else:
        m.slaves
    calls.append(1)

def shoot(pid, done):
    while len(calls) < count and not done.wait(0.0005):
        if deep[0] < 20:
            os.kill(pid, signal.SIGUSR1)

if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        context = m.get_context()
        m.wait_for_slaves(1, 60)
        signal.signal(signal.SIGUSR1, handler)
        done = threading.Event()
        threading.Thread(target=shoot, args=(os.getpid(), done), daemon=True).start()
        try:
            while len(calls) < count:
                for number in range(20):
                    context.add_task(functools.partial(tasks.give, number))
                for result in context.get_results_unordered():
                    pass
        except parallel.ManagerClosed:
            pass
        done.set()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if what != 'shutdown':
            context.add_task(functools.partial(tasks.give, 'works'))
            print([result for result in context.get_results_unordered()][-1])
    print(len(calls) >= count)
"""


@pytest.mark.parametrize("what, count", [("cancel", 1000), ("slaves", 1000), ("shutdown", 1)])
def test_a_signal_handler_may_call_the_manager_whatever_it_interrupts(own_folder: Path, what: str, count: int) -> None:
    program = script(own_folder / "script.py", SIGNALS, what, str(count))
    try:
        assert program.ends(200) == 0, program.err
        assert program.out.endswith("True\n")
        assert what == "shutdown" or "works" in program.out
    finally:
        program.kill()


@pytest.mark.parametrize("victim", ["dispatcher", "timer", "acceptor"])
def test_a_thread_of_the_master_that_dies_is_told_loudly(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, own_folder: Path, victim: str
) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    errors: list[BaseException] = []

    def read() -> None:
        try:
            list(context.get_results_unordered())
        except parallel.Error as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: readers(manager))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    if victim == "dispatcher":
        manager.dispatcher.tell(broken)
    elif victim == "timer":
        monkeypatch.setattr(manager.dispatcher.scheduler, "tick", broken)
    else:
        monkeypatch.setattr(acceptor.Acceptor, "_patience", broken)
        server: Any = manager.dispatcher.connections
        server._acceptor.add([])
    reader.join(60)
    assert not reader.is_alive() and isinstance(errors[0], parallel.InternalError)
    assert "a thread of this manager has died of ZeroDivisionError: a bug" in str(errors[0])
    with pytest.raises(parallel.InternalError):
        list(context.get_results_unordered())
    eventually(lambda: "ZeroDivisionError: a bug" in caplog.text)
    manager.shutdown()


# -- events, identity, cancelling one task


def test_a_subscriber_is_told_what_happens_to_tasks_slaves_and_contexts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closer, "_TELL_SECONDS", 60.0)
    manager = make(1)
    told: list[ev.Event] = []
    subscription = manager.subscribe(told.append)
    context = manager.get_context(retries=1)
    first = context.add_task(functools.partial(tasks.give, 7))
    second = context.add_task(functools.partial(tasks.raise_value_error, "no"))
    with pytest.raises(parallel.RemoteError) as caught:
        assert list(context.get_results_unordered()) == [7]
    list(context.get_results_unordered())
    manager.shutdown()
    subscription.close(60)
    kinds = [type(event) for event in told]
    for kind in (ev.ContextMade, ev.TasksAdded, ev.AgentCame, ev.SlaveJoined, ev.TasksLeased, ev.TaskRetried):
        assert kind in kinds, f"{kind.__name__} is missing in {kinds}"
    done = {event.task: event.kind for event in told if isinstance(event, ev.TaskDone)}
    assert done == {first: 0, second: 1}
    late = ev.TaskStarted  # the word of a task's start may be under way when its outcome has come
    assert [kind for kind in kinds if kind is not late][-1] is ev.ManagerClosed
    assert (caught.value.task_id, caught.value.task) == (second, "partial(raise_value_error, 'no')")
    assert f"it was task {second}: partial(raise_value_error, 'no')" in str(caught.value)


def test_the_start_of_a_long_task_is_an_event(make: Make, own_folder: Path) -> None:
    manager = make(1, lease=3.0)
    told: list[ev.Event] = []
    manager.subscribe(told.append)
    context = manager.get_context()
    id = context.add_task(functools.partial(tasks.wait_for, str(own_folder / "gate")))
    results = context.get_results_unordered()
    eventually(lambda: [event for event in told if isinstance(event, ev.TaskStarted) and event.task == id])
    (own_folder / "gate").touch()
    assert len(list(results)) == 1


def test_a_slow_subscriber_is_told_how_much_it_missed(make: Make) -> None:
    manager = make(0)
    told: list[ev.Event] = []
    entered, let_go = threading.Event(), threading.Event()

    def slow(event: ev.Event) -> None:
        entered.set()
        let_go.wait(30)
        told.append(event)

    subscription = manager.subscribe(slow)
    subscription._most = 5
    for _ in range(50):
        manager.get_context()
    eventually(entered.is_set)
    eventually(lambda: subscription._missed >= 40)
    let_go.set()
    manager.get_context()
    eventually(lambda: [event for event in told if isinstance(event, ev.Missed)])

    def known() -> int:
        missed = sum(event.count for event in told if isinstance(event, ev.Missed))
        return missed + sum(isinstance(event, (ev.ContextMade, ev.ContextDropped)) for event in told)

    eventually(lambda: known() >= 50, what="all events, told or counted")


def test_a_subscriber_that_raises_harms_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1)
    manager.subscribe(lambda event: 1 / 0)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, 7))
    assert list(context.get_results_unordered()) == [7]
    eventually(lambda: "a subscriber raised, and is told no more" in caplog.text)


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_one_task_is_cancelled(make: Make, own_folder: Path, when: str) -> None:
    manager = make(1)
    context = manager.get_context()
    gate = own_folder / "gate"
    first = context.add_task(functools.partial(tasks.wait_for, str(gate)))
    second = context.add_task(functools.partial(tasks.give, 2))
    third = context.add_task(functools.partial(tasks.give, 3))
    results = context.get_results_unordered()
    eventually((own_folder / "gate.started").exists)
    victim = first if when == "running" else second
    assert context.cancel(victim) == 1
    assert context.cancel(victim) == 0, "it was cancelled already"
    gate.touch()
    found = list(results)
    assert len(found) == 2 and (2 in found) == (when == "running") and 3 in found
    assert context.cancel(third) == 0, "its outcome is known already"
    assert inside(manager, lambda state: state.backlog.waiting) == 0


def test_errors_say_which_task_it_was(make: Make, own_folder: Path) -> None:
    manager = make(1, max_attempts=1)
    context = manager.get_context(timeout=0.3)
    ids = [
        context.add_task(deaths.die),
        context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never"))),
        context.add_task(functools.partial(tasks.raise_value_error, "x" * 1000)),
    ]
    errors: list[parallel.RemoteError] = []
    while True:
        try:
            assert list(context.get_results_unordered()) == []
            break
        except parallel.RemoteError as error:
            errors.append(error)
    assert sorted(error.task_id for error in errors) == sorted(ids)
    told = {error.task_id: error.task for error in errors}
    assert told[ids[0]] == "die" and told[ids[1]].startswith("partial(wait_for, '")
    assert len(told[ids[2]]) == 200 and told[ids[2]].endswith("...")
