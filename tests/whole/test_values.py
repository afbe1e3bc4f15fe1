"""What setups return and tasks return: everything that a user's table of the interface promises."""

from __future__ import annotations

import copy
import functools
import glob
import math
import operator
import pathlib
import pickle
import sys
import threading
from typing import Any, Callable

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks


def run(manager: parallel.Manager, *todo: Callable[..., object], setup: Any = None) -> list[Any]:
    context = manager.get_context(setup)
    for task in todo:
        context.add_task(task)
    return list(context.get_results_unordered())


@pytest.mark.parametrize(
    ("returned", "arguments"),
    [
        ((1, "two"), (1, "two")),
        ((), ()),
        (None, ()),
        ([1, 2], ([1, 2],)),
        ("text", ("text",)),
        (0, (0,)),
        ({}, ({},)),
        (((1, 2),), ((1, 2),)),
    ],
)
def test_setup_value_becomes_arguments(make: Make, returned: object, arguments: object) -> None:
    assert run(make(), tasks.arguments_are, setup=functools.partial(tasks.give, returned)) == [arguments]


def test_no_setup_gives_no_argument(make: Make) -> None:
    assert run(make(), tasks.arguments_are) == [()]


def test_every_kind_of_callable_is_a_task(make: Make) -> None:
    todo: list[Callable[..., object]] = [
        dict,
        [3, 4].copy,
        "a-b".upper,
        functools.partial(divmod, 7, 2),
        functools.partial(operator.add, 1, 1),
        tasks.Slotted(5),
        tasks.Falsy(6),
        tasks.Counter(7).plus_one,
        tasks.Counter,
    ]
    context = make().get_context()
    for task in todo[:-1]:
        context.add_task(task)
    results = list(context.get_results_unordered())
    assert sorted(map(repr, results)) == sorted(map(repr, [{}, [3, 4], "A-B", (3, 1), 2, 5, 6, 8]))


def test_special_numbers_and_exceptions_are_values(make: Make) -> None:
    values = [math.nan, math.inf, -math.inf, ValueError("as a value"), tasks.Particular, StopIteration(), None, False]
    results = run(make(), *[functools.partial(tasks.give, value) for value in values])
    assert [repr(result) for result in results] == [repr(value) for value in values]


def test_no_task_gives_no_result(make: Make) -> None:
    assert run(make()) == []


def test_large_results_arrive_whole(make: Make) -> None:
    sizes = [0, 1, 32 * 1024 - 1, 32 * 1024, 256 * 1024, 1 << 20, 10_000_001]
    results = run(make(2), *[functools.partial(tasks.blob, size) for size in sizes])
    assert sorted(map(len, results)) == sizes


