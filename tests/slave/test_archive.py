"""Archives: what goes in comes out, and nothing lands where it should not."""

from __future__ import annotations

import os
import pickle
import zlib
from importlib import machinery
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import archive
from slave.archive import File, Found
from slave.errors import ProtocolError

NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\\\0:."), min_size=1, max_size=8), min_size=1
)
FILES = st.dictionaries(NAMES.map("/".join), st.binary(max_size=50), max_size=6)


def files(**contents: bytes) -> list[File]:
    return [File(f"pkg/{name}.py", data, False) for name, data in contents.items()]


@given(FILES, st.booleans())
def test_what_is_packed_is_what_comes_out(contents: dict[str, bytes], compress: bool) -> None:
    made = [File(name, data, False) for name, data in contents.items()]
    out = archive.unpack(archive.pack(made, compress))
    assert out == made and archive.content_hash(out) == archive.content_hash(reversed(made))


def test_the_hash_tells_names_and_contents_apart() -> None:
    different = [files(a=b"1", b=b""), files(a=b"", b=b"1"), files(a=b"1"), files(ab=b"1"), files(a=b"1b"), []]
    assert len({archive.content_hash(one) for one in different}) == len(different)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no files with such names")
def test_data_files_may_have_any_name(tmp_path: Path) -> None:
    made = [
        File(f"pkg/{name}", name.encode(), False) for name in ("run 12:30:05.log", "a\\b.txt", "c:d", "\n", "ü'\"*?")
    ]
    archive.write(archive.unpack(archive.pack(made)), str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "pkg").iterdir()) == sorted(file.name[4:] for file in made)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "a//x", "", ".", "a/./x", "c:/x", "a\\..\\x", "x\0y", "a/", "n" * 5000]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep/folder"
    folder.mkdir(parents=True)
    with pytest.raises(ProtocolError):
        archive.unpack(archive.pack([File(name, b"", False)]))
    with pytest.raises(ProtocolError):
        archive.write([File(name, b"", False)], str(folder))
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        zlib.compress(pickle.dumps([("a", "text", False)])),
        zlib.compress(pickle.dumps([("a", b"", 1)], 5)),
        zlib.compress(pickle.dumps([("a", b"")], 5)),
        zlib.compress(pickle.dumps(7, 5)),
        zlib.compress(pickle.dumps(os.system, 5)),
        zlib.compress(pickle.dumps([], 5))[:-6],
    ],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        archive.unpack(data)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/pkg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        archive.write(files(a=b""), str(tmp_path / "here"))
    with pytest.raises(FileExistsError):
        archive.write([File("a", b"", False), File("a", b"", False)], str(tmp_path / "here"))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with all that there may be in one."""
    folder = tmp_path / "pkg"
    for name in ("__init__.py", "sub/part.py", "data/x.bin", "__pycache__/a.pyc", "old.pyc", ".git/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / f"sub/quick{machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    (folder / "round").symlink_to(folder)
    (folder / "linked.txt").symlink_to(folder / "data/x.bin")
    (folder / "run.sh").write_text("exit 0")
    (folder / "run.sh").chmod(0o755)
    os.mkfifo(folder / "fifo")
    return folder


def spec(folder: Path) -> machinery.ModuleSpec:
    found = machinery.PathFinder.find_spec(folder.name, [str(folder.parent)])
    assert found is not None
    return found


def test_a_package_goes_with_all_its_files_but_the_compiled(package: Path, tmp_path: Path) -> None:
    kept, compiled = archive.without_compiled(archive.files_of("pkg", spec(package)))
    names = ["__init__.py", "data/x.bin", "linked.txt", "run.sh", "sub/part.py"]
    assert [one.name for one in kept] == [f"pkg/{name}" for name in names] and compiled == ["pkg.sub.quick"]
    out = tmp_path / "out"
    out.mkdir()
    made = archive.read(kept)
    archive.write(made, str(out))
    there = archive.read(Found(file.name, str(out / file.name)) for file in made)
    assert archive.content_hash(there) == archive.content_hash(made)
    assert os.access(out / "pkg/run.sh", os.X_OK) and not os.access(out / "pkg/__init__.py", os.X_OK)
    assert (out / "pkg/data").stat().st_mode & 0o777 == 0o700
    assert (out / "pkg/linked.txt").read_bytes() == b"data/x.bin" and not (out / "pkg/linked.txt").is_symlink()


def test_a_stamp_is_that_of_the_same_files(package: Path) -> None:
    found = archive.files_of("pkg", spec(package))
    stamp = archive.stamp_of(found)
    assert stamp == archive.stamp_of(reversed(found))
    os.utime(package / "data/x.bin", ns=(1, 1))
    assert stamp != archive.stamp_of(found)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(archive.MOST + 1)
    with pytest.raises(ValueError, match="more than 512 MiB"):
        archive.read([Found("hole", str(tmp_path / "hole"))])
