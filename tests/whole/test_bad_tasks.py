"""Tasks that misbehave: each has its one outcome, and whatever it broke, the tasks after it are done."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.support import deaths, rude, tasks
from tests.support.waiting import eventually


def works(context: parallel.Context[Any], turns: int = 3) -> None:
    """Its slaves do ordinary work, by themselves and again after a pause."""
    for turn in range(turns):
        for number in range(20):
            context.add_task(functools.partial(tasks.give, (turn, number)))
        assert sorted(context.get_results_unordered()) == [(turn, number) for number in range(20)]


@pytest.mark.parametrize("name", list(rude.TASKS))
def test_a_rude_task_harms_nobody(make: Make, own_folder: Path, name: str) -> None:
    manager = make(1, max_attempts=1)
    context = manager.get_context()
    works(context, 1)
    context.add_task(rude.TASKS[name])
    assert list(context.get_results_unordered()) == ["rude"]
    works(context)
    context.add_task(functools.partial(tasks.blob, 1_000_000))
    assert [len(result) for result in context.get_results_unordered()] == [1_000_000]
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")), timeout=0.2)
    with pytest.raises(parallel.TaskTimeout):
        list(context.get_results_unordered())
    works(context)


@pytest.mark.slow
def test_a_task_that_writes_much(make: Make) -> None:
    context = make(1).get_context()
    context.add_task(rude.write_much)
    assert list(context.get_results_unordered()) == ["rude"]
    assert Path("slave0.output").stat().st_size >= 200 << 20
    works(context)


KINDS = (KeyboardInterrupt, SystemExit, MemoryError, RecursionError, GeneratorExit)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_explodes_when_it_is_pickled(make: Make, kind: type[BaseException]) -> None:
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 60)
    pid = manager.slaves[0].pid
    context.add_task(functools.partial(rude.explosive_result, kind))
    with pytest.raises(parallel.RemoteError, match="while it is pickled"):
        list(context.get_results_unordered())
    works(context)
    assert manager.slaves[0].pid == pid


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_explodes_when_it_is_rebuilt(make: Make, kind: type[BaseException]) -> None:
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 60)
    pid = manager.slaves[0].pid
    context.add_task(rude.Explosive(kind, "rebuilt"))
    with pytest.raises(parallel.RemoteError, match=f"{kind.__name__}: while it is rebuilt"):
        list(context.get_results_unordered())
    works(context)
    assert manager.slaves[0].pid == pid


def test_what_errors_do_that_are_looked_at_costs_no_slave_and_hides_nothing(make: Make) -> None:
    """They are raised while a task is rebuilt, while it runs, and while its result is rebuilt in the master."""
    manager = make(1)
    context = manager.get_context()
    manager.wait_for_slaves(1, 60)
    pid = manager.slaves[0].pid
    for kind in rude.HOSTILE:
        context.add_task(rude.Explosive(kind, "rebuilt"))
        context.add_task(rude.explode, kind, "while it runs")
        context.add_task(rude.Explosive, kind, "rebuilt")
        found: list[Any] = list(context.get_results_unordered(errors="return"))
        told = {type(error): error for error in found}
        assert [len(found), *sorted(one.__name__ for one in told)] == [3, "RemoteError", "ResultError"]
        for error in found:
            assert error.type_name.endswith(kind.__name__) and "explode" in str(error)
            assert ("while it" in error.message) is (kind is not rude.Speechless), error.message
    works(context)
    assert manager.slaves[0].pid == pid


@pytest.fixture
def small_group() -> Iterator[str]:
    """The file by which a process joins a control group of 50 MB."""
    base, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not base.exists():
        base, limit = Path("/sys/fs/cgroup"), "memory.max"
    folder = base / f"parallel-tests-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(50 << 20))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"making a control group for memory is not possible here: {error}")
    yield str(folder / "cgroup.procs")
    eventually(lambda: removed(folder), what="the end of its last process")


def removed(group: Path) -> bool:
    """A group in which a process ends cannot be removed, though it names none any more."""
    try:
        group.rmdir()
    except OSError as error:
        assert error.errno == errno.EBUSY, error
        return False
    return True


def test_a_task_that_the_system_kills_for_want_of_memory(make: Make, small_group: str) -> None:
    context = make(1, max_attempts=2).get_context()
    context.add_task(functools.partial(rude.take_all_memory, small_group))
    with pytest.raises(parallel.TaskGivenUp) as caught:
        list(context.get_results_unordered())
    assert len(caught.value.ends) == 2
    for end in caught.value.ends:
        assert end.startswith("it was killed by SIGKILL, perhaps out of memory on ")
    works(context)


def test_a_task_that_kills_its_agent(make: Make, own_folder: Path) -> None:
    """Once: then another agent comes, and the task runs to its end."""
    context = make(1).get_context()
    context.add_task(functools.partial(deaths.kill_parent_once, str(own_folder / "mark"), signal.SIGKILL))
    assert list(context.get_results_unordered()) == ["survived"]
    works(context)
