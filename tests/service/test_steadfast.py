"""Threads of the master that go on after an exception, or say that they cannot; and user code that they survive."""

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
from parallel.core import events as ev
from parallel.core.scheduler import Scheduler
from parallel.errors import InternalError
from parallel.service.acceptor import Acceptor
from parallel.service.dispatcher import Dispatcher
from parallel.service.identity import Identity
from parallel.service.keyring import Keyring
from parallel.service.publisher import Publisher
from parallel.service.ticket import Ticket
from slave import handshake, wire
from slave.transport import Transport
from tests.core.fake import Launched
from tests.slave.masters import read_exactly
from tests.support.waiting import eventually

KEY = b"the key of these tests"


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    """Of a scheduler that expects one slave, with a publisher."""
    scheduler = Scheduler(0.08, 3, run="run", environment={}, may_join=False)
    publisher = Publisher()
    made = Dispatcher(scheduler, publisher)
    publisher.start()
    made.start()
    made.call(scheduler.launches.expect, "agent", [Launched("test")])
    yield made
    made.stop()
    publisher.stop(30)


def test_a_bug_in_the_timer_is_told_to_whoever_asks_for_anything_from_then_on(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks: list[float] = []

    def tick(self: Scheduler, now: float, late: float) -> None:
        ticks.append(now)
        self.state.due = now + 0.01
        if len(ticks) == 2:
            raise ZeroDivisionError("in the second tick")

    dispatcher.check_alive()
    monkeypatch.setattr(Scheduler, "tick", tick)
    eventually(lambda: not dispatcher.is_alive(), what="its end")
    with pytest.raises(InternalError, match=r"has died of ZeroDivisionError: in the second tick\. This is a bug"):
        dispatcher.check_alive()
    eventually(lambda: caplog.text.count("a thread of the manager has died; please report this") == 1)
    assert "ZeroDivisionError: in the second tick" in caplog.text and len(ticks) == 2


def test_a_question_that_is_asked_when_it_has_died_is_refused(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(now: float) -> None:
        raise ZeroDivisionError("a bug")

    dispatcher.tell(broken)
    eventually(lambda: not dispatcher.is_alive(), what="its end")
    ticket = Ticket()
    dispatcher.ask(ticket, dispatcher.scheduler.users.readers.wait_until_done, 1)
    assert dispatcher.wait_for(ticket, 30), "nobody waits in vain"
    with pytest.raises(InternalError, match="has died of ZeroDivisionError: a bug"):
        ticket.result()


class Accepting:
    """An open acceptor, and whom it let in, what it told and of what it died."""

    def __init__(self, *listeners: socket.socket) -> None:
        self.admitted: list[Transport] = []
        self.told: list[ev.Event] = []
        self.died: list[BaseException] = []
        self.acceptor = Acceptor(
            listeners,
            Keyring(KEY, "a run"),
            Identity(True, None),
            lambda transport, peer, ident: self.admitted.append(transport),
            self.told.append,
            self.died.append,
        )
        self.acceptor.start()

    def close(self) -> None:
        self.acceptor.close()
        for transport in self.admitted:
            transport.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def accepting(listener: socket.socket) -> Iterator[Accepting]:
    made = Accepting(listener)
    yield made
    made.close()


def test_the_acceptor_goes_on_for_others_after_an_exception(
    listener: socket.socket, accepting: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, troubles = handshake.judge, [MemoryError("no memory just now")]

    def judge(*arguments: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return real(*arguments)

    monkeypatch.setattr(handshake, "judge", judge)
    with socket.create_connection(listener.getsockname(), 30) as unlucky:
        unlucky.sendall(handshake.answer(KEY, read_exactly(unlucky, handshake.GREETING_SIZE)))
        eventually(lambda: not troubles)
    connection = wire.Client(listener.getsockname(), KEY)
    eventually(lambda: len(accepting.admitted) == 1)
    connection.close()
    told = [event.why for event in accepting.told if isinstance(event, ev.CannotAccept)]
    assert told == ["a connection could not be accepted: MemoryError: no memory just now"]


def test_an_acceptor_that_dies_says_of_what_and_hangs_up(
    listener: socket.socket, accepting: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire(now: float) -> None:
        raise ZeroDivisionError("in its own affairs")

    with socket.create_connection(listener.getsockname(), 30) as stranger:
        read_exactly(stranger, handshake.GREETING_SIZE)
        monkeypatch.setattr(accepting.acceptor, "_expire", expire)
        accepting.acceptor.add([])  # and so it wakes
        accepting.acceptor.join(30)
        assert [str(error) for error in accepting.died] == ["in its own affairs"]
        assert stranger.recv(1) == b""


def test_an_acceptor_may_be_closed_twice(accepting: Accepting) -> None:
    accepting.acceptor.close()
    accepting.acceptor.close()
    assert not accepting.acceptor.is_alive() and not accepting.died


class LateWaker:
    """Wakes only when the thread has noticed by itself that it is over, and has closed the waker."""

    def __init__(self, acceptor: Acceptor, address: tuple[str, int], waker: socket.socket) -> None:
        self._acceptor, self._address, self._waker = acceptor, address, waker

    def send(self, data: bytes) -> int:
        with socket.create_connection(self._address):
            self._acceptor.join(30)
        return self._waker.send(data)

    def close(self) -> None:
        self._waker.close()


def test_an_acceptor_may_be_closed_while_somebody_comes(
    listener: socket.socket, accepting: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptor = accepting.acceptor
    with socket.create_connection(listener.getsockname()) as sock:
        sock.recv(1)  # it listens
    monkeypatch.setattr(acceptor, "_wake", LateWaker(acceptor, listener.getsockname(), acceptor._wake))
    acceptor.close()
    assert not acceptor.is_alive() and not accepting.died


def slaves_of(dispatcher: Dispatcher) -> Callable[[], list[parallel.SlaveInfo]]:
    """`Manager.slaves` of a manager with this dispatcher."""
    getter: Any = parallel.Manager.slaves
    return lambda: getter.fget(SimpleNamespace(dispatcher=dispatcher))


def in_time(call: Callable[[], object]) -> bool:
    """Whether the call comes back, made in a thread of its own, which may hang."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(30)
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


def test_a_log_handler_may_ask_for_the_slaves(dispatcher: Dispatcher) -> None:
    handler, log = Curious(slaves_of(dispatcher)), logging.getLogger("parallel")
    log.addHandler(handler)
    state = dispatcher.scheduler.state
    try:
        dispatcher.call(lambda now: state.lose(state.roster.slaves[0], 0, "it was killed"))
        eventually(lambda: handler.seen[:1] == ["expected"], what="the slaves in the handler")
    finally:
        log.removeHandler(handler)


class Cycle:
    """Only the garbage collector ends it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("inside", [True, False])
def test_a_finalizer_may_ask_for_the_slaves_in_whichever_thread_it_runs(dispatcher: Dispatcher, inside: bool) -> None:
    seen: list[parallel.SlaveInfo] = []
    ask = slaves_of(dispatcher)
    gc.disable()
    try:
        weakref.finalize(Cycle(), lambda: seen.extend(ask()))
        collect: Callable[[], object] = (lambda: dispatcher.call(lambda now: gc.collect())) if inside else gc.collect
        assert in_time(collect), "the finalizer waits for the thread in which it runs"
    finally:
        gc.enable()
    assert [slave.state for slave in seen] == ["expected"]
