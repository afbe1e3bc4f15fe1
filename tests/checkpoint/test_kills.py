"""Masters that are killed again and again, and resumed by another Python."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.files import KEY, Opened
from tests.support.programs import ROOT, Program, environment, pythons
from tests.support.waiting import eventually
from tools import kills

FEW = ("keys", "unordered")


@pytest.mark.slow
@pytest.mark.parametrize("way", FEW)
def test_killed_masters_lose_nothing_and_run_nothing_again(own_folder: Path, way: str) -> None:
    """Some of the jobs of tools/kills.py."""
    kills.job(own_folder / way, way, random.Random(f"{way} of this test"))


WRITE = """
import sys
from pathlib import Path
from tests.checkpoint.files import make
make(Path(sys.argv[1]), b"first", b"x" * 5000)
"""


@pytest.mark.slow
def test_what_one_python_writes_another_reads(own_folder: Path) -> None:
    installed = pythons()
    for version, python in {installed[0], installed[-1]}:
        path = own_folder / version
        subprocess.run([python, "-c", WRITE, str(path)], cwd=ROOT, env=environment(), check=True, timeout=120)
        with Opened(path, key=KEY) as opened:
            assert opened.results() == {(1, 0): b"first", (2, 0): b"x" * 5000}


@pytest.mark.slow
def test_the_program_of_the_readme(own_folder: Path) -> None:
    text = re.search(r"```python\n# going_on.py\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert text is not None
    (own_folder / "going_on.py").write_text(text.group(1))
    first = Program(sys.executable, "going_on.py", cwd=own_folder)
    key = own_folder / "home" / ".config" / "parallel" / "authkey"
    eventually(lambda: key.exists() and kills.held(own_folder / "squares.results", key.read_bytes().strip()), 60)
    first.kill()
    again = Program(sys.executable, "going_on.py", cwd=own_folder)
    assert (again.ends(), again.out) == (0, "[0, 1, 4, 9, 16, 25, 36, 49]\n")
    assert re.search(r"[1-8] of 8 tasks have their results in \S+squares.results, and do not run again", again.err)
