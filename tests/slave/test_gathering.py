"""Outcomes that travel together: none is lost, none waits behind a task that runs on, whatever the moment."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from slave import cpu_clock
from slave.cpu_clock import CpuClock
from slave.gathering import (
    _ASK_AGAIN,
    _LAST_LOOKS,
    _MOST_STARVED,
    _QUIET_LOOKS,
    GATHER,
    LATE,
    LOOK_SECONDS,
    SHORT,
    SIZE,
    WATCHED,
    Gatherer,
    Watch,
    new_shared_memory,
)
from tests.support.waiting import eventually

LOOK = round(LOOK_SECONDS * 1e9)


class Pair:
    """Both sides over one memory, and what went out, and in which way."""

    def __init__(self) -> None:
        self.memory = new_shared_memory(fork=True)
        self.asked = 0
        self.gatherer, self.watch = Gatherer(self.memory, self._ask), Watch(self.memory)
        self.now = 10**9
        self.sent: list[bytes] = []  # by the runner, one for each write

    def _ask(self) -> None:
        self.asked += 1

    def task(self, frame: bytes, nanoseconds: int = 10_000) -> bool:
        """A task has run for so long; whether its outcome waits."""
        self.now += nanoseconds
        may_wait = self.gatherer.may_wait(self.now)
        assert self.gatherer.put(frame, self.now)
        if not may_wait:
            self.send()
        return may_wait

    def send(self) -> None:
        self.sent.append(bytes(self.gatherer.pieces))
        self.gatherer.clear()

    def look(self, later: int = LOOK, starved: bool = False) -> bytes:
        """The agent looks, so much later than the runner has done anything."""
        return self.watch.look(self.now + later, lambda: starved)

    def watched(self) -> None:
        """Have the agent look."""
        self.task(b"", SHORT)
        self.task(b"")
        assert self.watch.heed()
        self.sent.clear()


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_nothing_waits_as_long_as_nobody_looks(pair: Pair) -> None:
    assert not pair.watch.heed()
    for number in range(5):
        assert not pair.task(b"%d" % number)
    assert pair.sent == [b"0", b"1", b"2", b"3", b"4"] and pair.asked == 1
    pair.now += _ASK_AGAIN
    pair.task(b"5"), pair.task(b"6")
    assert pair.asked == 2, "it asks once more, after a while"
    assert pair.watch.heed()
    assert pair.task(b"7")


def test_for_the_last_of_a_lease_nobody_need_look(pair: Pair) -> None:
    """It goes with the question for the next lease: tasks that come one by one do not wake the agent."""
    for _ in range(10):
        pair.now += 10_000
        assert not pair.gatherer.may_wait(pair.now, last=True)
    assert pair.asked == 0
    assert not pair.gatherer.may_wait(pair.now + 10_000)
    assert pair.asked == 1


def test_outcomes_of_short_tasks_go_together_after_a_while(pair: Pair) -> None:
    pair.watched()
    waited = 0
    while pair.task(b"x"):
        waited += 1
    assert GATHER // 10_000 - 1 <= waited <= GATHER // 10_000
    assert pair.sent == [b"x" * (waited + 1)]


def test_a_task_that_was_not_short_is_followed_by_a_write(pair: Pair) -> None:
    pair.watched()
    assert pair.task(b"short")
    assert not pair.task(b"long", SHORT) and pair.sent == [b"shortlong"]


def test_what_has_no_room_is_told(pair: Pair) -> None:
    assert not pair.gatherer.put(bytes(SIZE), 0) and not pair.gatherer.pieces
    assert pair.gatherer.put(bytes(SIZE - 200), 0) and not pair.gatherer.put(bytes(200), 0)
    assert len(pair.gatherer.pieces) == SIZE - 200


def test_the_agent_sends_what_the_runner_should_have_sent_and_only_that(pair: Pair) -> None:
    pair.watched()
    assert pair.look() == b""
    pair.task(b"one,")
    assert pair.look(LATE - 1) == b"", "the runner may still be about to send it"
    assert pair.look(LATE) == b"one,"
    pair.gatherer.put(b"two,", pair.now)
    assert pair.look(LATE) == b"two,", "they stand behind a late one"
    assert pair.look() == b"", "all has been passed on"
    pair.send()
    assert pair.sent == [b"one,two,"], "the runner, which goes on, does not know"
    pair.task(b"three,")
    assert pair.look(LATE - 1) == b"" and pair.look() == b"three,"


def test_a_runner_that_waits_for_a_processor_is_given_a_little_longer(pair: Pair) -> None:
    pair.watched()
    pair.task(b"one,")
    for _ in range(_MOST_STARVED):
        assert pair.look(starved=True) == b""
    assert pair.look(starved=True) == b"one,", "not for ever"
    pair.gatherer.put(b"two,", pair.now)
    assert pair.look(starved=True) == b"" and pair.look(starved=False) == b"two,"
    assert pair.watch.look(pair.now + LOOK, lambda: pytest.fail("nothing waits")) == b""


def test_the_clock_of_a_process_tells_whether_it_was_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_clock, "_A_MOMENT", 50_000_000)  # which two looks here take in no case
    own = CpuClock(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    own.look()
    assert not own.starved, "it ran"
    own.look()
    assert own.starved == (sys.platform == "linux"), "it did not run for long, and is not asleep either"
    with subprocess.Popen(["sleep", "60"]) as asleep:
        clock = CpuClock(asleep.pid)
        eventually(lambda: clock._state() == "S")
        clock.look()
        clock.look()
        assert not clock.starved, "it wants no processor"
        asleep.kill()
    clock.look()
    assert not clock.starved, "it is gone"


class Interrupted:
    """The frames of a watch; just before they are copied the runner sends them and begins a new round."""

    def __init__(self, frames: Any, runner: Callable[[], object]) -> None:
        self._frames, self._runner = frames, runner

    def __getitem__(self, part: slice) -> bytes:
        self._runner()
        return bytes(self._frames[part])


def test_a_new_round_is_not_taken_for_the_old_one(pair: Pair) -> None:
    pair.watched()
    pair.task(b"old old")
    frames: Any = pair.watch._data

    def go_on() -> None:
        pair.send()
        pair.task(b"new")

    watch: Any = pair.watch
    watch._data = Interrupted(frames, go_on)
    assert pair.look() == b"" and pair.sent == [b"old old"], "the runner has just sent it"
    watch._data = frames
    assert pair.look() == b"new"


def test_what_a_dead_runner_had_gathered_is_sent_once(pair: Pair) -> None:
    pair.watched()
    pair.task(b"one,")
    assert pair.look() == b"one,"
    pair.gatherer.put(b"two,", pair.now)
    pair.gatherer.put(b"three", pair.now)
    pair.gatherer.data[pair.gatherer.used :][:4] = b"half"  # it died in the middle of the fourth
    assert pair.watch.rest() == b"two,three"
    assert pair.watch.rest() == b""


def test_the_agent_stops_when_nothing_is_gathered_any_more(pair: Pair) -> None:
    """Neither a task that runs on nor tasks that are not short keep it looking."""
    pair.watched()
    pair.task(b"last")
    found = []
    for _ in range(_QUIET_LOOKS + _LAST_LOOKS + 2):
        pair.task(b"long", SHORT)
        found.append(pair.look())
        assert pair.watch.on or len(found) > _QUIET_LOOKS
    assert not pair.watch.on and not pair.watch.heed()
    assert not pair.task(b"short"), "the runner sees that nobody looks"
    pair.now += _ASK_AGAIN
    pair.task(b"short"), pair.task(b"short")
    assert pair.watch.heed()


def test_the_agent_looks_as_long_as_something_is_gathered(pair: Pair) -> None:
    pair.watched()
    for _ in range(5 * _QUIET_LOOKS):
        pair.task(b"one"), pair.task(b"two")
        pair.send()
        pair.look()
        assert pair.gatherer.cells[WATCHED]


class Intervening:
    """The cells of a watch; just before it says that it watches no more, the runner does something."""

    def __init__(self, cells: Any, runner: Callable[[], object]) -> None:
        self._cells, self._runner = cells, runner

    def __getitem__(self, cell: int) -> int:
        return int(self._cells[cell])

    def __setitem__(self, cell: int, value: int) -> None:
        if cell == WATCHED and not value and self._cells[WATCHED]:
            self._runner()
        self._cells[cell] = value


def test_what_is_put_in_as_the_agent_stops_to_look_is_sent_all_the_same(pair: Pair) -> None:
    pair.watched()
    waits: list[bool] = []
    watch: Any = pair.watch
    watch._cells = Intervening(watch._cells, lambda: waits.append(pair.task(b"late")))
    found = b""
    while watch.on:
        found += pair.look(0)  # so soon that nothing can be late
    assert waits == [True] and found == b"late"


def test_it_asks_again_while_the_agent_is_about_to_stop(pair: Pair) -> None:
    pair.watched()
    while pair.gatherer.cells[WATCHED]:
        pair.look()
    assert pair.watch.on
    pair.now += _ASK_AGAIN
    pair.task(b""), pair.task(b"")
    assert pair.watch.heed() and pair.task(b"short")


def test_an_agent_without_a_master_looks_no_more_and_does_when_it_is_back(pair: Pair) -> None:
    pair.watched()
    pair.watch.stop()
    assert not pair.watch.on and not pair.task(b"x")
    pair.now += _ASK_AGAIN
    pair.task(b""), pair.task(b"")
    assert pair.watch.heed() and pair.watch.on


def test_the_times_add_up_to_less_than_two_milliseconds() -> None:
    assert GATHER + SHORT < LATE, "else the agent would send what the runner is about to send"
    assert LATE + 1.1 * LOOK < 2_000_000


class Story(RuleBasedStateMachine):
    """A runner and its agent, step by step in any order; in the end the runner dies, or its task runs on.

    Its own ledger: what was put in, what the runner has sent, what the agent has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.put: list[bytes] = []
        self.out: set[bytes] = set()
        self.waiting: set[bytes] = set()  # what has not left
        self.step = 0  # of the runner: what it does next with the outcome that it is about to post
        self.may_wait = False

    def frame(self) -> bytes:
        made = b"<%d>" % len(self.put)
        self.put.append(made)
        return made

    def left(self, frames: bytes) -> None:
        for part in frames.split(b">")[:-1]:
            self.out.add(part + b">")
            self.waiting.discard(part + b">")
        assert frames == b"" or frames.endswith(b">"), "half a frame"

    @rule(nanoseconds=st.sampled_from([0, 10_000, SHORT - 1, SHORT, GATHER, 2 * _ASK_AGAIN]))
    def a_task_ends(self, nanoseconds: int) -> None:
        if self.step == 0:
            self.pair.now += nanoseconds
            frame = self.frame()
            if self.pair.gatherer.put(frame, self.pair.now):
                self.waiting.add(frame)
                self.step = 1

    @rule()
    def it_looks_whether_that_may_wait(self) -> None:
        if self.step == 1:
            self.may_wait = self.pair.gatherer.may_wait(self.pair.now)
            self.step = 2

    @rule()
    def it_sends_or_starts_the_next_task(self) -> None:
        if self.step == 2:
            if not self.may_wait:
                self.left(bytes(self.pair.gatherer.pieces))
                self.pair.gatherer.clear()
            self.step = 0

    @rule(later=st.sampled_from([0, LATE - 1, LATE, LOOK]))
    def the_agent_steps(self, later: int) -> None:
        if self.pair.watch.heed():
            self.left(self.pair.look(later))
            assert later < LATE or not self.waiting, f"{self.waiting} wait behind a task that runs on"

    @rule()
    def the_agent_loses_its_master(self) -> None:
        if not self.waiting:  # what waits by then has to wait for it
            self.pair.watch.stop()

    def teardown(self) -> None:
        """The runner's next task runs on; or it is dead."""
        if self.step == 0:
            self.it_runs_on()
        self.left(self.pair.watch.rest())
        assert self.out == set(self.put)

    def it_runs_on(self) -> None:
        if self.pair.watch.on:
            self.left(self.pair.look())
        assert self.out == set(self.put), "an outcome waits behind a task that runs on"


Story.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStory: Any = Story.TestCase


@given(st.lists(st.integers(0, 3), min_size=5, max_size=200))
@settings(max_examples=100, deadline=None)
def test_each_outcome_is_sent_by_the_runner_in_order(gaps: list[int]) -> None:
    """Whatever the agent passes on besides."""
    pair = Pair()
    pair.watched()
    for number, gap in enumerate(gaps):
        pair.task(b"%d," % number, (10_000, SHORT - 1, SHORT, 30_000)[gap])
        functools.reduce(lambda _, __: pair.look(GATHER // 2), range(gap), b"")
    pair.send()
    assert b"".join(pair.sent) == b"".join(b"%d," % number for number in range(len(gaps)))
