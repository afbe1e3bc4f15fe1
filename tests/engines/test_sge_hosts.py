"""Grid Engine on several hosts: a head and two nodes, each with a network and a name of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.engines.conftest import SUM, SUMMED, run_folders
from tests.support import engines
from tests.support.programs import ROOT, Program
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines

ON_HEAD = ("ip", "netns", "exec", "sgehead", "unshare", "--uts", "sh", "-c", 'hostname head; exec "$@"', "sh")


def on_head(*command: str) -> Program:
    """A command on the head, with Grid Engine's variables."""
    variables = engines.need("sge-hosts")
    return Program(*ON_HEAD, *command, variables=variables)


@pytest.fixture(autouse=True)
def empty_queue() -> None:
    eventually(lambda: not queue(), 60, "an empty queue")


def queue() -> str:
    program = on_head("qstat")
    assert program.ends() == 0, program.err
    return program.out


def test_a_parallel_job_has_slaves_on_all_its_hosts(own_folder: Path) -> None:
    """On the first host directly, on the other one by qrsh -inherit."""
    folder = own_folder / "it's a folder"
    folder.mkdir()
    (folder / "script.py").write_text(SUM.format(n=4, slaves="parallel.SGEPESlaveArray()"))
    job = own_folder / "job"
    job.write_text(f'cd "{folder}"; HOME="{folder}" PYTHONPATH="{ROOT}" "{sys.executable}" script.py\n')
    said = own_folder / "said"
    submission = on_head(
        *("qsub", "-sync", "y", "-pe", "mpi", "4", "-S", "/bin/sh", "-j", "y", "-o", str(said), str(job))
    )
    assert submission.ends(150) == 0, submission.err
    text = said.read_text()
    assert f"{SUMMED}n1 n1 n2 n2" in text, text
    assert text.count("SGEPESlaveArray()[n1]") == text.count("SGEPESlaveArray()[n2]") == 2
    assert sorted(path.name for path in folder.glob("slave*.output")) == [f"slave{i}.output" for i in range(4)]
    assert not run_folders(folder)


def test_an_array_of_slaves_on_other_hosts_than_the_master(own_folder: Path) -> None:
    (own_folder / "script.py").write_text(SUM.format(n=4, slaves="parallel.SGEQsubSlaveArray(4)"))
    program = on_head(sys.executable, str(own_folder / "script.py"))
    assert program.ends(150) == 0, program.err
    assert f"{SUMMED}n1 n1 n2 n2" in program.out
    assert len(re.findall(r"SGEQsubSlaveArray\(4\)\[\d\], SGE job \d+\.\d", program.out)) == 4
