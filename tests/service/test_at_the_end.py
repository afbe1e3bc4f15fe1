"""What is under way in another thread just when a manager ends."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.checkpoint.store import Store, Stores
from parallel.service import endpoint
from parallel.service.dispatcher import Dispatcher
from parallel.service.publisher import Publisher
from slave.protocol import RUNNER
from tests.conftest import Make, ours
from tests.support import tasks
from tests.support.waiting import eventually


def test_a_connection_that_another_thread_has_at_the_end_is_closed_when_it_is_done(make: Make) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)
    began, go_on = threading.Event(), threading.Event()
    connections: Any = manager.dispatcher.connections
    peer = manager.dispatcher.call(lambda now: next(one for one in connections._peers if one.role.kind == RUNNER))

    def work() -> None:
        began.set()
        go_on.wait(60)

    manager.dispatcher.call(lambda now: peer.aside(work, lambda result, now: None))
    assert began.wait(60)
    manager.shutdown()
    assert not manager.dispatcher.is_alive() and peer.connection.fileno() >= 0
    go_on.set()
    eventually(lambda: peer.connection.fileno() < 0, 60, "the end of the connection")


def test_who_was_let_in_when_the_dispatcher_had_died_is_hung_up_on_at_the_end(make: Make) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)

    def broken(now: float) -> None:
        raise ZeroDivisionError("a bug")

    manager.dispatcher.tell(broken)
    connections: Any = manager.dispatcher.connections
    came = eventually(lambda: list(connections._coming), 30, "the slaves, which come again")
    manager.shutdown()
    assert not connections._coming and all(transport.fileno() < 0 for transport in came)


def test_a_manager_that_is_shut_down_while_another_thread_begins_to_listen_does_not_listen(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(0)
    real = endpoint._local_address

    def meanwhile() -> tuple[str, int]:
        manager.shutdown()
        return real()

    monkeypatch.setattr(endpoint, "_local_address", meanwhile)
    with pytest.raises(parallel.ManagerClosed):
        manager.begin()
    eventually(lambda: not ours(), 20, "the end of all threads")


def test_a_port_that_is_opened_just_when_the_manager_ends_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)
    server: Any = manager.dispatcher.connections
    real = endpoint.Endpoint._bound_to

    def meanwhile(self: endpoint.Endpoint) -> str:
        manager.shutdown()
        return real(self)

    monkeypatch.setattr(endpoint.Endpoint, "_bound_to", meanwhile)
    with pytest.raises(parallel.ManagerClosed):
        manager._endpoint.listen(True, 30.0)
    assert all(sock.fileno() < 0 for sock in server.listener.sockets)


def test_a_second_thread_that_was_started_to_close_does_nothing_when_all_is_closed(make: Make) -> None:
    manager = make(0)
    manager.shutdown()
    again: list[str] = []
    manager._closer.last.append(lambda: again.append("a step"))
    manager._closer._close()
    assert manager.closed and again == []


def test_what_another_thread_adds_to_be_closed_while_the_manager_ends_is_closed(make: Make) -> None:
    manager = make(0)
    closer, closed = manager._closer, list[str]()
    closer.last.append(lambda: closer.last.append(lambda: closed.append("outcomes")))
    closer.when_told(lambda: closer.when_told(lambda: closed.append("events")))
    manager.shutdown()
    assert closed == ["outcomes", "events"]


def test_a_checkpoint_that_is_opened_just_when_the_manager_ends_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    manager = make(0)
    real = Stores.__init__

    def meanwhile(self: Stores, *args: Any) -> None:
        manager.shutdown()
        real(self, *args)

    monkeypatch.setattr(Stores, "__init__", meanwhile)
    with pytest.raises(parallel.ManagerClosed):
        manager.get_context(checkpoint=own_folder / "results")
    assert not (own_folder / "results.lock").exists()
    eventually(lambda: not ours(), 20, "the end of all threads")


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_manager_whose_second_thread_cannot_be_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refused(self: Dispatcher) -> None:
        raise error

    monkeypatch.setattr(Dispatcher, "start", refused)
    with pytest.raises((parallel.NetworkError, KeyboardInterrupt)):
        parallel.Manager()
    eventually(lambda: not ours(), 20, "the end of all threads")
    gc.collect()


def test_a_manager_whose_subscriber_cannot_be_made_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Publisher, *_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Publisher, "subscribe", refused)
    with pytest.raises(RuntimeError):
        parallel.Manager(show_output=True)
    eventually(lambda: not ours(), 20, "the end of all threads")


class Contended(deque[Any]):
    """Whenever somebody has seen that there is something in it another thread takes that."""

    def __bool__(self) -> bool:
        return True


def test_two_threads_may_carry_out_at_once_what_a_dispatcher_that_ended_has_left(make: Make) -> None:
    manager = make(0)
    manager.shutdown()
    dispatcher, done = manager.dispatcher, list[float]()
    dispatcher._inbox = Contended([(None, done.append, ())])
    dispatcher._questions = Contended()
    dispatcher._finish()
    assert len(done) == 1
    dispatcher._inbox, dispatcher._questions = deque(), deque()


def checkpointed(manager: parallel.Manager, folder: Path) -> Store:
    """What a context's checkpoint is written by."""
    manager.get_context(checkpoint=folder / "results")
    assert manager._checkpoints is not None
    (store,) = manager._checkpoints._stores.values()
    return store


def test_a_checkpoint_that_is_closed_waits_for_whoever_writes_as_long_as_that_gets_on(
    make: Make, own_folder: Path
) -> None:
    manager = make(0)
    store = checkpointed(manager, own_folder)
    written = list[int]()

    class Waits:
        waits = 1

        def record(self, outcomes: Any, batch: Any) -> None:
            written.extend(outcomes)

    class Busy:
        """Two waits are in vain, and some more has come to be written after each."""

        tries = 0

        def acquire(self, timeout: float = 0.0) -> bool:
            self.tries += 1
            if self.tries <= 2:
                store.queue.append((Waits(), [self.tries]))
            return self.tries > 2

        def release(self) -> None:
            pass

    store._writing = Busy()  # type: ignore[assignment]
    manager.shutdown()
    assert written == [1, 2]


def test_a_checkpoint_that_is_closed_just_when_its_thread_is_about_to_sync_it_harms_nobody(
    make: Make, own_folder: Path
) -> None:
    manager = make(0)
    store = checkpointed(manager, own_folder)
    manager.shutdown()
    store._sync()
    assert store._trouble is None


def test_a_coroutine_that_asks_for_results_when_the_manager_has_just_ended_is_told_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.wait_for, str(own_folder / "never")))
    real = manager.dispatcher.ask

    def ask(*question: Any) -> None:
        manager.shutdown()  # which the second time does nothing
        real(*question)

    async def read() -> list[object]:
        return [result async for result in context]

    monkeypatch.setattr(manager.dispatcher, "ask", ask)
    with pytest.raises(parallel.ManagerClosed):
        asyncio.run(asyncio.wait_for(read(), 30))
