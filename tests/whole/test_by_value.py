"""Lambdas, closures and what a session defines: sent by value where cloudpickle is, refused with both remedies else."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from parallel import payload
from slave import by_value
from tests.conftest import Make
from tests.support.programs import Program

CLOUD = pytest.mark.skipif(importlib.util.find_spec("cloudpickle") is None, reason="no cloudpickle for this Python")

SESSION = """
import parallel
class Shape:
    def __init__(self, side):
        self.side = side
class Wrong(Exception):
    pass
def double(shape):
    return Shape(2 * shape.side)
def setup():
    return Shape(4)
def fails(shape):
    raise Wrong(shape.side)
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context(setup)
_ = [c.add_task(task) for task in (double, lambda shape: shape.side + 1, Shape, fails)]
found, errors = [], []
def read():
    while True:
        try:
            found.extend(c.get_results_unordered())
            return
        except parallel.RemoteError as error:
            errors.append(error.exc)

read()
print("results", sorted(one if type(one) is int else type(one) is Shape for one in found), type(errors[0]) is Wrong)
m.shutdown()
"""
WAYS: dict[str, Callable[[str], list[str]]] = {
    "python -c": lambda text: [sys.executable, "-c", text],
    "a here-document": lambda text: ["/bin/sh", "-c", f"{sys.executable} - <<'END'\n{text}\nEND\n"],
    "python -i": lambda text: ["/bin/sh", "-c", f"{sys.executable} -q -i <<'END'\n{text}\nEND\n"],
    "code.interact": lambda text: [
        "/bin/sh",
        "-c",
        f"{sys.executable} -c 'import code; code.interact(local=dict(__name__=\"__main__\"))' <<'END'\n{text}\nEND\n",
    ],
    "IPython": lambda text: [sys.executable, "-m", "IPython", "--simple-prompt", "--colors=NoColor", "-c", text],
}


@CLOUD
@pytest.mark.parametrize("way", WAYS)
def test_what_a_session_defines_is_sent_by_value(own_folder: Path, way: str) -> None:
    if way == "IPython" and importlib.util.find_spec("IPython") is None:
        pytest.skip("no IPython for this Python")
    text = SESSION if way not in ("python -i", "code.interact") else interactive(SESSION)
    program = Program(*WAYS[way](text), cwd=own_folder, variables={"PYTHONWARNINGS": ""})
    assert program.ends() == 0, program.err
    assert "results [True, True, 5] True" in program.out, program.out + program.err


def interactive(text: str) -> str:
    """As somebody types it: an empty line ends a definition."""
    lines = text.splitlines()
    made = []
    for line, following in zip(lines, [*lines[1:], ""]):
        made.append(line)
        if line.startswith(" ") and following and not following.startswith(" "):
            made.append("")
    return "\n".join(made)


@CLOUD
def test_lambdas_and_closures_of_a_module(make: Make) -> None:
    manager = make(1)
    base = 40
    context = manager.get_context(lambda: (base, 2))
    context.add_task(lambda a, b: a + b)
    context.add_task(lambda extra, a, b: extra * (a + b), 10)
    assert sorted(context.get_results_unordered()) == [42, 420]
    assert context.submit(lambda a, b: a - b).result(60) == 38
    context.add_task(lambda a, b: a / 0)
    with pytest.raises(parallel.RemoteError, match=r"<lambda>") as caught:
        list(context.get_results_unordered())
    assert isinstance(caught.value.exc, ZeroDivisionError)


@CLOUD
def test_what_cannot_be_sent_by_value_either_says_why(make: Make) -> None:
    lock = threading.Lock()
    with pytest.raises(
        parallel.UnpicklableError, match=r"by value, by cloudpickle: TypeError: cannot pickle '_thread.lock'"
    ):
        make(1).get_context().add_task(lambda: lock)


@CLOUD
def test_another_version_of_python_is_told_before_anything_runs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel.payload.ByValue", OfAnother)
    context = make(1).get_context()
    context.add_task(lambda: 1)
    with pytest.raises(parallel.RemoteError) as caught:
        list(context.get_results_unordered())
    assert "<lambda> was sent by value by a master of Python 3.1, and this slave is" in str(caught.value)
    assert "Define it in a module, or start slaves with Python 3.1" in str(caught.value)


class OfAnother(by_value.ByValue):
    """From a Python of the future's past."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(name, b"nothing that may be loaded")
        self._parts = name, (3, 1), data


def test_without_cloudpickle_the_error_names_both_remedies(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    context = make(1).get_context()
    with pytest.raises(parallel.UnpicklableError) as caught:
        context.add_task(functools.partial(lambda n: n, 1))
    text = str(caught.value)
    assert "<lambda>" in text and "no name to import it by" in text
    assert "Put it into a module (a .py file beside you)" in text and "-m pip install cloudpickle" in text
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    context.add_task(abs, -1)
    assert list(context.get_results_unordered()) == [1]


def test_results_are_not_sent_by_value_where_nothing_came_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_value, "_used", False)
    assert by_value.dumps(lambda: 1) is None
    other: Any = ("f", (3, 1), b"")
    with pytest.raises(by_value.OtherPython):
        by_value.load_by_value(*other)
    assert not by_value._used
    assert by_value.load_by_value("f", sys.version_info[:2], pickle.dumps(7)) == 7 and by_value._used


def test_what_a_console_defines_is_told_with_the_remedies(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in code.interact() without ``local``: its names are of a module that nobody can import."""
    monkeypatch.setattr(payload, "_cloudpickle", lambda: None)
    names: dict[str, Any] = {"__name__": "__console__"}
    exec("def task(): return 1", names)
    with pytest.raises(parallel.UnpicklableError, match=r"odule (named )?'__console__'.*Put it into a module"):
        make(1).get_context().add_task(names["task"])
