"""What is under way in another thread just when a manager ends."""

from __future__ import annotations

import threading
from typing import Any

from slave.protocol import RUNNER
from tests.conftest import Make
from tests.support.waiting import eventually


def test_a_connection_that_another_thread_has_at_the_end_is_closed_when_it_is_done(make: Make) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)
    began, go_on = threading.Event(), threading.Event()
    connections: Any = manager.dispatcher.connections
    peer = next(one for one in connections._peers if one.role.kind == RUNNER)

    def work() -> None:
        began.set()
        go_on.wait(30)

    manager.dispatcher.call(lambda now: peer.aside(work, lambda result, now: None))
    assert began.wait(10)
    manager.shutdown()
    assert not manager.dispatcher.is_alive() and peer.connection.fileno() >= 0
    go_on.set()
    eventually(lambda: peer.connection.fileno() < 0, 10, "the end of the connection")
