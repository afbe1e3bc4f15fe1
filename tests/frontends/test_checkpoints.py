"""`Executor` and `Pool` with a checkpoint."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

import parallel
from parallel.checkpoint.disk import Disk
from tests.checkpoint.test_resume import note, ran

FILE = "fit.results"


def bare(x: int, data: bytes) -> int:
    return int(note(x)) + len(data)


def set_up(file: str) -> None:
    with open(file, "a") as log:
        log.write("set up\n")


def test_executors_go_on_where_they_were(own_folder: object) -> None:
    for count in (3, 5):
        with parallel.Executor(1, initializer=set_up, initargs=("log",), checkpoint=FILE) as executor:
            futures = [executor.submit(note, x) for x in range(count)]
            assert list(executor.map(note, range(10, 10 + count))) == list(range(10, 10 + count))
            assert [future.result() for future in futures] == list(range(count))
        assert len(ran()) == 2 * count


def test_pools_go_on_where_they_were(own_folder: object) -> None:
    large = bytes(50_000)
    for count in (3, 5):
        with parallel.Pool(1, checkpoint=FILE) as pool:
            assert pool.map(note, range(count)) == list(range(count))
            assert list(pool.imap(note, range(10, 10 + count))) == list(range(10, 10 + count))
            assert sorted(pool.imap_unordered(note, range(20, 20 + count))) == list(range(20, 20 + count))
            assert pool.starmap(note, [(x, 1) for x in range(30, 30 + count)]) == list(range(30, 30 + count))
            assert pool.apply(bare, (40 + count, large)) == 40 + count + len(large)
        assert len(ran()) == 4 * count + (1 if count == 3 else 2)


def test_a_pool_whose_calls_are_known_starts_no_slave(own_folder: object) -> None:
    for slaves in (1, 0):
        manager = parallel.Manager()
        for _ in range(slaves):
            manager.add_slave(parallel.LocalSlave())
        with parallel.Pool(manager=manager, checkpoint=FILE) as pool:
            assert pool.map(note, range(3)) == [0, 1, 2]
        manager.shutdown()


def test_a_full_disk_loses_no_result_of_a_pool(own_folder: object, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Disk.write

    def full(self: Disk, offset: int, pieces: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with parallel.Pool(1, checkpoint=FILE) as pool, parallel.Executor(1, checkpoint="other") as executor:
        assert pool.apply(note, (1,)) == executor.submit(note, 1).result() == 1
        monkeypatch.setattr(Disk, "write", full)
        result, future = pool.apply_async(note, (2,)), executor.submit(note, 2)
        for get in (result.get, future.result):
            with pytest.raises(parallel.CheckpointError, match="No space left on device. No result is lost"):
                get()
        monkeypatch.setattr(Disk, "write", write)
        assert (result.get(), future.result()) == (2, 2)
