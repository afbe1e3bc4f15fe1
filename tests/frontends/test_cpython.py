"""CPython's own test suites, as far as they can apply: see cpython_futures.py and not_applicable.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.frontends.not_applicable import FUTURES, POOLS
from tests.support.programs import ROOT, pythons

PROGRAMS = {"cpython_futures.py": FUTURES, "cpython_pool.py": POOLS}
SECONDS = 480


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_all_pass_that_can_apply(program: str, own_folder: Path) -> None:
    interpreter = dict(pythons()).get("3.13")
    if interpreter is None:
        pytest.skip("no Python 3.13 here")
    command = [interpreter, str(ROOT / "tests" / "frontends" / program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    outcomes = dict(json.loads(line) for line in done.stdout.splitlines())
    wrong = {name: text for name, text in outcomes.items() if text != "passed" and name not in PROGRAMS[program]}
    assert not wrong and not done.returncode, f"{wrong}\n{done.stderr[-4000:]}"
    assert set(PROGRAMS[program]) <= set(outcomes), "these are not in the suite any more"
    assert list(outcomes.values()).count("passed") > len(outcomes) / 2
