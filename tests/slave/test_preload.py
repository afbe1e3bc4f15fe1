"""What the first tasks will import of installed packages, found without running anything of the user's."""

from __future__ import annotations

import functools
import importlib
import operator
import pickle
import sys
from pathlib import Path

import pytest

from slave import environment
from slave.preload import Import, wanted

INSTALLED = ("heavy", "other")


def named(module: str, name: str) -> bytes:
    """A pickle that refers to a name in a module."""
    return f"c{module}\n{name}\n.".encode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, and one with installed packages, in sys.path."""
    packages, own = tmp_path / "packages", tmp_path / "own"
    own.mkdir()
    for name in INSTALLED:
        (packages / f"{name}-1.0.dist-info").mkdir(parents=True)
        (packages / f"{name}.py").write_text("raise SystemExit('it was imported')\n")
    monkeypatch.setattr(sys, "path", [str(own), str(packages), *sys.path])
    importlib.invalidate_caches()
    return own


def found(folder: Path, script: str, *payloads: bytes, **settings: object) -> list[str]:
    (folder / "script.py").write_text(script)
    surroundings = {**environment.describe(), "main_name": None, "main_path": str(folder / "script.py"), **settings}
    imports = wanted(payloads or [named("__main__", "f")], surroundings, sys.path)
    return [name if not parts else f"{name}: {' '.join(parts)}" for name, parts in imports]


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("import heavy\n", ["heavy"]),
        ("'text'\nfrom __future__ import annotations\nimport os\nimport heavy as h, other\n", ["heavy", "other"]),
        ("from heavy import a, b as c\nfrom other import *\n", ["heavy: a b", "other: *"]),
        ("import heavy.part.deep\n", ["heavy.part.deep"]),
        ("import parallel\nimport heavy\n", ["heavy"]),
        ("N = 5\nM: list = ['a', -1, (2, 3)]\ndef f(x=N): return g(x)\nclass A:\n    b = 1\nimport heavy\n", ["heavy"]),
        ("def f():\n    import heavy\n", []),
        ("if __name__ == '__main__':\n    import heavy\nimport other\n", ["other"]),
        ("try:\n    import heavy\nexcept ImportError:\n    heavy = None\nimport other\n", ["heavy", "other"]),
        ("import sys\nsys.path.insert(0, 'here')\nimport heavy\n", ["heavy"]),
    ],
)  # fmt: skip
def test_what_a_script_imports_first(folder: Path, script: str, names: list[str]) -> None:
    assert found(folder, script) == names


@pytest.mark.parametrize(
    "between",
    [
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'",
        "import os\nos.environ.setdefault('A', 'b')",
        "print('hello')",
        "x = f()",
        "import sys\nsys.flag = 1",
        "if x:\n    import more",
        "import is_not_there",
        "import own_that_does",
        "try:\n    import is_not_there\nexcept ImportError:\n    pass",
        "def f(x=g()): pass",
        "class A:\n    x = g()",
        "from ... import x",
    ],
)
def test_nothing_is_imported_before_what_the_user_does_first(folder: Path, between: str) -> None:
    (folder / "own_that_does.py").write_text("import other\nprint('hello')\n")
    expected = ["other", "heavy"] if "own_that" in between else ["heavy"]
    assert sorted(found(folder, f"import heavy\n{between}\nimport other\n")) == sorted(expected)


def test_a_variable_that_is_as_the_script_sets_it_is_no_hindrance(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport heavy\n"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert found(folder, script) == []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert found(folder, script) == ["heavy"]


def test_the_users_own_modules_are_read_and_not_run(folder: Path) -> None:
    package = folder / "mine"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import first\n")
    (package / "first.py").write_text("import heavy\n")
    (package / "sub" / "__init__.py").write_text("from ..second import x\nfrom . import deep\n")
    (package / "sub" / "deep.py").write_text("import mine\nimport other.deep\n")
    (package / "second.py").write_text("from other import second\nx = 1\n")
    assert found(folder, "", named("mine.first", "f")) == ["heavy"]
    assert found(folder, "", named("mine.sub.deep", "f")) == ["heavy", "other: second", "other.deep"]
    assert found(folder, "import mine.sub\n", named("__main__", "f")) == ["heavy", "other: second", "other.deep"]
    assert "mine" not in sys.modules


def test_what_pickles_refer_to_themselves(folder: Path) -> None:
    assert found(folder, "", named("heavy.part", "Class.method")) == ["heavy.part: Class"]
    assert found(folder, "", pickle.dumps(functools.partial(operator.add, 1)), named("other", "f")) == ["other: f"]
    assert found(folder, "", b"no pickle", named("other", "f")) == ["other: f"]


def test_what_the_master_sends_or_another_python_has_is_not_ours_to_import(folder: Path) -> None:
    assert found(folder, "import heavy\nimport other\n", ship=["other"]) == ["heavy"]
    surroundings = {**environment.describe(), "main_name": None, "main_path": None}
    assert wanted([named("heavy", "f")], surroundings, sys.path, same_python=False) == []
    assert wanted([named("heavy", "f")], surroundings, sys.path) == [Import("heavy", ("f",))]


@pytest.mark.parametrize("script", ["import heavy\n(", "import heavy\n\0", "x = " + "(" * 5000, "é".encode("latin-1")])
def test_what_is_no_python_is_no_trouble(folder: Path, script: str | bytes) -> None:
    text = script if isinstance(script, bytes) else script.encode()
    (folder / "broken.py").write_bytes(text)
    assert found(folder, "import broken\nimport other\n") == []
