"""The real engines of tools/engines, for tests: started when the first test needs them, ended after the last.

PARALLEL_TEST_ENGINES=all (or a list, sge,slurm) fails where one cannot be had; =none leaves them out; by default a test
whose engine cannot be had is skipped, and says why.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support.programs import ROOT

ENGINES = ROOT / "tools" / "engines"

_up: dict[str, dict[str, str]] = {}
_impossible: dict[str, str] = {}


def need(engine: str) -> dict[str, str]:
    """The variables that the engine's clients need.  Starts it; skips the test, or fails it, if it cannot be had."""
    wanted = os.environ.get("PARALLEL_TEST_ENGINES", "")
    if wanted == "none":
        pytest.skip("PARALLEL_TEST_ENGINES=none")
    if engine not in _up and engine not in _impossible:
        done = subprocess.run([ENGINES / "up", engine], capture_output=True, text=True, check=False)
        if done.returncode == 3:
            _impossible[engine] = done.stderr.strip().splitlines()[-1]
        elif done.returncode:
            pytest.fail(f"{engine} does not start:\n{done.stderr}")
        else:
            _up[engine] = dict(re.findall(r"(\w+)=(\S*)", done.stdout))
    if engine in _impossible:
        if wanted == "all" or engine in wanted.split(","):
            pytest.fail(_impossible[engine])
        pytest.skip(_impossible[engine])
    return _up[engine]


def end_all() -> None:
    """End what `need` has started."""
    for engine in _up:
        subprocess.run([ENGINES / "down", engine], capture_output=True, check=True)
    _up.clear()
