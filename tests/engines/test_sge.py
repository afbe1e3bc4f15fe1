"""What only Grid Engine does: the error state; jobs with a parallel environment."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from parallel.core import patience
from tests.conftest import Make
from tests.engines.conftest import SUM, SUMMED, Batch, prepared, run
from tests.support import tasks
from tests.support.programs import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines


@pytest.fixture
def sge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("sge", monkeypatch)


def test_an_error_state_is_told_with_its_text(
    sge: Batch, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second classic complaint: nothing failed at the submission, and no slave comes."""
    monkeypatch.setattr(patience, "FIRST_WORD", 3.0)
    manager = make(0)
    manager.add_slave(parallel.SGEQsubSlaveArray(2, "-wd /no/such/folder"))
    manager.begin()
    eventually(lambda: [state for _, _, state in sge.jobs()] == ["Eqw"] * 2)
    eventually(lambda: "cannot come: in error state Eqw" in caplog.text)
    said = r"in error state Eqw: can't chdir to /no/such/folder: No such file or directory \(mend that, then 'qmod -cj'"
    assert re.search(rf"parallel: slave \d \(.*\) cannot come: {said}", caplog.text)

    def told() -> bool:
        with pytest.raises(TimeoutError):
            manager.wait_for_slaves(2, 6)
        return re.search(rf"not connected yet: slave 0 .*, slave 1 .*: {said}", caplog.text) is not None

    eventually(told, 60, "whom it waits for")


def test_a_script_in_a_parallel_job_has_a_slave_for_each_slot(sge: Batch, own_folder: Path) -> None:
    (own_folder / "script.py").write_text(SUM.format(slaves="parallel.SGEPESlaveArray()", n=3))
    job = own_folder / "job"
    home = own_folder / "home"
    job.write_text(f"cd '{own_folder}'; HOME='{home}' PYTHONPATH='{ROOT}' '{sys.executable}' script.py\n")
    run("qsub", "-sync", "y", "-pe", "smp", "3", "-S", "/bin/sh", "-j", "y", "-o", str(own_folder / "said"), str(job))
    said = (own_folder / "said").read_text()
    assert SUMMED in said and "['SGEPESlaveArray()[" in said, said
    assert (own_folder / "slave2.output").exists()


def test_outside_a_parallel_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PE_HOSTFILE", raising=False)
    with pytest.raises(parallel.InputError, match=r"PE_HOSTFILE is not set: submit this script with 'qsub -pe"):
        parallel.SGEPESlaveArray()


def test_the_settings_are_missing(sge: Batch, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make(0)
    manager.add_slave(parallel.SGEQsubSlaveArray(1))
    with monkeypatch.context() as patch, pytest.raises(parallel.LaunchError, match=r"settings\.sh' sets them"):
        patch.delenv("SGE_ROOT")
        manager.begin()


def test_a_time_limit_of_the_queue_costs_no_attempt(sge: Batch, make: Make, own_folder: Path) -> None:
    manager = make(0, max_attempts=1)
    manager.add_slave(parallel.SGEQsubSlaveArray(1, "-l h_rt=0:0:8"))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, "gate"))
    manager.begin()
    eventually((own_folder / "gate.started").exists)
    eventually(lambda: manager.slaves[0].state == "ended", 90, f"the end of the slave: {manager.slaves}")
    with pytest.raises(parallel.NoMoreSlavesError, match=r"SGE job \d+\.1 left the queue after it had been started on"):
        list(context.get_results_unordered())
    (own_folder / "gate").touch()
    manager.add_slave(parallel.LocalSlave())
    assert len(list(context.get_results_unordered())) == 1
