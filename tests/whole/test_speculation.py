"""Tasks that are started twice, on real slaves: the first outcome counts, and the other copy's process ends."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.core import events as ev
from tests.conftest import Make
from tests.support import tasks
from tests.support.inside import check, inside
from tests.support.waiting import eventually


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pids_of(log: str) -> list[int]:
    return [int(pid) for pid in Path(log).read_text().split()] if Path(log).exists() else []


class Told:
    """What a manager's events say of tasks that were started twice."""

    def __init__(self, manager: parallel.Manager) -> None:
        self._manager = manager
        self._events: list[ev.Event] = []
        manager.subscribe(self._events.append)

    def check(self) -> int:
        """All of it is counted as it was; returns how many there were.

        Nobody knows which copy is first: the one that was granted first may stand still before it does anything.
        """
        status = self._manager.status()
        eventually(lambda: len(self._all(ev.TaskCopied)) == status.copies, 60, f"{status.copies} copies")
        copied = dict(self._all(ev.TaskCopied))
        eventually(lambda: copied.keys() <= dict(self._all(ev.TaskDone)).keys(), 60, "their outcomes")
        done = dict(self._all(ev.TaskDone))
        assert status.copies_first == sum(done[task] == slave for task, slave in copied.items())
        return status.copies

    def _all(self, kind: type[ev.TaskCopied] | type[ev.TaskDone]) -> list[tuple[int, int]]:
        return [(one.task, one.slave) for one in self._events if isinstance(one, kind)]


@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_outcome_counts_and_the_other_process_ends(make: Make, winner: int) -> None:
    manager = make(2)
    told = Told(manager)
    context = manager.get_context(speculate=True)
    context.add_task(functools.partial(tasks.give, "quick"))
    assert list(context.get_results_unordered()) == ["quick"]
    context.add_task(functools.partial(tasks.race, "log", winner))
    assert list(context.get_results_unordered()) == [winner]
    loser = pids_of("log")[1 - winner]
    eventually(lambda: is_gone(loser), what="the end of the other copy's process")
    assert told.check() == 1
    idle = ["idle", "idle"]
    eventually(lambda: [info.state for info in manager.slaves] == idle, 60, "a fresh process in its place")
    for number in range(20):
        context.add_task(functools.partial(tasks.give, number))
    assert sorted(context.get_results_unordered()) == list(range(20))
    assert [slave.losses for slave in manager.status().slaves] == [0, 0]
    check(manager)


def test_a_call_of_a_map_is_started_twice_and_keeps_its_place(make: Make) -> None:
    manager = make(2)
    told = Told(manager)
    context = manager.get_context(speculate=True)
    inputs = [*range(40), -1]
    found = list(context.map(functools.partial(tasks.quick_or_race, "log", 1), inputs))
    assert found == [*range(40), 1]
    assert told.check() >= 1  # where a slave is held up, quick ones too get a copy


def test_an_executors_call_is_started_twice_if_that_is_wanted(own_folder: Path) -> None:
    with parallel.Executor(2, speculate=True) as executor:
        assert list(executor.map(tasks.square, range(4))) == [0, 1, 4, 9]
        assert executor.submit(tasks.race, "log", 1).result() == 1


def test_cancelling_ends_both_copies(make: Make) -> None:
    manager = make(2)
    context = manager.get_context(speculate=True)
    context.add_task(functools.partial(tasks.give, "quick"))
    assert list(context.get_results_unordered()) == ["quick"]
    context.add_task(functools.partial(tasks.wait_for, "gate"))
    results = context.get_results_unordered()
    eventually(lambda: inside(manager, lambda state: state.table.races.second), 60, "a copy")
    eventually(lambda: len(pids_of("gate.started")) == 2, 60, "both to run")
    assert context.cancel() == 1
    assert list(results) == []
    for pid in pids_of("gate.started"):
        eventually(functools.partial(is_gone, pid), what=f"the end of process {pid}")


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_whether_to_speculate_is_yes_or_no(make: Make, wrong: Any) -> None:
    with pytest.raises(parallel.InputError, match=f"speculate={wrong!r} is neither True nor False"):
        make(1).get_context(speculate=wrong)
