"""Reading results: errors as the reader wants them, signals in the middle, references, results that nobody reads."""

from __future__ import annotations

import functools
import gc
import logging
import operator
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import Any, NoReturn

import pytest

import parallel
from parallel.core import events as ev
from parallel.payload import quick_pickle
from parallel.service.messages import log_lines
from slave.signals import came_from_handler
from tests.conftest import Make
from tests.support import tasks


def fill(context: parallel.Context[Any]) -> None:
    """Ten tasks, of which 3 and 7 raise."""
    for number in range(10):
        context.add_task(functools.partial(operator.truediv, 10 * number, 0 if number in (3, 7) else 1))


GOOD = [10.0 * number for number in range(10) if number not in (3, 7)]


def test_errors_may_stand_among_the_results(make: Make) -> None:
    context = make(1).get_context()
    fill(context)
    found = list(context.get_results_unordered(errors="return"))
    errors = [one for one in found if isinstance(one, parallel.RemoteError)]
    assert len(found) == 10 and [error.type_name for error in errors] == ["ZeroDivisionError"] * 2
    assert sorted(one for one in found if not isinstance(one, parallel.RemoteError)) == GOOD
    assert list(context.get_results_unordered()) == []


def test_errors_may_come_last_and_nothing_that_was_collected_is_lost(make: Make) -> None:
    context = make(1).get_context()
    fill(context)
    found: list[Any] = []
    with pytest.raises(parallel.RemoteError, match="1 more task failed: see others of this error") as caught:
        found.extend(context.get_results_unordered(errors="last"))
    assert sorted(found) == GOOD
    assert [error.type_name for error in caught.value.others] == ["ZeroDivisionError"]
    assert {caught.value.task_id, caught.value.others[0].task_id} == {4, 8}
    assert list(context.get_results_unordered()) == []


def test_errors_that_were_to_come_last_are_there_for_the_next_one(make: Make) -> None:
    context = make(1).get_context()
    fill(context)
    results = context.get_results_unordered(errors="last")
    found: list[Any] = [next(results) for _ in range(8)]
    results.close()
    assert list(results) == []
    rest = list(context.get_results_unordered(errors="return"))
    assert sorted(found) == GOOD and len(rest) == 2


def test_errors_by_default_are_raised_in_their_turn(make: Make) -> None:
    context = make(1).get_context()
    fill(context)
    found: list[Any] = []
    errors = 0
    while True:
        results = context.get_results_unordered()
        try:
            found.extend(results)
            break
        except parallel.RemoteError as error:
            errors += 1
            assert not error.others
            assert next(results, None) is None, "as a generator that has raised"
    assert sorted(found) == GOOD and errors == 2


def test_other_words_for_errors_are_refused(make: Make) -> None:
    context = make(0).get_context()
    with pytest.raises(parallel.InputError, match="errors='ignore' is not one of 'raise', 'return', 'last'"):
        context.get_results_unordered(errors="ignore")  # type: ignore[call-overload]


def test_a_result_that_was_given_is_nobody_elses(make: Make) -> None:
    context = make(1).get_context()
    for _ in range(3):
        context.add_task(tasks.hold)
    results = context.get_results_unordered()
    for _ in range(3):
        one = next(results)
        watch = weakref.ref(one)
        del one
        assert watch() is None, gc.get_referrers(watch())


# -- signals


class Stop(Exception):
    """What a handler raises."""


class SlowToRebuild:
    """Takes a while to be rebuilt, in which a signal may come."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        self.__dict__ = state


def slow_to_rebuild(number: int) -> SlowToRebuild:
    return SlowToRebuild(number)


class SlowToPickle(SlowToRebuild):
    """The same the other way; to number 1 a signal comes then."""

    def __getstate__(self) -> dict[str, Any]:
        if self.number == 1:
            signal.raise_signal(signal.SIGALRM)
        self.__setstate__(self.__dict__)
        return self.__dict__

    def __call__(self) -> int:
        return self.number


@pytest.fixture
def lost_stops(monkeypatch: pytest.MonkeyPatch) -> list[Stop]:
    """Python has nowhere to raise what a handler raises in a destructor, or in a callback of the garbage collector."""
    tell, lost = sys.unraisablehook, list[Stop]()
    monkeypatch.setattr(
        sys, "unraisablehook", lambda one: lost.append(Stop()) if isinstance(one.exc_value, Stop) else tell(one)
    )
    return lost


@pytest.mark.usefixtures("lost_stops")
def test_the_end_of_the_results_does_not_keep_those_that_the_reader_had(make: Make) -> None:
    def read() -> weakref.ref[Any]:
        context = make(1).get_context()
        context.add_task(tasks.hold)
        (result,) = context.get_results_unordered()
        return weakref.ref(result)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()


def test_a_handler_that_raises_loses_no_result_and_no_task(make: Make, lost_stops: list[Stop]) -> None:
    manager = make(1)
    manager.wait_for_slaves(1, 60)
    context = manager.get_context()
    for number in range(100):
        context.add_task(functools.partial(slow_to_rebuild, number))
    stops = in_vain = before_stop = 0
    found: list[int] = []
    reader = sys._getframe()

    def stop(signum: int, frame: object) -> None:
        if frame is reader:  # what it was given, and has not noted yet, is its own to lose: Python 3.9 stops there, too
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        else:
            raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        while len(found) < 100:
            try:
                # one at a time: a second one would meet this loop where it catches the first; and ever later, where a
                # busy machine takes longer for what has to be done before the first result
                signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.0003 * (stops % 40) + 0.001 * in_vain)
                for result in context.get_results_unordered():
                    found.append(result.number)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                stops += 1
                in_vain = in_vain + 1 if len(found) == before_stop else 0
                before_stop = len(found)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # for the handler may have asked for one more
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stops > 5 or lost_stops, "after one that was lost there is no other"
    assert sorted(found) == list(range(100))


@pytest.mark.usefixtures("lost_stops")
def test_a_handler_that_raises_while_a_task_is_added_is_heard(make: Make) -> None:
    context = make(1).get_context()

    def stop(*given: object) -> NoReturn:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(Stop):
            context.add_task(SlowToPickle(1))
    finally:
        signal.signal(signal.SIGALRM, before)
    context.add_task(SlowToPickle(2))
    assert list(context.get_results_unordered()) == [2]


class Leaves:
    """Raises when it is rebuilt."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return (sys.exit, ("bye",)) if self.way == "exit" else (raise_it, (self.way,))


