"""Ctrl-C in the master: nothing is lost, and the next call goes on where the last one stopped.  Several readers."""

from __future__ import annotations

import functools
import linecache
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NoReturn

import pytest

import parallel
from parallel.core import patience
from tests.conftest import Make, children
from tests.support import tasks
from tests.support.inside import readers
from tests.support.waiting import eventually

trouble: list[type[BaseException]] = []  # what comes when a result is rebuilt, the next times, in this process


def strike() -> None:
    """Ctrl-C comes, or memory lacks."""
    if trouble and trouble[-1] is KeyboardInterrupt:
        trouble.pop()
        signal.raise_signal(signal.SIGINT)
    elif trouble:
        raise trouble.pop()


def rebuild(number: int) -> Difficult:
    strike()
    return Difficult(number)


class Difficult:
    """A result whose rebuilding may be interrupted."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.number,)


class Failure(Exception):
    """An exception whose rebuilding may be interrupted."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_failure, ()


def rebuild_failure() -> Failure:
    strike()
    return Failure()


def raise_failure() -> None:
    raise Failure


@pytest.fixture(autouse=True)
def no_trouble() -> Iterator[None]:
    yield
    trouble.clear()


def test_an_interrupt_while_a_result_is_rebuilt_loses_none(make: Make) -> None:
    context = make(2).get_context()
    for number in range(10):
        context.add_task(functools.partial(Difficult, number))
    seen: list[int] = []
    trouble.extend([KeyboardInterrupt] * 2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            seen.extend(result.number for result in context.get_results_unordered())
    seen.extend(result.number for result in context.get_results_unordered())
    assert sorted(seen) == list(range(10))


def test_an_interrupt_while_an_error_is_rebuilt_loses_it_not(make: Make) -> None:
    context = make().get_context()
    context.add_task(raise_failure)
    trouble.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(context.get_results_unordered())
    with pytest.raises(parallel.RemoteError) as caught:
        list(context.get_results_unordered())
    assert isinstance(caught.value.exc, Failure)
    assert list(context.get_results_unordered()) == []


def test_a_result_that_cannot_be_rebuilt_is_told_once(make: Make) -> None:
    context = make().get_context()
    context.add_task(functools.partial(Difficult, 1))
    trouble.extend([MemoryError] * 2)
    with pytest.raises(parallel.ResultError, match="MemoryError"):
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == []


def interrupt_when_waiting(manager: parallel.Manager) -> None:
    """Ctrl-C for this process as soon as a reader waits."""
    eventually(lambda: readers(manager))
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_while_results_are_waited_for_loses_none(make: Make, own_folder: Path) -> None:
    manager = make(1)
    context = manager.get_context()
    gate = own_folder / "gate"
    for number in range(5):
        context.add_task(functools.partial(tasks.give, number))
    context.add_task(functools.partial(tasks.wait_for, str(gate)))
    seen: list[int] = []
    for _ in range(3):
        thread = threading.Thread(target=interrupt_when_waiting, args=(manager,))
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            seen.extend(context.get_results_unordered())  # which keeps what it got, whenever the interrupt comes
        thread.join()
        assert not readers(manager)
    gate.touch()
    seen += context.get_results_unordered()
    assert sorted(seen[:5]) == list(range(5)) and len(seen) == 6


def test_two_readers_of_one_context_both_end_with_its_last_result(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WORD", 600.0)  # nobody looks again unless he is woken
    manager = make(1)
    context = manager.get_context()
    seen: list[object] = []
    for turn in range(10):
        gate = own_folder / f"gate{turn}"
        context.add_task(functools.partial(tasks.wait_for, str(gate)))
        threads = [
            threading.Thread(target=lambda: seen.extend(context.get_results_unordered()), daemon=True) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: readers(manager) == 2)
        gate.touch()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a reader waits for a result that never comes"
        assert len(seen) == turn + 1


@pytest.mark.parametrize("step", ["_endpoint.close_acceptor", "_launcher.stop", "_endpoint.stop"])
def test_a_shutdown_that_was_interrupted_is_completed_by_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = children()
    manager = make(1)
    manager.wait_for_slaves(1, 60)
    part, name = step.split(".")
    owner = getattr(manager, part)
    real, interrupts = getattr(owner, name), [KeyboardInterrupt()]

    def interrupted(*arguments: float, **named: float) -> None:
        if interrupts:
            raise interrupts.pop()
        real(*arguments, **named)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.shutdown()
    manager.shutdown()
    server = manager._endpoint._server
    assert server is not None and not server._peers and not server._acceptor.is_alive()
    assert not manager.dispatcher.is_alive()
    eventually(lambda: children() == before, what="the end of the slave program, which was waited for for a while")
    with pytest.raises(parallel.ManagerClosed):
        manager.wait_for_slaves(1)


def interrupt_at(count: int) -> Any:
    """A trace function that raises KeyboardInterrupt at so many lines of the loop over the results."""
    left = [count]

    def trace(frame: Any, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(("parallel/results.py", "parallel/service/mailbox.py")):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not line.startswith(("return value", "raise value")):  # no handler runs before these
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def test_an_interrupt_at_whatever_line_of_the_loop_loses_nothing(make: Make) -> None:
    context = make().get_context()
    interrupted = 0
    for count in range(1, 45):
        for number in range(2):
            context.add_task(functools.partial(tasks.give, (count, number)))
        results = context.get_results_unordered()
        eventually(lambda: len(context._mailbox.ready) == 2)
        seen = []
        before = sys.gettrace()
        sys.settrace(interrupt_at(count))
        try:
            seen.append(next(results))
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
        del results
        seen.extend(context.get_results_unordered())
        assert sorted(seen) == [(count, 0), (count, 1)]
    assert interrupted > 10


class Struck(Exception):
    """Of a signal's handler."""


def handler(signum: int, frame: object) -> NoReturn:
    raise Struck


def strike_at(count: int) -> Any:
    """A profile function that raises where a handler would run: when a function begins, and when a call returns."""
    files = ("mapping.py", "map_inputs.py", "imap.py", "outcomes.py", "mailbox.py", "task_future.py", "pool_results.py")
    left = [count]

    def profile(frame: Any, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(files):
            left[0] -= 1
            if left[0] == 0:
                sys.setprofile(None)
                handler(signal.SIGALRM, frame)

    return profile


def interrupted_at(count: int, work: Callable[[], object]) -> bool:
    """Whether ``work`` was interrupted there."""
    before = sys.getprofile()
    sys.setprofile(strike_at(count))
    try:
        work()
    except Struck:
        return True
    finally:
        sys.setprofile(before)
    return False


@pytest.mark.parametrize("way", ["map", "map_unordered", "imap", "imap_unordered"])
def test_a_handler_that_raises_at_whatever_call_of_a_map_loses_nothing(make: Make, way: str) -> None:
    manager = make(1)
    over: Any = manager.get_context() if way.startswith("map") else parallel.Pool(manager=manager)
    count, interrupted = 0, True
    while interrupted and count < 400:
        count += 1
        results, seen = getattr(over, way)(abs, range(-5, 0)), list[int]()
        interrupted = interrupted_at(count, lambda results=results, seen=seen: seen.extend(results))  # type: ignore[misc]
        seen.extend(results)
        assert sorted(seen) == [1, 2, 3, 4, 5], f"at call {count}"
    assert count > 20
    if way.startswith("imap"):
        over.terminate()


def test_a_handler_that_raises_while_slaves_are_started_or_added_leaves_nobody_waiting(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    group = manager._launcher._local

    class Slippery(dict[int, str]):
        """What is taken out of it is gone, and then the handler raises."""

        def pop(self, *arguments: Any) -> Any:
            found = super().pop(*arguments)
            group._new = dict(self)
            handler(signal.SIGALRM, sys._getframe())
            return found

    group._new = Slippery(group._new)
    context = manager.get_context()
    context.add_task(tasks.give, 1)
    with pytest.raises(Struck):
        context.get_results_unordered()
    assert list(context.get_results_unordered()) == [1]

    expect = group._service.expect

    def expected(*arguments: Any) -> list[int]:
        expect(*arguments)
        handler(signal.SIGALRM, sys._getframe())

    for slave in (parallel.LocalSlave(), Nobody()):
        with monkeypatch.context() as patch, pytest.raises(Struck):
            patch.setattr(group._service, "expect", expected)
            manager.add_slave(slave)
    assert [info.state == "ended" for info in manager.slaves] == [False, True, True]
    assert context.submit(tasks.give, 2).result(60) == 2


class Nobody(parallel.Slave):
    """Is never started."""

    def start(self, job: parallel.Job) -> None:
        raise AssertionError

    poll = stop = start  # type: ignore[assignment]


def test_a_shutdown_that_was_interrupted_before_it_began_is_done_by_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    manager.wait_for_slaves(1, 60)

    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(manager._closer, "_start", interrupted)
        manager.shutdown()
    manager.shutdown()
    assert manager.closed
