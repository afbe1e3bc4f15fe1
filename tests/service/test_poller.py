"""What both pollers do, whichever the system has."""

from __future__ import annotations

import select
import socket
from typing import Callable

import pytest

from parallel.service.poller import EpollPoller, Poller, SelectorPoller, new_poller

KINDS: list[Callable[[], Poller]] = [SelectorPoller]
if hasattr(select, "epoll"):
    KINDS.append(EpollPoller)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_read_is_told_until_it_is_watched_no_more(kind: Callable[[], Poller]) -> None:
    poller, called = kind(), list[float]()
    near, far = socket.socketpair()
    with near, far:
        poller.watch(near, called.append)
        assert poller.wait(0.0) == []
        far.send(b"!")
        for on_readable in poller.wait(30.0):
            on_readable(1.5)
        assert called == [1.5]
        assert len(poller.wait(0.0)) == 1, "it was not read"
        poller.unwatch(near)
        assert poller.wait(0.0) == []
        poller.watch(near, called.append)
        assert len(poller.wait(0.0)) == 1
    poller.close()


def test_the_system_has_one() -> None:
    poller = new_poller()
    assert type(poller) is KINDS[-1]
    poller.close()
