"""Slaves and agents that die: their tasks run elsewhere, and the user is told why."""

from __future__ import annotations

import functools
import os
import pickle
import re
import signal
from pathlib import Path

import pytest

import parallel
from parallel.launch import local
from tests.conftest import Make
from tests.support import deaths, tasks
from tests.support.inside import unsettled
from tests.support.waiting import eventually
from tests.whole.test_failures import pid


def test_setup_that_kills_its_slave(make: Make) -> None:
    manager = make(2)
    context = manager.get_context(deaths.dying_setup)
    context.add_task(tasks.give)
    with pytest.raises(parallel.RemoteError, match=r"(?s)setup.*killed by SIGKILL.*while it ran the context's setup"):
        list(context.get_results_unordered())


def test_task_of_a_killed_slave_runs_again(make: Make, own_folder: Path) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(functools.partial(deaths.die_once, str(own_folder / "died")))
    for number in range(20):
        context.add_task(functools.partial(tasks.give, number))
    assert sorted(map(str, context.get_results_unordered())) == sorted([*map(str, range(20)), "survived"])
    assert int((own_folder / "died").read_text()) != pid(manager)


def test_task_that_kills_every_slave_is_given_up(make: Make) -> None:
    manager = make(2, max_attempts=2)
    context = manager.get_context()
    context.add_task(deaths.die)
    for number in range(20):
        context.add_task(functools.partial(tasks.give, number))
    results: list[int] = []
    errors = []
    while True:
        try:
            results.extend(context.get_results_unordered())
            break
        except parallel.TaskGivenUp as error:
            errors.append(error)
    assert sorted(results) == list(range(20))
    (given_up,) = errors
    assert len(given_up.ends) == 2
    assert "attempt 2: it was killed by SIGKILL, perhaps out of memory" in str(given_up)
    assert isinstance(pickle.loads(pickle.dumps(given_up)), parallel.TaskGivenUp)


def test_a_lost_slave_and_a_given_up_task_are_told_in_one_line_each(
    make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(1, max_attempts=2)
    context = manager.get_context()
    context.add_task(deaths.die)
    with pytest.raises(parallel.TaskGivenUp):
        list(context.get_results_unordered())
    who = r"slave 0 \(LocalSlave\(\) on \S+, pid \d+\)"
    lost = f"parallel: lost {who}: it was killed by SIGKILL, perhaps out of memory"

    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    eventually(lambda: len(warnings()) == 2)
    first, second = warnings()
    assert re.fullmatch(lost + "; its task goes to another slave", first)
    assert re.fullmatch(lost + "; its task is given up: it ended its slave too often", second)
    manager.wait_for_slaves(1, 60)
    os.kill(pid(manager), signal.SIGKILL)
    eventually(lambda: re.search(lost + r"\n", caplog.text), what="a word on the idle slave that was lost")


def test_last_words_of_a_slave_are_told(make: Make) -> None:
    context = make(1, max_attempts=1).get_context()
    context.add_task(deaths.speak_and_die)
    with pytest.raises(parallel.TaskGivenUp, match=r"(?s)exited with code 9.*slave0.output:\n.*I ran out of ink"):
        list(context.get_results_unordered())


def test_children_that_a_dead_runner_left_end(make: Make) -> None:
    context = make(1).get_context()
    context.add_task(tasks.leave_child)
    (child,) = context.get_results_unordered()
    context.add_task(deaths.die)
    with pytest.raises(parallel.TaskGivenUp):
        list(context.get_results_unordered())
    eventually(lambda: not alive(child), 60, f"the end of process {child}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_killed_agent_takes_its_runners_with_it_and_another_one_comes(
    make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(2)
    manager.wait_for_slaves(2, 60)
    pids = [info.pid for info in manager.slaves]
    context = manager.get_context()
    context.add_task(functools.partial(tasks.say_and_wait, "before the end", str(own_folder / "gate")))
    context.add_task(functools.partial(tasks.give, 1))
    results = context.get_results_unordered()
    assert next(results) == 1
    eventually((own_folder / "gate.started").exists)
    os.kill(parent_of(pids[0]), signal.SIGKILL)
    eventually(lambda: not any(alive(one) for one in pids), 25, f"the end of runners {pids}")
    eventually(lambda: len((own_folder / "gate.started").read_text().splitlines()) == 2, 25, "the task to run again")
    (own_folder / "gate").touch()
    (third,) = results
    assert third not in pids
    manager.wait_for_slaves(2, 60)
    eventually(lambda: caplog.text.count("its slave program ended: it was killed by SIGKILL") == 2)
    said = "".join(Path(f"slave{number}.output").read_text() for number in (0, 1))
    assert said.count("before the end") == 2, "what the slaves said before is kept"


def ended(manager: parallel.Manager) -> parallel.SlaveInfo | None:
    return next((info for info in manager.slaves if info.state == "ended"), None)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_results_known_before_the_last_slave_ended_are_given_first(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent is killed again and again, until no other one is started."""
    monkeypatch.setattr(local, "_TRIES", 4)
    manager = make(1)
    context = manager.get_context()
    for number in range(5):
        context.add_task(functools.partial(tasks.give, number))
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "gate")))
    results = context.get_results_unordered()
    seen = [next(results)]
    eventually((own_folder / "gate.started").exists)
    eventually(lambda: len(unsettled(manager)) == 1, what="the results of all but the last")
    killed: list[int] = []
    while True:
        info = eventually(
            lambda: next((one for one in manager.slaves if one.pid not in (0, *killed)), None) or ended(manager)
        )
        if info is None or info.state == "ended":
            break
        killed.append(info.pid)
        os.kill(parent_of(info.pid), signal.SIGKILL)
        eventually(lambda: manager.slaves[0].pid != killed[-1] or ended(manager))
    assert len(killed) == 5
    with pytest.raises(parallel.NoMoreSlavesError, match=r"(?s)1 task is left.*slave 0 .*killed by SIGKILL"):
        seen.extend(results)  # extend keeps what came before the error
    assert sorted(seen) == list(range(5))
    (own_folder / "gate").touch()
    manager.add_slave(parallel.LocalSlave())
    assert len(list(context.get_results_unordered())) == 1


def test_no_slave_at_all(make: Make) -> None:
    context = make(0).get_context()
    context.add_task(tasks.give)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"no slave was added: call add_slave"):
        list(context.get_results_unordered())


def test_python_that_does_not_exist(make: Make) -> None:
    context = make(1, python="/no/such/python").get_context()
    context.add_task(tasks.give)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"(?s)exited with code 127.*/no/such/python"):
        list(context.get_results_unordered())
