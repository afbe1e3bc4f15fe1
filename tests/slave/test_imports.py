"""The finder: what is asked of the master, how often, and what is done with the answer."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel.service.module_source import ModuleSource
from slave import missing
from slave.imports import MasterFinder, fetched
from slave.link import CallFailed
from slave.module_cache import ModuleCache
from slave.protocol import PIECE, ModuleReply
from slave.protocol import SAME as SAME_FILES


class Master:
    """A master in this process: its modules are in a folder of its own, in the place of ``sys.path``."""

    def __init__(self, folder: Path, cache: ModuleCache) -> None:
        self.folder, self.cache = folder, cache
        self.source = ModuleSource((), lambda: str(folder / "script.py"))
        self.asked: list[str] = []
        self.fetched = 0
        self.error: Exception | None = None

    def find(self, name: str, stamp: str) -> ModuleReply:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        path = sys.path[:]
        sys.path[:] = [str(self.folder), *(one for one in path if not one.startswith(str(self.folder.parent)))]
        module, meta = sys.modules.pop(name, None), sys.meta_path[:]
        sys.meta_path[:] = [one for one in meta if not isinstance(one, MasterFinder)]
        try:
            importlib.invalidate_caches()
            return self.source.find(name, stamp)
        finally:
            sys.path[:], sys.meta_path[:] = path, meta
            if module is not None:
                sys.modules[name] = module

    def folder_of(self, found: ModuleReply) -> str:
        def fetch() -> bytearray:
            self.fetched += 1
            return fetched(found.size, lambda at: self.source.piece(found.digest, at, PIECE))

        return self.cache.folder_of(found.digest, fetch)


def write(folder: Path, **texts: str) -> None:
    """Modules of a package by their names; '/' is '__' in these."""
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.name == "init.py":
            path.rename(path.with_name("__init__.py"))


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    """A master on another machine; this process is the slave, and works in ``tmp_path / 'slave'``."""
    for name in ("master", "slave", "cache"):
        (tmp_path / name).mkdir()
    cache = ModuleCache(str(tmp_path / "cache"))
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "slave")])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.setattr(missing, "_requirements", {})
    made = Master(tmp_path / "master", cache)
    yield made
    cache.close()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def finder(master: Master, same_machine: bool = False, **environment: Any) -> MasterFinder:
    """One that is installed."""
    made = MasterFinder(master, {"host": "far", "ship": [], "changed": {}, **environment}, same_machine)  # type: ignore[arg-type]
    made.install()
    importlib.invalidate_caches()
    return made


def load(name: str) -> Any:
    return importlib.import_module(name)


def test_a_package_comes_whole_and_once(master: Master) -> None:
    write(master.folder, goods__init="from . import part", goods__part="NAME = __name__", goods__deep__last="NAME = 3")
    finder(master)
    assert load("goods").part.NAME == "goods.part" and load("goods.deep.last").NAME == 3
    assert importlib.util.find_spec("goods.nothing") is None
    assert master.asked == ["goods"] and master.fetched == 1
    assert load("goods").__file__.startswith(str(master.folder.parent / "cache"))


def test_what_nobody_has_is_asked_for_once(master: Master) -> None:
    made = finder(master)
    for _ in range(3):
        with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_at_all'"):
            load("nowhere_at_all")
    assert master.asked == ["nowhere_at_all"]
    write(master.folder, nowhere_at_all="NAME = 1")
    assert made.take_over({"ship": [], "changed": {}}, 1)  # the master's environment has changed
    assert load("nowhere_at_all").NAME == 1


def test_the_same_content_here_is_used(master: Master, tmp_path: Path) -> None:
    write(master.folder, goods__init="NAME = 1", single="NAME = 2")
    write(tmp_path / "slave", goods__init="NAME = 1", single="NAME = 2")
    finder(master)
    assert load("goods").__file__ == str(tmp_path / "slave/goods/__init__.py") and load("single").NAME == 2
    assert master.asked == ["goods", "single"] and not master.fetched


def test_files_of_the_same_size_and_time_are_not_even_read(master: Master, tmp_path: Path) -> None:
    write(master.folder, goods__init="NAME = 1")
    write(tmp_path / "slave", goods__init="NAME = 1")
    for folder in (master.folder, tmp_path / "slave"):
        os.utime(folder / "goods/__init__.py", ns=(5, 5))
    found: list[ModuleReply] = []
    find = master.find
    master.find = lambda name, stamp: found.append(find(name, stamp)) or found[-1]  # type: ignore[method-assign,func-returns-value]
    finder(master)
    assert load("goods").NAME == 1 and [one.kind for one in found] == [SAME_FILES]


def test_other_content_at_the_same_place_is_not_used(master: Master, tmp_path: Path) -> None:
    write(master.folder, goods__init="NAME = 1", goods__more="")
    write(tmp_path / "slave", goods__init="NAME = 0", goods__old="")
    finder(master)
    assert load("goods").NAME == 1 and importlib.util.find_spec("goods.old") is None and master.fetched == 1


def test_on_the_master_s_own_machine_nothing_is_asked_that_is_there(master: Master, tmp_path: Path) -> None:
    write(tmp_path / "slave", goods__init="NAME = 1")
    finder(master, same_machine=True)
    assert load("goods").NAME == 1 and not master.asked


def test_the_library_and_what_is_installed_here_is_this_machine_s_affair(master: Master) -> None:
    made = finder(master)
    for name in ("json", "pytest", "hypothesis"):
        assert made.find_spec(name) is None
    assert not master.asked
    shipping = finder(master, ship=["pytest"])
    assert shipping.find_spec("pytest") is None and master.asked == ["pytest"]  # this master has none


def test_a_namespace_package_can_have_parts_on_both_sides(master: Master, tmp_path: Path) -> None:
    write(master.folder, space__far="NAME = 1", space__under__far="NAME = 2")
    write(tmp_path / "slave", space__near="NAME = 3")
    finder(master)
    assert load("space.near").NAME == 3 and load("space.far").NAME == 1 and load("space.under.far").NAME == 2


def test_a_folder_of_the_same_name_here_is_no_package_of_the_master_s(master: Master, tmp_path: Path) -> None:
    write(master.folder, goods__init="NAME = 1")
    (tmp_path / "slave/goods").mkdir()
    finder(master)
    assert load("goods").NAME == 1


def test_a_part_of_what_is_here_alone_is_not_taken_from_the_master(master: Master, tmp_path: Path) -> None:
    """Half a package of one version and half of another is worse than none."""
    write(master.folder, goods__init="", goods__far="")
    write(tmp_path / "slave", goods__init="")
    finder(master, same_machine=True)
    with pytest.raises(ModuleNotFoundError):
        load("goods.far")
    assert not master.asked


def test_a_change_on_the_master_of_what_is_imported_here_wants_a_fresh_process(master: Master) -> None:
    write(master.folder, goods__init="", goods__a="", goods__b="NAME = 1", other="NAME = 1")
    made = finder(master)
    load("goods.a")
    assert importlib.util.find_spec("other") is not None  # found, not imported
    write(master.folder, other="NAME = 2")
    master.source.forget(["other"])
    assert made.take_over({"ship": [], "changed": {"other": 2}}, 1)
    assert load("other").NAME == 2
    assert made.take_over({"ship": [], "changed": {"other": 2, "goods.b": 2}}, 2)
    assert not made.take_over({"ship": [], "changed": {"other": 2, "goods.b": 3}}, 2)


def test_a_compiled_extension_is_not_sent_and_the_error_says_what_to_do(master: Master) -> None:
    write(master.folder, goods__init="")
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    for name in (f"goods/quick{suffix}", f"alone{suffix}"):
        (master.folder / name).write_bytes(b"")
    finder(master)
    for name in ("goods.quick", "alone"):
        with pytest.raises(ModuleNotFoundError) as caught:
            load(name)
        text = str(caught.value)
        assert text.startswith(f"{name} is a compiled extension module, and such are not sent; the master (far) has it")
        assert f"{sys.executable} -m pip install {name.partition('.')[0]}" in text
        assert caught.value.name == name


def test_a_master_that_cannot_be_asked_is_no_module_that_is_missing(master: Master) -> None:
    finder(master)
    master.error = ConnectionResetError("gone")
    with pytest.raises(ImportError, match=r"the master \(far\) could not be asked for goods: gone") as caught:
        load("goods")
    assert not isinstance(caught.value, ModuleNotFoundError)
    master.error = CallFailed("Traceback\nPermissionError: x.dat")
    with pytest.raises(ImportError, match=r"goods cannot be had from the master \(far\): PermissionError: x.dat"):
        load("goods")
    master.error = None
    write(master.folder, goods__init="NAME = 1")
    assert load("goods").NAME == 1


def test_threads_that_import_the_same_get_one_module(master: Master) -> None:
    write(master.folder, goods__init="import threading\nNAME = threading.get_ident()")
    finder(master)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(load("goods").NAME)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10 and len(set(found)) == 1 and master.asked == ["goods"]


def test_a_fork_can_import_although_a_thread_was_asking(master: Master) -> None:
    write(master.folder, goods__init="NAME = 1")
    made = finder(master)
    asking, forked = threading.Event(), threading.Event()

    def ask() -> None:
        with made._lock:
            asking.set()
            forked.wait(60)

    thread = threading.Thread(target=ask)
    thread.start()
    asking.wait(60)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        os._exit(load("goods").NAME + 40)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 41


def test_the_script_is_the_master_s_unless_it_is_the_same_here(master: Master, tmp_path: Path) -> None:
    (master.folder / "script.py").write_text("NAME = 1")
    made = finder(master)
    found = made.main_file(str(tmp_path / "gone/script.py"))
    assert found is not None and Path(found).name == "script.py" and Path(found).read_text() == "NAME = 1"
    assert finder(master, same_machine=True).main_file("/x.py") is None
    assert finder(master).main_file(str(master.folder / "script.py")) is None


def test_whether_the_next_master_has_other_modules(master: Master) -> None:
    """Those that were sent, and those that were the same here: both are compared with what the next one has."""
    write(master.folder, sent="X = 1", shared="X = 1", unused="X = 1")
    write(master.folder.parent / "slave", shared="X = 1")
    made = finder(master)
    assert load("sent").X == load("shared").X == 1
    assert made.has_sent(load("sent").__file__)
    assert not made.has_sent(load("shared").__file__)
    write(master.folder, unused="X = 2")
    assert made.another(None) == ""
    for name in ("sent", "shared"):
        write(master.folder, **{name: "X = 22"})
        master.source = ModuleSource((), lambda: None)  # the next master has made no archive yet
        assert made.another(None) == name
        write(master.folder, **{name: "X = 1"})
        master.source = ModuleSource((), lambda: None)
    assert made.another(None) == ""
    master.error = OSError("out of reach")
    assert made.another(None) in ("sent", "shared")
