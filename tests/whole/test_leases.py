"""Time: who is silent and who is only busy; the master stopped; a machine that vanishes and comes back."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.inside import unsettled
from tests.support.programs import Program, script, slave
from tests.support.waiting import eventually

LEASE = 4.0  # seconds for which a busy machine does not keep one of its processes from saying that it lives
LONGER = 1.5 * LEASE  # than what takes the silent for dead


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            os.killpg(program.process.pid, signal.SIGCONT)
        program.kill()


def attempts(manager: parallel.Manager) -> list[int]:
    return [task.attempt for task in unsettled(manager)]


@pytest.mark.slow
def test_a_task_that_holds_the_interpreter_for_longer_is_not_taken_for_dead(make: Make) -> None:
    manager = make(2, lease=LEASE)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.hold_the_interpreter, "log", LONGER))
    assert list(context.get_results_unordered()) == ["held"]
    assert len(Path("log").read_text().splitlines()) == 1


def test_a_silent_machine_loses_its_tasks_after_the_lease_and_works_again_later(
    make: Make, programs: list[Program], own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0, port=0, lease=LEASE)
    address = f"127.0.0.1:{manager.address[1]}"
    programs.append(slave(address, "-n", "1"))
    manager.wait_for_slaves(1, 60)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "gate")))
    started = own_folder / "gate.started"
    results = context.get_results_unordered()
    eventually(started.exists)
    frozen = [programs[0].process.pid, manager.slaves[0].pid]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: manager.slaves[0].state == "lost")
    eventually(lambda: "nothing was heard of it for" in caplog.text)
    programs.append(slave(address, "-n", "1"))
    eventually(lambda: len(started.read_text().splitlines()) >= 2, 60, "the task to run elsewhere")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: manager.slaves[0].state == "busy" or "is back" in caplog.text)
    (own_folder / "gate").touch()
    assert len(list(results)) == 1, "one outcome, though two slaves ran it"

    def both_work() -> bool:
        for _ in range(20):
            context.add_task(functools.partial(tasks.spin, 0.02))
        assert len(list(context.get_results_unordered())) == 20
        return all(info.tasks_done for info in manager.slaves)

    eventually(both_work, 60, "results of both slaves")


@pytest.mark.slow
def test_a_master_that_was_stopped_takes_nobody_for_dead(own_folder: Path, programs: list[Program]) -> None:
    master = script(
        own_folder / "script.py",
        f"""
import functools, logging
import parallel
from tests.support import tasks
from tests.support.inside import unsettled
if __name__ == '__main__':
    logging.basicConfig(level=logging.INFO)
    with parallel.Manager(lease={LEASE}) as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(functools.partial(tasks.wait_for, 'gate'))
        for pid in c.get_results_unordered():
            print('done', flush=True)
""",
    )
    programs.append(master)
    started = own_folder / "gate.started"
    eventually(started.exists)
    os.kill(master.process.pid, signal.SIGSTOP)
    state = Path(f"/proc/{master.process.pid}/stat")
    eventually(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T")
    clock = Program("sleep", str(LONGER))
    assert clock.ends() == 0
    os.kill(master.process.pid, signal.SIGCONT)
    master.says("this process was stopped or busy for")
    (own_folder / "gate").touch()
    assert master.ends() == 0
    assert master.out == "done\n" and "nothing was heard" not in master.err
    assert len(started.read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_loop_body_that_holds_the_interpreter_for_longer_costs_no_task(make: Make, own_folder: Path) -> None:
    manager = make(1, lease=LEASE)
    context = manager.get_context()
    context.add_task(tasks.give)
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "gate")))
    started = own_folder / "gate.started"
    results = context.get_results_unordered()
    next(results)
    eventually(started.exists)
    tasks.hold_the_interpreter("log", LONGER)
    (own_folder / "gate").touch()
    assert len(list(results)) == 1
    assert len(started.read_text().splitlines()) == 1


@pytest.mark.parametrize("lease", [1e9, 1e300])
def test_a_lease_may_be_longer_than_any_timer(make: Make, lease: float) -> None:
    manager = make(2, lease=lease)
    manager.wait_for_slaves(2, 60)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, "works"))
    assert list(context.get_results_unordered()) == ["works"]
    manager.add_slave(parallel.LocalSlave())
    manager.wait_for_slaves(3, 60)  # the agent lives, and follows orders
    context.add_task(functools.partial(tasks.square, 3))
    assert list(context.get_results_unordered()) == [9]
