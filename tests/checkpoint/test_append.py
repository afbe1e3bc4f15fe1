"""What is appended to a file of results, when it is large, fails, or is interrupted by who appends, too."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from parallel.checkpoint import digests
from parallel.checkpoint.disk import Disk
from parallel.checkpoint.format import GROUP, RESULT, Entry, Record
from parallel.checkpoint.results_file import LARGE, ResultsFile
from parallel.errors import CheckpointError
from tests.checkpoint.files import Opened, identity

BIG = bytes(range(256)) * (LARGE // 256)


def record(number: int, payload: bytes, *buffers: bytes) -> Record:
    """A result."""
    return RESULT, Entry(identity(number)), payload, buffers


def group(*numbers: int) -> Record:
    """Small results, each of which is its number."""
    return GROUP, Entry(b""), [identity(number) for number in numbers], [b"%d" % number for number in numbers]


def known(path: Path) -> dict[int, bytes]:
    """What is in the file, of which nothing is damaged."""
    with Opened(path, write=False) as opened:
        assert opened.told == []
        return {number: data for (number, _), data in opened.results().items()}


def test_large_results_among_small_ones(own_folder: Path) -> None:
    records = [
        record(1, b"one"),
        record(2, BIG),
        group(3, 4),
        record(5, b"head", BIG, b"", BIG[:1000]),
        record(6, BIG[:-1]),
    ]
    with Opened(own_folder / "file") as made:
        made.file.expect(BIG, ())
        made.file.append(records)
        made.file.append([record(7, b"seven")])
        made.file.close()
    found = known(own_folder / "file")
    assert found == {1: b"one", 2: BIG, 3: b"3", 4: b"4", 5: b"head" + BIG + BIG[:1000], 6: BIG[:-1], 7: b"seven"}


class StruckDisk(Disk):
    """Calls ``strike`` before each write, with how many there were."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), True)
        self.count = 0
        self.strike: Any = None

    def write(self, offset: int, pieces: Sequence[Any]) -> int:
        if self.strike is not None:
            self.count += 1
            self.strike(self.count)
        return super().write(offset, pieces)


@pytest.fixture
def struck(own_folder: Path) -> Iterator[Opened]:
    """A file with one result."""
    with Opened(own_folder / "file", disk=StruckDisk(own_folder / "file")) as opened:
        opened.file.append([record(1, b"one")])
        yield opened
        opened.file.close()


RECORDS = [group(2, 3), record(4, BIG), record(5, b"five")]
WRITES = 4  # that they take: one each, and the large one's beginning


@pytest.mark.parametrize("fatal", range(1, WRITES + 1))
def test_all_is_written_or_none(struck: Opened, own_folder: Path, fatal: int) -> None:
    disk: Any = struck.disk

    def fail(count: int) -> None:
        if count == fatal:
            raise OSError(errno.ENOSPC, "full")

    disk.strike = fail
    with pytest.raises(CheckpointError, match="full"):
        struck.file.append(RECORDS)
    assert known(own_folder / "file") == {1: b"one"}
    disk.strike = None
    struck.file.append(RECORDS)
    assert known(own_folder / "file") == {1: b"one", 2: b"2", 3: b"3", 4: BIG, 5: b"five"}


@pytest.mark.parametrize("killed", range(1, WRITES + 1))
def test_who_is_killed_in_the_midst_leaves_what_was_whole(struck: Opened, own_folder: Path, killed: int) -> None:
    disk: Any = struck.disk
    copies: list[bytes] = []

    def copy(count: int) -> None:
        if count == killed:
            copies.append((own_folder / "file").read_bytes())

    disk.strike = copy
    struck.file.append(RECORDS)
    (own_folder / "copy").write_bytes(copies[0])
    with Opened(own_folder / "copy") as opened:
        found = {number: data for (number, _), data in opened.results().items()}
    all_of_them = {1: b"one", 2: b"2", 3: b"3", 4: BIG, 5: b"five"}
    assert found == dict(list(all_of_them.items())[: {1: 1, 2: 3, 3: 3, 4: 4}[killed]])
    assert all(text.startswith("the last ") for text in opened.told), opened.told


@pytest.mark.parametrize("moment", range(1, WRITES + 1))
def test_a_handler_that_appends_in_the_midst_of_writing(struck: Opened, own_folder: Path, moment: int) -> None:
    """More has come meanwhile: what it writes has another length and other records."""
    disk: Any = struck.disk

    def interrupt(count: int) -> None:
        if count == moment:
            struck.file.append([group(2, 3, 6, 7), *RECORDS[1:], record(8, BIG[1:])])
            struck.file.append([record(9, b"nine")])

    disk.strike = interrupt
    struck.file.append(RECORDS)
    struck.file.append([record(10, b"ten")])
    small = {number: b"%d" % number for number in (2, 3, 6, 7)}
    wanted = {1: b"one", 4: BIG, 5: b"five", 8: BIG[1:], 9: b"nine", 10: b"ten", **small}
    assert known(own_folder / "file") == wanted


def test_a_handler_that_appends_before_it_is_known_what_is_written(
    struck: Opened, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = ResultsFile._planned
    calls: list[int] = []

    def interrupted(self: ResultsFile, begin: int, records: Sequence[Record], made: int | None) -> Any:
        plan = planned(self, begin, records, made)
        calls.append(begin)
        if len(calls) == 1:
            self.append([group(6, 7, 8)])
        return plan

    monkeypatch.setattr(ResultsFile, "_planned", interrupted)
    struck.file.append(RECORDS)
    small = {number: b"%d" % number for number in (2, 3, 6, 7, 8)}
    assert known(own_folder / "file") == {1: b"one", 4: BIG, 5: b"five", **small}


# -- digests


def expected(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_digests_begun_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """More are begun than are kept; some are asked for, some never, and one that was not begun."""
    payloads = [b"%d" % number * 5000 for number in range(digests.MOST + 3)]
    made = digests.Digests()
    for payload in payloads[:-1]:
        made.begin(payload, [b"more"])
    for payload in reversed(payloads):
        assert made.of(payload, [b"more"]) == expected(payload, b"more")
    for payload in payloads:
        made.begin(payload, ())
    made.close()
    assert made.of(payloads[0], ()) == expected(payloads[0])


def test_digests_without_a_thread_or_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = digests.Digests()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        made.begin(BIG, ())
        assert made.of(BIG, ()) == expected(BIG)

    def no_memory(payload: Any, buffers: Sequence[Any]) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(digests, "digest_of", no_memory)
        made.begin(BIG, ())
        job = made._jobs[id(BIG)]
        assert job.over.wait(30)
    assert made.of(BIG, ()) == expected(BIG)
    made.close()
