"""What a queue is configured to show is not what there is: nothing is lost by that, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel.launch.batch import array as array_module
from tests.conftest import Make
from tests.engines.conftest import Batch, prepared
from tests.support.gates import Gates
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each time that the engine was asked what its jobs do; that is often."""
    seen: list[object] = []
    look = array_module.BatchArray._look

    def counted(self: array_module.BatchArray) -> None:
        look(self)
        seen.append(self)

    monkeypatch.setattr(array_module, "_ASK_AGAIN", (0.05, 0.1))
    monkeypatch.setattr(array_module.BatchArray, "_look", counted)
    return seen


def works_and_leaves_nothing(batch: Batch, make: Make, gates: Gates, looks: list[object], options: str = "") -> None:
    manager = make(0)
    manager.add_slave(batch.array(2, options))
    manager.add_slave(batch.array(1, batch.hold))  # stays queued
    context = manager.get_context()
    for number in range(4):
        context.add_task(gates.task(f"gate{number}"))
    manager.wait_for_slaves(2, 120)
    before = len(looks)
    eventually(lambda: len(looks) > before + 12, 60, "the engine to be asked some times")
    states = [info.state for info in manager.slaves]
    assert states.count("ended") == 0 and "expected" in states, f"{manager.slaves}"
    gates.open(*(f"gate{number}" for number in range(4)))
    assert len(list(context.get_results_unordered())) == 4
    manager.shutdown()
    eventually(lambda: not batch.jobs(), 60, f"an empty queue, not {batch.jobs()}")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("slurm", monkeypatch)


@pytest.fixture
def htcondor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("htcondor", monkeypatch)


@pytest.fixture
def sge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    yield from prepared("sge", monkeypatch)


def test_variables_that_filter_squeue_and_scancel(
    slurm: Batch, make: Make, gates: Gates, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = slurm.jobs

    def really() -> list[tuple[str, str, str]]:
        with monkeypatch.context() as clean:
            for name in ("SQUEUE_STATES", "SQUEUE_USERS", "SQUEUE_FORMAT"):
                clean.delenv(name, raising=False)
            return jobs()

    monkeypatch.setattr(slurm, "jobs", really)
    monkeypatch.setenv("SQUEUE_STATES", "SUSPENDED")
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    monkeypatch.setenv("SCANCEL_STATE", "SUSPENDED")
    works_and_leaves_nothing(slurm, make, gates, looks)


@pytest.mark.parametrize("filter_", ["-s r", "-u nobody", "-q nothing.q"])
def test_a_file_that_filters_qstat(
    sge: Batch, make: Make, gates: Gates, looks: list[object], monkeypatch: pytest.MonkeyPatch, filter_: str
) -> None:
    """Of the site; ~/.sge_qstat is read in the same way, and not in a home of the test's."""
    file = Path(os.environ["SGE_ROOT"], os.environ.get("SGE_CELL", "default"), "common", "sge_qstat")
    assert not file.exists()
    jobs = sge.jobs

    def really() -> list[tuple[str, str, str]]:
        shown = file.exists()
        if shown:
            file.rename(f"{file}.off")
        try:
            return jobs()
        finally:
            if shown:
                Path(f"{file}.off").rename(file)

    monkeypatch.setattr(sge, "jobs", really)
    file.write_text(filter_ + "\n")
    try:
        works_and_leaves_nothing(sge, make, gates, looks)
    finally:
        file.unlink()


def test_qsub_that_waits_for_the_end(sge: Batch, make: Make, gates: Gates, looks: list[object]) -> None:
    works_and_leaves_nothing(sge, make, gates, looks, "-sync y")


def test_sbatch_that_waits_for_the_end(
    slurm: Batch, make: Make, gates: Gates, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_WAIT", "1")
    works_and_leaves_nothing(slurm, make, gates, looks, "--wait")


@pytest.mark.parametrize("says", ["", "echo 'Failed to fetch ads from: <10.0.0.1:9618> : nobody' >&2; exit 1"])
def test_a_condor_q_that_shows_nothing(
    htcondor: Batch,
    make: Make,
    gates: Gates,
    looks: list[object],
    monkeypatch: pytest.MonkeyPatch,
    own_folder: Path,
    says: str,
) -> None:
    """The site's configuration, or a variable _CONDOR_SCHEDD_HOST, has it ask another schedd."""
    path = os.environ["PATH"]
    fake = own_folder / "bin" / "condor_q"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{says}\n")
    fake.chmod(0o755)
    jobs = htcondor.jobs

    def really() -> list[tuple[str, str, str]]:
        with monkeypatch.context() as clean:
            clean.setenv("PATH", path)
            return jobs()

    monkeypatch.setattr(htcondor, "jobs", really)
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    works_and_leaves_nothing(htcondor, make, gates, looks)
