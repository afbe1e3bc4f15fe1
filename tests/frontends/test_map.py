"""`Context.map`, `map_unordered`, and `parallel.map` over them."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NoReturn

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.waiting import eventually
from tests.whole.conftest import Run

SECONDS = 60
loaded = 0


class Counted:
    """A function that counts how often it was rebuilt in this process."""

    def __setstate__(self, state: object) -> None:
        global loaded
        loaded += 1

    def __getstate__(self) -> object:
        return {"some": "thing"}

    def __call__(self, number: int) -> tuple[int, int, int]:
        return number, os.getpid(), loaded


def setup() -> tuple[int, int]:
    return 1000, 100


def add(number: int, *more: int) -> int:
    return number + sum(more)


def misbehave(number: int) -> int:
    if number == 3:
        raise LookupError("three")
    if number == 5:
        os._exit(7)
    if number == 7:
        threading.Event().wait()
    return number


def pair(first: int, second: str) -> tuple[int, str]:
    return first, second


def nested(count: int) -> tuple[int, list[int]]:
    return os.getpid(), [*parallel.map(abs, range(-count, 0)), *parallel.starmap(pow, [(2, 3)])]


def fails() -> NoReturn:
    raise LookupError("no data")


def all_of(results: Iterator[Any]) -> tuple[list[Any], list[Exception]]:
    """Values and errors."""
    values: list[Any] = []
    errors: list[Exception] = []
    while True:
        try:
            values.append(next(results))
        except StopIteration:
            return values, errors
        except Exception as error:
            errors.append(error)


def test_map_keeps_the_order_and_map_unordered_gives_what_is_known(make: Make, own_folder: Path) -> None:
    context = make(2).get_context()
    gate = str(own_folder / "open")
    unordered = context.map_unordered(tasks.wait_for, [gate, str(own_folder)])
    assert next(unordered) is not None  # that of the folder, which is there
    Path(gate).touch()
    assert len(list(unordered)) == 1
    assert list(context.map(add, range(500))) == list(range(500))
    assert sorted(context.map_unordered(add, range(500))) == list(range(500))


def test_the_function_is_sent_once_to_each_runner(make: Make) -> None:
    found = list(make(2).get_context().map(Counted(), range(300)))
    assert [number for number, _, _ in found] == list(range(300))
    assert {times for _, _, times in found} == {1}


def test_the_next_map_of_the_same_function_sends_it_no_more(make: Make) -> None:
    manager = make()
    context = manager.get_context()
    for _ in range(20):
        assert [times for _, _, times in context.map(Counted(), range(3))] == [1, 1, 1]
    for number in range(10):
        assert list(context.map(functools.partial(add, number), [1])) == [number + 1]
    eventually(lambda: len(manager.dispatcher.mailboxes) <= 6, SECONDS, "few that are kept")
    results = context.map(add, [1])
    assert list(results) == [1] and list(results) == [] and list(context.map(add, [2])) == [2]
    del context, results
    eventually(lambda: gc.collect() >= 0 and not manager.dispatcher.mailboxes, SECONDS, "the end of all contexts")


def test_setups_result_and_several_iterables_give_further_arguments(make: Make) -> None:
    context = make().get_context(setup)
    assert list(context.map(add, [1, 2])) == [1101, 1102]
    assert list(context.map(add, [1, 2], itertools.count(10))) == [1111, 1113]
    assert list(context.map(tasks.give, [(1, 2)])) == [((1, 2), 1000, 100)]


def test_setup_runs_once_for_tasks_and_maps_of_a_context(make: Make, own_folder: Path) -> None:
    log = own_folder / "log"
    context = make().get_context(tasks_setup(log))
    context.add_task(tasks.give)
    list(context.get_results_unordered())
    list(context.map(tasks.give, range(3)))
    list(context.map_unordered(tasks.give, range(3)))
    assert log.read_text() == "set up\n"


def tasks_setup(log: Path) -> Any:
    return functools.partial(note, str(log))


def note(log: str) -> None:
    with open(log, "a") as file:
        file.write("set up\n")


@pytest.mark.slow
def test_what_one_input_does_is_its_error_alone_and_has_its_index(make: Make) -> None:
    values, errors = all_of(make(2).get_context(timeout=5.0).map_unordered(misbehave, range(10)))
    assert sorted(values) == [0, 1, 2, 4, 6, 8, 9]
    by_index = {error.index: error for error in errors if isinstance(error, parallel.RemoteError)}
    assert set(by_index) == {3, 5, 7}
    assert by_index[3].type_name == "LookupError" and "it was input 3: 3" in str(by_index[3])
    assert isinstance(by_index[5], parallel.TaskGivenUp) and "exited with code 7" in str(by_index[5])
    assert isinstance(by_index[7], parallel.TaskTimeout)


def test_in_an_ordered_map_errors_stand_in_their_place(make: Make) -> None:
    results = make().get_context().map(misbehave, [1, 3, 2])
    assert next(results) == 1
    with pytest.raises(parallel.RemoteError, match="three"):
        next(results)
    assert next(results) == 2
    with pytest.raises(StopIteration):
        next(results)


def test_an_endless_generator_works_and_is_asked_only_as_needed(make: Make) -> None:
    asked = 0

    def inputs() -> Iterator[int]:
        nonlocal asked
        while True:
            asked += 1
            yield asked

    context = make(2).get_context()
    results = context.map(add, inputs(), buffersize=10)
    assert list(itertools.islice(results, 30)) == list(range(1, 31)) and asked <= 41
    results.close()
    assert list(results) == []
    assert list(itertools.islice(context.map_unordered(add, itertools.count()), 300))


def test_results_that_wait_for_an_earlier_one_are_bounded(make: Make, own_folder: Path) -> None:
    gate, asked = own_folder / "open", 0

    def inputs() -> Iterator[str]:
        nonlocal asked
        yield str(gate)
        for _ in range(100):
            asked += 1
            yield str(own_folder)

    results = make(2).get_context().map(tasks.wait_for, inputs(), buffersize=5)
    thread = threading.Thread(target=lambda: found.extend(results))
    found: list[Any] = []
    thread.start()
    eventually(lambda: asked == 4, SECONDS, "inputs ahead of the first result")
    gate.touch()
    thread.join(SECONDS)
    assert len(found) == 101


def test_what_the_inputs_raise_comes_out_and_results_go_on(make: Make) -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise KeyError("input")

    values, errors = all_of(make().get_context().map(add, inputs()))
    assert values == [1] and [type(error) for error in errors] == [KeyError]


def test_an_input_that_cannot_be_pickled_is_its_own_error(make: Make) -> None:
    context = make().get_context()
    for results in (
        context.map(tasks.give, [1, threading.Lock(), 3]),
        context.map_unordered(tasks.give, [1, threading.Lock(), 3]),
    ):
        values, errors = all_of(results)
        assert sorted(values) == [1, 3] and [type(error) for error in errors] == [parallel.UnpicklableError]


def test_bad_arguments(make: Make) -> None:
    context = make().get_context()
    attempts: list[tuple[Callable[[], object], str]] = [
        (lambda: context.map(3, [1]), "callable first"),  # type: ignore[arg-type]
        (lambda: context.map(add), "at least one iterable"),
        (lambda: context.map(add, 3), "not iterable"),  # type: ignore[arg-type]
        (lambda: context.map(functools.partial(tasks.give, threading.Lock()), [1]), "lock"),
        (lambda: context.map(add, [1], buffersize=0), "whole number from 1 on"),
        (lambda: context.map(add, [1], timeout=-1), "positive number of seconds"),
    ]
    for call, message in attempts:
        with pytest.raises(parallel.InputError, match=message):
            call()


def test_a_setup_that_raises_everywhere_ends_the_map(make: Make) -> None:
    with pytest.raises(parallel.RemoteError, match="no data"):
        list(make(2).get_context(fails).map(add, range(3)))
    with pytest.raises(parallel.NoMoreSlavesError):
        list(make(0).get_context().map(add, range(3)))


def test_a_map_that_is_forgotten_leaves_nothing_behind(make: Make) -> None:
    manager = make()
    context = manager.get_context()
    assert next(context.map(add, range(100))) == 0
    eventually(lambda: gc.collect() >= 0 and len(manager.dispatcher.mailboxes) == 1, SECONDS, "the map's end")


def test_async_for_over_a_map_and_over_a_context(make: Make) -> None:
    context = make(2).get_context()

    async def main() -> tuple[list[int], list[int]]:
        for number in range(20):
            context.add_task(add, number)
        mapped = [value async for value in context.map(add, range(50))]
        return mapped, sorted([value async for value in context])

    assert asyncio.run(asyncio.wait_for(main(), SECONDS)) == (list(range(50)), list(range(20)))


def test_a_coroutine_that_waits_for_results_can_be_cancelled(make: Make, own_folder: Path) -> None:
    context = make().get_context()
    context.add_task(tasks.wait_for, str(own_folder / "open"))

    async def main() -> int:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(context.__aiter__().__anext__(), 0.1)
        (own_folder / "open").touch()
        return len([value async for value in context])

    assert asyncio.run(asyncio.wait_for(main(), SECONDS)) == 1


def test_parallel_map_needs_no_manager_prints_here_and_ends_with_the_program(run: Run) -> None:
    program = run(
        """
