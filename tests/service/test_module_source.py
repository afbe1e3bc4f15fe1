"""What the master has of its modules, found without importing any."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel.service.module_source import ModuleSource, requirement_of
from slave import archive
from slave.protocol import ABSENT, ARCHIVE, PIECE, SAME


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One in sys.path."""
    path = tmp_path / "programs"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def source(*ship: str, main: str | None = None) -> ModuleSource:
    return ModuleSource(ship, lambda: main)


def names(found: ModuleSource, name: str) -> list[str]:
    """The files that are sent of a module."""
    reply = found.find(name, "")
    assert reply.kind == ARCHIVE
    data = b"".join(found.piece(reply.digest, at, PIECE) for at in range(0, reply.size, PIECE))
    files = archive.unpack(data)
    assert archive.content_hash(files) == reply.digest
    return sorted(file.name for file in files)


def test_nothing_is_imported_for_it(folder: Path) -> None:
    (folder / "goods").mkdir()
    (folder / "goods/__init__.py").write_text("raise SystemExit('it was imported')")
    (folder / "alone.py").write_text("raise SystemExit('it was imported')")
    found = source()
    assert names(found, "goods") == ["goods/__init__.py"] and names(found, "alone") == ["alone.py"]
    assert found.find("absent", "").kind == ABSENT


def test_the_library_and_installed_packages_stay_but_those_that_are_named(folder: Path) -> None:
    assert [source().find(name, "").kind for name in ("json", "sys", "zipimport", "pytest")] == [ABSENT] * 4
    assert "pytest/__init__.py" in names(source("pytest"), "pytest")
    missed = source().find("numpy", "")
    assert missed.requirement.startswith("numpy==") and requirement_of("_pytest").startswith("pytest==")
    assert requirement_of("no_such_package") == ""


def test_what_was_sent_stays_until_it_is_loaded_anew(folder: Path) -> None:
    """All slaves are to run the same, and not what somebody is writing just now."""
    (folder / "alone.py").write_text("1")
    found = source()
    first = found.find("alone", "")
    (folder / "alone.py").write_text("other")
    assert found.find("alone", "") == first
    found.forget(["alone"])
    second = found.find("alone", "")
    assert second.digest != first.digest
    assert found.piece(first.digest, 0, 9), "somebody may be fetching it"
    found.forget(["alone"])
    assert not found.piece(first.digest, 0, 9)


def test_what_only_slaves_have_and_was_edited_is_told(folder: Path) -> None:
    (folder / "goods").mkdir()
    for file in ("goods/__init__.py", "goods/part.py", "alone.py", "loaded.py"):
        (folder / file).write_text("X = 1\n")
    importlib.invalidate_caches()
    importlib.import_module("loaded")
    found = source()
    for name in ("goods", "alone", "loaded"):
        names(found, name)
    assert found.edited() == []
    for file in ("goods/part.py", "loaded.py"):
        (folder / file).write_text("X = 22\n")
    assert found.edited() == ["goods"], "this program has loaded the other one: its affair"
    found.forget(found.edited())
    assert found.edited() == [] and names(found, "goods") and found.edited() == []
    (folder / "goods/part.py").unlink()
    assert found.edited() == ["goods"]


def test_a_module_that_slaves_were_told_is_not_there_is_noticed_when_it_comes(folder: Path) -> None:
    (folder / "goods").mkdir()
    (folder / "goods/__init__.py").write_text("")
    found = source()
    found.find("goods", "")
    found.find("later", "")
    assert not found.was_missed("goods") and not found.was_missed("other") and not found.was_missed("other.part")
    assert found.was_missed("later") and found.was_missed("goods.part")


def test_the_same_files_are_not_packed(folder: Path) -> None:
    (folder / "alone.py").write_text("1")
    spec = importlib.util.find_spec("alone")
    assert spec is not None
    stamp = archive.stamp_of(archive.files_of("alone", spec))
    assert source().find("alone", stamp).kind == SAME and source().find("alone", "0").kind == ARCHIVE


def test_modules_in_a_zip_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(folder / "app.pyz", "w") as made:
        for name in ("__main__.py", "goods/__init__.py", "goods/data/x.txt", "goods/a.pyc", "alone.py", "goodsmore.py"):
            made.writestr(name, "")
    monkeypatch.syspath_prepend(str(folder / "app.pyz"))
    found = source(main=str(folder / "app.pyz"))
    assert names(found, "goods") == ["goods/__init__.py", "goods/data/x.txt"] and names(found, "alone") == ["alone.py"]
    assert names(found, "__main__") == ["app.pyz"]
    assert source().find("__main__", "").kind == ABSENT
