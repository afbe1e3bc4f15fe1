"""slave.pyz: the slave program as one file."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parallel.launch.slave_file import (
    pack,
    slave_file,
    slave_file_hash,
    without_comments,
)
from slave.packed import MEMBER, unpacked
from tests.conftest import Make
from tests.support.programs import ROOT, pyenv, pythons

MOST = 120_000
OLD = [path for version in ("2.7", "3.6", "3.7", "3.8") for path in pyenv(version)]


def run(*command: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program with nothing of the checkout on its path."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**bare, **variables}, timeout=60
    )


@pytest.fixture
def file(own_folder: Path) -> Path:
    path = own_folder / "elsewhere" / "slave.pyz"
    path.parent.mkdir()
    done = run(sys.executable, str(ROOT / "tools" / "build_slave.py"), str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: {path.stat().st_size} bytes, SHA-256 {slave_file_hash()}\n")
    return path


def test_it_is_small(file: Path) -> None:
    assert len(slave_file()) <= MOST
    assert file.read_bytes() == slave_file()


@pytest.mark.slow
def test_it_is_the_same_whoever_packs_it(own_folder: Path) -> None:
    for version, python in [("this", sys.executable), *pythons()]:
        for zone, mask in (("UTC", "022"), ("Pacific/Auckland", "077")):
            other = own_folder / f"{version}-{mask}.pyz"
            done = run(
                "/bin/sh", "-c", f"umask {mask}; exec {python} -m parallel slave-file {other}", cwd=ROOT, TZ=zone
            )
            assert done.returncode == 0, done.stderr
            assert other.read_bytes() == slave_file(), f"Python {version} packs it otherwise"


def test_the_order_in_which_modules_are_found_changes_nothing() -> None:
    sources = {"__init__.py": b"", "__main__.py": b"", "a.py": b"1", "b.py": b"2", "packed.py": b"3"}
    assert pack(sources) == pack(dict(reversed(sources.items())))


def test_what_the_package_itself_would_do_is_not_left_out_in_silence() -> None:
    sources = {"__init__.py": b'"""Doc."""\nimport os\n', "__main__.py": b"", "packed.py": b""}
    with pytest.raises(ValueError, match="slave/__init__.py is left out of slave.pyz, so it may hold nothing but"):
        pack(sources)


def dumped(source: bytes) -> str:
    """Its syntax tree with the places where everything begins, but for what docstrings say."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value = ast.Constant("", lineno=node.value.lineno, col_offset=node.value.col_offset)
        if isinstance(node, (ast.stmt, ast.expr)):
            node.end_lineno = node.end_col_offset = 0  # a function may end with its docstring
    return ast.dump(tree, include_attributes=True)


@pytest.mark.parametrize("path", sorted((ROOT / "slave").glob("*.py")), ids=lambda path: path.name)
def test_only_docstrings_and_comments_are_left_out_and_no_line_moves(path: Path) -> None:
    source = path.read_bytes()
    packed = without_comments(source)
    assert dumped(packed) == dumped(source)
    assert len(packed.split(b"\n")) == len(source.split(b"\n"))


def test_what_stands_beside_a_docstring_stays() -> None:
    for source in (
        b'def f(): "doc"\n',
        b'"doc"; x = 1\n',
        b'class A:\n    "doc".x\n    b"x" + b""\n    "a" "b"\n',
        b'f(\n    "x",\n\n    "y"\n)\n[\n    "x"\n]\n',
    ):
        assert without_comments(source) == source
    text = 'def f():\n    # \u00e9\n\n    """\u00e9.\n\n    \u00e9\n    """  # \u00e9\n    return 1\n"x"'.encode()
    assert without_comments(text) == b'def f():\n\n\n    ""\n\n\n\n    return 1\n""'


def test_what_looks_like_a_comment_stays() -> None:
    source = 'x = "# é"  # é: why\nif x:  # so\n    # that\n    y = f"#{x}"\n'.encode()
    assert without_comments(source) == 'x = "# é"\nif x:\n\n    y = f"#{x}"\n'.encode()


def test_it_goes_to_stdout_too_and_says_where_it_cannot_be_written(own_folder: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "build_slave.py")]
    assert subprocess.run([*command, "-"], capture_output=True, check=True).stdout == slave_file()
    done = run(*command, str(own_folder / "missing" / "slave.pyz"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"parallel: {own_folder}/missing/slave.pyz cannot be written: No such file or directory\n"
    assert [path.name for path in own_folder.iterdir() if "pyz" in path.name] == []


def test_it_holds_the_whole_package_and_nothing_else(file: Path) -> None:
    archive = zipfile.ZipFile(file)
    assert archive.namelist() == ["__main__.py", "slave/__init__.py", f"slave/{MEMBER}"]
    names = {path.stem for path in (ROOT / "slave").glob("*.py")} - {"__init__"}
    assert unpacked(archive.read(f"slave/{MEMBER}")).keys() == names
    assert os.access(file, os.X_OK)


@pytest.mark.skipif(not OLD, reason="no Python older than 3.9 on this machine")
@pytest.mark.parametrize("python", OLD)
def test_an_old_python_says_so_in_one_line(file: Path, python: str) -> None:
    done = run(python, str(file), "127.0.0.1:1", PYTHONWARNINGS="")
    assert done.returncode == 6 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("slave: this is Python ") and line.endswith("; a slave needs 3.9 or newer")


def test_a_python_without_zlib_says_so_in_one_line(file: Path) -> None:
    hide = "import sys, runpy; sys.modules['zlib'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = run(sys.executable, "-c", hide, str(file), "127.0.0.1:1")
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert line == f"slave: this Python ({sys.executable}) has no zlib, without which slave.pyz cannot be read"


def every_python() -> list[tuple[str, str]]:
    """The system's own too, whose patch release is often an early one: 3.11.2 has other bugs than 3.11.7."""
    system = "/usr/bin/python3"
    recent = run(system, "-c", "import sys; sys.exit(sys.version_info < (3, 9))") if os.path.exists(system) else None
    return [
        ("this", sys.executable),
        *pythons(),
        *([("system", system)] if recent is not None and not recent.returncode else []),
    ]


@pytest.mark.parametrize(("version", "python"), every_python(), ids=[version for version, _ in every_python()])
def test_it_works_from_another_folder(make: Make, file: Path, version: str, python: str) -> None:
    manager = make(0, port=0)
    context = manager.get_context()
    for number in range(5):
        context.add_task(functools.partial(pow, number, 2))
    command = [python, file.name, f"127.0.0.1:{manager.address[1]}", "-n", "1"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(command, cwd=file.parent, env=bare, stderr=subprocess.PIPE, text=True) as program:
        assert sorted(context.get_results_unordered()) == [0, 1, 4, 9, 16]
        manager.shutdown()
        _, said = program.communicate(timeout=60)
    assert program.returncode == 0, said


def test_its_usage_names_it(file: Path) -> None:
    done = run(sys.executable, str(file), "--help")
    assert done.stdout.startswith("usage: python3 slave.pyz ")
