"""`Manager.status` and `Context.progress`: what they tell of a run."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import pytest

import parallel
from parallel.monitor.status import ContextStatus, Status, sum_of
from tests.conftest import Make
from tests.support.tasks import failing_setup, give, raise_value_error, square, wait_for
from tests.support.waiting import eventually


def numbers(status: ContextStatus) -> tuple[int, int, int, int]:
    return status.waiting, status.running, status.done, status.failed


def test_a_run_is_told_from_its_begin_to_its_end(make: Make, own_folder: Path) -> None:
    manager = make(slaves=2)
    context = manager.get_context(label="fits")
    assert numbers(context.progress) == (0, 0, 0, 0)
    gate = str(own_folder / "gate")
    for number in range(5):
        context.add_task(wait_for, gate, label=f"run {number}")
    assert numbers(context.progress) == (5, 0, 0, 0)
    results = context.get_results_unordered()
    eventually(lambda: context.progress.running == 2)
    running = context.progress
    assert (running.label, running.known, running.left, running.complete) == ("fits", 5, 5, True)
    status = manager.status()
    assert {slave.label for slave in status.slaves} == {"run 0", "run 1"}
    assert all(slave.state == "busy" and slave.runs_for >= 0 and slave.pid for slave in status.slaves)
    assert (status.connected, status.working, status.ended, status.closing) == (2, 2, 0, False)
    assert Status.from_dict(json.loads(json.dumps(status.as_dict()))) == status
    Path(gate).touch()
    list(results)
    context.add_task(raise_value_error)
    list(context.get_results_unordered(errors="return"))
    assert numbers(context.progress) == (0, 0, 6, 1)
    status = manager.status()
    assert sum(slave.done for slave in status.slaves) == 6 and status.total.done == 6
    eventually(lambda: [event.text for event in manager.status().events if "has joined" in event.text])
    manager.shutdown()
    assert manager.status().closing and numbers(context.progress) == (0, 0, 6, 1)


def test_iterables_that_are_not_at_their_end(make: Make) -> None:
    manager = make(slaves=1)
    context = manager.get_context()
    tasks = [functools.partial(square, number) for number in range(3000)]
    context.add_tasks(tasks)
    assert (context.progress.known, context.progress.complete) == (3000, True), "a list tells how many it holds"
    context.add_tasks(iter(functools.partial(square, number) for number in range(2000)))
    assert not context.progress.complete
    results = context.get_results_unordered()
    next(results)
    assert not context.progress.complete
    list(results)
    assert (context.progress.known, context.progress.done, context.progress.complete) == (5000, 5000, True)


def test_maps_count_for_their_context(make: Make) -> None:
    manager = make(slaves=1)
    context = manager.get_context()
    list(context.map(square, range(50)))
    assert numbers(context.progress) == (0, 0, 50, 0)
    mapped = context.map(square, itertools.count())
    next(mapped)
    assert not context.progress.complete
    mapped.close()
    assert context.progress.complete and context.progress.done > 50
    (status,) = manager.status().contexts
    assert status.label == "square"


def test_a_signal_handler_may_ask_at_any_line(make: Make) -> None:
    manager = make(slaves=1)
    context = manager.get_context()
    seen: list[Status] = []
    asking = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asking
        if not asking:  # else a busy machine would interrupt it again and again, each time within the last
            asking = True
            seen.append(manager.status())
            assert context.progress.failed == 0
            asking = False

    manager.status()  # which is imported
    before = signal.signal(signal.SIGALRM, ask)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.003)
        for number in range(2000):
            context.add_task(square, number)
        assert len(list(context.get_results_unordered())) == 2000
        eventually(lambda: len(seen) > 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_is_wrong_is_told(make: Make, own_folder: Path) -> None:
    manager = make(slaves=1, port=0)
    context = manager.get_context(failing_setup, label="doomed")
    context.add_task(square, 1)
    manager.begin()
    trouble = eventually(lambda: [text for text in manager.status().trouble if "setup" in text])
    assert trouble == ["setup failed on 1 slave: doomed"]
    os.kill(manager.slaves[0].pid, signal.SIGKILL)
    eventually(lambda: manager.status().slaves[0].losses)
    context.cancel()


def test_nobody_is_there(make: Make) -> None:
    manager = make(slaves=0, port=0)
    assert manager.status().trouble == []
    context = manager.get_context()
    context.add_task(square, 1)
    assert context.progress.label == "square"
    assert manager.status().trouble == ["no slave is connected; slaves may join by hand"]
    context.cancel()


def error_of(call: Callable[[], object]) -> Any:
    with pytest.raises(parallel.RemoteError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("how", ["task", "context", "map", "submit", "setup"])
def test_errors_tell_the_label(make: Make, how: str) -> None:
    manager = make(slaves=1)
    context = manager.get_context(failing_setup if how == "setup" else None, label="fits")
    context.add_task(raise_value_error, label="run 17" if how == "task" else None)
    if how == "map":
        context.cancel()
        error = error_of(lambda: next(context.map(raise_value_error, ["no"])))
    elif how == "submit":
        error = context.submit(raise_value_error).exception().__cause__  # type: ignore[union-attr]
    else:
        error = error_of(lambda: next(context.get_results_unordered()))
    if how == "setup":
        assert str(error).startswith("the setup of context 'fits'")
    else:
        label = "run 17" if how == "task" else "fits"
        assert error.label == label and f" of {label!r}: " in str(error)


@pytest.mark.parametrize(
    ("label", "shown"), [("a\nb\x1b[31m", "a b [31m"), ("x" * 300, "x" * 197 + "..."), ("", "give"), (None, "give")]
)
def test_a_label_is_one_line_that_harms_no_terminal(make: Make, label: str | None, shown: str) -> None:
    manager = make(slaves=0)
    context = manager.get_context(give, label=label)
    assert context.progress.label == shown


def test_a_label_that_is_none_is_refused(make: Make) -> None:
    manager = make(slaves=0)
    with pytest.raises(parallel.InputTypeError, match="a label is a text, and 5 is none"):
        manager.get_context(label=5)  # type: ignore[arg-type]
    with pytest.raises(parallel.InputTypeError, match="a label is a text, and 5 is none"):
        manager.get_context().add_task(square, 2, label=5)  # type: ignore[arg-type]


def test_several_as_one() -> None:
    one = ContextStatus(1, "a", 4, 1, 5, 1, 2, True, 2.0, 3.5)
    other = ContextStatus(2, "b", 0, 0, 5, 0, 0, True, 0.0, 0.0)
    both = sum_of([one, other])
    assert (both.known, both.left, both.rate, both.time_left) == (17, 7, 2.0, 3.5)
    unknown = ContextStatus(3, "c", 1, 0, 0, 0, 0, False, 0.0, None)
    assert sum_of([one, unknown]).time_left is None and not sum_of([one, unknown]).complete
