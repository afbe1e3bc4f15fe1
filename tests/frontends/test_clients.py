"""Programs for other libraries, as their users write them (clients/): on slaves they compute the same numbers."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, environment

SCRIPTS = sorted((ROOT / "tests" / "frontends" / "clients").glob("*.py"))
SECONDS = 400


def missing(script: Path) -> list[str]:
    """The packages that a script imports and that are not installed."""
    tops: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            tops.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            tops.add((node.module or "").partition(".")[0])
    return sorted(top for top in tops if importlib.util.find_spec(top) is None)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_numbers_equal_the_serial_ones(script: Path, own_folder: Path) -> None:
    if missing(script):
        pytest.skip(f"{', '.join(missing(script))} is not installed")
    variables = environment(PYTHONWARNINGS="default")  # these are the libraries' own
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=variables)
    assert done.returncode == 0 and done.stdout.splitlines()[-1:] == ["equal"], f"{done.stdout}\n{done.stderr}"