def test_arrays_arrive_writable_and_equal(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    for shape in [(3,), (1000, 1000)]:
        (array,) = run(make(), functools.partial(numpy.full, shape, 2.5))
        array += 1
        assert (array == 3.5).all() and array.shape == shape


def test_transposed_and_strided_arrays(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    whole = numpy.arange(90_000.0).reshape(300, 300)
    for part in (whole.T, whole[::2, ::3], whole[:, :1]):
        (array,) = run(make(), functools.partial(tasks.give, part))
        assert (array == part).all()


def test_large_task_and_setup(make: Make) -> None:
    data = bytes(3_000_000)
    results = run(make(), functools.partial(tasks.arguments_are, data), setup=functools.partial(tasks.give, data))
    assert results == [(data, data)]


@pytest.mark.slow
def test_result_over_2_gib(make: Make) -> None:
    size = (2 << 30) + 5
    (result,) = run(make(), functools.partial(tasks.blob, size))
    assert len(result) == size and not result[-1]


@pytest.mark.slow
def test_array_over_2_gib(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    (array,) = run(make(), functools.partial(numpy.ones, (2 << 30) + 8, "u1"))
    assert array.nbytes == (2 << 30) + 8 and array[-1] == 1


def test_tasks_added_by_the_loop_body(make: Make) -> None:
    context = make(2).get_context()
    context.add_task(functools.partial(tasks.give, 5))
    seen = []
    for value in context.get_results_unordered():
        seen.append(value)
        if value:
            context.add_task(functools.partial(tasks.give, value - 1))
    assert seen == [5, 4, 3, 2, 1, 0]


def test_loop_left_early_and_resumed(make: Make) -> None:
    context = make(2).get_context()
    for number in range(50):
        context.add_task(functools.partial(tasks.give, number))
    first = context.get_results_unordered()
    seen = [next(first) for _ in range(7)]
    for value in context.get_results_unordered():  # while the first generator is still held
        seen.append(value)
        if len(seen) == 20:
            break
    seen += context.get_results_unordered()
    assert sorted(seen) == list(range(50))
    assert list(first) == [] and list(context.get_results_unordered()) == []


def test_one_slave_starts_tasks_in_the_order_in_which_they_were_added(make: Make) -> None:
    manager = make(1)
    one, two = manager.get_context(), manager.get_context(functools.partial(tasks.give, "two"))
    log = "order.log"
    for number in range(30):
        (one if number % 2 else two).add_task(functools.partial(append, log, number))
    list(one.get_results_unordered())
    list(two.get_results_unordered())
    with open(log) as lines:
        assert [int(line) for line in lines] == list(range(30))


def append(path: str, number: int, *_: object) -> None:
    with open(path, "a") as log:
        log.write(f"{number}\n")


def test_contexts_alternating_on_one_slave_are_set_up_once_each(make: Make) -> None:
    manager = make(1)
    contexts = [manager.get_context(functools.partial(tasks.setup_log, f"{name}.log", name)) for name in "ab"]
    for _ in range(3):
        for context in contexts:
            context.add_task(tasks.give)
        for context, name in zip(contexts, "ab"):
            assert list(context.get_results_unordered()) == [name]
    for name in "ab":
        with open(f"{name}.log") as log:
            assert len(log.readlines()) == 1


def test_two_contexts_read_by_two_threads(make: Make) -> None:
    manager = make(2)
    contexts = [manager.get_context(functools.partial(tasks.give, name)) for name in "ab"]
    seen: list[list[object]] = [[], []]

    def read(index: int) -> None:
        for _ in range(200):
            contexts[index].add_task(tasks.give)
        seen[index].extend(contexts[index].get_results_unordered())

    threads = [threading.Thread(target=read, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["a"] * 200, ["b"] * 200]


def test_one_context_read_by_two_threads_gives_each_result_once(make: Make) -> None:
    context = make(2).get_context()
    for number in range(500):
        context.add_task(functools.partial(tasks.give, number))
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend(context.get_results_unordered())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(500))


def test_random_numbers_differ_between_runners(make: Make) -> None:
    manager = make(3)
    manager.wait_for_slaves(3, 60)
    results = run(manager, *[tasks.random_number] * 30)
    assert len(set(results)) == 30


def test_functions_that_have_the_name_of_their_module(make: Make) -> None:
    """The pickle of such a function refers back to its own beginning, which is not where arguments stand before it."""
    context = make(1).get_context()
    context.add_task(copy.copy, {"a": 1})
    context.add_task(copy.copy, ["b"])
    assert list(context.get_results_unordered()) == [{"a": 1}, ["b"]]
    assert context.submit(glob.glob, "nothing*").result(60) == []


class PathOf313:
    """Is pickled as Python 3.13, and no other, pickles a path."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (b"cpathlib._local\nPurePosixPath\n(S'/a/b'\ntR.",)


def give_path(*inputs: object) -> PathOf313:
    return PathOf313()


def raise_path() -> None:
    raise ValueError(PathOf313())


def test_a_path_of_another_python_is_one_here(make: Make) -> None:
    """As a task's argument, as its result, as a map's, in an exception."""
    path, context = pathlib.PurePosixPath("/a/b"), make(1).get_context()
    context.add_task(operator.eq, PathOf313(), path)
    assert list(context.get_results_unordered()) == [True]
    context.add_task(give_path)
    forget_alias()
    assert list(context.get_results_unordered()) == [path]
    context.add_task(raise_path)
    forget_alias()
    with pytest.raises(parallel.RemoteError) as caught:
        list(context.get_results_unordered())
    assert caught.value.exc is not None and caught.value.exc.args == (path,)
    for mapped in (context.map, context.map_unordered):
        forget_alias()
        assert list(mapped(give_path, range(3))) == [path] * 3
    forget_alias()


def forget_alias() -> None:
    """As it was before a pickle wanted that name."""
    if sys.version_info < (3, 13):
        sys.modules.pop("pathlib._local", None)
