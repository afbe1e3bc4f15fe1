"""The cache of what the master has sent: once for all processes, nobody else's, and not without end."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slave import archive, module_cache
from slave.archive import File
from slave.errors import ProtocolError
from slave.module_cache import ModuleCache
from slave.private_files import Unsafe
from tests.support.waiting import eventually


class Master:
    """Has one package, and counts how often it was asked for it."""

    def __init__(self, text: str = "here", size: int = 0) -> None:
        files = [File("pkg/__init__.py", text.encode() + bytes(size), False)]
        self.digest, self.data, self.asked = archive.content_hash(files), archive.pack(files, compress=False), 0

    def __call__(self) -> bytes:
        self.asked += 1
        return self.data


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each cache is closed when its test is over."""
    made: list[ModuleCache] = []
    begin = ModuleCache.__init__

    def watched(self: ModuleCache, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(ModuleCache, "__init__", watched)
    yield
    for cache in made:
        cache.close()


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "place").mkdir()
    return str(tmp_path / "place")


def test_it_is_fetched_once(place: str) -> None:
    master = Master()
    for cache in (ModuleCache(place), ModuleCache(place)):
        for _ in range(2):
            folder = Path(cache.folder_of(master.digest, master))
            assert (folder / "pkg/__init__.py").read_text() == "here"
    assert master.asked == 1 and [one for one in os.listdir(place) if one.startswith("new")] == []


def test_what_has_been_changed_there_is_not_used(place: str) -> None:
    master, cache = Master(), ModuleCache(place)
    folder = Path(cache.folder_of(master.digest, master))
    cache.close()
    (folder / "pkg/__init__.py").write_text("there")
    (folder / "pkg/more.txt").write_text("a package may write beside itself")
    assert Path(cache.folder_of(master.digest, master)) == folder and master.asked == 2
    assert (folder / "pkg/__init__.py").read_text() == "here" and not (folder / "pkg/more.txt").exists()
    (folder / "pkg/more.txt").write_text("a package may write beside itself")
    assert Path(ModuleCache(place).folder_of(master.digest, master)) == folder and master.asked == 2


def test_what_others_use_and_have_changed_is_left_to_them(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "_LONGEST_REPAIR", 0.1)
    master, theirs = Master(), ModuleCache(place)
    folder = Path(theirs.folder_of(master.digest, master))
    (folder / "pkg/__init__.py").write_text("there")
    cache = ModuleCache(place)
    mine = Path(cache.folder_of(master.digest, master))
    assert mine != folder and (mine / "pkg/__init__.py").read_text() == "here" and master.asked == 2
    assert cache.folder_of(master.digest, master) == str(mine)
    assert (folder / "pkg/__init__.py").read_text() == "there"


def test_what_is_not_what_was_announced_is_refused(place: str) -> None:
    master, other = Master(), Master("other")
    with pytest.raises(ProtocolError, match="not what it had announced"):
        ModuleCache(place).folder_of(other.digest, master)
    assert [one for one in os.listdir(place) if not one.endswith(".lock")] == []
    assert ModuleCache(place).folder_of(other.digest, other)


def test_what_nobody_uses_goes_when_there_is_too_much(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "MOST", 2500)
    first, second, third = Master("1", 1000), Master("2", 1000), Master("3", 1000)
    user, other = ModuleCache(place), ModuleCache(place)
    user.folder_of(first.digest, first)
    other.folder_of(second.digest, second)
    other.close()
    for master, time in ((second, 2), (first, 1)):
        os.utime(os.path.join(place, master.digest), (time, time))
    ModuleCache(place).folder_of(third.digest, third)
    kept = {name for name in os.listdir(place) if not name.endswith((".lock", ".files"))}
    assert kept == {first.digest, third.digest}, "the first is older, but in use"
    ModuleCache(place).folder_of(second.digest, second)
    assert second.asked == 2


def test_nobody_else_may_have_a_hand_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "cache"))
    (tmp_path / "cache/parallel").mkdir(parents=True)
    os.chown(tmp_path / "cache/parallel", 12345, 12345)
    master = Master()
    with pytest.raises(Unsafe, match="belongs to"):
        ModuleCache().folder_of(master.digest, master)
    assert not master.asked
    os.chown(tmp_path / "cache/parallel", 0, 0)
    folder = Path(ModuleCache().folder_of(master.digest, master))
    assert folder.parent == tmp_path / "cache/parallel/modules" and folder.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_home_it_is_where_temporary_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    master = Master()
    assert Path(ModuleCache().folder_of(master.digest, master)).parent == tmp_path / "parallel/modules"


def use(place: str, log: Path) -> None:
    """The body of a process that wants the package."""
    master = Master(size=1 << 20)

    def fetch() -> bytes:
        note(log, "asked")
        return master()

    folder = ModuleCache(place).folder_of(master.digest, fetch)
    if os.path.getsize(os.path.join(folder, "pkg/__init__.py")) > 1 << 20:
        note(log, "used")


def note(log: Path, what: str) -> None:
    with log.open("a") as file:
        file.write(f"{what}\n")


def test_of_many_processes_one_fetches(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "_LONGEST_REPAIR", 60.0)  # who stood still sees no changed one
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=use, args=(place, tmp_path / "log")) for _ in range(20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.close()
    assert sorted((tmp_path / "log").read_text().split()) == ["asked", *["used"] * 20]


class Pieces:
    """A master that sends a setup."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.asked = payload, 0

    def __call__(self) -> list[bytes]:
        self.asked += 1
        return [self.payload[at : at + 30_000] for at in range(0, len(self.payload), 30_000)]


def test_a_setup_is_the_memory_of_a_file_that_is_sent_once(place: str) -> None:
    master = Pieces(os.urandom(100_000))
    digest = archive.setup_hash(master.payload)
    for _ in range(3):
        memory = ModuleCache(place).setup(digest, master)
        assert bytes(memory) == master.payload and master.asked == 1
        memory[:5] = b"12345"  # which stays this process's own


@pytest.mark.parametrize("what", ["changed", "as it was", "noted otherwise", "noted as once", "gone"])
def test_a_setup_that_somebody_has_touched_is_looked_at(place: str, what: str) -> None:
    master = Pieces(os.urandom(50_000))
    digest = archive.setup_hash(master.payload)
    folder, first = os.path.join(place, digest), ModuleCache(place)
    first.setup(digest, master)
    first.close()
    path, noted = Path(folder, archive.SETUP), Path(f"{folder}.files")
    if what == "gone":
        path.unlink()
    elif what.startswith("noted"):
        noted.write_text('["setup"]' if what == "noted as once" else "{}")
    else:
        before = path.stat().st_ctime_ns

        def touched() -> bool:  # once the file system's clock, which may tick slowly, has gone on
            path.write_bytes(master.payload if what == "as it was" else bytes(50_000))
            return path.stat().st_ctime_ns != before

        eventually(touched, what="another time of the file's last change")
    assert bytes(ModuleCache(place).setup(digest, master)) == master.payload
    assert master.asked == (2 if what in ("changed", "gone") else 1)


def test_a_setup_that_is_another_is_refused_and_leaves_nothing(place: str) -> None:
    master = Pieces(b"x" * 50_000)
    with pytest.raises(ProtocolError, match="not what it had announced"):
        ModuleCache(place).setup(archive.setup_hash(b"y" * 50_000), master)
    assert [name for name in os.listdir(place) if not name.endswith(".lock")] == []
