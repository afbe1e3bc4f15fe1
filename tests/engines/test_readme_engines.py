"""The README's programs for clusters and ssh are run, on the real engines, as they stand there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.engines.conftest import run
from tests.support import engines
from tests.support.programs import ROOT, Program
from tests.whole.test_readme import ON_ENGINES, PROGRAMS

pytestmark = pytest.mark.engines

TEXTS = {name: text for name, text in PROGRAMS if name in ON_ENGINES}
CUBES = f"{sum(x**3 for x in range(100))}\n"


def result_of(folder: Path, name: str, **variables: str) -> str:
    """What the program prints."""
    (folder / name).write_text(TEXTS[name])
    program = Program(sys.executable, name, cwd=folder, variables=variables)
    assert program.ends(60) == 0, program.err
    return program.out


def test_all_are_there() -> None:
    assert set(TEXTS) == ON_ENGINES


@pytest.mark.parametrize(
    ("name", "engine"), [("on_sge.py", "sge"), ("on_slurm.py", "slurm"), ("on_htcondor.py", "htcondor")]
)
def test_arrays(own_folder: Path, name: str, engine: str) -> None:
    assert result_of(own_folder, name, **engines.need(engine)) == CUBES


def test_by_ssh(own_folder: Path) -> None:
    """With a configuration that knows node1 and node2, as a user's does."""
    config = engines.need("sshd")["ENGINE_SSH_CONFIG"]
    ssh = own_folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    assert result_of(own_folder, "by_ssh.py", PATH=f"{ssh.parent}:{os.environ['PATH']}") == CUBES


def test_by_command(own_folder: Path) -> None:
    engines.need("openmpi")
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    assert result_of(own_folder, "by_command.py", **as_root) == CUBES


@pytest.mark.parametrize(
    ("name", "engine", "submission"),
    [
        ("in_sge_job.py", "sge", "qsub -sync y -pe smp 3 -S /bin/sh -j y -o said job"),
        ("in_slurm_job.py", "slurm", "sbatch -W -n 3 -o said job"),
    ],
)
def test_in_a_job(own_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, engine: str, submission: str) -> None:
    for variable, value in engines.need(engine).items():
        monkeypatch.setenv(variable, value)
    (own_folder / name).write_text(TEXTS[name])
    (own_folder / "job").write_text(
        f"#!/bin/sh\ncd {own_folder} && HOME={own_folder}/home PYTHONPATH={ROOT} {sys.executable} {name}\n"
    )
    run(*submission.replace("said", str(own_folder / "said")).split())
    assert (own_folder / "said").read_text().endswith(CUBES)  # before that it may tell whom it waits for
