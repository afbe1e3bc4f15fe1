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
WAITING |= {"logging", "queue", "asyncio", "concurrent", "pathlib", "tempfile", "random", "secrets", "datetime"}

# which folder or file may import which others: everything not listed is refused
LAYERS = {
    "slave": ["slave"],
    "parallel/core": ["parallel.core", "slave.named", "slave.protocol"],
    "parallel/service": ["parallel.core", "parallel.service", "parallel.errors", "parallel.exits", "slave"],
    "parallel/launch": ["parallel.launch", "parallel.errors", "parallel.exits", "slave"],
    "parallel/monitor": [
        "parallel.monitor",
        "parallel.service",
        "parallel.core",
        "parallel.pickled",
        "parallel.errors",
        "slave",
    ],
    "parallel": ["parallel", "slave"],
}
# front ends of packages that a user may have; nothing else imports them
OPTIONAL = {"parallel/frontends/joblib.py": "joblib"}
LONG_CLASS, LONG_FUNCTION = 250, 40  # lines that ask for a second look
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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    two = "/".join(parts[:2])
    return two if two in LAYERS else parts[0]


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_imports_run_one_way_and_need_no_package(path: Path) -> None:
    allowed = LAYERS[layer_of(path)]
    for module in imports(path):
        top = module.split(".")[0]
        if top in ("parallel", "slave"):
            assert any(module == one or module.startswith(one + ".") for one in allowed), f"it imports {module}"
        else:
            known = getattr(sys, "stdlib_module_names", None)
            assert known is None or top in known or top == OPTIONAL.get(name(path)), (
                f"{module} is not of the standard library"
            )
            assert layer_of(path) != "parallel/core" or top not in WAITING, f"core imports {module}"


def test_no_file_imports_in_a_circle() -> None:
    """Whoever needs what needs it is given that: `Context` knows what it wants of a manager, not `Manager`."""
    modules = {module_of(path): path for path in LIBRARY}
    needs = {
        module: {one for one in imports(path) if one in modules and one != module}
        - {module.rpartition(".")[0]}  # a package's own __init__
        for module, path in modules.items()
    }
    order: list[str] = []
    while len(order) < len(needs):
        free = [module for module, wants in needs.items() if module not in order and wants <= set(order)]
        left = {module: sorted(wants - set(order)) for module, wants in needs.items() if module not in order}
        assert free, f"these import each other: {left}"
        order += free


def test_launchers_know_the_service_by_four_calls() -> None:
    calls = [
        node.name
        for node in ast.walk(tree_of(ROOT / "parallel/launch/slave_service.py"))
        if isinstance(node, ast.FunctionDef)
    ]
    assert calls == ["expect", "describe", "started", "ended"]


def test_what_is_long_is_shown_for_a_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    """No limit that is met by reflowing comments: a list to be read."""
    found = []
    for path in LIBRARY:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > (LONG_CLASS if isinstance(node, ast.ClassDef) else LONG_FUNCTION):
                    found.append(f"{name(path)}:{node.lineno} {node.name} is {length} lines long")
    with capsys.disabled():
        print("".join(f"\na second look: {line}" for line in found))


def test_private_parts_of_multiprocessing_are_touched_in_one_file() -> None:
    private = {"multiprocessing.managers", "multiprocessing.util", "multiprocessing.connection"}
    found = [name(path) for path in LIBRARY if private & set(imports(path))]
    assert found == ["slave/mp_adapter.py"]


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


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(ROOT.glob("tools/*.md"))], ids=name)
def test_what_the_documents_name_exists(path: Path) -> None:
    text = path.read_text()
    for named in re.findall(r"(?<![./\w])(?:tools|parallel|slave|tests)/[\w./]*\w", text):
        assert (ROOT / named).exists(), named
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert re.match("https?:", link) or (path.parent / link).exists(), link
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
    import parallel

    for public in re.findall(r"`parallel\.(?!py`)(\w+)", text):
        assert hasattr(parallel, public), f"parallel.{public}"


def test_the_readme_stays_short_enough_to_be_read() -> None:
    """What is long goes to tools/*.md, or into a docstring."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 480


def test_every_public_name_has_a_docstring() -> None:
    import parallel

    for public in parallel.__all__:
        assert getattr(parallel, public).__doc__, public


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_monotonic_time_counts(path: Path) -> None:
    """A clock that jumps changes nothing; a checkpoint tells when its results were made, and files when they were."""
    if name(path) in ("parallel/checkpoint/disk.py", "parallel/file_times.py", "slave/handover.py"):
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in ("time.time", "time.time_ns", "datetime.now", "datetime.today"), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "datetime", f"line {node.lineno}"


def test_all_packages_are_installed() -> None:
    """What ``pip install`` takes is listed."""
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert listed is not None
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("parallel", "slave")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == found
