"""The README's ways to start slaves on clusters and by ssh are run, on the real engines, as they stand there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.engines.conftest import run
from tests.support import engines
from tests.support.programs import ROOT, Program
from tests.whole.test_readme import WAYS, output_of, squares_by

pytestmark = pytest.mark.engines


def prints_its_squares(folder: Path, way: str, **variables: str) -> None:
    """Run the README's first program with the lines of this way in it."""
    (folder / "squares.py").write_text(squares_by(WAYS[way]))
    program = Program(sys.executable, "squares.py", cwd=folder, variables=variables)
    assert program.ends(150) == 0, program.err
    assert program.out == output_of("squares.py")


@pytest.mark.parametrize(
    ("way", "engine"),
    [("SGEQsubSlaveArray", "sge"), ("SlurmSlaveArray", "slurm"), ("HTCondorSlaveArray", "htcondor")],
)
def test_arrays(own_folder: Path, way: str, engine: str) -> None:
    prints_its_squares(own_folder, way, **engines.need(engine))


def test_by_ssh(own_folder: Path) -> None:
    """With a configuration that knows node1 and node2, as a user's does."""
    config = engines.need("sshd")["ENGINE_SSH_CONFIG"]
    ssh = own_folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    prints_its_squares(own_folder, "SSHSlave", PATH=f"{ssh.parent}:{os.environ['PATH']}")


def test_by_command(own_folder: Path) -> None:
    engines.need("openmpi")
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    prints_its_squares(own_folder, "CommandSlaveArray", **as_root)


@pytest.mark.parametrize(
    ("way", "engine", "submission"),
    [
        ("SGEPESlaveArray", "sge", "qsub -sync y -pe smp 3 -S /bin/sh -j y -o said job"),
        ("SlurmSlaves", "slurm", "sbatch -W -n 3 -o said job"),
    ],
)
def test_in_a_job(own_folder: Path, monkeypatch: pytest.MonkeyPatch, way: str, engine: str, submission: str) -> None:
    for variable, value in engines.need(engine).items():
        monkeypatch.setenv(variable, value)
    (own_folder / "squares.py").write_text(squares_by(WAYS[way]))
    (own_folder / "job").write_text(
        f"#!/bin/sh\ncd {own_folder} && HOME={own_folder}/home PYTHONPATH={ROOT} {sys.executable} squares.py\n"
    )
    run(*submission.replace("said", str(own_folder / "said")).split())
    # before that it may tell whom it waits for
    assert (own_folder / "said").read_text().endswith(str(output_of("squares.py")))
