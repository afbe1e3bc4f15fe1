"""What the master has of its modules, found without importing any."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel.service.distributions import requirement_of
from parallel.service.module_source import ModuleSource
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


METADATA = "Metadata-Version: 2.1\nName: good-wares\nVersion: 1.5\n"


@pytest.mark.parametrize("way", ["beside it", "egg-info", "edited", "by its record", "in a zip file"])
def test_the_metadata_of_its_distribution_goes_along(folder: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Many packages ask `importlib.metadata` for their own version while they are imported."""
    (folder / "goods").mkdir()
    (folder / "goods/__init__.py").touch()
    about, other = folder / "good_wares-1.5.dist-info", folder / "other-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (other / "top_level.txt").write_text("other\n")
    if way == "egg-info":
        about = folder / "good_wares.egg-info"
    if way == "edited":  # the folder of the sources is not that where it is installed
        installed = folder.parent / "installed"
        monkeypatch.syspath_prepend(str(installed))
        about = installed / about.name
    about.mkdir(parents=True)
    (about / ("PKG-INFO" if way == "egg-info" else "METADATA")).write_text(METADATA)
    if way in ("beside it", "egg-info"):
        (about / "top_level.txt").write_text("goods\n")
    elif way == "edited":
        (about / "direct_url.json").write_text(f'{{"url": "{folder.as_uri()}", "dir_info": {{"editable": true}}}}')
    else:
        (about / "RECORD").write_text("goods/__init__.py,,\ngood_wares-1.5.dist-info/METADATA,,\n")
    if way == "in a zip file":
        packed = folder.parent / "app.pyz"
        with zipfile.ZipFile(packed, "w") as opened:
            for file in [folder / "goods/__init__.py", *about.iterdir(), *other.iterdir()]:
                opened.write(file, file.relative_to(folder))
        monkeypatch.setattr(sys, "path", [str(packed)])
    found = [name for name in names(source(), "goods") if name.endswith("/METADATA")]
    assert found == ["good_wares-1.5.dist-info/METADATA"]


def test_a_package_that_has_several_folders_is_sent_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pkgutil.extend_path` makes them; some folders in ``__path__`` may not be there."""
    other = folder.parent / "other"
    for one, module in ((folder, "first"), (other, "second")):
        (one / "goods").mkdir(parents=True)
        code = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n__path__.append('/not/there')\n"
        (one / "goods/__init__.py").write_text(code)
        (one / f"goods/{module}.py").touch()
    monkeypatch.syspath_prepend(str(other))
    monkeypatch.syspath_prepend(str(folder))
    importlib.import_module("goods.second")
    found = source()
    assert names(found, "goods") == ["goods/__init__.py", "goods/first.py", "goods/second.py"]
    spec = importlib.machinery.PathFinder.find_spec("goods")
    assert spec is not None
    stamp = archive.stamp_of(archive.without_compiled(archive.files_of("goods", spec))[0])
    assert source().find("goods", stamp).kind == SAME  # where the same folder is
