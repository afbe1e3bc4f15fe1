"""What comes out when listening fails, or is interrupted."""

from __future__ import annotations

import signal
import socket
import threading
from types import FrameType

import pytest

import parallel
from parallel.core import events
from parallel.core.admission import unmapped
from parallel.service import acceptor, endpoint
from tests.conftest import Make
from tests.support.waiting import eventually


@pytest.mark.parametrize("started", ["yes", "no", "nearly"])
def test_nothing_is_left_of_a_server_whose_start_was_interrupted(monkeypatch: pytest.MonkeyPatch, started: str) -> None:
    """Its thread and its sockets: `nothing_left` looks for them."""
    start, late = acceptor.Acceptor.start, []

    def interrupted(thread: acceptor.Acceptor) -> None:
        if started == "yes":
            start(thread)
        elif started == "nearly":
            late.append(thread)
        raise KeyboardInterrupt

    with parallel.Manager(output=None) as manager:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(acceptor.Acceptor, "start", interrupted)
            list(manager.get_context().get_results_unordered())
        for thread in late:
            thread.run()  # as the system does it when it finds the time
        assert not [thread for thread in threading.enumerate() if thread.name == "parallel acceptor"]
        assert list(manager.get_context().get_results_unordered()) == []


def test_a_timeout_of_the_users_alarm_is_no_failure_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError("too late")

    def interrupted(*_: object, **__: object) -> tuple[str, int]:
        signal.raise_signal(signal.SIGALRM)
        raise AssertionError("the handler did not raise")

    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with parallel.Manager(output=None) as manager:
            with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="too late"):
                patch.setattr(endpoint, "_local_address", interrupted)
                list(manager.get_context().get_results_unordered())
            with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="too late"):
                patch.setattr("parallel.assembly.Dispatcher", interrupted)
                parallel.Manager()
            assert list(manager.get_context().get_results_unordered()) == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_needs_what_it_has_interrupted_is_refused_and_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def handler(*_: object) -> None:
        with pytest.raises(parallel.InputError) as caught:
            manager.get_context().submit(abs, -1)
        said.append(str(caught.value))

    def interrupted() -> tuple[str, int]:
        signal.raise_signal(signal.SIGALRM)
        return address()

    address, before = endpoint._local_address, signal.signal(signal.SIGALRM, handler)
    try:
        with parallel.Manager(output=None) as manager:
            with monkeypatch.context() as patch:
                patch.setattr(endpoint, "_local_address", interrupted)
                manager.begin()
            assert "a signal's handler has interrupted the manager's start" in said[0] and len(said) == 1
            manager.add_slave(parallel.LocalSlave())
            assert manager.get_context().submit(abs, -2).result(60) == 2
    finally:
        signal.signal(signal.SIGALRM, before)


def test_who_was_refused_is_named_by_the_address_that_it_has(make: Make) -> None:
    """Not as an IPv6 socket writes an IPv4 address."""
    manager = make(0, port=0)
    told: list[events.Event] = []
    manager.subscribe(told.append)
    with socket.create_connection(("127.0.0.1", manager.address[1]), 30) as stranger:
        host, port = stranger.getsockname()
        stranger.sendall(bytes(200))
    refused = eventually(lambda: [one.peer for one in told if isinstance(one, events.ConnectionRefused)], 30)
    assert refused == [f"{host}:{port}"]
    assert unmapped("::ffff:10.0.0.1") == "10.0.0.1" and unmapped("::ffff:102") == "::ffff:102"
