"""Large arguments, results and setups, on this machine and over TCP: exact in both directions, again and again."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from slave import shared_memory
from slave.parted import LARGE
from tests.conftest import Make
from tests.support.programs import Program, slave
from tests.support.waiting import eventually

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


kept: list[Any] = []


def keep(array: Any) -> list[tuple[float, float]]:
    kept.append(array)
    return [(float(one[0]), float(one[-1])) for one in kept]


def test_an_array_that_a_task_has_kept_stays_as_it_was(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    context = make(1).get_context()
    array = numpy.zeros(SIZE, dtype="i4")
    for begin in (0, 4):
        for number in range(begin, begin + 4):
            array[:] = number
            context.add_task(swallow, array)
            context.add_task(keep, array)
        seen = [found for found in context.get_results_unordered() if found]
        assert max(seen, key=len) == [(number, number) for number in range(begin + 4)]


def swallow(array: Any) -> None:
    pass


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


# -- setups


def given(*values: Any) -> tuple[Any, ...]:
    """A setup that gives what was sent with it."""
    return values


def where(array: Any, fixed: Any, data: bytes) -> tuple[int, str, list[float], bool]:
    """Where its array stands, what it is there, and whether the fixed one can be written; leaves its own mark in it."""
    address, found = array.__array_interface__["data"][0], ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(one, 16) for one in line.split()[0].split("-"))
        if begin <= address < end:
            found = " ".join(line.split()[4:])
    seen = [float(one) for one in (array[0], array[-1], fixed[0], data[0])]
    array[0] += 1
    threading.Event().wait(0.02)  # so that both slaves get some
    return os.getpid(), found, seen, bool(fixed.flags.writeable)


def look_twice(context: parallel.Context[Any], writeable: bool) -> set[str]:
    """Have each of two slaves look twice or more at what setup gave; returns where its array stands on each."""
    for _ in range(4):
        context.add_task(where)
    found: dict[int, list[float]] = {}
    memory = set()
    for pid, stands, (first, last, one, data), can_write in context.get_results_unordered():
        memory.add(stands)
        found.setdefault(pid, []).append(first)
        assert (last, one, data, can_write) == (SIZE - 1, 1, ord("d"), writeable)
        if len(found) < 2 or any(len(firsts) < 2 for firsts in found.values()):
            context.add_task(where)
    assert all(sorted(firsts) == list(range(len(firsts))) for firsts in found.values())
    return memory


def test_a_setup_s_arrays_stand_once_on_this_machine_and_what_a_slave_writes_is_its_own(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    array, fixed = numpy.arange(float(SIZE)), numpy.ones(SIZE)
    fixed.flags.writeable = False
    manager = make(2)
    manager.wait_for_slaves(2)
    context = manager.get_context(functools.partial(given, array, fixed, b"d" * SIZE))
    array[:] = 0  # what was given stays as it was
    memory = look_twice(context, writeable=False)
    if shared_memory.possible:
        assert len(memory) == 1 and "memfd:parallel" in memory.pop()
        del context
        gc.collect()
        eventually(lambda: not lent_here(), 60, f"the end of the setup's memory: {lent_here()}")


def lent_here() -> list[str]:
    """This process's descriptors of memory that is lent."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # another thread has just closed it
            if "memfd:parallel" in os.readlink(f"/proc/self/fd/{fd}"):
                found.append(fd)
    return found


def test_a_setup_s_arrays_stand_once_for_the_slaves_of_a_program_that_came_by_tcp(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    manager = make(0, port=0)
    program: Program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "2")
    try:
        context = manager.get_context(functools.partial(given, numpy.arange(float(SIZE)), numpy.ones(3), b"d" * SIZE))
        manager.wait_for_slaves(2)
        memory = look_twice(context, writeable=True)
        assert len(memory) == 1 and memory.pop().endswith("/setup")
    finally:
        manager.shutdown()
        program.kill()
