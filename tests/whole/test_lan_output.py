"""A folder of the master's machine that the slave's lacks: its output goes to where it can, and that is told."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.waiting import eventually


def _can_hide() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


pytestmark = pytest.mark.skipif(not _can_hide(), reason="hiding a folder needs root and unshare")


@pytest.fixture
def elsewhere(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A template for CommandSlaveArray: on that machine the folder with the output files does not exist."""
    hidden = own_folder / "scratch"
    (hidden / "me").mkdir(parents=True)
    monkeypatch.chdir(hidden / "me")
    script = f"mount -t tmpfs none {shlex.quote(str(hidden))} && exec {{command}}"
    yield f"unshare -m sh -c {shlex.quote(script)}"
    for file in Path("/tmp").glob("parallel-output.*"):
        with contextlib.suppress(FileNotFoundError):  # of another test, which runs beside this one and ends just now
            if str(hidden) in file.read_text(errors="replace"):
                file.unlink()


def test_output_goes_to_where_it_can(
    make: Make, elsewhere: str, own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(0)
    manager.add_slave(parallel.CommandSlaveArray(elsewhere, 1))
    context = manager.get_context()
    context.add_task(functools.partial(print, "what a task says"))
    assert list(context.get_results_unordered()) == [None]
    manager.shutdown()
    where = r"the output of a slave goes to \S+?:(/tmp/parallel-output\.\w+), for (\S+) cannot"
    told = eventually(lambda: re.search(where, caplog.text), what="a word on where it goes")
    assert told is not None
    assert told.group(2) == str(own_folder / "scratch" / "me" / "slave0.output")
    text = Path(told.group(1)).read_text()
    assert "what a task says" in text and "slave0.output cannot be written" in text
    assert Path(told.group(1)).stat().st_mode & 0o077 == 0
    assert not (own_folder / "scratch" / "me" / "slave0.output").read_text()


def test_how_a_slave_ended_says_where_its_output_is(make: Make, elsewhere: str) -> None:
    manager = make(0, python="sh -c 'exit 5' #")
    manager.add_slave(parallel.CommandSlaveArray(elsewhere, 1))
    context = manager.get_context()
    context.add_task(tasks.give)
    end = r"it exited with code 5 on \S+: it had lost the master; its output is in \S+:/tmp/parallel-output\.\w+"
    with pytest.raises(parallel.NoMoreSlavesError, match=end):
        list(context.get_results_unordered())


@pytest.mark.parametrize("what", ["array", "piped"])
def test_without_output_files_the_last_words_are_told_all_the_same(make: Make, what: str) -> None:
    speaks = "python3 -c 'import sys; print(\"out of ink\"); sys.exit(7)' #"
    manager = make(0, python=speaks, output=None)
    if what == "array":
        manager.add_slave(parallel.CommandSlaveArray("{command}", 1))
    else:
        manager.add_slave(parallel.PipedCommandSlave("{command}", python=speaks))
    context = manager.get_context()
    context.add_task(tasks.give)
    with pytest.raises(parallel.NoMoreSlavesError, match=r"(?s)exited with code 7.*last words.*\| out of ink"):
        list(context.get_results_unordered())
