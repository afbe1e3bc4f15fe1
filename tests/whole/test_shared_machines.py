"""Machines that belong to others, and that are not all alike: limits, tags, fresh processes."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import Program, slave
from tests.support.waiting import eventually

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Program] = []

    def begin(manager: parallel.Manager, *arguments: str, **options: Any) -> Program:
        started.append(slave(f"127.0.0.1:{manager.address[1]}", *arguments, **options))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def grow(megabytes: int, seconds: float = 0.0) -> int:
    """Take memory bit by bit, and keep it for a while."""
    held = []
    for _ in range(megabytes):
        held.append(bytearray(b"x" * (1 << 20)))
        threading.Event().wait(0.001)
    threading.Event().wait(seconds)
    return len(held)


# beyond any limit of these tests; and not further, should the agent look late
TOO_LARGE = functools.partial(grow, 600, 600.0)


# -- tags

GPU: dict[str, Any] = {"needs": {"gpu"}}


def test_tasks_go_where_what_they_need_is(make: Make, start: Start) -> None:
    manager = make(1, port=0)
    start(manager, "-n", "1", "--tag", "gpu", "--tag", "big")
    manager.wait_for_slaves(2, 60)
    by_hand = next(one for one in manager.slaves if one.name == "started by hand")
    needing, free = manager.get_context(**GPU), manager.get_context()
    for _ in range(20):
        needing.add_task(os.getpid)
        free.add_task(os.getpid)
    assert set(needing.get_results_unordered()) == {by_hand.pid}
    assert len(list(free.get_results_unordered())) == 20


def test_that_no_slave_has_it_is_told_at_once_and_one_that_comes_later_does_it(
    make: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0, port=0)
    start(manager, "-n", "1", "--tag", "cpu")
    manager.wait_for_slaves(1, 60)
    context = manager.get_context(needs=["gpu", "big"])
    context.add_task(functools.partial(pow, 2, 2))
    reading = context.get_results_unordered()
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(reading))
    reader.start()
    line = (
        "no slave has what this context needs (big, gpu): what is connected has cpu; start one with --tag big --tag gpu"
    )
    eventually(lambda: line in caplog.text, what="the line")
    assert manager.status().trouble == [f"no connected slave has what it needs (big, gpu): {context.progress.label}"]
    start(manager, "-n", "1", "--tag", "gpu", "--tag", "big")
    reader.join(60)
    assert found == [4] and manager.status().trouble == []
    assert caplog.text.count("no slave has what this context needs") == 1


def test_it_is_told_again_when_a_slave_comes_that_has_it_not(
    make: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0, port=0)
    context = manager.get_context(needs=["gpu", "big"])
    context.add_task(functools.partial(pow, 2, 2))
    reader = threading.Thread(target=lambda: list(context.get_results_unordered()))
    reader.start()
    eventually(lambda: "needs (big, gpu): none is connected; start one" in caplog.text, what="that there is none")
    start(manager, "-n", "1", "--tag", "gpu")
    eventually(lambda: "needs (big, gpu): what is connected has gpu; start one" in caplog.text, 60, "what there is")
    context.cancel()
    reader.join(60)
    assert not reader.is_alive() and caplog.text.count("no slave has what this context needs") == 2


def test_where_none_can_come_it_is_an_error_at_once(make: Make) -> None:
    manager = make(1)
    context = manager.get_context(**GPU)
    context.add_task(os.getpid)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"no slave has what this context needs \(gpu\)"):
        list(context.get_results_unordered())
    other = manager.get_context()
    other.add_task(functools.partial(pow, 2, 3))
    assert list(other.get_results_unordered()) == [8]


@pytest.mark.parametrize("needs", ["gpu", 5, {"a b"}, {""}, [1]])
def test_no_tags(make: Make, needs: Any) -> None:
    with pytest.raises((parallel.InputError, parallel.InputTypeError), match="needs"):
        make(0).get_context(needs=needs)


# -- fresh processes


@pytest.mark.parametrize("most", [1, 3])
def test_a_fresh_process_after_so_many_tasks(make: Make, most: int) -> None:
    manager = make(1)
    context = manager.get_context(max_tasks_per_slave=most)
    for _ in range(12):
        context.add_task(os.getpid)
    pids = list(context.get_results_unordered())
    assert len(pids) == 12
    assert all(pids.count(pid) <= most for pid in pids) and len(set(pids)) >= 12 // most
    assert manager.slaves[0].state != "ended"


def test_tasks_of_other_contexts_do_not_count(make: Make) -> None:
    manager = make(1)
    limited, free = manager.get_context(max_tasks_per_slave=50), manager.get_context()
    for _ in range(40):
        free.add_task(os.getpid)
        limited.add_task(os.getpid)
    assert len({*free.get_results_unordered(), *limited.get_results_unordered()}) == 1


def test_setup_runs_again_in_a_fresh_process(make: Make) -> None:
    manager = make(1)
    context = manager.get_context(os.getpid, max_tasks_per_slave=2)
    for _ in range(6):
        context.add_task(tasks.same_process)
    assert list(context.get_results_unordered()) == [True] * 6


@pytest.mark.parametrize("most", [0, -1, 1.5, "3", True])
def test_no_numbers_of_tasks(make: Make, most: Any) -> None:
    with pytest.raises(parallel.InputError, match="max_tasks_per_slave"):
        make(0).get_context(max_tasks_per_slave=most)


# -- memory


def test_a_task_that_grows_too_large_is_ended_and_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1, max_memory="300M", max_attempts=2)
    context = manager.get_context()
    context.add_task(TOO_LARGE)
    context.add_task(functools.partial(grow, 10))
    with pytest.raises(parallel.TaskGivenUp, match=r"its process grew to [\d,]+ MiB of memory, and may have 300 MiB"):
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == [10]
    eventually(lambda: "its process grew to" in caplog.text, what="a line in the log")


def test_what_its_programs_use_counts(make: Make) -> None:
    manager = make(1, max_memory=300e6, max_attempts=1)
    context = manager.get_context()
    code = "import signal; held = bytearray(b'x' * (600 << 20)); signal.pause()"
    context.add_task(functools.partial(subprocess.call, [sys.executable, "-c", code]))
    with pytest.raises(parallel.TaskGivenUp, match="may have 286 MiB"):
        list(context.get_results_unordered())


def test_a_slave_may_have_a_limit_of_its_own(make: Make, start: Start) -> None:
    manager = make(0, port=0, max_memory="50G", max_attempts=1)
    start(manager, "-n", "1", "--max-memory", "200M")
    context = manager.get_context()
    context.add_task(TOO_LARGE)
    with pytest.raises(parallel.TaskGivenUp, match="may have 200 MiB"):
        list(context.get_results_unordered())


def test_a_setup_that_grows_too_large(make: Make) -> None:
    context = make(1, max_memory="200M").get_context(TOO_LARGE)
    context.add_task(abs)
    with pytest.raises(parallel.RemoteError, match="may have 200 MiB .* while it ran the context's setup"):
        list(context.get_results_unordered())


@pytest.mark.parametrize("size", ["much", 0, -5, ""])
def test_no_limits_of_memory(size: Any) -> None:
    with pytest.raises(parallel.InputError, match="max_memory"):
        parallel.Manager(max_memory=size)


# -- machines of others


def test_nice_and_few_processors(make: Make, start: Start) -> None:
    manager = make(0, port=0)
    cpu = min(os.sched_getaffinity(0))
    start(manager, "--nice", "7", "--cpus", f"{cpu}-{cpu}")
    context = manager.get_context()
    context.add_task(functools.partial(os.getpriority, os.PRIO_PROCESS, 0))
    context.add_task(functools.partial(os.sched_getaffinity, 0))
    results = list(context.get_results_unordered())
    assert min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7) in results and {cpu} in results
    assert len(manager.slaves) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cpus", "900-901"], "none of these may be used here"),
        (["--cpus", "x"], "a number of processors is needed"),
        (["--max-memory", "lots"], "'lots' is no size"),
        (["--tag", "a b"], "'a b' is no tag"),
    ],
)
def test_wrong_options(make: Make, start: Start, arguments: list[str], message: str) -> None:
    program = start(make(0, port=0), *arguments)
    assert program.ends() == 2 and re.search(message, program.err)


@pytest.mark.slow
def test_it_steps_back_while_somebody_else_uses_the_machine(make: Make, start: Start, own_folder: Any) -> None:
    manager = make(0, port=0)
    sign = own_folder / "the owner is here"
    code = f"""
