"""Large parts that are lent, over real Unix sockets."""

from __future__ import annotations

import array
import errno
import fcntl
import gc
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from slave import shared_memory, wire
from slave.errors import ProtocolError
from slave.local_transport import MOST_DESCRIPTORS, LocalTransport
from slave.memory import Unfit
from slave.shared_memory import SHARED, Borrower, Lender, Shared, as_sent
from slave.transport import SocketTransport

pytestmark = pytest.mark.skipif(not shared_memory.possible, reason="this system has no memfd")


class Pair:
    """Two ends of a Unix socket, of which ``a`` lends."""

    def __init__(self) -> None:
        self.a_sock, self.b_sock = socket.socketpair()
        self.a, self.b = (wire.Connection(LocalTransport(sock)) for sock in (self.a_sock, self.b_sock))
        self.a.lend()

    def through(self, message: object) -> Any:
        sender = threading.Thread(target=self.a.send, args=(message,))
        sender.start()
        received = self.b.recv()
        sender.join()
        return received

    def back(self) -> None:
        self.b.send("answer")
        assert self.a.recv() == "answer"

    @property
    def lent(self) -> set[int]:
        lender = self.a._lender
        assert lender is not None
        return set(lender._lent)

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    gc.collect()  # what other tests have left for it
    before = descriptors()
    made = Pair()
    yield made
    made.close()
    gc.collect()
    assert descriptors() <= before  # what a thread of another test had may be closed meanwhile


def descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def free(data: bytes) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(bytearray(data))


def numbers(first: int, size: int = SHARED) -> bytes:
    return bytes([first]) + b"z" * (size - 2) + bytes([first])


def test_what_is_lent_is_exact_and_can_be_written(pair: Pair) -> None:
    for first, size in enumerate((SHARED, 3 * SHARED + 7, SHARED + 1)):
        got, fixed, small = pair.through((free(numbers(first, size)), pickle.PickleBuffer(numbers(first, size)), b"s"))
        assert isinstance(got, shared_memory._View) and bytes(got) == numbers(first, size)
        assert type(fixed) is bytes and fixed == numbers(first, size) and small == b"s"
        got[:] = b"w" * size
        assert bytes(got) == b"w" * size


def test_memory_comes_back_when_nobody_refers_to_it_and_is_used_again(pair: Pair) -> None:
    first = pair.through(free(numbers(1)))
    part = memoryview(first)[10:20]
    del first
    pair.back()
    assert pair.lent == {0}, "a part of it is still looked at"
    second = pair.through(free(numbers(2)))
    assert bytes(part) == b"z" * 10
    del part
    pair.back()
    assert pair.lent == {1}
    third = pair.through(free(numbers(3)))
    assert bytes(second) == numbers(2) and bytes(third) == numbers(3)
    lender = pair.a._lender
    assert lender is not None and not lender._idle, "the memory of the first was used for the third"
    assert pair.lent == {1, 2}


def test_bytes_are_copied_and_their_memory_comes_back_at_once(pair: Pair) -> None:
    for first in range(3):
        assert pair.through(pickle.PickleBuffer(numbers(first))) == numbers(first)
        pair.back()
        assert pair.lent == set()


def test_what_a_forked_process_may_look_at_never_comes_back(pair: Pair) -> None:
    got = pair.through(free(numbers(1)))
    child = os.fork()
    if child == 0:
        os._exit(0 if bytes(got) == numbers(1) else 1)
    assert os.waitpid(child, 0)[1] == 0
    del got
    pair.back()
    assert pair.lent == {0}


