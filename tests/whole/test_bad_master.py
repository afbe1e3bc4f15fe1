"""The master in trouble: no descriptors, no threads, no disk, signals, interpreter exit, two at once."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import Program, script, slave
from tests.support.waiting import eventually


def test_a_master_without_descriptors_says_so_and_goes_on(own_folder: Path, programs: list[Program]) -> None:
    programs.append(
        script(
            own_folder / "script.py",
            """
import functools, os, resource
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager(port=0, output=None) as m:
        print('port', m.address[1], flush=True)
        m.wait_for_slaves(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        while True:
            try:
                held.append(os.open('/dev/null', os.O_RDONLY))
            except OSError:
                break
        for _ in range(5):
            os.close(held.pop())
        print('short', flush=True)
        c = m.get_context()
        for n in range(300):
            c.add_task(functools.partial(tasks.wait_for, 'gate') if n < 2 else functools.partial(tasks.give, n))
        print('results', len(list(c.get_results_unordered())), flush=True)
        for handle in held:
            os.close(handle)
        m.wait_for_slaves(9, 120)
        print('all', flush=True)
""",
        )
    )
    master = programs[0]
    address = "127.0.0.1:" + master.says(r"port (\d+)").group(1)
    programs.append(slave(address, "-n", "1"))
    master.says("short")
    programs.extend(slave(address, "-n", "4") for _ in range(2))
    master.says(r"no connection can be accepted for now \(Too many open files\); raise the limit: ulimit -n")
    (own_folder / "gate").touch()
    assert master.says("results (.*)").group(1) == "300"
    master.says("all", 120)
    assert master.ends() == 0
    assert [program.ends() for program in programs[1:]] == [0, 0, 0]


def test_a_master_without_threads_says_so_and_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(2)
    start, refused = threading.Thread.start, list[str]()

    def limited(thread: threading.Thread) -> None:
        if thread.name == "parallel transfer" and len(refused) < 5:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    context = manager.get_context()
    for _ in range(50):  # large ones are received by threads of their own
        context.add_task(functools.partial(tasks.blob, 1_000_000))
    assert [len(result) for result in context.get_results_unordered()] == [1_000_000] * 50
    assert len(refused) == 5
    eventually(lambda: "cannot be served: can't start new thread" in caplog.text, what="a word on that")


@pytest.fixture
def small_disk(own_folder: Path) -> Iterator[Path]:
    """A folder on a disk of 64 kB."""
    folder = own_folder / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not possible here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_output_files(make: Make, small_disk: Path) -> None:
    """Tasks that print are told so; the others work."""
    manager = make(2, output=str(small_disk / "slave%d.output"))
    context = manager.get_context()
    manager.wait_for_slaves(2, 60)
    (small_disk / "filler").write_bytes(bytes(60_000))
    for number in range(10):
        context.add_task(functools.partial(tasks.say, 10_000 * "x"))
        context.add_task(functools.partial(tasks.give, number))
    results: list[Any] = []
    errors = []
    while True:
        try:
            results.extend(context.get_results_unordered())
            break
        except parallel.RemoteError as error:
            errors.append(error)
    assert sorted(result for result in results if result is not None) == list(range(10))
    assert errors and all("No space left on device" in str(error) for error in errors)
    (small_disk / "filler").unlink()
    context.add_task(tasks.give)
    assert list(context.get_results_unordered()) == [None]


BUSY = """
import functools
import parallel
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager(port=0, lease=LEASE)
    m.add_slave(parallel.LocalSlave())
    m.add_slave(parallel.LocalSlave())
    print('port', m.address[1], flush=True)
    c = m.get_context()
    for n in range(3):
        c.add_task(functools.partial(tasks.TASK))
    m.wait_for_slaves(3)
    print('busy', *[info.pid for info in m.slaves], flush=True)
    list(c.get_results_unordered())
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_slaves_of_a_master_that_is_killed_end_whatever_their_tasks_do(
    own_folder: Path, programs: list[Program], signum: int
) -> None:
    """Local ones within seconds; one by hand that is reached without a network notices as soon."""
    text = BUSY.replace("LEASE", "400").replace("tasks.TASK", "tasks.hold_the_interpreter, 'log', 300.0")
    programs.append(script(own_folder / "script.py", text))
    port = programs[0].says(r"port (\d+)").group(1)
    programs.append(slave(f"127.0.0.1:{port}", "-n", "1", "--grace", "0"))
    pids = [int(pid) for pid in programs[0].says("busy (.*)").group(1).split()]
    log = own_folder / "log"
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 3)
    programs[0].process.send_signal(signum)
    # three waits that are shorter than the lease and the tasks together: neither is waited for
    assert programs[0].ends() == -signum
    assert programs[1].ends() == 5
    eventually(lambda: not any(alive(pid) for pid in pids), 60, "the end of the slaves")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_daemon_thread_that_reads_results_when_the_interpreter_ends(
    own_folder: Path, programs: list[Program]
) -> None:
    programs.append(
        script(
            own_folder / "script.py",
            """
import functools, itertools, threading
import parallel
from tests.support import tasks
def read(context, event):
    for result in context.get_results_unordered():
        event.set()
if __name__ == '__main__':
    m = parallel.Manager(output=None)
    for _ in range(2):
        m.add_slave(parallel.LocalSlave())
    c = m.get_context()
    c.add_tasks(functools.partial(tasks.give, n) for n in itertools.count())
    event = threading.Event()
    threading.Thread(target=read, args=(c, event), daemon=True).start()
    event.wait()
    print('leaving', flush=True)
""",
        )
    )
    assert programs[0].ends() == 0
    assert programs[0].out == "leaving\n"
    for line in programs[0].err.splitlines():
        assert "Fatal" not in line and "core dumped" not in line


def test_ctrl_c_while_results_stream_is_prompt_and_leaves_nobody(own_folder: Path, programs: list[Program]) -> None:
    programs.append(
        script(
            own_folder / "script.py",
            """
import functools, itertools
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager(output=None) as m:
        for _ in range(2):
            m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_tasks(functools.partial(tasks.give, n) for n in itertools.count())
        for count, result in enumerate(c.get_results_unordered()):
            if count == 1000:
                print('pids', *[info.pid for info in m.slaves], flush=True)
""",
        )
    )
    pids = [int(pid) for pid in programs[0].says("pids (.*)").group(1).split()]
    began = time.monotonic()
    programs[0].process.send_signal(signal.SIGINT)
    assert programs[0].ends() in (-signal.SIGINT, 1, 130)
    assert time.monotonic() - began < 30
    assert programs[0].err.rstrip().endswith("KeyboardInterrupt")
    eventually(lambda: not any(alive(pid) for pid in pids), what="the end of the slaves")


def test_two_managers_used_from_two_threads(make: Make) -> None:
    found: dict[int, Any] = {}

    def use(index: int, manager: parallel.Manager) -> None:
        context = manager.get_context(functools.partial(tasks.give, index))
        for number in range(500):
            context.add_task(functools.partial(tasks.give_both, number))
        found[index] = sorted(context.get_results_unordered())

    threads = []
    for index in (0, 1):
        output = os.fspath(Path(f"manager{index}-slave%d.output").absolute())
        manager = make(1, output=output)
        threads.append(threading.Thread(target=use, args=(index, manager)))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert found == {index: [(number, index) for number in range(500)] for index in (0, 1)}
