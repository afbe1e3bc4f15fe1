"""The memory of arrays that are to be lent: it is used again, and never while anybody looks at it."""

from __future__ import annotations

import errno
import gc
import os
import pickle
from collections.abc import Iterator

import pytest

from parallel.part_memory import PartMemory
from slave import shared_memory
from slave.shared_memory import SHARED, Lender, Shared
from tests.conftest import descriptors

pytestmark = pytest.mark.skipif(not shared_memory.possible, reason="this system has no memfd")


def memfds() -> int:
    gc.collect()  # of another test's too
    return sum("memfd:" in one for one in descriptors())


@pytest.fixture
def memory() -> Iterator[PartMemory]:
    gc.collect()  # what other tests have left for it
    before = memfds()
    made = PartMemory()
    yield made
    made.close()
    gc.collect()
    assert memfds() == before


def data(number: int, size: int = SHARED) -> memoryview:
    return memoryview(bytearray([number]) * size)


def copied(memory: PartMemory, number: int, size: int = SHARED) -> memoryview:
    made = memory.copy_of(data(number, size))
    assert made is not None and made.nbytes == size and bytes(made) == bytes(data(number, size))
    return made


def where(part: memoryview) -> Shared:
    """The memory that it is in."""
    segment = part.obj
    assert isinstance(segment, Shared)
    return segment


def test_a_copy_is_exact_and_stays_when_what_it_was_made_of_is_changed(memory: PartMemory) -> None:
    for size in (SHARED, SHARED + 1, 3 * SHARED - 1, 40 * SHARED):
        for _ in range(3):  # fresh, and used again
            original = data(1, size)
            part = memory.copy_of(original)
            assert part is not None and not part.readonly
            original[:] = bytes(size)
            assert bytes(part) == bytes(data(1, size))
            del part


def test_one_of_what_cannot_be_written_cannot_be_either(memory: PartMemory) -> None:
    part = memory.copy_of(data(1).toreadonly())
    assert part is not None and part.readonly
    segment = id(where(part))
    del part
    assert id(where(copied(memory, 2))) == segment


def test_memory_is_used_again_when_nobody_refers_to_the_part(memory: PartMemory) -> None:
    part = copied(memory, 1)
    segment = id(where(part))
    sent = pickle.PickleBuffer(part).raw()[10:20]  # as it waits to be sent by a socket
    del part
    other = copied(memory, 2)
    assert id(where(other)) != segment and bytes(sent) == bytes([1]) * 10
    del sent
    assert id(where(copied(memory, 3))) == segment
    assert bytes(other) == bytes(data(2))


def test_memory_is_used_again_when_each_slave_has_given_it_back(memory: PartMemory) -> None:
    first, second = Lender(copying=False), Lender(copying=False)
    part = copied(memory, 1)
    segment = id(where(part))
    for lender in (first, first, second):
        assert lender.lend(pickle.PickleBuffer(part).raw())
    del part
    for lender, number in ((first, 0), (second, 0), (first, 1)):
        assert id(where(copied(memory, 2))) != segment
        lender.take_back([number])
    assert segment in {id(where(one)) for one in [copied(memory, 3), copied(memory, 4)]}


def test_memory_of_a_slave_that_has_gone_is_never_used_again(memory: PartMemory) -> None:
    lender = Lender(copying=False)
    part = copied(memory, 1)
    segment = where(part)
    assert lender.lend(pickle.PickleBuffer(part).raw())
    del part
    lender.close()
    lender.take_back([0])
    parts = [copied(memory, number) for number in range(20)]
    assert all(where(one) is not segment for one in parts)


def test_little_is_kept_for_the_next_tasks(memory: PartMemory) -> None:
    before = memfds()
    parts = [copied(memory, number) for number in range(20)]
    parts.clear()
    assert (memfds() - before) // 2 <= 8
    parts = [copied(memory, number, 30 * SHARED) for number in range(4)]
    parts.clear()
    assert sum(map(len, memory._free)) <= 64 * SHARED
    part = copied(memory, 1)
    assert len(where(part)) == SHARED, "what is much too large is kept for others"
    memory.close()
    del part
    assert memfds() == before


def test_where_there_is_no_memory_or_descriptor_there_is_no_copy(
    memory: PartMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    memory._most = 2
    parts = [copied(memory, number) for number in range(2)]
    assert memory.copy_of(data(3)) is None
    parts.pop()
    assert bytes(copied(memory, 4)) == bytes(data(4))
    parts.clear()
    gc.collect()
    monkeypatch.setattr(os, "pwrite", refused)
    assert memory.copy_of(data(5, 40 * SHARED)) is None
    monkeypatch.setattr(os, "memfd_create", refused)
    assert memory.copy_of(data(5, 2 * SHARED)) is None
