"""Outcomes of short tasks travel together: none waits for a task that runs on, and blame stays exact."""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks

SHORT = 3000  # tasks, which take some 10 microseconds each
SECONDS = 60.0  # after which something waits in vain


@contextmanager
def held_up(manager: parallel.Manager, folder: Path) -> Iterator[None]:
    """Hold the only slave up, so that what is added meanwhile comes to it as one lease.

    Before, it learns that tasks of the first context are short.
    """
    gate = manager.get_context()  # one of its own: the time it takes says nothing of the others
    os.mkfifo(folder / "gate")
    gate.add_task(functools.partial(tasks.hold_lock_until, str(folder / "gate")))
    reader = threading.Thread(target=lambda: list(gate.get_results_unordered()))
    reader.start()
    yield
    (folder / "gate").write_bytes(b"!")
    reader.join(SECONDS)


def short_tasks(context: parallel.Context[Any], count: int, log: str) -> None:
    for number in range(count):
        context.add_task(functools.partial(tasks.note, log, number))


def warmed_up(manager: parallel.Manager) -> parallel.Context[Any]:
    """A context whose tasks are known to be short."""
    context = manager.get_context()
    short_tasks(context, SHORT, "warm")
    assert len(list(context.get_results_unordered())) == SHORT
    return context


def test_no_outcome_waits_for_a_task_that_holds_the_interpreters_lock(make: Make, own_folder: Path) -> None:
    manager = make(1)
    context = warmed_up(manager)
    fifo = own_folder / "fifo"
    os.mkfifo(fifo)
    with held_up(manager, own_folder):
        short_tasks(context, SHORT, "log")
        context.add_task(functools.partial(tasks.hold_lock_until, str(fifo)))
    rescue = threading.Timer(SECONDS, lambda: fifo.write_bytes(b"!"))
    rescue.start()
    results = []
    for result in context.get_results_unordered():
        results.append(result)
        if len(results) == SHORT:
            assert rescue.is_alive(), "an outcome has waited until the task that held the lock was over"
            rescue.cancel()
            fifo.write_bytes(b"!")
    rescue.cancel()
    assert sorted(results[:SHORT]) == list(range(SHORT)) and results[SHORT:] == ["held"]


def test_a_task_that_ends_the_process_is_blamed_and_what_ran_before_it_is_not_run_again(
    make: Make, own_folder: Path
) -> None:
    manager = make(1, max_attempts=1)
    context = warmed_up(manager)
    with held_up(manager, own_folder):
        short_tasks(context, SHORT, "log")
        deadly = context.add_task(functools.partial(tasks.call, os._exit, 7))
        short_tasks(context, 5, "after")
    results: list[int] = []
    with pytest.raises(parallel.TaskGivenUp) as given_up:
        results.extend(iter(context.get_results_unordered()))
    assert given_up.value.task_id == deadly
    results.extend(context.get_results_unordered())
    assert sorted(results) == sorted([*range(SHORT), *range(5)])
    log = Counter(map(int, Path("log").read_text().split()))
    assert log == Counter(range(SHORT)), "each ran, and once"