def test_a_receiver_that_keeps_much_keeps_it_for_good(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_MOST_LENT", 2)
    kept = [pair.through(free(numbers(first))) for first in range(5)]
    assert pair.lent == {3, 4}
    kept.pop(0)
    pair.back()
    assert [bytes(one) for one in kept] == [numbers(first) for first in range(1, 5)]


def test_where_no_further_map_is_to_be_had_it_is_copied(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "most_views", lambda: 1)
    first, second = pair.through((free(numbers(1)), free(numbers(2))))
    assert isinstance(first, shared_memory._View) and type(second) is bytearray
    assert bytes(first) == numbers(1) and second == numbers(2)


def test_little_is_kept_for_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_MOST_IDLE_BYTES", 3 * SHARED)
    lender = Lender()
    for size in (SHARED, 2 * SHARED, 4 * SHARED, SHARED, SHARED, SHARED, SHARED):
        assert lender.lend(memoryview(bytes(size)))
    lender.take_back(range(100))
    lender.take_back([3])
    assert [len(one) for one in lender._idle] == [SHARED] * 3
    lender.close()


def test_more_parts_than_descriptors_in_one_message(pair: Pair) -> None:
    many = [numbers(first) for first in range(MOST_DESCRIPTORS + 3)]
    got = pair.through([free(one) for one in many])
    assert [bytes(one) for one in got] == many
    assert [isinstance(one, shared_memory._View) for one in got] == [True] * MOST_DESCRIPTORS + [False] * 3


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.ENOSYS])
def test_without_a_descriptor_or_memory_the_bytes_are_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "memfd_create", refused)
    got = pair.through(free(numbers(1)))
    assert type(got) is bytearray and got == numbers(1)


def test_memory_that_cannot_be_written_is_closed_and_the_bytes_are_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descriptors()
    monkeypatch.setattr(os, "pwrite", full)
    assert bytes(pair.through(free(numbers(1)))) == numbers(1) and pair.lent == set()
    assert descriptors() == before


def test_a_part_for_which_the_receiver_has_no_memory_is_skipped(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(shared_memory, "filled", poor)
    got = pair.through(pickle.PickleBuffer(numbers(1)))
    assert isinstance(got, Unfit) and got.size == SHARED
    pair.back()
    assert pair.lent == set()


def shared(data: bytes) -> Shared:
    descriptor = shared_memory.make()
    os.pwrite(descriptor, data, 0)
    shared_memory.seal(descriptor)
    return Shared.of(descriptor, len(data))


def test_memory_that_is_there_is_lent_as_it_is_to_each_and_closed_by_its_owner(pair: Pair) -> None:
    other = Pair()
    made = shared(numbers(1))
    before = descriptors()
    first, second, third = (one.through(pickle.PickleBuffer(made)) for one in (pair, other, pair))
    assert {len(descriptors()) - len(before)} <= {0, 3}, "a map has one before Python 3.13, and nothing was copied"
    first[:] = b"w" * SHARED
    assert bytes(second) == bytes(third) == bytes(made) == numbers(1)
    del first
    pair.back()
    assert pair.lent == {1}
    del made
    assert bytes(second) == numbers(1)
    assert pair.a._lender is not None and not pair.a._lender._idle, "it is for others, too"
    other.close()


def test_memory_whose_descriptor_a_task_has_closed_goes_in_silence() -> None:
    lender = Lender()
    assert lender.lend(memoryview(bytes(SHARED)))
    os.close(lender.descriptors[0])
    lender.close()  # what is raised where an object ends is a warning, and fails the test


def test_one_that_lends_only_what_is_there_sends_bytes_else(pair: Pair) -> None:
    pair.b.lend(copying=False)
    sender = threading.Thread(target=pair.b.send, args=((free(numbers(1)), pickle.PickleBuffer(shared(numbers(2)))),))
    sender.start()
    sent, lent = pair.a.recv()
    sender.join()
    assert type(sent) is bytearray and sent == numbers(1)
    assert isinstance(lent, shared_memory._View) and bytes(lent) == numbers(2)


def test_one_that_does_not_lend_sends_bytes(pair: Pair) -> None:
    pair.b.send(pickle.PickleBuffer(bytearray(10)))
    assert pair.a.recv() == bytearray(10)
    tcp = wire.Connection(SocketTransport(socket.socket()))
    tcp.lend()
    assert tcp._lender is None
    tcp.close()


# -- what a lender would not do


def announced(size: int) -> bytes:
    """A frame with one part that is lent."""
    body = pickle.dumps(None, 5)[:2] + b"\x97."  # PROTO, NEXT_BUFFER, STOP
    return struct.pack("!IQQ", 1, len(body), size | 1 << 62) + body


def send(sock: socket.socket, data: bytes, *given: int) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else [])
    for descriptor in given:
        os.close(descriptor)