def raise_it(way: str) -> NoReturn:
    if way == "interrupt":
        raise KeyboardInterrupt
    raise SystemExit(3)


@pytest.mark.parametrize("way", ["exit", "interrupt", "raise"])
def test_a_result_that_ends_programs_when_it_is_rebuilt_is_an_error_and_the_others_come(make: Make, way: str) -> None:
    context = make(1).get_context()
    for number in range(3):
        context.add_task(functools.partial(Leaves, way) if number == 1 else functools.partial(tasks.give, number))
    found: list[Any] = list(context.get_results_unordered(errors="return"))
    (error,) = [one for one in found if isinstance(one, parallel.ResultError)]
    assert error.type_name in ("SystemExit", "KeyboardInterrupt")
    assert sorted(one for one in found if one is not error) == [0, 2]


def test_what_a_handler_raised_is_told_from_what_code_raised() -> None:
    def raised(function: Any) -> BaseException:
        try:
            function()
        except BaseException as error:
            return error
        raise AssertionError("it did not raise")

    def handler(signum: int, frame: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert came_from_handler(raised(lambda: signal.raise_signal(signal.SIGUSR1)))
        signal.signal(signal.SIGUSR1, lambda *_: handler(0, None))
        assert came_from_handler(raised(lambda: signal.raise_signal(signal.SIGUSR1)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came_from_handler(raised(lambda: signal.raise_signal(signal.SIGINT)))
    assert not came_from_handler(raised(lambda: raise_it("interrupt")))
    assert not came_from_handler(raised(lambda: tasks.raise_value_error()))
    assert not came_from_handler(raised(sys.exit))
    assert quick_pickle(lambda: None) is None


# -- what nobody reads; many at once


def test_results_that_nobody_asked_for_are_missed_at_the_end(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1)
    manager.get_context()
    read, unread = manager.get_context(), manager.get_context()
    for context in (read, unread, manager.get_context()):
        context.add_task(tasks.give)
    del context
    list(read.get_results_unordered())
    cancelled = manager.get_context()
    cancelled.add_task(tasks.give)
    cancelled.cancel()
    manager.shutdown()
    assert caplog.text.count("nobody asked for the results of 2 contexts that got tasks") == 1


def test_slaves_that_are_lost_together_share_a_line(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def lost(number: int, end: str = "it ended", given_up: int = 0) -> ev.Event:
        return ev.SlaveLost(1.0, number, f"slave {number}", end, "", False, 2, given_up)

    lines = log_lines([*(lost(number) for number in range(300)), lost(300, "another way"), lost(301, given_up=5)])
    assert [text for _, (_, text) in lines] == [
        "parallel: lost 300 slaves: slave 0, slave 1, slave 2, slave 3, 296 more: it ended; its 600 tasks go to other "
        "slaves",
        "parallel: lost slave 300: another way; its 2 tasks go to other slaves",
        "parallel: lost slave 301: it ended; its 2 tasks go to other slaves, but for one that is given up: it ended "
        "its slave too often",
    ]
    leaving = [ev.SlaveLeaving(1.0, number, f"slave {number}") for number in range(6)]
    ((_, (level, text)),) = log_lines(leaving)
    assert level == logging.WARNING
    assert text.startswith("parallel: 6 slaves leave, since their slave program was asked to end: slave 0, slave 1")


def test_a_full_disk_leaves_no_key_behind(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(handle: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(parallel.Error, match="No space left"):
        parallel.Manager(port=0)
    monkeypatch.undo()
    assert not [path for path in (own_folder / "home").rglob("*") if path.is_file()]
