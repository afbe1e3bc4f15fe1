"""Slaves that are asked to end: they finish what they run and hand back the rest; no attempt is counted."""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.service.agent_service import AgentService
from parallel.service.peer import Peer
from tests.conftest import Make
from tests.support import tasks
from tests.support.inside import inside, unsettled
from tests.support.programs import Program, slave
from tests.support.waiting import eventually


@pytest.fixture
def by_hand(make: Make) -> Iterator[tuple[parallel.Manager, Program]]:
    """A manager with one slave program of two runners that was started by hand."""
    manager = make(0, port=0)
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "2", "-v")
    manager.wait_for_slaves(2, 60)
    yield manager, program
    program.kill()


def gates(context: parallel.Context[int], folder: Path, names: str) -> list[Path]:
    """A task for each name that runs until the file of that name exists."""
    for name in names:
        context.add_task(functools.partial(tasks.wait_for, str(folder / name)))
    return [folder / f"{name}.started" for name in names]


def attempts(manager: parallel.Manager) -> list[list[str] | None]:
    return [task.ends for task in unsettled(manager)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_is_asked_to_end_finishes_what_runs(
    by_hand: tuple[parallel.Manager, Program], own_folder: Path, signum: int, caplog: pytest.LogCaptureFixture
) -> None:
    manager, program = by_hand
    context = manager.get_context()
    for number in range(100):  # so quick that leases hold several
        context.add_task(functools.partial(tasks.give, number))
    assert len(list(context.get_results_unordered())) == 100
    started = gates(context, own_folder, "ab")
    for number in range(200):
        context.add_task(functools.partial(tasks.give, number))
    results = context.get_results_unordered()
    eventually(lambda: all(path.exists() for path in started))
    program.process.send_signal(signum)
    program.says("running tasks have 30 s to finish")
    eventually(lambda: {info.state for info in manager.slaves} == {"draining"})
    eventually(lambda: caplog.text.count("leaves, since its slave program was asked to end") == 2)
    manager.add_slave(parallel.LocalSlave())
    others = {next(results) for _ in range(200)}
    assert others == set(range(200)), "what the draining slaves had not started runs elsewhere, at once"
    (own_folder / "a").touch()
    (own_folder / "b").touch()
    assert len(list(results)) == 2
    assert program.ends() == 128 + signum
    for path in started:
        assert len(path.read_text().splitlines()) == 1, "it finished, and was not run again"
    assert "lost" not in caplog.text and "pid 0" not in caplog.text


@pytest.mark.parametrize("drained", ["while the task runs", "when it has just ended"])
def test_the_end_of_a_slave_does_not_overtake_its_last_outcome(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch, drained: str
) -> None:
    """Else the task, though finished, would run again elsewhere.

    The agent may hear that the slave is to end when its task has ended, and nobody has read the outcome yet: then the
    runner, though idle, is not to be killed.
    """
    manager = make(1)
    context = manager.get_context()
    (started,) = gates(context, own_folder, "a")
    results = context.get_results_unordered()
    eventually(lambda: started.exists() and started.read_text())  # it is made, and then written to
    hear_all, told, waiting = Peer._hear, threading.Event(), list[int]()
    held: list[object] = []

    def late(peer: Peer, messages: list[Any], now: float) -> None:
        """The runner's outcome is read late, but for its agent's word."""
        if not held and any(message[1] in ("post", "values") for message in messages):
            held.extend(messages)
            for late_command in commands:
                command(*late_command)
            peer._unread.extend(messages)
            peer.aside(lambda: told.wait(3.0), lambda _, now: None)
        else:
            hear_all(peer, messages, now)

    def hear(service: AgentService, *ended: Any) -> None:
        runner_ended(service, *ended)
        waiting.append(inside(manager, lambda state: state.backlog.waiting))
        told.set()

    commands: list[Any] = []
    state = manager.dispatcher.scheduler.state
    command = state.command
    if drained == "when it has just ended":
        monkeypatch.setattr(state, "command", lambda *one: commands.append(one))
    runner_ended = AgentService.runner_ended
    monkeypatch.setattr(Peer, "_hear", late)
    monkeypatch.setattr(AgentService, "runner_ended", hear)
    manager.remove_slave(0)
    eventually(lambda: manager.slaves[0].state == "draining")
    (own_folder / "a").touch()
    assert len(list(results)) == 1
    eventually(told.is_set)
    assert held and waiting == [0]
    eventually(lambda: manager.slaves[0].state == "ended")


def test_a_second_signal_ends_it_at_once(by_hand: tuple[parallel.Manager, Program], own_folder: Path) -> None:
    manager, program = by_hand
    context = manager.get_context()
    (started,) = gates(context, own_folder, "a")
    results = context.get_results_unordered()
    eventually(lambda: started.exists() and started.read_text())  # it is made, and then written to
    program.process.send_signal(signal.SIGINT)
    program.says("asked to end")
    program.process.send_signal(signal.SIGINT)
    assert program.ends(25) == 128 + signal.SIGINT, "the grace of 30 s is not waited for"
    manager.add_slave(parallel.LocalSlave())
    eventually(lambda: len(started.read_text().splitlines()) == 2, what="the task to run elsewhere")
    (own_folder / "a").touch()
    assert len(list(results)) == 1


def test_the_grace_ends(make: Make, own_folder: Path) -> None:
    manager = make(0, port=0, max_attempts=1)
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "1", "--grace", "0.3")
    context = manager.get_context()
    (started,) = gates(context, own_folder, "a")
    results = context.get_results_unordered()
    eventually(lambda: started.exists() and started.read_text())  # it is made, and then written to
    program.process.send_signal(signal.SIGTERM)
    assert program.ends(25) == 128 + signal.SIGTERM
    assert attempts(manager) == [None], "nothing is counted against the task"
    manager.add_slave(parallel.LocalSlave())
    eventually(lambda: len(started.read_text().splitlines()) == 2)
    (own_folder / "a").touch()
    assert len(list(results)) == 1


