"""Tasks as they are pickled: quickly, and as pickle itself would have it."""

from __future__ import annotations

import functools
import pickle
import sys
from types import ModuleType
from typing import Any, Callable

import pytest

from parallel.errors import UnpicklableError
from parallel.payload import Packer
from parallel.pickled import describe
from parallel.program import Program
from slave.environment import Environment
from slave.mapped import call


def double(number: int, plus: int = 0) -> int:
    return 2 * number + plus


@pytest.fixture(scope="module")
def program() -> Program:
    return Program()


@pytest.fixture
def packer(program: Program) -> Packer:
    return Packer(program)


@pytest.fixture
def environment(program: Program) -> Environment:
    return Environment(program.environment)


def test_a_task_is_what_pickle_makes_of_it_also_when_it_comes_again(packer: Packer, environment: Environment) -> None:
    for task in (double, double, len, functools.partial(double, 1), double):
        payload = packer.task(task, (), {})
        assert payload == pickle.dumps(task, 5)
        found = environment.loads(payload)
        assert found is task or found.func is double


@pytest.mark.parametrize("function", [double, len, functools.partial(double, 1)])
def test_arguments_come_with_it_and_are_told(
    packer: Packer, environment: Environment, function: Callable[..., Any]
) -> None:
    shared = [1] * 300
    for args in ((), (shared,), (shared, shared), ("x" * 70_000,)):
        payload = packer.task(function, args, {"plus": shared})
        (found, named), task = environment.loads(payload)
        assert (found, named) == (args, {"plus": shared}) and repr(task) == repr(function)
        assert named["plus"] is found[0] if args == (shared,) else True
    assert describe(packer.task(double, (4,), {"plus": 1})) == "double(4, plus=1)"
    assert call(pickle.loads(packer.task(double, (4,), {"plus": 1})), ()) == 9


class Interloper:
    """While it is pickled another thread adds a task of another function."""

    packer: Packer

    def __reduce__(self) -> tuple[Any, ...]:
        self.packer.task(half, (), {})
        return int, (4,)


def half(number: int) -> int:
    return number // 2


def test_several_threads_may_add_tasks_of_several_functions(packer: Packer) -> None:
    Interloper.packer = packer
    for _ in range(2):
        assert call(pickle.loads(packer.task(double, (Interloper(),), {})), ()) == 8


def test_a_map_s_input_is_told_as_it_is() -> None:
    assert describe(pickle.dumps((1, 2, 3))) == "(1, 2, 3)"
    assert describe(pickle.dumps(((1, 2), 3))) == "((1, 2), 3)"


def test_a_function_whose_name_stands_for_another_one_is_refused(
    packer: Packer, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("some_module")
    monkeypatch.setitem(sys.modules, "some_module", module)
    exec("def first(): return 1", vars(module))
    first = module.first
    for _ in range(2):
        payload = packer.task(first, (), {})
        assert environment.loads(payload) is first
    module.first = double  # type: ignore[attr-defined]
    try:
        found = environment.loads(packer.task(first, (), {}))
    except UnpicklableError as error:  # without cloudpickle
        assert "not the same object" in str(error)
    else:
        assert found() == 1
    assert environment.loads(payload) is double, "as pickle has it"
