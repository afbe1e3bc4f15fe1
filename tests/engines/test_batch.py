"""Job arrays on the real batch systems: what every one of them has to do."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from pathlib import Path

import pytest

from parallel.core import patience
from tests.conftest import Make
from tests.engines.conftest import Batch, run_folders
from tests.support import tasks
from tests.support.gates import Gates
from tests.support.processes import command_lines
from tests.support.programs import Program, script
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines

MASTER = """
import functools, sys, time
import parallel
from tests.support import gates
if __name__ == '__main__':
    m = parallel.Manager()
    m.add_slave(parallel.{array}({n}, {options!r}))
    c = m.get_context()
    for i in range(20):
        c.add_task(functools.partial(gates.wait_at, {port}, 'gate'))
    m.wait_for_slaves({wait})
    print('ready', flush=True)
    {end}
"""


def master(batch: Batch, gates: Gates, folder: Path, n: int, end: str, wait: int = 1, options: str = "") -> Program:
    """A script whose slaves the batch system starts; it goes on with ``end`` when ``wait`` of them have come."""
    name = batch.array.__name__
    text = MASTER.format(array=name, n=n, options=options, wait=wait, end=end, port=gates.port)
    return script(folder / "script.py", text)


KEY = b"the key that nobody may see"
SECRETS = [KEY.decode(), KEY.hex()]  # as it might stand somewhere


def test_a_hundred_tasks_in_a_folder_with_an_awkward_name(
    batch: Batch, make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks and quotes in the paths; the key in no place that others see; nothing is left behind."""
    awkward = own_folder / 'it\'s a "folder" of $HOME'
    awkward.mkdir()
    monkeypatch.setenv("HOME", str(awkward))
    manager = make(0, authkey=KEY, output=str(awkward / "out %d"), python=f"AWK='a b'; export AWK; '{batch.python}'")
    array = batch.array(4)
    manager.add_slave(array)
    context = manager.get_context()
    for number in range(100):
        context.add_task(functools.partial(tasks.square, number))
    for _ in range(8):
        context.add_task(functools.partial(os.getenv, "AWK"))
        context.add_task(functools.partial(tasks.say, "said by a task"))
    manager.wait_for_slaves(4, 60)
    job = batch.running()[0][0]
    folder = run_folders()[0]
    public = [command_lines(), batch.described(job), (folder / "1" / "script").read_text()]
    assert folder.stat().st_mode & 0o077 == 0
    for orders in (folder / "1").glob("*.orders"):
        assert orders.stat().st_mode & 0o077 == 0
    results = list(context.get_results_unordered())
    assert sorted(one for one in results if isinstance(one, int)) == [number * number for number in range(100)]
    assert results.count("a b") == 8, "the python fragment was honoured"

    def said() -> list[str]:
        return [(awkward / f"out {number}").read_text() for number in range(4)]

    def all_said() -> bool:
        texts = said()
        whole = all("slave: connected: 1 slave" in text for text in texts)
        return whole and sum(text.count("said by a task") for text in texts) == 8

    eventually(all_said, 60, f"all that was said, not {said()}")
    for secret in SECRETS:
        assert not [text for text in [*public, *said()] if secret in text]
    assert all(re.search(rf"\[{place}\], \w+ job {job}\.", repr(one)) for place, one in enumerate(array.slaves))
    manager.shutdown()
    batch.is_empty()
    eventually(lambda: not run_folders(), 60)  # where HTCondor made one anew, it is cleared away
    eventually(lambda: str(awkward) not in command_lines(), 60, "the end of all processes")


def test_a_deleted_slave_costs_time_and_no_attempt(batch: Batch, make: Make, gates: Gates) -> None:
    manager = make(0, max_attempts=1)
    manager.add_slave(batch.array(2))
    context = manager.get_context()
    manager.wait_for_slaves(2, 60)
    for number in range(4):
        context.add_task(gates.task(f"gate{number}"))
    results = iter(context.get_results_unordered())
    gates.open("gate0")
    next(results)
    eventually(lambda: sum(gates.starts(f"gate{number}") for number in range(4)) == 3)
    batch.delete(*batch.running()[0])
    eventually(lambda: sorted(info.state for info in manager.slaves) == ["busy", "ended"], 60, f"{manager.slaves}")
    gates.open(*(f"gate{number}" for number in range(4)))
    assert len(list(results)) == 3


def test_a_job_that_is_started_again_works_again(batch: Batch, make: Make, gates: Gates) -> None:
    """Preempted or requeued: the same slave comes back, and no attempt is counted."""
    manager = make(0, max_attempts=1)
    manager.add_slave(batch.array(1, batch.rerun))
    context = manager.get_context()
    context.add_task(gates.task("gate"))
    manager.begin()
    eventually(lambda: gates.starts("gate"), 60)
    before = manager.slaves[0].pid
    batch.start_again(*batch.running()[0])
    eventually(lambda: gates.starts("gate") == 2, 60, f"a second start; {manager.slaves}")
    gates.open("gate")
    assert len(list(context.get_results_unordered())) == 1
    assert [info.number for info in manager.slaves] == [0] and manager.slaves[0].pid != before


def test_an_idle_slave_whose_job_is_started_again_comes_back(batch: Batch, make: Make) -> None:
    """It leaves at once when it is asked to; as long as its job is queued, it is not taken for ended."""
    manager = make(0)
    manager.add_slave(batch.array(1, batch.rerun))
    manager.wait_for_slaves(1, 60)
    before = manager.slaves[0].pid
    batch.start_again(*batch.running()[0])
    eventually(lambda: not Path(f"/proc/{before}").exists(), 60, "the end of the slave's process")
    context = manager.get_context()
    context.add_task(tasks.pid_of)
    (after,) = context.get_results_unordered()
    assert after != before
    assert [(info.number, info.pid) for info in manager.slaves] == [(0, after)]


