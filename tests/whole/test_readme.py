"""Every program and command of the README is run."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, Program

README = (ROOT / "README.md").read_text()
PROGRAMS: dict[str, str] = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.S))
LOCAL = "        manager.add_slave(parallel.LocalSlave())\n" * 2
OPEN = "with parallel.Manager() as manager:"


def squares_by(lines: list[str]) -> str:
    """The README's first program, with these lines in place of its own."""
    squares = PROGRAMS["squares.py"]
    assert LOCAL in squares and OPEN in squares
    if lines[0].startswith("with "):
        return squares.replace(LOCAL, "").replace(OPEN, lines[0])
    return squares.replace(LOCAL, "".join(f"        {line}\n" for line in lines))


def output_of(name: str) -> str | None:
    """What the README says that a program prints."""
    shown = re.search(rf"```\n\$ python3 {re.escape(name)}\n(.*?)```", README, re.S)
    return None if shown is None else shown.group(1)


BLOCKS = re.findall(r"```python\n((?:with|manager\.).*?)```", README, re.S)  # lines for squares.py
WAYS: dict[str, list[str]] = {}  # the same by the class that is in them
for way in "".join(BLOCKS).splitlines():
    WAYS.setdefault(re.findall(r"parallel\.(\w+)\(", way)[-1], []).append(way)
ON_ENGINES = {  # run by tests/engines/test_readme_engines.py
    "SSHSlave",
    "SGEQsubSlaveArray",
    "SGEPESlaveArray",
    "SlurmSlaveArray",
    "SlurmSlaves",
    "HTCondorSlaveArray",
    "CommandSlaveArray",
}


def test_every_python_block_is_a_program_or_lines_for_the_first_one() -> None:
    assert len(PROGRAMS) + len(BLOCKS) == README.count("```python") >= 2
    assert set(WAYS) == {"Manager", *ON_ENGINES}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_print_what_the_readme_says(own_folder: Path, name: str) -> None:
    text = PROGRAMS[name]
    if "import joblib" in text:
        pytest.importorskip("joblib", minversion="1.5", reason="joblib 1.5 or newer is not installed")
    (own_folder / name).write_text(text)
    program = Program(sys.executable, name, cwd=own_folder)
    assert program.ends() == 0, program.err
    assert program.out == output_of(name)


def test_by_hand(own_folder: Path) -> None:
    (own_folder / "squares.py").write_text(squares_by(WAYS["Manager"]))
    program = Program(sys.executable, "squares.py", cwd=own_folder)
    helper = None
    try:
        command = program.says(r"on another machine run: (.*)\n").group(1)
        helper = Program("/bin/sh", "-c", command, cwd=own_folder)
        assert program.ends() == 0, program.err
        assert helper.ends() == 0, helper.err
    finally:
        program.kill()
        if helper is not None:
            helper.kill()
    assert program.out == output_of("squares.py")


# bsub has a shell elsewhere run what it is given; docker runs the words behind its image, without a shell
STAND_INS = {
    "bsub": 'shift 2; (exec setsid /bin/sh -c "$*" </dev/null >/dev/null 2>&1 &)',
    "docker": """while [ "$1" != python:3.12 ]; do shift; done; shift; exec env -i PATH="$PATH" HOME=/nowhere "$@\"""",
}


@pytest.mark.parametrize("program", STAND_INS)
def test_commands_that_are_named_in_passing(own_folder: Path, program: str) -> None:
    """What the README says of LSF and of containers, with stand-ins for the programs."""
    folder = own_folder / "bin"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\n{STAND_INS[program]}\n")
    (folder / program).chmod(0o755)
    named = re.search(rf'`(?:parallel\.\w+\()?("{program} [^`"]*")\)?`', README)
    assert named is not None
    array = f"CommandSlaveArray({named.group(1)}, 2)" if program == "bsub" else f"PipedCommandSlave({named.group(1)})"
    (own_folder / "squares.py").write_text(squares_by([f"manager.add_slave(parallel.{array})"]))
    path = f"{folder}:{os.environ['PATH']}"
    one = Program(sys.executable, "squares.py", cwd=own_folder, variables={"PATH": path})
    assert (one.ends(), one.out) == (0, output_of("squares.py")), one.err


EXAMPLES = ROOT / "tools" / "examples"


def test_the_short_example_runs_from_anywhere(own_folder: Path) -> None:
    program = Program(sys.executable, str(EXAMPLES / "restraint.py"), cwd=own_folder)
    assert program.ends(120) == 0, program.err
    assert program.complaints == ""
    assert program.out.splitlines()[-1] == "d = 2.0   E = 2.00"


def test_the_long_example_runs_from_anywhere(own_folder: Path) -> None:
    """A small part of it: .ci/run runs the whole."""
    part = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import lennard_jones as whole; del whole.KNOWN[13]; "
    program = Program(sys.executable, "-c", part + "whole.WALKS[7] = 6; sys.exit(whole.main())", cwd=own_folder)
    assert program.ends(120) == 0, program.out + program.err
    assert program.complaints == ""
    assert re.search(r"  7 +-16\.505384 +-16\.505384", program.out), program.out


def test_options_of_the_slave_program_are_in_its_help() -> None:
    program = Program(sys.executable, "-m", "slave", "--help")
    assert program.ends() == 0
    others = {"--json", "--watch"}  # of python3 -m parallel status
    details = (ROOT / "tools" / "slaves.md").read_text()
    for option in set(re.findall(r"`(--?[a-z][a-z-]*)", README + details)) - others:
        assert option in shlex.split(program.out.replace("'", "").replace(",", " ").replace("]", " ")), option


def test_the_messages_that_it_explains_are_those_of_today() -> None:
    """Three words in a row of each, or the two of a part that has no more; two messages are Python's own."""
    texts = [path.read_text() for top in ("parallel", "slave") for path in (ROOT / top).rglob("*.py")]
    source = " ".join(re.sub(r'"\s*f?"', "", text) for text in texts)
    section = README.partition("## When something is wrong\n")[2].partition("\n## ")[0]
    messages = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
    for message in set(messages) - {"module 'parallel' has no attribute 'Manager'", "'slave' is not a package"}:
        parts = [part.split() for part in re.split(r"\.\.\.|[():;,?']|\d+", message)]
        runs = [
            " ".join(part[place : place + 3]) for part in parts for place in range(max(1, len(part) - 2)) if part[1:]
        ]
        assert any(run in source for run in runs), message
