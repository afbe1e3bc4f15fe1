"""Runs that go on where an earlier one was."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import random
import socket
import stat
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from parallel.checkpoint.disk import Disk
from slave.keys import find_key
from tests.checkpoint.files import Opened
from tests.conftest import Make
from tests.support.tasks import square
from tests.support.waiting import eventually

FILE = "fit.results"


def note(x: Any, *more: object) -> Any:
    """Writes that it ran, and returns what it was given."""
    with open("ran", "a") as file:
        file.write(f"{x}\n")
    return x


def setup_of(x: float) -> float:
    return x


def fail_first(x: int) -> int:
    """Raises when it runs for the first time."""
    if ran().count(str(x)) == 0:
        note(x)
        raise ValueError(x)
    return int(note(x))


class Unloadable:
    """Can be rebuilt when the file says so."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.x,)


def load(x: int) -> int:
    if not os.path.exists("loadable"):
        raise RuntimeError("not loadable")
    return x


def make_unloadable(x: int) -> Unloadable:
    note(x)
    return Unloadable(x)


def ran() -> list[str]:
    """What ran so far, in any run."""
    return Path("ran").read_text().split() if os.path.exists("ran") else []


def results(manager: parallel.Manager, count: int, **options: Any) -> list[Any]:
    """Of so many tasks."""
    context = manager.get_context(checkpoint=FILE, **options)
    for x in range(count):
        context.add_task(note, x)
    return list(context.get_results_unordered())


def in_file() -> int:
    """How many results the file holds."""
    with Opened(Path(FILE), write=False, key=find_key()) as opened:
        return len(opened.results())


def run_once(make: Make, count: int, **options: Any) -> list[Any]:
    """The same in a run of their own."""
    manager = make()
    try:
        return results(manager, count, **options)
    finally:
        manager.shutdown()


def test_what_is_known_comes_in_the_order_of_adding_and_without_a_slave(make: Make) -> None:
    assert sorted(run_once(make, 20)) == list(range(20))
    manager = make(0)
    assert results(manager, 20) == list(range(20))
    assert sorted(ran(), key=int) == [str(x) for x in range(20)]
    manager = make(1)
    manager.shutdown()


