"""A reader slower than the slaves, and tasks that are made as they are needed."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable

import pytest

import parallel
from parallel import feeder as feeder_module
from parallel.core.users import MOST_EACH
from tests.conftest import Make
from tests.support import tasks
from tests.support.inside import inside
from tests.support.waiting import eventually

MB = 1_000_000


def waiting_bytes(manager: parallel.Manager) -> int:
    boxes = manager.dispatcher.mailboxes
    return int(inside(manager, lambda state: sum(one.size for box in boxes.values() for one in list(box.ready))))


def settles(value: Callable[[], object]) -> object:
    """The value, once it has been the same for a while."""
    pause = threading.Event()
    seen: list[object] = []

    def stable() -> bool:
        pause.wait(0.05)
        seen.append(value())
        return len(seen) >= 10 and len(set(map(str, seen[-10:]))) == 1

    eventually(stable, 60, "a value that stays")
    return seen[-1]


@pytest.mark.parametrize("size", [2 * MB, 100_000, 1000])
def test_results_that_wait_are_bounded_in_bytes(make: Make, size: int) -> None:
    manager = make(2, result_bytes=10 * MB)
    context = manager.get_context()
    count = 60 * MB // size if size > 1000 else 30_000
    for _ in range(count):
        context.add_task(functools.partial(tasks.blob, size))
    results = context.get_results_unordered()
    assert len(next(results)) == size
    eventually(lambda: waiting_bytes(manager) > 8 * MB, 60, "results that wait")
    settles(lambda: waiting_bytes(manager))
    assert 8 * MB < waiting_bytes(manager) <= 10 * MB + 2 * (max(size, MB) + MB)
    most = 0
    for number, result in enumerate(results, 2):
        assert len(result) == size
        if number % max(1, count // 50) == 0:
            most = max(most, waiting_bytes(manager))
    assert number == count
    assert most <= 10 * MB + 2 * (max(size, MB) + MB)


@pytest.mark.slow
def test_slaves_that_pause_keep_their_leases(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(2, result_bytes=MB, lease=4.0)
    context = manager.get_context()
    for _ in range(20):
        context.add_task(functools.partial(tasks.blob, MB))
    results = context.get_results_unordered()
    next(results)
    clock = threading.Event()
    clock.wait(6.4)  # a lease and a half
    assert len(list(results)) == 19
    assert "lost" not in caplog.text and "connection" not in caplog.text
    assert all(info.state == "idle" for info in manager.slaves)


def test_one_context_that_is_full_does_not_hold_up_another(make: Make) -> None:
    """Read one after the other in one thread, though the first to be read was added last."""
    manager = make(1, result_bytes=MB)
    first, second = manager.get_context(), manager.get_context()
    for _ in range(30):
        second.add_task(functools.partial(tasks.blob, MB // 2))
        first.add_task(functools.partial(tasks.blob, MB // 2))
    assert len(list(first.get_results_unordered())) == 30
    assert len(list(second.get_results_unordered())) == 30


def test_the_manager_can_be_shut_down_while_slaves_pause(make: Make) -> None:
    manager = make(2, result_bytes=MB)
    context = manager.get_context()
    for _ in range(30):
        context.add_task(functools.partial(tasks.blob, MB))
    next(context.get_results_unordered())
    settles(lambda: waiting_bytes(manager))
    manager.shutdown()


def test_a_context_that_is_dropped_lets_its_slaves_go(make: Make) -> None:
    manager = make(1, result_bytes=MB)
    context = manager.get_context()
    for _ in range(30):
        context.add_task(functools.partial(tasks.blob, MB))
    next(context.get_results_unordered())
    settles(lambda: waiting_bytes(manager))
    del context
    other = manager.get_context()
    other.add_task(tasks.give)
    assert list(other.get_results_unordered()) == [None]


@pytest.mark.parametrize("result_bytes", [0, -1, "1", True])
def test_impossible_bounds(make: Make, result_bytes: Any) -> None:
    with pytest.raises(parallel.InputError, match=r"result_bytes=.* is not a positive number of bytes"):
        make(0, result_bytes=result_bytes)


# -- tasks from an iterable


def test_an_endless_generator_is_asked_as_slaves_need_tasks(make: Make) -> None:
    made = itertools.count(1)
    threads = set()

    def endless() -> Iterator[Callable[[], int]]:
        for number in made:
            threads.add(threading.get_ident())
            yield functools.partial(tasks.give, number)

    manager = make(2)
    context = manager.get_context()
    context.add_tasks(endless())
    seen = list(itertools.islice(context.get_results_unordered(), 3000))
    assert len(set(seen)) == 3000
    asked = next(made)
    assert asked <= sum(info.tasks_done for info in manager.slaves) + 2 * MOST_EACH + 1
    assert threads == {threading.get_ident()}, "a generator of the user's runs in the user's thread"
    context.cancel()
    list(context.get_results_unordered())
    assert next(made) == asked + 1, "it is asked no more"


def test_results_come_also_where_slaves_are_as_quick_as_tasks_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wanted never ends then: the reader once made 20,000 tasks for each result that it gave."""
    clock = [0.0]
    monkeypatch.setattr(feeder_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    mailbox = SimpleNamespace(ready=["a result"], wanted=lambda seconds: 100, no_more_tasks=lambda: None, coming=0.0)
    made: list[Any] = []

    def add(task: Any, timeout: float | None) -> None:
        made.append(task)
        clock[0] += 0.01

    feeder = feeder_module.Feeder(mailbox, add)  # type: ignore[arg-type]
    feeder.append(itertools.count(), None)
    feeder.refill()
    feeder.refill()
    clock[0] += 0.99
    feeder.refill()
    assert len(made) == 100, "it took a second, and results have precedence for another one"
    clock[0] += 0.02
    feeder.refill()
    assert len(made) == 200
    mailbox.ready.clear()
    feeder.refill()
    assert len(made) == 300, "nothing else is to be done"


def test_slow_tasks_are_fetched_a_few_at_a_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # a reader that stands still is away for long, and wants as much ahead
    monkeypatch.setattr(feeder_module.Feeder, "was_away", lambda feeder, seconds: None)
    made: list[int] = []

    def endless() -> Iterator[Callable[[], float]]:
        for number in itertools.count():
            made.append(number)
            yield functools.partial(tasks.spin, 0.05)

    context = make(2).get_context()
    context.add_tasks(endless())
    results = context.get_results_unordered()
    for number in range(1, 21):
        next(results)
        assert len(made) <= number + 2 * 60, f"{len(made)} tasks were made for {number} results"
    context.cancel()


def test_iterables_and_single_tasks_together_give_each_result_once(make: Make) -> None:
    context = make(2).get_context()
    context.add_tasks([functools.partial(tasks.give, number) for number in range(100)])
    context.add_task(functools.partial(tasks.give, 100))
    context.add_tasks(functools.partial(tasks.give, number) for number in range(101, 20_000))
    context.add_tasks([])
    assert sorted(context.get_results_unordered()) == list(range(20_000))
    assert list(context.get_results_unordered()) == []


def test_tasks_that_are_added_by_the_loop_from_an_iterable(make: Make) -> None:
    context = make(1).get_context()
    context.add_tasks([functools.partial(tasks.give, 0)])
    seen = []
    for result in context.get_results_unordered():
        seen.append(result)
        if result < 5:
            context.add_tasks([functools.partial(tasks.give, result + 1)])
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_generator_may_read_results_to_make_tasks(make: Make) -> None:
    """Its own context's even: it gets what there is."""
    context = make(1).get_context()
    seen: list[int] = []

    def adaptive() -> Iterator[Callable[[], int]]:
        for turn in range(3):
            for number in range(3):
                yield functools.partial(tasks.give, 10 * turn + number)
            seen.extend(context.get_results_unordered())
        yield functools.partial(tasks.give, 99)

    context.add_tasks(adaptive())
    seen.extend(context.get_results_unordered())
    assert sorted(seen) == [0, 1, 2, 10, 11, 12, 20, 21, 22, 99]


def test_what_an_iterable_raises_comes_out_of_the_loop(make: Make) -> None:
    def broken() -> Iterator[Callable[[], int]]:
        yield functools.partial(tasks.give, 1)
        raise OSError("the input file ended early")

    context = make(1).get_context()
    context.add_tasks(broken())
    context.add_tasks([functools.partial(tasks.give, 2)])
    with pytest.raises(OSError, match="the input file ended early"):
        list(context.get_results_unordered())
    assert sorted(context.get_results_unordered()) == [1, 2]


def test_a_bad_task_of_an_iterable_is_told_and_passed_over(make: Make) -> None:
    context = make(1).get_context()
    context.add_tasks([functools.partial(tasks.give, 1), 5, functools.partial(tasks.give, 2)])  # type: ignore[list-item]
    with pytest.raises(parallel.InputTypeError, match="a task must be callable, and 5 is not"):
        list(context.get_results_unordered())
    assert sorted(context.get_results_unordered()) == [1, 2]


def test_what_is_not_iterable(make: Make) -> None:
    context = make(1).get_context()
    with pytest.raises(parallel.InputTypeError, match="add_tasks takes an iterable of tasks, and 5 is not iterable"):
        context.add_tasks(5)  # type: ignore[arg-type]
    with pytest.raises(parallel.InputError, match="timeout=-1 is not a positive"):
        context.add_tasks([], timeout=-1)


def test_two_threads_read_while_a_generator_is_asked(make: Make) -> None:
    context = make(2).get_context()
    context.add_tasks(functools.partial(tasks.give, number) for number in range(5000))
    seen: list[int] = []
    readers = [threading.Thread(target=lambda: seen.extend(context.get_results_unordered())) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive()
    assert sorted(seen) == list(range(5000))


def test_no_slave_left_with_an_endless_generator(make: Make) -> None:
    context = make(0).get_context()
    context.add_tasks(itertools.repeat(tasks.give))
    with pytest.raises(parallel.NoMoreSlavesError, match="no slave was added"):
        list(context.get_results_unordered())