import os, sys
from slave import machine
machine._busy_seconds = lambda: 0.0
machine._input_interrupts = lambda: ""
machine._seconds_without_input = lambda: 0.0 if os.path.exists({str(sign)!r}) else 400.0
from slave.cli import main
sys.exit(main(["127.0.0.1:{manager.address[1]}", "-n", "1", "--idle-only", "3", "--grace", "0.5"]))
"""
    sign.touch()
    program = Program(sys.executable, "-c", code)
    try:
        program.says(r"somebody uses this machine \(keyboard or mouse are used\): waiting until nobody has for 3 s")
        sign.unlink()
        context = manager.get_context()
        context.add_task(functools.partial(tasks.wait_for, "gate"))
        manager.wait_for_slaves(1, 60)
        eventually((own_folder / "gate.started").exists, 60)
        sign.touch()
        program.says(r"the owner of this machine is back \(keyboard or mouse are used\); running tasks have 0.5 s")
        eventually(lambda: all(one.state == "ended" for one in manager.slaves), 60)
        (own_folder / "gate").touch()
        sign.unlink()
        assert len(list(context.get_results_unordered())) == 1
        assert len((own_folder / "gate.started").read_text().splitlines()) == 2, "it ran elsewhere, or again"
        manager.shutdown()
        assert program.ends() == 0
    finally:
        program.kill()