def test_no_slave_is_started_if_all_is_known(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    run_once(make, 3)
    caplog.clear()
    manager = make(1)
    assert results(manager, 3) == [0, 1, 2]
    assert [info.pid for info in manager.slaves] in ([], [0])
    assert f"3 of 3 tasks have their results in {os.path.abspath(FILE)}" in caplog.text


def test_the_others_run(make: Make) -> None:
    run_once(make, 5)
    manager = make()
    found = results(manager, 8)
    assert found[:5] == [0, 1, 2, 3, 4]
    assert sorted(found) == list(range(8))
    assert sorted(ran()) == [str(x) for x in range(8)]


def test_each_result_is_in_the_file_before_the_loop_sees_it(make: Make) -> None:
    context = make().get_context(checkpoint=FILE)
    for x in range(30):
        context.add_task(note, x)
    for count, _ in enumerate(context.get_results_unordered(), 1):
        assert in_file() >= count
    assert stat.S_IMODE(os.stat(FILE).st_mode) == 0o600


def test_results_are_in_the_file_while_the_loop_is_busy(make: Make) -> None:
    """A master that is killed in the middle of its loop's body loses nothing that has come."""
    context = make().get_context(checkpoint=FILE)
    for x in range(10):
        context.add_task(note, x)
    for _ in context.get_results_unordered():
        eventually(lambda: in_file() == 10, 60, "ten results in the file")
        break


def grown(size: int) -> bytes:
    """A task with a result of so many bytes."""
    return bytes(size)


@pytest.mark.parametrize(("size", "written"), [(5_000_000, [1, 2, 3, 4]), (10, [4, 4, 4, 4])])
def test_no_large_result_waits_for_those_behind_it(make: Make, size: int, written: list[int]) -> None:
    """They are given as they are written; small ones are written together."""
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(4):
        context.add_task(grown, size + x)
    store = manager._checkpoints._stores[os.path.realpath(FILE)]  # type: ignore[union-attr]
    with store._writing:  # nothing is written but by this reader
        found = context.get_results_unordered()
        eventually(lambda: len(context._mailbox.ready) == 4, 60, "four results")
        for count in written:
            assert len(next(found)) >= size
            assert in_file() == count
    assert list(found) == []


def test_large_results_that_were_cancelled_are_kept_by_nobody(make: Make) -> None:
    """Their digests may have been begun."""
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(3):
        context.add_task(grown, 5_000_000 + x)
    store = manager._checkpoints._stores[os.path.realpath(FILE)]  # type: ignore[union-attr]
    with store._writing:  # nothing is written but by this reader
        found = context.get_results_unordered()
        eventually(lambda: len(context._mailbox.ready) == 3, 60, "three results")
        next(found)  # and the digests of the next ones are begun
        assert store.file._digests._jobs
        context._recorder._writer.names.clear()  # type: ignore[union-attr]  # as if they had been cancelled
        assert len(list(found)) == 2
        assert not store.file._digests._jobs
    assert in_file() == 1


def test_tasks_that_are_the_same_are_counted(make: Make) -> None:
    for count in (2, 5):
        manager = make()
        context = manager.get_context(checkpoint=FILE)
        for _ in range(count):
            context.add_task(note, "same")
        assert list(context.get_results_unordered()) == ["same"] * count
        assert len(ran()) == count
        manager.shutdown()


@pytest.mark.parametrize("first", [0, square])
def test_tasks_that_refer_to_other_modules_than_the_first_one(make: Make, first: Any) -> None:
    """Also where their pickles look alike at a quick look."""
    inputs = [first, 1, square, b"\x93", "x" * 200, (square, os.getcwd), [2], 1, b"\x93\x93", square]

    def add_all(manager: parallel.Manager) -> parallel.Context[Any]:
        context = manager.get_context(checkpoint=FILE)
        for x in inputs:
            context.add_task(note, x)
        return context

    manager = make()
    assert len(list(add_all(manager).get_results_unordered())) == len(inputs)
    manager.shutdown()
    with Opened(Path(FILE), write=False, key=find_key()) as opened:
        files = opened.file
        modules = [[name for name, _, _ in files.origins[found.entry.origin].modules] for found in files.records()]
    assert sorted(map(tuple, modules)) == sorted(
        (__name__, square.__module__) if square in (x, *(x if isinstance(x, tuple) else ())) else (__name__,)
        for x in inputs
    )
    assert list(add_all(make(0)).get_results_unordered()) == inputs


def test_tasks_of_several_contexts_are_told_apart_by_their_setups(make: Make) -> None:
    for _ in range(2):
        manager = make()
        contexts = [manager.get_context(functools.partial(setup_of, x), checkpoint=FILE) for x in (1, 2)]
        for context in contexts:
            context.add_task(max, 0)
        assert [list(context.get_results_unordered()) for context in contexts] == [[1], [2]]
        manager.shutdown()


def test_large_results_and_their_buffers(make: Make) -> None:
    for slaves in (1, 0):
        manager = make(slaves)
        context = manager.get_context(checkpoint=FILE)
        for size in (0, 1000, 100_000, 3_000_000):
            context.add_task(bytearray, size)
        assert sorted(map(len, context.get_results_unordered())) == [0, 1000, 100_000, 3_000_000]
        manager.shutdown()


# -- which task is which


def test_keys_stand_for_tasks_whose_pickles_differ(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    for slaves in (1, 0):
        manager = make(slaves)
        context = manager.get_context(checkpoint=FILE)
        for x in range(3):
            context.add_task(note, random.random(), key=f"number {x}")
        assert len(list(context.get_results_unordered())) == 3
        with pytest.raises(parallel.InputError, match="the key 'number 1' was given to another task in this run"):
            context.add_task(note, 1, key="number 1")
        manager.shutdown()
    wrong: Any
    for wrong, error in ((7, parallel.InputTypeError), ("", parallel.InputError), ("x" * 1001, parallel.InputError)):
        with pytest.raises(error):
            make(0).get_context().add_task(note, 1, key=wrong)


def test_that_nothing_matches_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    for changing, word in ((False, "or of tasks that pickle"), (True, "or of a setup that pickles")):
        Path(FILE).unlink(missing_ok=True)
        for _ in range(2):
            caplog.clear()
            manager = make()
            context = manager.get_context(
                functools.partial(setup_of, random.random() if changing else 0), checkpoint=FILE
            )
            for x in range(2):
                context.add_task(note, x if changing else random.random())
            assert len(list(context.get_results_unordered())) == 2
            manager.shutdown()
        assert "none of the 2 results in" in caplog.text
        assert word in caplog.text
        assert 'add_task(..., key="...")' in caplog.text


def test_failures_are_tried_again(make: Make) -> None:
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(2):
        context.add_task(fail_first, x)
    with pytest.raises(parallel.RemoteError):
        list(context.get_results_unordered())
    context.add_task(fail_first, 0)  # the same as the one that failed
    found = list(context.get_results_unordered(errors="return"))
    assert [one for one in found if isinstance(one, int)] == [0]
    manager.shutdown()
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(2):
        context.add_task(fail_first, x)
    assert list(context.get_results_unordered()) == [0, 1]
    assert sorted(ran()) == ["0", "0", "1", "1"]


def test_cancelled_tasks_may_be_added_again(make: Make) -> None:
    context = make().get_context(checkpoint=FILE)
    context.add_task(note, 1, key="one")
    context.cancel()
    context.cancel(context.add_task(note, 1, key="one"))
    context.add_task(note, 1, key="one")
    assert list(context.get_results_unordered()) == [1]


def test_what_has_come_before_a_cancel_is_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(5):
        context.add_task(note, x)
    future = context.submit(note, 5)
    store = manager._checkpoints._stores[os.path.realpath(FILE)]  # type: ignore[union-attr]
    with store._writing:  # nothing is written for now
        eventually(lambda: future.done() and len(context._mailbox.ready) == 5, 60, "six results")
    context.cancel()
    assert sorted([*context.get_results_unordered(), future.result()]) == list(range(6))
    assert in_file() == 6


def test_a_result_that_cannot_be_rebuilt_is_made_again(make: Make) -> None:
    for expected in (parallel.ResultError, parallel.ResultError, int):
        manager = make()
        context = manager.get_context(checkpoint=FILE)
        context.add_task(make_unloadable, 1)
        assert [type(one) for one in context.get_results_unordered(errors="return")] == [expected]
        manager.shutdown()
        if len(ran()) == 2:
            Path("loadable").touch()
    assert len(ran()) == 3


# -- maps, futures, coroutines


@pytest.mark.parametrize(("method", "key"), [("map", None), ("map_unordered", str)])
def test_maps(make: Make, method: str, key: Callable[[Any], str] | None) -> None:
    for count in (30, 50):
        manager = make()
        context = manager.get_context(checkpoint=FILE)
        found = list(getattr(context, method)(note, range(count), key=key))
        assert sorted(found) == list(range(count))
        assert method == "map_unordered" or found == list(range(count))
        assert len(ran()) == count
        manager.shutdown()


def odd_one(x: Any) -> Any:
    """Fails for 7 the first time, and returns for 5 what cannot be rebuilt before the file says so."""
    return fail_first(x) if x == 7 else make_unloadable(x) if x == 5 else note(x)


def test_inputs_of_a_map_that_come_to_nothing_run_again(make: Make) -> None:
    """In the midst of others that come together: they alone, and the same input twice is two of them."""
    inputs = [*range(40), 3, "text", None]
    for expected in (2, 1, 0):
        manager = make()
        context = manager.get_context(checkpoint=FILE)
        found, errors = [], 0
        results = context.map_unordered(odd_one, inputs)
        while True:
            try:
                found.append(next(results))
            except parallel.RemoteError as error:
                assert error.index is not None
                assert inputs[error.index] in (5, 7)
                errors += 1
            except StopIteration:
                break
        assert errors == expected
        assert len(found) == len(inputs) - expected
        assert sorted(map(str, found)) == sorted(str(x) for x in inputs if x in found)
        manager.shutdown()
        if expected == 1:
            Path("loadable").touch()
    counts = {x: ran().count(x) for x in set(ran())}
    assert {x: count for x, count in counts.items() if count > 1} == {"3": 2, "5": 3, "7": 2}
    assert list(make(0).get_context(checkpoint=FILE).map(odd_one, inputs)) == inputs


def test_a_map_that_was_closed_goes_on(make: Make) -> None:
    """What its slaves had brought is in the file; the next map of this run has what was not given to anybody."""
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    results = context.map(note, range(200))
    assert [next(results) for _ in range(20)] == list(range(20))
    results.close()
    assert in_file() >= 20
    again = list(context.map(note, range(100, 300)))
    assert again == list(range(100, 300))
    manager.shutdown()
    before = len(ran())
    assert list(make(0).get_context(checkpoint=FILE).map(note, range(20))) == list(range(20))
    assert len(ran()) == before


def test_a_map_of_known_inputs_starts_no_slave(make: Make) -> None:
    for slaves in (1, 0):
        manager = make(slaves)
        context = manager.get_context(checkpoint=FILE)
        assert list(context.map(pow, range(200), range(200))) == [x**x for x in range(200)]
        assert list(context.map(square, range(200))) == [x * x for x in range(200)]
        manager.shutdown()


def test_an_input_without_a_key_is_its_own_error(make: Make) -> None:
    found = make(0).get_context(checkpoint=FILE).map(note, [1], key=lambda x: x)
    with pytest.raises(parallel.InputTypeError, match="a task's key must be a str"):
        next(found)
    assert list(found) == []


def test_iterables_of_tasks(make: Make) -> None:
    for count in (30, 100):
        manager = make()
        context = manager.get_context(checkpoint=FILE)
        context.add_tasks(functools.partial(note, x) for x in range(count))
        assert sorted(context.get_results_unordered()) == list(range(count))
        assert len(ran()) == count
        manager.shutdown()


def test_futures(make: Make) -> None:
    for slaves in (1, 0):
        manager = make(slaves)
        context = manager.get_context(checkpoint=FILE)
        futures = [context.submit(note, x) for x in range(5)]
        assert [future.result() for future in futures] == list(range(5))
        assert in_file() == 5
        manager.shutdown()
    assert len(ran()) == 5


def test_coroutines(make: Make) -> None:
    async def collect(manager: parallel.Manager) -> list[Any]:
        context = manager.get_context(checkpoint=FILE)
        for x in range(5):
            context.add_task(note, x)
        return [one async for one in context]

    for slaves in (1, 0):
        manager = make(slaves)
        assert sorted(asyncio.run(collect(manager))) == list(range(5))
        manager.shutdown()


# -- damage and other people's files


def test_a_damaged_result_costs_that_result_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is found only when its turn comes: the task runs then."""
    sizes = [2000, 2001, 2002]
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for size in sizes:
        context.add_task(bytearray, size)
    assert len(list(context.get_results_unordered())) == 3
    manager.shutdown()
    data = bytearray(Path(FILE).read_bytes())
    with Opened(Path(FILE), write=False, key=find_key()) as opened:
        data[list(opened.file.records())[1].end - 1] ^= 1
    Path(FILE).write_bytes(data)
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for size in sizes:
        context.add_task(bytearray, size)
    assert sorted(map(len, context.get_results_unordered())) == sizes
    assert "cannot be used, and its task runs again: it is damaged" in caplog.text
    assert manager.slaves[0].tasks_done == 1
    manager.shutdown()
    manager = make(0)
    context = manager.get_context(checkpoint=FILE)
    for size in sizes:
        context.add_task(bytearray, size)
    assert len(list(context.get_results_unordered())) == 3


def test_files_that_are_not_this_users(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make(0)
    Path("text").write_text("x,y\n1,2\n" * 30)
    Path("folder").mkdir()
    cases = {
        "text": "no checkpoint",
        "folder": "is a folder",
        "missing/fit": "No such file",
        "/dev/null": "is a device",
    }
    for name, words in cases.items():
        with pytest.raises(parallel.CheckpointError, match=words):
            manager.get_context(checkpoint=name)
    assert Path("text").read_text() == "x,y\n1,2\n" * 30
    run_once(make, 1)
    monkeypatch.setenv("PARALLEL_AUTHKEY", "another key of sixteen bytes")
    with pytest.raises(parallel.CheckpointError, match="sealed with another key than yours"):
        manager.get_context(checkpoint=FILE)
    with pytest.raises(parallel.InputTypeError, match="is no name of a file"):
        manager.get_context(checkpoint=7)  # type: ignore[arg-type]
    with pytest.raises(parallel.InputError, match="neither 'check' nor 'ignore'"):
        manager.get_context(checkpoint=FILE, code="no")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(make: Make) -> None:
    run_once(make, 1)
    os.chown(FILE, 12345, -1)
    with pytest.raises(parallel.CheckpointError, match="belongs to uid 12345: loading its results would run"):
        make(0).get_context(checkpoint=FILE)


def test_two_managers_of_one_program(make: Make) -> None:
    first, second = make(), make()
    results(first, 2)
    with pytest.raises(
        parallel.CheckpointError, match=f"in use by another manager of this program, process {os.getpid()}"
    ):
        second.get_context(checkpoint=FILE)
    first.shutdown()
    assert results(second, 2) == [0, 1]


HOLDER = """
import threading
import parallel
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.get_context(checkpoint='fit.results')
        print('open', flush=True)
        threading.Event().wait()
"""


def test_two_masters(make: Make, run: Any) -> None:
    """The second is told whose it is; when the first is killed it gets the file."""
    program = run(HOLDER)
    program.says("open")
    manager = make()
    words = f"in use by process {program.process.pid} on {socket.gethostname()}"
    with pytest.raises(parallel.CheckpointError, match=words):
        manager.get_context(checkpoint=FILE)
    program.kill()
    assert sorted(results(manager, 2)) == [0, 1]


# -- a file that cannot be written


class FaultyDisk(Disk):
    """Raises as it is told, after a part was written."""

    fault: OSError | None = None
    syncs = 0

    def write(self, offset: int, pieces: Any) -> int:
        if self.fault is not None:
            data = b"".join(map(bytes, pieces))
            super().write(offset, [data[: len(data) // 2]])
            raise self.fault
        return super().write(offset, pieces)

    def sync(self) -> None:
        type(self).syncs += 1
        super().sync()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> type[FaultyDisk]:
    """The file of the next context."""
    monkeypatch.setattr("parallel.checkpoint.store.Disk", FaultyDisk)
    monkeypatch.setattr(FaultyDisk, "fault", None)
    monkeypatch.setattr(FaultyDisk, "syncs", 0)
    return FaultyDisk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE])
def test_a_full_disk_is_an_error_at_the_next_result(make: Make, disk: type[FaultyDisk], number: int) -> None:
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    for x in range(6):
        context.add_task(note, x)
    disk.fault = OSError(number, os.strerror(number))
    found: list[Any] = []
    for _ in range(2):
        with pytest.raises(parallel.CheckpointError, match=f"{os.strerror(number)}. No result is lost"):
            found.extend(context.get_results_unordered())
    assert found == []
    disk.fault = None
    found.extend(context.get_results_unordered())
    assert sorted(found) == list(range(6))
    assert in_file() == 6
    manager.shutdown()
    assert sorted(results(make(0), 6)) == list(range(6))
    assert len(ran()) == 6


def test_what_cannot_be_written_at_the_end_is_told(
    make: Make, disk: type[FaultyDisk], caplog: pytest.LogCaptureFixture
) -> None:
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    context.add_task(note, 1)
    disk.fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(parallel.CheckpointError):
        next(context.get_results_unordered())
    manager.shutdown()
    assert "results that came last are in no file" in caplog.text


def test_a_folder_that_vanishes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at the next result; when the folder is back, the file is written again, with all that was known."""
    monkeypatch.setattr("parallel.checkpoint.store._LOOK_SECONDS", 0.0)  # however quickly it vanishes
    Path("folder").mkdir()
    manager = make()
    context = manager.get_context(checkpoint="folder/fit")
    for x in range(6):
        context.add_task(note, x)
    found = context.get_results_unordered()
    got = [next(found)]
    os.rename("folder/fit", "elsewhere")
    Path("folder/fit.lock").unlink()
    Path("folder").rmdir()
    with pytest.raises(parallel.CheckpointError, match="has vanished, or its folder"):
        next(found)
    Path("folder").mkdir()
    got.extend(context.get_results_unordered())
    assert sorted(got) == list(range(6))
    manager.shutdown()
    manager = make(0)
    context = manager.get_context(checkpoint="folder/fit")
    for x in range(6):
        context.add_task(note, x)
    assert len(list(context.get_results_unordered())) == 6


def test_results_are_synced_within_a_second_or_before_they_are_seen(make: Make, disk: type[FaultyDisk]) -> None:
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    context.add_task(note, 1)
    assert list(context.get_results_unordered()) == [1]
    eventually(lambda: disk.syncs, 60, "a sync")
    manager.shutdown()
    manager = make()
    context = manager.get_context(checkpoint="durable", durable=True)
    context.add_task(note, 1)
    disk.syncs = 0
    assert list(context.get_results_unordered()) == [1]
    assert disk.syncs
    manager.shutdown()


def test_a_signal_handler_that_reads_in_the_midst_of_writing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the same records to the same place."""
    manager = make()
    context = manager.get_context(checkpoint=FILE)
    store = manager._checkpoints._stores[os.path.realpath(FILE)]  # type: ignore[union-attr]
    write = Disk.write
    inner: list[int] = []

    def interrupted(self: Disk, offset: int, pieces: Any) -> int:
        if not inner:
            inner.append(offset)
            store.ensure(False)
        return write(self, offset, pieces)

    for x in range(6):
        context.add_task(note, x)
    monkeypatch.setattr(Disk, "write", interrupted)
    assert sorted(context.get_results_unordered()) == list(range(6))
    assert inner
    assert in_file() == 6


# -- other code


CODE = """
import sys
import parallel, work
if __name__ == '__main__':
    with parallel.Manager(output=None) as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context(checkpoint='fit.results', code=sys.argv[1])
        for x in range(3):
            c.add_task(work.work, x)
        print(sum(c.get_results_unordered()))
"""


@pytest.mark.slow
def test_results_of_other_code_are_not_used(run: Any, own_folder: Path) -> None:
    work = own_folder / "work.py"
    work.write_text("def work(x): return x\n")
    assert run(CODE, "check").ends() == 0
    work.write_text("def work(x): return 10 * x\n")
    again = run(CODE, "ignore")
    assert (again.ends(), again.out) == (0, "3\n")
    again = run(CODE, "check")
    assert (again.ends(), again.out) == (0, "30\n")
    assert again.err.count("were made by other code") == 1
    assert f"3 results in {own_folder / FILE} were made by other code, and are not used (changed: {work})" in again.err
    again = run(CODE, "check")
    assert (again.ends(), again.out) == (0, "30\n")
    assert "made by other code" not in again.err
