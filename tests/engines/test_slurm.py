"""What only Slurm does: steps in an allocation; preemption by a better partition."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.engines.conftest import SUM, SUMMED, Batch, prepared, run
from tests.support import tasks
from tests.support.programs import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("slurm", monkeypatch)


@pytest.mark.parametrize("started", ["in the script", "by srun"])
def test_a_script_in_an_allocation_has_a_slave_for_each_task(slurm: Batch, own_folder: Path, started: str) -> None:
    (own_folder / "script.py").write_text(SUM.format(slaves="parallel.SlurmSlaves()", n=3))
    python = f"PYTHONPATH='{ROOT}' {'srun -n 1 ' if started == 'by srun' else ''}'{sys.executable}'"
    by_srun = "SLURM_NTASKS=3; export SLURM_NTASKS; " if started == "by srun" else ""
    if started == "by srun":  # srun tells its one task that there is one
        python = f"PYTHONPATH='{ROOT}' srun -n 1 env SLURM_NTASKS=3 '{sys.executable}'"
    job = own_folder / "job"
    job.write_text(f"#!/bin/sh\n{by_srun}cd '{own_folder}' && {python} script.py\n")
    run("sbatch", "-W", "-n", "3", "-o", str(own_folder / "said"), str(job))
    said = (own_folder / "said").read_text()
    assert SUMMED in said and "['SlurmSlaves()[0], Slurm job " in said, said
    assert "slave: connected" in (own_folder / "slave2.output").read_text()


def test_outside_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(parallel.InputError, match=r"SLURM_JOB_ID is not set: start this script by 'sbatch -n TASKS"):
        parallel.SlurmSlaves()


def test_a_preempted_job_costs_no_attempt_and_comes_back(slurm: Batch, make: Make, own_folder: Path) -> None:
    manager = make(0, max_attempts=1)
    manager.add_slave(parallel.SlurmSlaveArray(1, "--requeue --exclusive -w n1"))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, "gate"))
    manager.begin()
    started = own_folder / "gate.started"
    eventually(started.exists, 60)
    run("srun", "-p", "urgent", "--exclusive", "-w", "n1", "true")
    job = slurm.jobs()[0][0]
    slurm.start_now(f"{job}_0")
    eventually(lambda: len(started.read_text().splitlines()) == 2, 60, f"a second start; {manager.slaves}")
    (own_folder / "gate").touch()
    assert len(list(context.get_results_unordered())) == 1
