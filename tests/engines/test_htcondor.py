"""What only HTCondor does: it holds jobs, carries files, wants machines back, and makes jobs when there is room."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.engines.conftest import Batch, prepared, run, run_folders
from tests.support import tasks
from tests.support.gates import Gates
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines


@pytest.fixture
def htcondor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("htcondor", monkeypatch)


def test_nothing_is_shared_with_the_machine(htcondor: Batch, make: Make, own_folder: Path) -> None:
    """The user's modules come along, his own files by HTCondor; what tasks print comes back while they run."""
    (own_folder / "data.txt").write_text("forty-two")
    manager = make(0)
    manager.add_slave(parallel.HTCondorSlaveArray(1, "request_memory = 100\ntransfer_input_files = data.txt"))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.say, "said while the job runs"))
    context.add_task(functools.partial(tasks.text_of, "data.txt"))
    context.add_task(functools.partial(Path.exists, own_folder))
    results = list(context.get_results_unordered())
    assert "forty-two" in results and False in results
    output = own_folder / "slave0.output"
    eventually(lambda: "said while the job runs" in output.read_text(), 60, "the output of a job that runs")
    assert htcondor.running()


def test_the_key_is_for_the_job_s_user_alone(htcondor: Batch, make: Make) -> None:
    """Neither in the job's ad nor in its environment; on its machine in a file and a folder of its user's."""
    key = b"the key that nobody may see"
    manager = make(0, authkey=key)
    manager.add_slave(parallel.HTCondorSlaveArray(1))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.modes_of, "0.orders", "."))
    (found,) = context.get_results_unordered()
    assert found == {"0.orders": 0o600, ".": 0o700}
    shown = run("condor_q", "-allusers", "-l") + Path(run_folders()[0], "1", "submit").read_text()
    assert key.hex() not in shown and key.decode() not in shown


def test_a_held_job_is_told_at_once_with_the_reason(
    htcondor: Batch, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0)
    manager.add_slave(parallel.HTCondorSlaveArray(2, "hold = $(Process) == 1"))
    manager.wait_for_slaves(1, 60)
    said = r"slave 1 \(HTCondorSlaveArray.*HTCondor job \d+\.1\) cannot come: held: submitted on hold at user's request"
    eventually(lambda: re.search(said, caplog.text), 60, f"the word of a held job in {caplog.text}")
    job = htcondor.jobs()[0][0]
    assert f"(mend that, then 'condor_release {job}.1', or delete it: 'condor_rm {job}.1')" in caplog.text
    run("condor_release", f"{job}.1")
    manager.wait_for_slaves(2, 60)


def test_a_slave_whose_job_is_held_is_told_with_the_reason_and_comes_back(
    htcondor: Batch, make: Make, gates: Gates, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0, max_attempts=1)
    manager.add_slave(parallel.HTCondorSlaveArray(1))
    context = manager.get_context()
    context.add_task(gates.task("gate"))
    manager.begin()
    eventually(lambda: gates.starts("gate"), 60)
    run("condor_hold", "-reason", "the disk is full", htcondor.running()[0][0])
    eventually(lambda: "cannot come: held: the disk is full" in caplog.text, 60, f"the reason in {caplog.text}")
    run("condor_release", htcondor.jobs()[0][0])
    eventually(lambda: gates.starts("gate") == 2, 60, f"a second start; {manager.slaves}")
    gates.open("gate")
    assert len(list(context.get_results_unordered())) == 1


def test_input_that_cannot_be_carried_is_told(
    htcondor: Batch, make: Make, caplog: pytest.LogCaptureFixture, own_folder: Path
) -> None:
    manager = make(0)
    (own_folder / "data").touch()
    manager.add_slave(parallel.HTCondorSlaveArray(1, "transfer_input_files = data\nhold = True"))
    manager.begin()
    (own_folder / "data").unlink()
    run("condor_release", htcondor.jobs()[0][0])
    said = r"cannot come: held: Transfer input files failure.*data"
    eventually(lambda: re.search(said, caplog.text), 60, f"HTCondor's own reason in {caplog.text}")


def test_a_removed_job_is_told_with_who_removed_it(htcondor: Batch, make: Make, gates: Gates) -> None:
    manager = make(0)
    manager.add_slave(parallel.HTCondorSlaveArray(1))
    context = manager.get_context()
    context.add_task(gates.task("gate"))
    manager.begin()
    eventually(lambda: gates.starts("gate"), 60)
    htcondor.delete(*htcondor.running()[0])
    with pytest.raises(parallel.NoMoreSlavesError, match=r"job \d+\.0 was removed: via condor_rm \(by user \w+\)"):
        list(context.get_results_unordered())


def test_a_machine_that_is_wanted_back_lets_the_task_finish(htcondor: Batch, make: Make, gates: Gates) -> None:
    """And the job that starts again is the same slave."""
    manager = make(0, max_attempts=1)
    manager.add_slave(parallel.HTCondorSlaveArray(1))
    context = manager.get_context()
    context.add_task(gates.task("first"))
    context.add_task(gates.task("second"))
    results = iter(context.get_results_unordered())
    manager.begin()
    eventually(lambda: gates.starts("first"), 60)
    before = manager.slaves[0].pid
    job, task = htcondor.running()[0]
    run("condor_vacate_job", f"{job}.{task}")
    eventually(lambda: manager.slaves[0].state == "draining", 60, f"a draining slave, not {manager.slaves}")
    gates.open("first", "second")
    assert len(list(results)) == 2
    assert gates.starts("first") == gates.starts("second") == 1
    assert [info.number for info in manager.slaves] == [0] and manager.slaves[0].pid != before


def test_jobs_that_are_made_later_are_not_taken_for_ended(htcondor: Batch, make: Make) -> None:
    """With max_idle HTCondor makes jobs only as others start; the queue knows nothing of them before."""
    manager = make(0)
    manager.add_slave(parallel.HTCondorSlaveArray(10, "max_materialize = 2"))
    manager.wait_for_slaves(2, 60)
    eventually(lambda: len(htcondor.jobs()) == 2)
    with pytest.raises(TimeoutError):
        manager.wait_for_slaves(3, 6)
    assert [info.state for info in manager.slaves].count("expected") == 8


@pytest.mark.parametrize("description", ["queue 3", "request_memory = 1\n  Queue", 7])
def test_what_is_no_part_of_a_submit_file(description: object) -> None:
    with pytest.raises(parallel.InputError, match=r"leave 'queue' out|is text for a submit file"):
        parallel.HTCondorSlaveArray(2, description)  # type: ignore[arg-type]
