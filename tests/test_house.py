"""The house rules: which way imports run, what may be imported, how large things are, what the README says."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import ROOT

LIBRARY = sorted([*ROOT.glob("parallel/**/*.py"), *ROOT.glob("slave/**/*.py")])
WAITING = {"threading", "socket", "time", "os", "select", "selectors", "multiprocessing", "subprocess", "signal"}
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "parallel", "slave", "tests", "tools"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_imports_run_one_way_and_need_no_package(path: Path) -> None:
    for module in imports(path):
        top = module.split(".")[0]
        if top not in ("parallel", "slave"):
            known = getattr(sys, "stdlib_module_names", None)
            assert known is None or top in known, f"{module} is not of the standard library"
        if name(path).startswith("slave/"):
            assert top != "parallel", f"the slave imports {module}"
        if name(path).startswith("parallel/core/"):
            assert top != "slave" and not module.startswith(("parallel.service", "parallel.launch"))
            assert top not in WAITING, f"core imports {module}"
        if name(path).startswith("parallel/service/"):
            assert not module.startswith(("parallel.launch", "parallel.manager", "parallel.context"))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_files_and_functions_are_of_a_size_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 50, f"{node.name} is {length} lines long"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_nothing_is_printed_to_stdout(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert "file" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno} prints"


def test_no_test_sleeps() -> None:
    for path in ROOT.glob("tests/**/*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "sleep", f"{name(path)}:{node.lineno} sleeps"


def test_the_top_level_holds_what_it_should() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - {"build", "lan_parallel.egg-info", "__pycache__"} == TOP_LEVEL


def test_what_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"(?<![./\w])(?:tools|parallel|slave|tests)/[\w./]*\w", readme):
        assert (ROOT / path).exists(), f"the README names {path}"
    import parallel

    for public in re.findall(r"`parallel\.(?!py`)(\w+)", readme):
        assert hasattr(parallel, public), f"the README names parallel.{public}"


def test_every_public_name_has_a_docstring() -> None:
    import parallel

    for public in parallel.__all__:
        assert getattr(parallel, public).__doc__, public


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_monotonic_time_counts(path: Path) -> None:
    """A clock that jumps changes nothing."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in ("time.time", "time.time_ns", "datetime.now", "datetime.today"), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "datetime", f"line {node.lineno}"
