"""What every test gets: a folder and a home of its own, and a check that nothing is left behind."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from tests.support import engines, examples
from tests.support.inside import check
from tests.support.waiting import eventually

Make = Callable[..., parallel.Manager]

examples.load_profile()

# a shell ignores SIGINT in what it runs in the background, and programs inherit that: Ctrl-C would be nothing to them
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored


LONGEST = 600  # seconds, of one test with all that it waits for: an engine that is installed takes some minutes
_said = 2  # where the standard error goes while no test captures it; a copy of it, once that is known


def pytest_configure() -> None:
    """Remember the standard error: nothing is captured yet."""
    global _said
    _said = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that hangs ends its process, which says where each thread stood; the others go on in a new one."""
    faulthandler.dump_traceback_later(LONGEST, exit=True, file=_said)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Several processes run the tests, and each group of tests is run by one of them."""
    from tests.support.groups import Groups  # which needs pytest-xdist

    return Groups(config, log)


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """TMPDIR.  Its name is short: Unix sockets are made in there, and their names may have some 100 characters."""
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp" if os.name == "posix" else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with an empty home: no key and no output of anybody else."""
    home = tmp_path / "home"
    runtime = tmp_path / "runtime"  # where masters of this test are found, and no others
    for folder in (home, runtime):
        folder.mkdir()
    runtime.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary_folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it found before
    monkeypatch.delenv("PARALLEL_AUTHKEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def children() -> list[str]:
    """Command lines of this process's children."""
    found: dict[str, str] = {}
    for pid in _pids_of_children():
        try:
            found[pid] = f"{pid}: " + Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended
    return list(found.values())


def _pids_of_children() -> list[str]:
    """Each is listed by the thread that started it, and when that has ended by another one: then all are asked anew."""
    while os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        found = []
        try:
            for task in Path("/proc/self/task").iterdir():
                found += (task / "children").read_text().split()
        except OSError:
            continue
        return found
    return []  # this system does not tell


def ours() -> list[str]:
    """Names of this library's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("parallel")]


def descriptors() -> list[str]:
    """This process's open descriptors, but for those that libraries (libffi) have of their own files."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{fd}: " + os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # the descriptor of the listing itself
    return [one for one in found if not re.search(r"\.so(\.\d+)*$", one)]


def closed_but(most: int) -> bool:
    """Whether so many descriptors are open, at most, when the garbage collector has ended what is left for it."""
    if len(descriptors()) > most:
        gc.collect()
    return len(descriptors()) <= most


def shared_memory() -> list[str]:
    """Blocks of shared memory whose makers have ended (multiprocessing names them pym-PID-...)."""
    names = [path.name for path in Path("/dev/shm").glob("pym-*")] if Path("/dev/shm").exists() else []
    return [name for name in names if not Path(f"/proc/{name.split('-')[1]}").exists()]


@pytest.fixture(autouse=True)
def nothing_left(own_folder: Path, temporary_folder: Path) -> Iterator[None]:
    """Threads, processes, descriptors, shared memory and temporary files of a test are gone when it is over."""
    if not Path("/proc/self/fd").exists():
        yield
        return
    before_children, before, before_memory = children(), len(descriptors()), set(shared_memory())
    yield
    eventually(lambda: not ours(), 60, f"the end of threads {ours()}")
    new = eventually(lambda: [[one for one in children() if one not in before_children]], 0)
    eventually(lambda: not [one for one in children() if one not in before_children], 60, f"the end of processes {new}")
    eventually(lambda: closed_but(before), 60, f"{before} descriptors as before, not {descriptors()}")
    eventually(lambda: set(shared_memory()) <= before_memory, 60, f"no shared memory but {before_memory}")  # of others
    left = list(temporary_folder.iterdir())
    eventually(lambda: not list(temporary_folder.iterdir()), 60, f"no temporary files, not {left}")


@pytest.fixture(autouse=True)
def slaves_log() -> Iterator[None]:
    """What the slave program does to its log, where a test runs it in this process, is undone."""
    log = logging.getLogger("slave")
    handlers, level, propagates = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagates
    log.setLevel(level)  # which alone forgets what was not to be said


@pytest.fixture(scope="session", autouse=True)
def engines_end() -> Iterator[None]:
    """Engines that tests have started end after the last of them."""
    yield
    engines.end_all()


@pytest.fixture
def make(own_folder: Path) -> Iterator[Make]:
    """Makes managers with local slaves; ends them after the test and checks the invariants of their schedulers."""
    made: list[parallel.Manager] = []

    def build(slaves: int = 1, **options: object) -> parallel.Manager:
        manager = parallel.Manager(**options)  # type: ignore[arg-type]  # each test knows its options
        made.append(manager)
        for _ in range(slaves):
            manager.add_slave(parallel.LocalSlave())
        return manager

    yield build
    for manager in made:
        check(manager)
        manager.shutdown()
