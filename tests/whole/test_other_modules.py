"""Slaves whose modules are not the master's: missing, older, or without the tasks' own."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallel
from slave.keys import default_file
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import Program, slave
from tests.support.waiting import eventually

MODULE = """
import os
import time
if os.environ.get("LACKS") == "module":
    raise ModuleNotFoundError("No module named 'wares'", name="wares")
__version__ = os.environ.get("LACKS") or "2.1.0"
def work(x, gate):
    while not os.path.exists(gate):
        time.sleep(0.01)
    return x.n + 1
class Number:
    def __init__(self, n):
        self.n = n
if os.environ.get("LACKS") == "1.24.4":
    del Number
class Poison:
    def __call__(self):
        return 0
    def __setstate__(self, state):
        raise ValueError("nobody can rebuild this")
    def __getstate__(self):
        return {"a": 1}
"""


@pytest.fixture
def wares(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A module in the folder that the master works in."""
    (own_folder / "wares.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(own_folder))
    import wares  # type: ignore[import-not-found]  # the one above

    yield wares
    sys.modules.pop("wares", None)


def join(manager: parallel.Manager, programs: list[Program], lacks: str) -> None:
    """A slave by hand whose machine lacks that."""
    key = str(default_file())
    address = f"127.0.0.1:{manager.address[1]}"
    programs.append(slave(address, "-n", "1", "--key-file", key, **({"LACKS": lacks} if lacks else {})))


def everything(context: parallel.Context[int]) -> tuple[list[int], list[parallel.RemoteError]]:
    """The results, and the errors."""
    results: list[int] = []
    errors: list[parallel.RemoteError] = []
    while True:
        try:
            results.extend(context.get_results_unordered())
            return results, errors
        except parallel.RemoteError as error:
            errors.append(error)


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ("module", r"ModuleNotFoundError: No module named 'wares'"),
        ("1.24.4", r"AttributeError: .* attribute 'Number'.*wares 1.24.4 of .* is not the wares of the master"),
    ],
)
def test_a_slave_that_lacks_what_the_tasks_need_eats_none_of_them(
    make: Make,
    wares: object,
    programs: list[Program],
    own_folder: Path,
    caplog: pytest.LogCaptureFixture,
    lacks: str,
    why: str,
) -> None:
    manager = make(0, port=0, output=None)
    context = manager.get_context()
    join(manager, programs, lacks)
    manager.wait_for_slaves(1)
    join(manager, programs, "")
    manager.wait_for_slaves(2)
    for n in range(40):
        task = functools.partial(wares.work, wares.Number(n), str(own_folder / "gate"))  # type: ignore[attr-defined]
        context.add_task(task)
    context.get_results_unordered()
    eventually(lambda: "is out for context 1" in caplog.text, 60, what="the log's last word")
    (own_folder / "gate").touch()  # before, the other slave might have done them all
    results, errors = everything(context)
    assert sorted(results) == list(range(1, 41)) and not errors, errors
    assert [info.tasks_done for info in manager.slaves] == [0, 40]
    assert re.search(r"slave 0 .* cannot do task \d+, which others may: " + why, caplog.text)
    assert "slave 0 " in caplog.text.split("is out for context 1")[0].splitlines()[-1]
    assert re.search(r"master has wares 2.1.0", caplog.text)


def test_when_no_other_slave_is_left_the_error_is_the_tasks_and_names_both_versions(
    make: Make, wares: object, programs: list[Program]
) -> None:
    manager = make(0, port=0, output=None)
    context = manager.get_context()
    for n in range(5):
        context.add_task(functools.partial(wares.work, wares.Number(n), "gate"))  # type: ignore[attr-defined]
    join(manager, programs, "1.24.4")
    join(manager, programs, "1.24.4")
    manager.wait_for_slaves(2)
    results, errors = everything(context)
    assert not results and sorted(error.task_id for error in errors) == [1, 2, 3, 4, 5]
    for error in errors:
        assert "wares 1.24.4" in str(error) and "The master has wares 2.1.0" in str(error)
        assert "attribute 'Number'" in error.message and error.slave.startswith("slave ")


def test_one_bad_task_among_good_ones_costs_nobody_a_slave(make: Make, wares: object) -> None:
    manager = make(2, output=None)
    context = manager.get_context()
    context.add_task(wares.Poison())  # type: ignore[attr-defined]
    for n in range(30):
        context.add_task(functools.partial(tasks.square, n))
    results, errors = everything(context)
    assert sorted(results) == [n * n for n in range(30)]
    (error,) = errors
    assert error.task_id == 1 and "nobody can rebuild this" in error.message
    manager.wait_for_slaves(2)
    for n in range(30):
        context.add_task(functools.partial(tasks.square, n))
    assert len(everything(context)[0]) == 30
