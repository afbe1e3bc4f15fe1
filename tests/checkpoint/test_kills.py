"""Masters that are killed again and again, and resumed by another Python."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.checkpoint.files import KEY, Opened
from tests.support.programs import ROOT, environment, pythons
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
        subprocess.run([python, "-c", WRITE, str(path)], cwd=ROOT, env=environment(), check=True, timeout=30)
        with Opened(path, key=KEY) as opened:
            assert opened.results() == {(1, 0): b"first", (2, 0): b"x" * 5000}
