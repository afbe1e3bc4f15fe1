"""Checkpoints as the tests need them: made in memory, read and damaged."""

from __future__ import annotations

from pathlib import Path

from parallel.checkpoint import format as fmt
from parallel.checkpoint.disk import Disk
from parallel.checkpoint.format import Entry
from parallel.checkpoint.results_file import ResultsFile

KEY = b"a key of sixteen bytes and more"


def identity(low: int, high: int = 0) -> bytes:
    """That of two numbers."""
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")


def low(entry: Entry) -> int:
    """The first of them."""
    return int.from_bytes(entry.identity[:8], "little")


class Opened:
    """A file that was opened and looked through: what it holds, and what was told about it."""

    def __init__(self, path: Path, write: bool = True, key: bytes = KEY, disk: Disk | None = None) -> None:
        self.told: list[str] = []
        self.disk = Disk(str(path), write) if disk is None else disk
        try:
            self.file = ResultsFile(self.disk, key, self.told.append)
        except BaseException:
            self.disk.close()
            raise

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *args: object) -> None:
        self.disk.close()

    def results(self) -> dict[tuple[int, int], bytes]:
        """Of each identity and number the payload, buffers behind one another; None of it damaged."""
        found = {}
        for record in self.file.records():
            payload = self.file.load(record)
            if payload is not None:
                found[low(record.entry), record.entry.nth] = bytes(b"".join([payload[0], *payload[1]]))
        return found

    def add(self, number: int, payload: bytes, buffers: tuple[bytes, ...] = (), key: bytes = b"") -> None:
        """One more result."""
        self.file.append([(fmt.RESULT, Entry(identity(number, 7), key=key), payload, buffers)])


def make(path: Path, *payloads: bytes) -> list[int]:
    """A file of so many results, with the identities 1, 2 ...; returns where each record begins, and the last ends."""
    offsets = []
    with Opened(path) as made:
        for number, payload in enumerate(payloads, 1):
            offsets.append(made.file.end)
            made.add(number, payload)
        return [*offsets, made.file.end]
