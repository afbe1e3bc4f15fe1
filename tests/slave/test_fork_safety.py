"""What a fork copies and should not, or does not copy and should, is seen from outside."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slave import fork_safety
from slave.preload import Import
from tests.support.programs import environment

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="it is for Linux")

PROBE = """
import gc, os, random, signal, subprocess, sys, tempfile, threading, time
from slave import fork_safety
child = None
{before}
snapshot = fork_safety.Snapshot()
{source}
print(snapshot.trouble())
sys.stdout.flush()
if child is not None:
    child.kill()
os._exit(0)
"""


def trouble(source: str, before: str = "") -> str:
    command = [sys.executable, "-W", "error", "-c", PROBE.format(before=before, source=source)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MAPPED = "import mmap, re; path = re.search(r'r-xp .*?(/.*[.]so[.0-9]*)$', open('/proc/self/maps').read(), re.M)[1]"
COPY = f"{MAPPED}; import shutil; path = shutil.copy(path, os.path.join({{folder!r}}, 'copy.so.1'))"
EXECUTABLE = "mapped = mmap.mmap(os.open(path, 0), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)"


@pytest.mark.parametrize(
    ("before", "source", "why"),
    [
        (MAPPED, "kept = open(path, 'rb')", ""),
        (COPY, "kept = open(path, 'rb')", "it has opened /"),
        (COPY, "kept = mmap.mmap(os.open(path, 0), 0, prot=mmap.PROT_READ)", "it has opened /"),  # it is read as data
        (COPY, EXECUTABLE, ""),
        (f"{COPY}; {EXECUTABLE}", "kept = open(path, 'rb+')", "it has opened /"),
    ],
)
def test_descriptors_of_libraries(before: str, source: str, why: str, tmp_path: Path) -> None:
    """libffi keeps one, of itself: ctypes, and numpy with it, may be shared all the same."""
    seen = trouble(source, before.format(folder=str(tmp_path)))
    assert seen.startswith(why) and bool(seen) == bool(why)


def test_a_thread_that_is_about_to_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has waited for its end may still find it listed."""
    threads = [str(threading.get_native_id()), "999999999"]  # the latter above every id that there can be
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: threads)
        assert fork_safety.count_threads() == 1
        for flags, count in ((0x400000, 2), (0x400004, 0)):
            told = b"4711 (a) name) R 1 2 3 4 5 %d 7 8\n" % flags
            patch.setattr(fork_safety, "open", lambda *_, told=told: io.BytesIO(told), raising=False)
            assert fork_safety.count_threads() == count


NUMPY = "import numpy, numpy.random"
ONE_THREAD = "os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import decimal, sqlite3", ""),
        ("open(os.devnull)", ""),
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "it has started a thread"),
        ("kept = open(sys.executable)", "it has opened " + os.path.realpath(sys.executable)),
        ("r, w = os.pipe()", "it has opened pipe:"),
        ("child = subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3)", "it has started a process"),
        ("random.seed(1)", "it has used or seeded the generator of the module random"),
        ("kept = random.Random()", "it has a random generator of its own (random.Random)"),
        ("kept = random.SystemRandom()", ""),
        ("signal.signal(signal.SIGTERM, lambda *_: None)", "it has set the handler of a signal"),
        ("sys.stderr = open(os.devnull, 'w')", "it has replaced a standard stream"),
        ("os.chdir('/proc')", "it has changed the working folder, or the mask of files"),
        ("os.umask(0o123)", "it has changed the working folder, or the mask of files"),
        ("sys.modules['torch'] = sys", "torch is imported: its pools of threads (OpenMP)"),
    ],
)
def test_what_a_module_does_when_it_is_imported(source: str, why: str) -> None:
    seen = trouble(source)
    assert seen.startswith(why) and bool(seen) == bool(why)


@pytest.mark.parametrize(
    ("before", "source", "why"),
    [
        (ONE_THREAD, NUMPY, ""),
        ("", NUMPY, ""),  # OpenBLAS ends its threads before a fork
        (ONE_THREAD, f"{NUMPY}; numpy.random.seed(5)", "it has used or seeded numpy's global random generator"),
        (f"{ONE_THREAD}; {NUMPY}", "numpy.random.rand()", "it has used or seeded numpy's global random generator"),
        (ONE_THREAD, f"{NUMPY}; kept = numpy.random.default_rng()", "it has a random generator of its own"),
    ],
)
def test_what_a_module_does_with_numpy(before: str, source: str, why: str) -> None:
    pytest.importorskip("numpy")
    seen = trouble(source, before)
    assert seen.startswith(why) and bool(seen) == bool(why)


def test_known_libraries_are_left_out_with_all_that_comes_after_them() -> None:
    names = ["numpy", "torch.nn", "scipy"]
    assert fork_safety.fit([Import(name) for name in names]) == [Import("numpy")]
    assert all(why for why in fork_safety.UNFIT.values())