def memory(size: int, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    made = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    return made


@pytest.mark.parametrize("what", ["too small", "can be shrunk", "no memory", "a file"])
def test_memory_that_is_not_as_announced_is_refused(pair: Pair, what: str) -> None:
    made = {
        "too small": lambda: memory(SHARED - 1),
        "can be shrunk": lambda: memory(SHARED, fcntl.F_SEAL_GROW),
        "no memory": lambda: os.open("/dev/zero", os.O_RDONLY),
        "a file": lambda: os.open(sys.executable, os.O_RDONLY),
    }[what]()
    send(pair.a_sock, announced(SHARED), made)
    with pytest.raises(ProtocolError, match="no memory of 1048576 bytes that stays"):
        pair.b.recv()


def test_a_descriptor_that_does_not_come_is_told(pair: Pair) -> None:
    send(pair.a_sock, announced(SHARED))
    with pytest.raises(ProtocolError, match="whose descriptor did not come"):
        pair.b.recv()


def test_descriptors_without_a_message_are_refused_and_closed(pair: Pair) -> None:
    with pytest.raises(ProtocolError, match="for which there is no message"):
        for _ in range(10):
            send(pair.a_sock, b"\0", *[os.open("/dev/null", os.O_RDONLY) for _ in range(MOST_DESCRIPTORS)])
            pair.b.transport.read_some(memoryview(bytearray(1)))


def test_memory_of_this_machine_does_not_come_over_the_network() -> None:
    near, far = socket.socketpair()
    connection = wire.Connection(SocketTransport(far))
    near.sendall(announced(SHARED))
    with pytest.raises(ProtocolError, match="has come from another"):
        connection.recv()
    near.close()
    connection.close()


def test_what_was_not_lent_is_not_taken_back(pair: Pair) -> None:
    pair.through(free(numbers(1)))
    pair.b_sock.sendall(struct.pack("!IQ3QB", 0xFFFF_FFFF, 25, 5, 1 << 63, 0, 0))
    pair.back()
    assert pair.lent == set()
    pair.a_sock.sendall(struct.pack("!IQQ", 0xFFFF_FFFF, 8, 0))
    with pytest.raises(ProtocolError, match="that is no message"):
        pair.b.recv()  # which has lent nothing


def test_a_borrower_outlives_its_lender(pair: Pair) -> None:
    got = pair.through(free(numbers(1)))
    pair.a.close()
    assert bytes(got) == numbers(1)
    got[0] = 7
    assert got[0] == 7


def test_borrowed_memory_has_no_descriptor_where_python_needs_none() -> None:
    borrower, lender = Borrower(), Lender()
    before = len(descriptors())
    assert lender.lend(memoryview(bytes(SHARED)))
    view = borrower.borrow(os.dup(lender.descriptors[0]), SHARED, False)
    assert len(descriptors()) - before == (1 if sys.version_info >= (3, 13) else 3)
    del view
    assert list(borrower.returned) == [0]
    lender.close()
    assert len(descriptors()) == before


def test_a_program_that_is_started_inherits_none(pair: Pair) -> None:
    got = pair.through(free(numbers(1)))
    listed = subprocess.run(
        [sys.executable, "-c", "import os; print(*map(os.readlink, ['/proc/self/fd/%s' % n for n in range(3, 40)\n"
         "if os.path.lexists('/proc/self/fd/%s' % n)]))"],
        stdout=subprocess.PIPE, text=True, check=True, close_fds=False,
    )  # fmt: skip
    assert "memfd" not in listed.stdout and bytes(got) == numbers(1)


def test_bytes_are_copied_when_they_are_wanted_and_not_before(pair: Pair) -> None:
    pair.b.borrow_lazily()
    size = 3 * shared_memory.STEP + 5
    bytes_, array_ = numbers(1, size), numbers(2, size)
    fixed, own, small = pair.through((pickle.PickleBuffer(bytes_), free(array_), b"small"))
    assert type(fixed) is memoryview and fixed.readonly and isinstance(own, shared_memory._View)
    assert as_sent(own) is own and as_sent(small) is small and len(pair.lent) == 2
    found = as_sent(fixed)
    assert type(found) is bytes and found == bytes_ and as_sent(found) is found
    del fixed
    pair.back()
    assert len(pair.lent) == 1  # the lender has it again, whatever becomes of the copy
    del own
