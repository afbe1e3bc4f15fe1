"""Job arrays on the real batch systems: what cannot be submitted, or started, and what the user is told."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.engines.conftest import Batch
from tests.support import tasks

pytestmark = pytest.mark.engines

FLAKY = """#!/bin/sh
PATH={path}
export PATH
echo "$@" >>{folder}/calls
case $(wc -l <{folder}/calls) in
{behaviour}
esac
exec {real} "$@"
"""


@pytest.mark.parametrize("accepted", [False, True])
def test_a_submission_is_tried_again_after_a_passing_failure(
    batch: Batch,
    make: Make,
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    accepted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And where the first one was accepted all the same, there are no two arrays."""
    complaint = {
        "sge": "error: unable to contact qmaster using port 16444 on host",
        "slurm": "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "htcondor": "error: Can not find address of local schedd; failed to connect",
    }[batch.name]
    first = f'{batch.submit} "$@" >/dev/null; ' if accepted else ""
    fake = own_folder / "bin" / batch.submit
    fake.parent.mkdir()
    behaviour = f"1) {first}echo '{complaint}' >&2; exit 1 ;;"
    path = os.environ["PATH"]
    fake.write_text(FLAKY.format(path=f"'{path}'", folder=fake.parent, behaviour=behaviour, real=batch.submit))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    manager = make(0)
    manager.add_slave(batch.array(2))
    manager.wait_for_slaves(2, 60)
    assert re.search(r"SlaveArray\(2\) cannot be started just now: it is not submitted yet: .*: .*error", caplog.text)
    assert len(batch.jobs()) == 2
    assert len((fake.parent / "calls").read_text().splitlines()) == (1 if accepted else 2)


def test_when_a_part_of_an_array_is_refused_the_rest_is_deleted(
    batch: Batch, make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = own_folder / "bin" / batch.submit
    fake.parent.mkdir()
    path = os.environ["PATH"]
    behaviour = "2) echo 'no more of that' >&2; exit 1 ;;"
    fake.write_text(FLAKY.format(path=f"'{path}'", folder=fake.parent, behaviour=behaviour, real=batch.submit))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    manager = make(0)
    manager.add_slave(batch.array(batch.longest + 2, batch.hold))
    with pytest.raises(parallel.LaunchError, match="no more of that"):
        manager.begin()
    batch.is_empty()


def test_a_refused_submission_is_told_and_the_manager_goes_on(batch: Batch, make: Make) -> None:
    option, words = {
        "sge": ("-l nonsense=3", 'unknown resource "nonsense"'),
        "slurm": ("-p nonsense", "invalid part"),
        "htcondor": ("universe = docker", "docker jobs require a docker_image"),
    }[batch.name]
    manager = make(1)
    manager.add_slave(batch.array(2, option))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    with pytest.raises(parallel.LaunchError, match=f"{batch.submit} .*{option if batch.shares_disk else ''}.*{words}"):
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == [9]
    assert [info.state for info in manager.slaves][1:] == ["ended", "ended"]


def test_a_slave_program_that_cannot_start(batch: Batch, make: Make) -> None:
    """All ended: the error says how, and the end of their output files."""
    manager = make(0, python="/no/such/python")
    manager.add_slave(batch.array(2))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        list(context.get_results_unordered())
    text = str(caught.value)
    assert "all 2 slaves have ended" in text and "it exited with code 127 on " in text
    assert re.search(r"the end of .*slave0\.output:\n    \| .*script.*: /no/such/python: not found", text)


def test_no_command_of_that_name(batch: Batch, make: Make, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    """The first classic complaint: it works in a terminal, and not in a notebook."""
    manager = make(0)
    with monkeypatch.context() as patch, pytest.raises(parallel.InputError) as caught:
        patch.setenv("PATH", str(own_folder))
        manager.add_slave(batch.array(2))
    text = str(caught.value)
    assert text.startswith(f"{batch.submit}: command not found; this program's PATH is {own_folder}. ")
    assert "add it to PATH where this program is started" in text and "os.environ['PATH'] += " in text
    assert not manager.slaves


def test_a_missing_module_is_told_with_its_remedy(batch: Batch, make: Make) -> None:
    manager = make(0)
    manager.add_slave(batch.array(1))
    context = manager.get_context()
    context.add_task(functools.partial(__import__, "no_such_module_here"))
    with pytest.raises(parallel.RemoteError) as caught:
        list(context.get_results_unordered())
    text = str(caught.value)
    assert re.search(r"No module 'no_such_module_here' for \S+ \(Python [\d.]+\) on \S+", text)
    assert "install it there, or name the Python that has it, Manager(python='...')" in text
