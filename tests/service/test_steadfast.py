"""Threads of the master that go on after an exception, and user code that is called while the lock is held."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable

import pytest

import parallel
from parallel.service import expiry
from parallel.service.books import Books, log
from parallel.service.door import Door
from slave import handshake, wire
from tests.support.waiting import eventually

KEY = b"the key of these tests"


@pytest.fixture
def books() -> Books:
    made = Books(0.08, 3, {}, open_to_joiners=False)
    made.roster.expect(0, "test", "agent")
    return made


def test_the_timer_goes_on_after_a_bug_and_tells_it(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks: list[float] = []

    def tick(books: Books, now: float, late: float) -> None:
        ticks.append(now)
        if len(ticks) == 2:
            raise ZeroDivisionError("in the second tick")

    monkeypatch.setattr(expiry, "tick", tick)
    timer = expiry.ExpiryTimer(books)
    timer.start()
    try:
        eventually(lambda: len(ticks) > 4, what="more ticks")
    finally:
        timer.stop()
        timer.join()
    assert caplog.text.count("a bug in the expiry timer, which goes on; please report it") == 1
    assert "ZeroDivisionError: in the second tick" in caplog.text


@pytest.fixture
def door() -> Iterator[tuple[int, list[socket.socket]]]:
    """The port of an open door, and who was let in."""
    admitted: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))
    made = Door([listener], KEY, lambda sock, peer: admitted.append(sock))
    made.start()
    yield listener.getsockname()[1], admitted
    made.close()
    made.close()
    for sock in [listener, *admitted]:
        sock.close()


def test_the_door_stays_open_for_others_after_an_exception(
    door: tuple[int, list[socket.socket]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port, admitted = door
    real, troubles = handshake.judge, [MemoryError("no memory just now")]

    def judge(*arguments: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return real(*arguments)

    monkeypatch.setattr(handshake, "judge", judge)
    with socket.create_connection(("127.0.0.1", port), 5) as unlucky:
        unlucky.sendall(handshake.answer(KEY, wire.read_exactly(unlucky, handshake.GREETING_SIZE)))
        eventually(lambda: not troubles)
    connection = wire.Client(("127.0.0.1", port), KEY)
    eventually(lambda: len(admitted) == 1)
    connection.close()
    assert "a connection could not be accepted: MemoryError: no memory just now" in caplog.text


def test_a_door_may_be_closed_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = Door([listener], KEY, lambda sock, peer: None)
        door.start()
        door.close()
        door.close()
        assert not door.is_alive()


class LateBell:
    """Rings only when the thread has noticed by itself that it is over, and has closed the bell."""

    def __init__(self, door: Door, address: tuple[str, int], bell: socket.socket) -> None:
        self._door, self._address, self._bell = door, address, bell

    def send(self, data: bytes) -> int:
        with socket.create_connection(self._address):
            self._door.join(5)
        return self._bell.send(data)

    def close(self) -> None:
        self._bell.close()


def test_a_door_may_be_closed_while_somebody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = Door([listener], KEY, lambda sock, peer: None)
        door.start()
        with socket.create_connection(listener.getsockname()) as sock:
            sock.recv(1)  # it listens
        monkeypatch.setattr(door, "_bell_push", LateBell(door, listener.getsockname(), door._bell_push))
        door.close()
    assert not door.is_alive()


def slaves_of(books: Books) -> Callable[[], list[parallel.SlaveInfo]]:
    """`Manager.slaves` of a manager with these books."""
    getter: Any = parallel.Manager.slaves
    return lambda: getter.fget(SimpleNamespace(books=books))


def in_time(call: Callable[[], object]) -> bool:
    """Whether the call comes back, made in a thread of its own, which may hang."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


class Curious(logging.Handler):
    """A user's log handler that shows the slaves with each message."""

    def __init__(self, ask: Callable[[], list[parallel.SlaveInfo]]) -> None:
        super().__init__()
        self.ask, self.seen = ask, list[str]()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's own lock, for which the end of the program would wait if this hangs."""
        self.seen += [slave.state for slave in self.ask()]
        return True


def test_a_log_handler_may_ask_for_the_slaves(books: Books) -> None:
    handler = Curious(slaves_of(books))
    log.addHandler(handler)

    def lose() -> None:
        with books.lock:
            books.lose(books.roster.slaves[0], 0, "it was killed")

    try:
        assert in_time(lose), "a message told under the lock waits for the lock"
    finally:
        log.removeHandler(handler)
    assert handler.seen == ["expected"]


class Cycle:
    """Only the garbage collector ends it."""

    def __init__(self) -> None:
        self.itself = self


def test_a_finalizer_that_runs_under_the_lock_may_ask_for_the_slaves(books: Books) -> None:
    seen: list[parallel.SlaveInfo] = []
    ask = slaves_of(books)
    weakref.finalize(Cycle(), lambda: seen.extend(ask()))

    def collect() -> None:
        with books.lock:
            gc.collect()

    assert in_time(collect), "the finalizer waits for the lock"
    assert [slave.state for slave in seen] == ["expected"]