import os
import parallel
from tests.frontends.test_executor import speak
from tests.frontends.test_map import misbehave, nested, pair

if __name__ == "__main__":
    before = os.listdir(".")
    assert list(parallel.map(speak, ["a", "bb"])) == [1, 2]
    assert list(parallel.map(pair, range(3), "xyz")) == [(0, "x"), (1, "y"), (2, "z")]
    assert list(parallel.starmap(pow, [(2, 3), (3, 2)])) == [8, 9]
    results = parallel.map(misbehave, [1, 3, 2])
    assert next(results) == 1
    try:
        next(results)
    except LookupError as error:
        assert "misbehave" in str(error.__cause__), error.__cause__
    assert next(results) == 2
    (pid, found), = parallel.map(nested, [2])
    assert found == [2, 1, 8] and pid != os.getpid()
    assert os.listdir(".") == before
"""
    )
    assert program.ends() == 0, program.err
    assert sorted(program.out.splitlines()) == ["says a", "says bb"]


def test_parallel_map_on_a_managers_slaves(make: Make) -> None:
    manager = make()
    assert list(parallel.map(tasks.pid_of, range(2), manager=manager)) == [manager.slaves[0].pid] * 2


def test_as_many_local_slaves_as_cpus_or_as_asked_for() -> None:
    with parallel.Manager.local(output=None) as manager:
        assert len(manager.slaves) == len(os.sched_getaffinity(0))
        manager.add_slaves(2)
        assert len(manager.slaves) == len(os.sched_getaffinity(0)) + 2
    with parallel.Manager.local(1, output=None) as manager:
        assert list(manager.get_context().map(abs, [-1])) == [1]
    for count in (0, -1, 1.5, True):
        with pytest.raises(parallel.InputError, match="whole number from 1 on"):
            parallel.Manager.local(count)  # type: ignore[arg-type]


def goes_wrong(where: dict[int, str], number: int) -> int:
    what = where.get(number)
    if what == "raises":
        raise LookupError(str(number))
    if what == "dies":
        os._exit(7)
    if what == "hangs":
        threading.Event().wait()
    if what is not None and what.startswith("/"):
        eventually(lambda: Path(what).exists(), SECONDS)
    return number


@pytest.mark.slow
def test_among_thousands_of_short_calls_each_that_goes_wrong_is_its_own_error(make: Make) -> None:
    manager = make(2, max_attempts=2)
    wrong = {500: "raises", 1000: "dies", 1500: "hangs", 2000: "raises", 2001: "dies", 2999: "raises"}
    context = manager.get_context(timeout=5.0)
    assert sum(context.map_unordered(functools.partial(goes_wrong, {}), range(1000))) == 999 * 500, "its time is known"
    results, errors = all_of(context.map_unordered(functools.partial(goes_wrong, wrong), range(3000)))
    assert sorted(results) == [number for number in range(3000) if number not in wrong]
    kinds = {"raises": parallel.RemoteError, "dies": parallel.TaskGivenUp, "hangs": parallel.TaskTimeout}
    found = {error.index: error for error in errors if isinstance(error, parallel.RemoteError)}
    assert {index: type(error) for index, error in found.items()} == {at: kinds[what] for at, what in wrong.items()}
    assert all(error.task == str(index) for index, error in found.items())


@pytest.mark.parametrize("long", [0, 700])
def test_no_short_call_waits_behind_a_long_one_while_a_slave_idles(make: Make, tmp_path: Path, long: int) -> None:
    context, go_on = make(2).get_context(), tmp_path / "go on"
    function = functools.partial(goes_wrong, {long: str(go_on)})
    found = context.map_unordered(function, range(1500))
    first = [next(found) for _ in range(1499)]
    assert sorted(first) == [number for number in range(1500) if number != long]
    go_on.touch()
    assert list(found) == [long]