def test_idle_slaves_end_at_once_though_the_master_is_stopped(make: Make) -> None:
    manager = make(0, port=0)
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "3")
    manager.wait_for_slaves(3, 60)
    over = threading.Event()
    manager.dispatcher.tell(lambda now: over.wait(100))  # nobody answers
    program.process.send_signal(signal.SIGTERM)
    try:
        assert program.ends(25) == 128 + signal.SIGTERM
    finally:
        over.set()
    eventually(lambda: {info.state for info in manager.slaves} == {"ended"})


def test_an_agent_that_is_asked_to_end_while_it_starts_its_runners_does_so_in_good_order(make: Make) -> None:
    manager = make(0, port=0)
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "30")
    manager.wait_for_slaves(1, 60)
    program.process.send_signal(signal.SIGTERM)
    assert program.ends() == 128 + signal.SIGTERM
    eventually(lambda: {info.state for info in manager.slaves} == {"ended"})


def test_a_local_slave_is_removed_and_another_one_is_added(make: Make, own_folder: Path) -> None:
    manager = make(0)
    first, second = parallel.LocalSlave(), parallel.LocalSlave()
    manager.add_slave(first)
    manager.add_slave(second)
    manager.wait_for_slaves(2, 60)
    context = manager.get_context()
    started = gates(context, own_folder, "ab")
    results = context.get_results_unordered()
    eventually(lambda: all(path.exists() for path in started))
    manager.remove_slave(first)
    eventually(lambda: manager.slaves[0].state == "draining")
    assert manager.slaves[1].state == "busy"
    (own_folder / "a").touch()
    (own_folder / "b").touch()
    assert len(set(results)) == 2
    eventually(lambda: [info.state for info in manager.slaves] == ["ended", "idle"])
    manager.remove_slave(manager.slaves[1])
    eventually(lambda: manager.slaves[1].state == "ended")
    context.add_task(tasks.give)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"slave 0 \(LocalSlave.*\): it was asked to end"):
        list(context.get_results_unordered())
    manager.add_slave(parallel.LocalSlave())
    assert list(context.get_results_unordered()) == [None]


def test_the_last_slave_of_an_agent_that_was_started_by_hand_takes_it_along(
    by_hand: tuple[parallel.Manager, Program],
) -> None:
    manager, program = by_hand
    manager.remove_slave(0)
    manager.remove_slave(manager.slaves[1])
    assert program.ends() == 0
    assert "no slave is left here" in program.err
    assert re.findall("the master", program.err.replace("for the master at", "")) == []


def test_removing_with_a_grace(make: Make, own_folder: Path) -> None:
    manager = make(2, max_attempts=1)
    context = manager.get_context()
    (started,) = gates(context, own_folder, "a")
    results = context.get_results_unordered()
    eventually(lambda: started.exists() and started.read_text())  # it is made, and then written to
    busy = next(info for info in manager.slaves if info.state == "busy")
    manager.remove_slave(busy, grace=0)
    eventually(lambda: len(set(started.read_text().splitlines())) == 2, what="the task to run on the other slave")
    (own_folder / "a").touch()
    assert len(list(results)) == 1


def test_removing_what_has_not_come(make: Make) -> None:
    manager = make(0)
    slave_ = parallel.LocalSlave()
    manager.add_slave(slave_)
    manager.remove_slave(slave_)
    assert manager.slaves[0].state == "ended"
    context = manager.get_context()
    context.add_task(tasks.give)
    with pytest.raises(parallel.NoMoreSlavesError, match="it was removed before it came"):
        list(context.get_results_unordered())


@pytest.mark.parametrize("stranger", [parallel.LocalSlave(), 5, "slave", None])
def test_removing_what_is_no_slave(make: Make, stranger: object) -> None:
    manager = make(1)
    with pytest.raises(parallel.InputError, match=r"has no slave .*; its slaves: 0 to 0 \(manager.slaves; "):
        manager.remove_slave(stranger)  # type: ignore[arg-type]


def test_removing_from_a_manager_without_slaves(make: Make) -> None:
    with pytest.raises(parallel.InputError, match="has no slave 1; its slaves: none so far"):
        make(0).remove_slave(1)


def test_a_task_that_dies_on_a_draining_slave_is_blamed(make: Make, own_folder: Path) -> None:
    manager = make(1, max_attempts=1)
    context = manager.get_context()
    (started,) = gates(context, own_folder, "a")
    results = context.get_results_unordered()
    eventually(lambda: started.exists() and started.read_text())  # it is made, and then written to
    pid = manager.slaves[0].pid
    manager.remove_slave(0)
    eventually(lambda: manager.slaves[0].state == "draining")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(parallel.TaskGivenUp):
        list(results)
    eventually(lambda: manager.slaves[0].state == "ended")