def test_slaves_that_the_queue_does_not_start_are_told_of_and_do_not_hold_up_the_end(
    batch: Batch, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WORD", 2.0)
    manager = make(0)
    manager.add_slave(batch.array(batch.slots + 2))
    manager.wait_for_slaves(batch.slots, 60)

    def told() -> bool:
        with pytest.raises(TimeoutError):
            manager.wait_for_slaves(batch.slots + 2, 3)
        said = r"not connected yet: slave \d+ .*\[\d+\], \w+ job \d+\.\d+\).*: queued \(\w+\): \w+"
        return re.search(said, caplog.text) is not None

    eventually(told, 60, "the word of what is queued")
    context = manager.get_context()
    for number in range(20):
        context.add_task(functools.partial(tasks.square, number))
    assert len(list(context.get_results_unordered())) == 20
    began = time.monotonic()
    manager.shutdown()
    assert time.monotonic() - began < 60
    batch.is_empty()


def test_slaves_that_come_late_join(batch: Batch, make: Make, gates: Gates) -> None:
    manager = make(1)
    context = manager.get_context()
    manager.add_slave(batch.array(2, batch.hold))
    for number in range(3):
        context.add_task(gates.task(f"gate{number}"))
    manager.begin()
    eventually(lambda: gates.starts("gate0"))
    held = eventually(lambda: [one for one in manager.slaves if one.state == "expected"])
    assert [one.number for one in held] == [1, 2]
    batch.release(batch.jobs()[0][0])
    eventually(lambda: gates.starts("gate2"), 60, "tasks on the late slaves")
    gates.open(*(f"gate{number}" for number in range(3)))
    assert len(list(context.get_results_unordered())) == 3


def test_an_array_longer_than_the_site_allows_is_split(batch: Batch, make: Make) -> None:
    manager = make(0)
    n = batch.longest + 2
    manager.add_slave(batch.array(n, batch.hold))
    manager.begin()
    jobs = sorted({int(job) for job, _, _ in batch.jobs()})
    assert len(jobs) == 2 and len(batch.jobs()) == n
    batch.release(str(jobs[1]))
    manager.wait_for_slaves(2, 60)
    assert [info.number for info in manager.slaves if info.state == "idle"] == [n - 2, n - 1]


def test_an_array_that_was_withdrawn_before_it_began_is_deleted(batch: Batch, make: Make) -> None:
    manager = make(0)
    array = batch.array(2, batch.hold)
    manager.add_slave(array)
    manager.begin()
    assert len(batch.jobs()) == 2
    manager.remove_slave(array.slaves[0])
    eventually(lambda: len(batch.jobs()) == 1)
    manager.remove_slave(array)
    batch.is_empty()
    assert [info.state for info in manager.slaves] == ["ended"] * 2


@pytest.mark.parametrize("end", ["interrupted", "leaves", "killed", "terminated"])
def test_no_job_outlives_its_master(batch: Batch, gates: Gates, own_folder: Path, end: str) -> None:
    """Running and queued ones: after Ctrl-C, at interpreter exit, and even when nobody is left to say goodbye."""
    last = "pass" if end == "leaves" else "list(c.get_results_unordered())"
    program = master(batch, gates, own_folder, batch.slots + 2, last, wait=batch.slots)
    program.says("ready", 60)
    if end != "leaves":
        signum = {"interrupted": signal.SIGINT, "killed": signal.SIGKILL, "terminated": signal.SIGTERM}[end]
        program.process.send_signal(signum)
    program.ends()
    batch.is_empty(60)
    eventually(lambda: not run_folders(), 60)
    eventually(lambda: str(own_folder) not in command_lines(), 60, "the end of all processes")


def test_a_job_that_starts_when_the_master_has_finished_has_not_failed(
    batch: Batch, gates: Gates, own_folder: Path
) -> None:
    """Master, and what would have deleted its jobs, are killed; these start later: they see nobody, or no folder."""
    program = master(batch, gates, own_folder, 1, "list(c.get_results_unordered())", wait=0, options=batch.hold)
    program.says("ready")
    job, task, _ = eventually(batch.jobs)[0]
    (folder,) = run_folders()
    # a longer pattern raises if a process ends just then
    keeper = next(one for one in Path("/proc").glob("[0-9]*") if is_keeper(one / "cmdline", folder))
    os.kill(int(keeper.name), signal.SIGKILL)
    program.process.kill()
    program.ends()
    batch.release(job)
    batch.is_empty()
    output = (own_folder / "slave0.output" if batch.shares_disk else folder / "1" / "0.output").read_text()
    assert "slave: the master has finished: nobody listens there any more" in output
    assert re.search(r"\d: connection refused", output)
    assert eventually(lambda: batch.exit_status(job, task), 60) in ("0:0",)
    text = (folder / "1" / "script").read_text()
    Program("rm", "-r", str(folder)).ends()
    if not batch.shares_disk:
        return  # what a job needs is carried to it, or HTCondor holds it
    late = Program("/bin/sh", "-c", text, "script", "0", variables={"SGE_TASK_ID": "1", "SLURM_ARRAY_TASK_ID": "0"})
    assert late.ends() == 0
    assert "slave: the master has finished (its folder" in late.err


def is_keeper(path: Path, folder: Path) -> bool:
    """Whether that is the command line of the shell that waits for the end of a run."""
    try:
        return str(folder) in path.read_text() and "todo" in path.read_text()
    except OSError:
        return False
