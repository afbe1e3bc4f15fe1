"""Every program and command of the README is run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, Program

README = (ROOT / "README.md").read_text()
# run by tests/engines/test_readme_engines.py
ON_ENGINES = {
    "by_ssh.py",
    "on_sge.py",
    "in_sge_job.py",
    "on_slurm.py",
    "in_slurm_job.py",
    "on_htcondor.py",
    "by_command.py",
}
PROGRAMS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.S)


def test_every_python_block_is_a_program_with_a_name() -> None:
    assert len(PROGRAMS) == README.count("```python") >= 2


HERE = [(name, text) for name, text in PROGRAMS if name not in ON_ENGINES]


@pytest.mark.parametrize(("name", "text"), HERE, ids=[name for name, _ in HERE])
def test_programs_print_what_the_readme_says(own_folder: Path, name: str, text: str) -> None:
    if "import joblib" in text:
        pytest.importorskip("joblib", minversion="1.5", reason="joblib 1.5 or newer is not installed")
    (own_folder / name).write_text(text)
    program = Program(sys.executable, name, cwd=own_folder)
    helper = None
    try:
        if "port=" in text:
            command = program.says(r"on another machine run: (.*)\n").group(1)
            helper = Program("/bin/sh", "-c", command, cwd=own_folder)
        assert program.ends() == 0, program.err
        if helper is not None:
            assert helper.ends() == 0, helper.err
    finally:
        program.kill()
        if helper is not None:
            helper.kill()
    shown = re.search(rf"```\n\$ python3 {re.escape(name)}\n(.*?)```", README, re.S)
    if shown is not None:
        assert program.out == shown.group(1)


EXAMPLES = ROOT / "tools" / "examples"


def test_the_short_example_runs_from_anywhere(own_folder: Path) -> None:
    program = Program(sys.executable, str(EXAMPLES / "restraint.py"), cwd=own_folder)
    assert program.ends(120) == 0, program.err
    assert program.err == ""
    assert program.out.splitlines()[-1] == "d = 2.0   E = 2.00"


def test_the_long_example_runs_from_anywhere(own_folder: Path) -> None:
    """A small part of it: .ci/run runs the whole."""
    part = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import lennard_jones as whole; del whole.KNOWN[13]; "
    program = Program(sys.executable, "-c", part + "whole.WALKS[7] = 6; sys.exit(whole.main())", cwd=own_folder)
    assert program.ends(120) == 0, program.out + program.err
    assert program.err == ""
    assert re.search(r"  7 +-16\.505384 +-16\.505384", program.out), program.out


def test_options_of_the_slave_program_are_in_its_help() -> None:
    program = Program(sys.executable, "-m", "slave", "--help")
    assert program.ends() == 0
    others = {"--json", "--watch"}  # of python3 -m parallel status
    for option in set(re.findall(r"`(--?[a-z][a-z-]*)", README)) - others:
        assert option in shlex.split(program.out.replace("'", "").replace(",", " ").replace("]", " ")), option
