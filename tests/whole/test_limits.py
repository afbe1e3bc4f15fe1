"""Time limits, further tries, cancelling: what ends a task other than its own return."""

from __future__ import annotations

import functools
import math
import re
import threading
from collections import Counter
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.inside import unsettled
from tests.support.programs import script
from tests.support.waiting import eventually


def outcomes(context: parallel.Context[object]) -> tuple[list[object], list[parallel.RemoteError]]:
    """All results and all errors of a context."""
    values: list[object] = []
    errors: list[parallel.RemoteError] = []
    while True:
        try:
            for value in context.get_results_unordered():
                values.append(value)
            return values, errors
        except parallel.RemoteError as error:
            errors.append(error)


# -- time limits


def test_a_task_that_takes_too_long_is_killed_and_the_slave_is_back(make: Make, own_folder: Path) -> None:
    manager = make(1)
    context = manager.get_context(timeout=3)
    context.add_task(tasks.give, timeout=60)  # and the slave has what a task needs: the next begins at once
    assert list(context.get_results_unordered()) == [None]
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    for number in range(20):
        context.add_task(functools.partial(tasks.give, number), timeout=60)
    values, errors = outcomes(context)
    assert sorted(map(str, values)) == sorted(map(str, range(20)))
    assert [type(error) for error in errors] == [parallel.TaskTimeout]
    assert isinstance(errors[0], parallel.TaskTimeout) and errors[0].timeout == 3
    assert "a task ran for longer than its timeout of 3 s and was killed, on slave 0 (LocalSlave()" in str(errors[0])
    assert re.search(r"pid [1-9]\d*\)$", str(errors[0]), re.MULTILINE)
    assert len((own_folder / "never.started").read_text().splitlines()) == 1, "it is not tried again"


def test_the_limit_of_a_task_counts_for_it_alone(make: Make, own_folder: Path) -> None:
    manager = make(2)
    context = manager.get_context()
    for number in range(10):
        context.add_task(functools.partial(tasks.give, number))
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")), timeout=0.2)
    context.add_task(functools.partial(tasks.spin, 0.5))
    values, errors = outcomes(context)
    assert len(values) == 11 and len(errors) == 1


def test_a_task_may_have_longer_than_its_context_says(make: Make) -> None:
    context = make(1).get_context(timeout=0.05)
    context.add_task(functools.partial(tasks.spin, 0.3), timeout=60)
    context.add_task(functools.partial(tasks.spin, 0.3), timeout=math.inf)
    assert list(context.get_results_unordered()) == [0.3, 0.3]


def test_a_short_limit_after_a_long_one_is_seen_in_time(make: Make, own_folder: Path) -> None:
    context = make(1).get_context()
    context.add_task(tasks.give, timeout=100)
    assert list(context.get_results_unordered()) == [None]
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")), timeout=0.2)
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")), timeout=0.1)
    assert [type(error) for error in outcomes(context)[1]] == [parallel.TaskTimeout] * 2


def test_a_task_that_holds_the_interpreter_is_killed_too(make: Make) -> None:
    context = make(1).get_context()
    context.add_task(functools.partial(tasks.hold_the_interpreter, "log", 30.0), timeout=0.3)
    assert [type(error) for error in outcomes(context)[1]] == [parallel.TaskTimeout]


@pytest.mark.slow
def test_setup_has_no_limit(make: Make) -> None:
    context = make(1).get_context(functools.partial(tasks.spin, 3.5), timeout=3)
    context.add_task(tasks.give_first)
    assert list(context.get_results_unordered()) == [3.5]


def test_quick_tasks_with_a_limit_are_all_done(make: Make) -> None:
    context = make(2).get_context(timeout=60)
    for number in range(5000):
        context.add_task(functools.partial(tasks.square, number))
    assert len(list(context.get_results_unordered())) == 5000


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "5", True])
def test_impossible_limits(make: Make, timeout: float) -> None:
    manager = make(1)
    with pytest.raises(parallel.InputError, match=r"timeout=.* is not a positive number of seconds"):
        manager.get_context(timeout=timeout)
    context = manager.get_context()
    with pytest.raises(parallel.InputError, match=r"timeout=.* is not a positive number of seconds"):
        context.add_task(tasks.give, timeout=timeout)
    context.add_task(tasks.give)
    assert list(context.get_results_unordered()) == [None]


# -- further tries


def test_a_task_that_raises_is_tried_again(make: Make, own_folder: Path) -> None:
    context = make(2).get_context(retries=3)
    for number in range(20):
        context.add_task(functools.partial(tasks.fail_times, str(own_folder / f"log{number}"), 3))
    assert outcomes(context) == (["done"] * 20, [])


def test_its_last_exception_is_told_with_the_number_of_tries(make: Make, own_folder: Path) -> None:
    context = make(2).get_context(retries=2)
    context.add_task(functools.partial(tasks.fail_times, str(own_folder / "log"), 99))
    values, errors = outcomes(context)
    assert not values and len(errors) == 1
    assert str(errors[0]).startswith("a task (tried 3 times) raised ValueError: failure 3\n")
    assert (own_folder / "log").read_text() == "...", "three times, and not once more"


