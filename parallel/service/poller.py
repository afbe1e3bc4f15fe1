"""Poller: which descriptors can be read, and what is to be called for each.

`selectors` has that too, in Python: on Linux epoll is asked directly, since the dispatcher does so twice for each task
that comes alone.
"""

from __future__ import annotations

import select
import selectors
from typing import Any, Callable, Protocol

OnReadable = Callable[[float], None]


class Poller(Protocol):
    """What `new_poller` makes."""

    def watch(self, fileobj: Any, on_readable: OnReadable) -> None:
        """Have `wait` return ``on_readable`` whenever something can be read there."""

    def unwatch(self, fileobj: Any) -> None:
        """Watch it no more.  It must be open still."""

    def wait(self, seconds: float) -> list[OnReadable]:
        """What is to be called, after at most so long."""

    def close(self) -> None:
        """Watch nothing any more."""


class SelectorPoller:
    """One for every system."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fileobj: Any, on_readable: OnReadable) -> None:
        """See `Poller`."""
        self._selector.register(fileobj, selectors.EVENT_READ, on_readable)

    def unwatch(self, fileobj: Any) -> None:
        """See `Poller`."""
        self._selector.unregister(fileobj)

    def wait(self, seconds: float) -> list[OnReadable]:
        """See `Poller`."""
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        """See `Poller`."""
        self._selector.close()


class EpollPoller:
    """One for Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._on_readable: dict[int, OnReadable] = {}

    def watch(self, fileobj: Any, on_readable: OnReadable) -> None:
        """See `Poller`."""
        fd = fileobj.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._on_readable[fd] = on_readable

    def unwatch(self, fileobj: Any) -> None:
        """See `Poller`."""
        fd = fileobj.fileno()
        del self._on_readable[fd]
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # somebody else has closed it

    def wait(self, seconds: float) -> list[OnReadable]:
        """See `Poller`."""
        return [self._on_readable[fd] for fd, _ in self._epoll.poll(seconds)]

    def close(self) -> None:
        """See `Poller`."""
        self._epoll.close()


def new_poller() -> Poller:
    """The quickest one that this system has."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
