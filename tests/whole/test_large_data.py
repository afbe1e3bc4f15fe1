"""Large arguments, results and setups, on this machine and over TCP: exact in both directions, again and again."""

from __future__ import annotations

import functools
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from slave import shared_memory
from slave.parted import LARGE
from tests.conftest import Make
from tests.support.programs import Program, slave

SIZE = LARGE + 1000


def changed(data: bytearray, fixed: bytes) -> tuple[bytearray, bytes, bytes]:
    """Changes its argument in place, as a program may that got it."""
    before = bytes(data)
    data[:] = bytes(255 - first for first in before[:1]) * len(data)
    return data, fixed, before


def dies_once(mark: Path, data: bytearray, fixed: bytes) -> tuple[bytearray, bytes, bytes]:
    found = changed(data, fixed)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return found


@pytest.fixture
def over_tcp(make: Make) -> Iterator[parallel.Manager]:
    manager = make(0, port=0)
    program: Program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "1")
    yield manager
    manager.shutdown()
    program.kill()


@pytest.fixture(params=["here", "by TCP"])
def manager(request: pytest.FixtureRequest, make: Make) -> Any:
    return make(2) if request.param == "here" else request.getfixturevalue("over_tcp")


def add(context: parallel.Context[Any], task: Callable[..., Any], count: int = 4) -> None:
    for number in range(count):
        data = bytearray([number]) * SIZE
        context.add_task(functools.partial(task, data, bytes([number]) * SIZE))
        data[:] = b"x" * SIZE  # what was added stays as it was


def check(results: list[tuple[bytearray, bytes, bytes]], count: int = 4) -> None:
    results.sort(key=lambda result: result[1][0])
    for number, (data, fixed, before) in enumerate(results):
        assert type(data) is bytearray and data == bytes([255 - number]) * SIZE
        assert type(fixed) is type(before) is bytes and fixed == before == bytes([number]) * SIZE
        data[:] = b"y" * SIZE  # and is the user's own
    assert len(results) == count


def test_large_arguments_and_results_are_exact(manager: parallel.Manager) -> None:
    context = manager.get_context()
    for _ in range(2):
        add(context, changed)
        check(list(context.get_results_unordered()))


def test_a_large_task_whose_slave_dies_is_run_again_as_it_was(manager: parallel.Manager, tmp_path: Path) -> None:
    context = manager.get_context()
    add(context, changed)  # now it is known that tasks are large
    add(context, functools.partial(dies_once, tmp_path / "mark"), 1)
    found = list(context.get_results_unordered())
    assert (tmp_path / "mark").exists()
    again = next(result for result in found if result[1][0] == 0)
    found.remove(again)
    check(found)
    check([again], 1)


def test_arrays_are_exact_and_can_be_written(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    context = make(1).get_context()
    arrays = [numpy.arange(number, number + SIZE, dtype="i4") for number in range(3)]
    for array in arrays:
        context.add_task(negative, array, {"nested": [array[::2]]})
    found = sorted(context.get_results_unordered(), key=lambda pair: -pair[0][0])
    for array, (whole, half) in zip(arrays, found):
        assert (whole == -array.astype("i8")).all() and (half == array[::2]).all()
        whole += 1
        half += 1


def negative(array: Any, more: dict[str, list[Any]]) -> tuple[Any, Any]:
    half = more["nested"][0]
    half += 1
    array[:] = 1 - array
    return array.astype("i8") - 1, half - 1


def test_a_map_s_large_inputs_are_exact(manager: parallel.Manager) -> None:
    inputs = [(bytearray([number]) * SIZE, bytes([number]) * SIZE) for number in range(4)]
    check(list(manager.get_context().map(changed, *zip(*inputs))))
    assert inputs[3][0] == inputs[3][1], "the user's own are as they were"


@pytest.mark.skipif(not shared_memory.possible, reason="this system has no memfd")
def test_what_a_slave_on_this_machine_returns_is_not_copied_and_outlives_it(make: Make) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(functools.partial(lent, SIZE))
    (data,) = context.get_results_unordered()
    assert isinstance(memoryview(data).obj, shared_memory._View)
    pid = manager.slaves[0].pid
    os.kill(pid, signal.SIGKILL)
    context.add_task(os.getpid)
    assert list(context.get_results_unordered()) != [pid]
    context.add_task(functools.partial(lent, SIZE))
    (other,) = context.get_results_unordered()
    assert bytes(data) == bytes(other) == b"d" * SIZE


class Raw:
    """Is rebuilt as the memory that came."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return memoryview, (pickle.PickleBuffer(self.data),)


def lent(size: int) -> Raw:
    return Raw(bytearray(b"d" * size))