@pytest.mark.parametrize("retries", [-1, 1.5, "2", True])
def test_impossible_numbers_of_tries(make: Make, retries: int) -> None:
    with pytest.raises(parallel.InputError, match=r"retries=.* is not a whole number from 0 on"):
        make(0).get_context(retries=retries)


# -- cancelling


def test_cancel_drops_what_waits_and_stops_what_runs(make: Make, own_folder: Path) -> None:
    manager = make(2)
    context = manager.get_context()
    for number in range(5):
        context.add_task(functools.partial(tasks.give, number))
    results = context.get_results_unordered()
    assert sorted(next(results) for _ in range(5)) == list(range(5))
    for number in range(50):
        context.add_task(functools.partial(tasks.wait_for, str(own_folder / f"gate{number % 2}")))
    running = eventually(lambda: list(own_folder.glob("*.started")) if len(pids(own_folder)) == 2 else [])
    before = pids(own_folder)
    assert running and context.cancel() == 50
    eventually(lambda: not any(alive(pid) for pid in before))
    assert list(results) == []
    context.add_task(functools.partial(tasks.give, "new"))
    assert list(context.get_results_unordered()) == ["new"]
    assert context.cancel() == 0


def test_cancel_leaves_other_contexts_alone(make: Make, own_folder: Path) -> None:
    manager = make(1)
    doomed, kept = manager.get_context(), manager.get_context()
    for _ in range(20):  # so quick that one lease will hold tasks of both
        doomed.add_task(tasks.give)
        kept.add_task(tasks.give)
    assert len(list(kept.get_results_unordered())) == len(list(doomed.get_results_unordered())) == 20
    doomed.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    for number in range(10):
        kept.add_task(functools.partial(tasks.give, number))
    eventually((own_folder / "never.started").exists)
    assert doomed.cancel() == 1
    assert sorted(kept.get_results_unordered()) == list(range(10))
    assert list(doomed.get_results_unordered()) == []


def test_cancel_keeps_results_that_are_known(make: Make, own_folder: Path) -> None:
    manager = make(1)
    context = manager.get_context()
    for number in range(3):
        context.add_task(functools.partial(tasks.give, number))
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    results = context.get_results_unordered()
    eventually((own_folder / "never.started").exists)
    eventually(lambda: len(unsettled(manager)) == 1, what="the results of all but the last")
    assert context.cancel() == 1
    assert sorted(results) == [0, 1, 2]


def test_cancel_before_the_start_and_of_tasks_nobody_has_seen(make: Make) -> None:
    manager = make(1)
    context = manager.get_context()
    for _ in range(7):
        context.add_task(tasks.give)
    assert context.cancel() == 7
    context.add_task(functools.partial(tasks.give, "later"))
    assert list(context.get_results_unordered()) == ["later"]


def test_cancel_wakes_a_reader_in_another_thread(make: Make, own_folder: Path) -> None:
    context = make(1).get_context()
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.append(list(context.get_results_unordered())))
    reader.start()
    eventually((own_folder / "never.started").exists)
    context.cancel()
    reader.join(60)
    assert seen == [[]]


def test_cancelling_while_tasks_fly_loses_nothing_of_the_next(make: Make) -> None:
    """Rounds of tasks, each cancelled at another moment; what was added after the cancel is all there is."""
    context = make(2).get_context()
    for turn in range(15):
        for number in range(200):
            context.add_task(functools.partial(tasks.give, (turn, number)))
        results = context.get_results_unordered()
        seen = Counter(next(results) for _ in range(turn * 5))
        context.cancel()
        seen.update(results)
        assert set(seen.values()) <= {1} and all(entry[0] == turn for entry in seen)
        for number in range(50):
            context.add_task(functools.partial(tasks.square, number))
        assert sorted(context.get_results_unordered()) == [float(number * number) for number in range(50)]


def pids(folder: Path) -> list[int]:
    return [int(line) for path in folder.glob("*.started") for line in path.read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_limit_in_spawned_runners(own_folder: Path) -> None:
    """As on Windows and macOS."""
    program = script(
        own_folder / "script.py",
        """
import functools, threading
import parallel
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.keys import find_key
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager(port=0)
    c = m.get_context(timeout=0.2)
    c.add_task(functools.partial(tasks.wait_for, 'never'))
    agent = Agent(AgentConfig('an agent', [('127.0.0.1', m.address[1])], find_key(), [(None, None)]), 'spawn')
    agent.enlist()
    def read():
        try:
            list(c.get_results_unordered())
        except parallel.TaskTimeout as error:
            print('timeout', error.timeout, flush=True)
        m.shutdown()
    threading.Thread(target=read).start()
    agent.serve()
""",
    )
    assert program.ends() == 0, program.err
    assert program.out == "timeout 0.2\n"
