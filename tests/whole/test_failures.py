"""Tasks and setups that raise: each task has one outcome, and no slave is lost to a bad task."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from tests.conftest import Make
from tests.support import deaths, tasks
from tests.support.inside import inside, unsettled
from tests.support.waiting import eventually


def error_of(manager: parallel.Manager, task: Callable[..., object], setup: Any = None) -> parallel.RemoteError:
    context = manager.get_context(setup)
    context.add_task(task)
    with pytest.raises(parallel.RemoteError) as caught:
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == []
    return caught.value


def pid(manager: parallel.Manager) -> int:
    return manager.slaves[0].pid


def test_exception_tells_type_message_slave_and_traceback(make: Make) -> None:
    manager = make()
    error = error_of(manager, functools.partial(tasks.raise_value_error, "bad input"))
    assert isinstance(error.exc, ValueError) and error.exc.args == ("bad input",)
    assert "raise ValueError(message)" in error.traceback and "slave/runner.py" not in error.traceback
    assert f"pid {pid(manager)}" in error.slave
    for part in ("ValueError: bad input", error.slave, error.traceback.strip()):
        assert part in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_exception_with_a_constructor_of_its_own_is_rebuilt(make: Make) -> None:
    error = error_of(make(), tasks.raise_particular)
    assert isinstance(error.exc, tasks.Particular)
    assert (error.exc.code, error.exc.where, str(error.exc)) == (7, "the door", "code 7 at the door")


def test_unpicklable_exception_is_told_as_text(make: Make) -> None:
    error = error_of(make(), tasks.raise_stubborn)
    assert error.exc is None
    assert error.type_name.endswith("Stubborn") and error.message == "stubborn"


def test_exception_whose_str_fails(make: Make) -> None:
    error = error_of(make(), tasks.raise_mute)
    assert "MuteError" in str(error) and "str() of the exception failed" in error.message


@pytest.mark.parametrize(
    ("task", "type_name"),
    [(deaths.leave, "SystemExit"), (deaths.interrupt, "KeyboardInterrupt"), (deaths.recurse, "RecursionError")],
)
def test_exits_of_a_task_cost_no_slave(make: Make, task: Callable[..., object], type_name: str) -> None:
    manager = make()
    manager.wait_for_slaves(1, 60)
    before = pid(manager)
    assert error_of(manager, task).type_name == type_name
    assert pid(manager) == before


def test_the_loop_goes_on_after_each_error(make: Make) -> None:
    context = make(2).get_context()
    for number in range(20):
        context.add_task(functools.partial(divmod, 1, number % 2))
    results, errors = 0, 0
    while True:
        try:
            for _ in context.get_results_unordered():
                results += 1
            break
        except parallel.RemoteError as error:
            assert isinstance(error.exc, ZeroDivisionError)
            errors += 1
    assert (results, errors) == (10, 10)


def test_unpicklable_result_names_the_part_to_blame(make: Make) -> None:
    error = error_of(make(), tasks.unpicklable)
    assert "the result['model'][0]: cannot pickle '_thread.lock' object" in str(error)


def test_result_of_a_class_that_only_the_slave_has(make: Make) -> None:
    context = make().get_context()
    context.add_task(tasks.stranger)
    context.add_task(functools.partial(tasks.give, "next"))
    with pytest.raises(parallel.ResultError, match=r"cannot be rebuilt in this process.*No module named 'only_here'"):
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == ["next"]


def test_setup_that_raises_everywhere(make: Make) -> None:
    manager = make(2)
    context = manager.get_context(tasks.failing_setup)
    for _ in range(5):
        context.add_task(tasks.give)
    with pytest.raises(parallel.RemoteError, match=r"setup.*LookupError: no such data set") as caught:
        list(context.get_results_unordered())
    assert 'raise LookupError("no such data set")' in caught.value.traceback
    assert isinstance(caught.value.exc, LookupError)
    other = manager.get_context()
    other.add_task(functools.partial(tasks.give, "works"))
    assert list(other.get_results_unordered()) == ["works"]
    with pytest.raises(parallel.RemoteError, match=r"setup"):
        list(context.get_results_unordered())


def test_setup_that_raises_on_one_slave_moves_its_tasks_to_the_other(make: Make) -> None:
    manager = make(2)
    manager.wait_for_slaves(2, 60)
    context = manager.get_context(functools.partial(tasks.failing_setup_on, 0))
    for _ in range(20):
        context.add_task(tasks.arguments_are)
    assert list(context.get_results_unordered()) == [("fine",)] * 20
    assert [info.tasks_done for info in manager.slaves] == [0, 20]


def test_unpicklable_setup_result_is_no_matter(make: Make) -> None:
    context = make().get_context(threading.Lock)
    context.add_task(tasks.setup_is_lock)
    assert list(context.get_results_unordered()) == [True]


def test_tasks_behind_a_long_one_are_handed_to_an_idle_slave(make: Make, own_folder: Path) -> None:
    manager = make(2)
    manager.wait_for_slaves(2, 60)
    context = manager.get_context()
    for number in range(1000):  # teaches the master that such tasks are short
        context.add_task(functools.partial(tasks.give, number))
    assert len(list(context.get_results_unordered())) == 1000
    gate = str(own_folder / "gate")
    context.add_task(functools.partial(tasks.wait_for, gate))
    for number in range(100):
        context.add_task(functools.partial(tasks.give, number))
    results = context.get_results_unordered()
    assert sorted(next(results) for _ in range(100)) == list(range(100))
    Path(gate).touch()
    assert len(list(results)) == 1
    assert len(Path(gate + ".started").read_text().splitlines()) == 1


def test_an_abandoned_context_leaves_the_slaves(make: Make) -> None:
    manager = make(1)
    context = manager.get_context(tasks.hold)
    context.add_task(tasks.count_held)
    assert list(context.get_results_unordered()) == [1]
    context.add_task(functools.partial(tasks.spin, 0.0))
    del context
    gc.collect()
    other = manager.get_context()

    def held() -> bool:
        other.add_task(tasks.count_held)
        return list(other.get_results_unordered()) == [0]

    eventually(held, 60, "no held setup result in the slave")
    assert inside(manager, lambda state: len(state.contexts)) == 1


def test_manager_inside_a_task(make: Make) -> None:
    assert "Manager() was called inside a task" in str(error_of(make(), tasks.make_manager))


def test_missing_module_names_module_host_and_python(make: Make) -> None:
    error = error_of(make(), functools.partial(__import__, "no_such_module_here"))
    assert "No module 'no_such_module_here' for " in str(error) and "Manager(python='...')" in str(error)


@pytest.mark.parametrize("after", [tasks.wait_for, tasks.hold_lock_until])
def test_a_result_is_given_while_the_next_task_of_the_same_lease_runs(
    make: Make, own_folder: Path, after: Callable[..., object]
) -> None:
    manager = make(1)
    context = manager.get_context()
    for number in range(1000):  # teaches the master that such tasks are short, so that a lease holds many
        context.add_task(functools.partial(tasks.give, number))
    assert len(list(context.get_results_unordered())) == 1000
    gate = own_folder / "gate"
    if after is tasks.hold_lock_until:
        os.mkfifo(gate)
    for number in range(10):
        context.add_task(functools.partial(tasks.give, number))
    context.add_task(functools.partial(after, str(gate)))
    results = context.get_results_unordered()
    rescue = threading.Timer(60, lambda: gate.write_bytes(b"!"))
    rescue.start()
    assert sorted(next(results) for _ in range(10)) == list(range(10))
    assert len(unsettled(manager)) == 1 and rescue.is_alive(), "the long task is not done yet"
    rescue.cancel()
    gate.write_bytes(b"!")
    assert len(list(results)) == 1
