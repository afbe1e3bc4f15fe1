"""SharedArrays: a large array that stands in many calls of one `joblib.Parallel` is sent once to each slave.

It is known by its identity, and sent inside the call the first time: most arrays stand in one call only.  Calls that
have it again are inputs of a map whose function holds it (slave/held.py), and which crosses the network once for a
machine, as other large ones do.  There it is read-only, as joblib's own memory maps are.
"""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Protocol

from slave.held import CallWith, Held

if TYPE_CHECKING:
    from ..service.mailbox import Mailbox
    from .lane import AnyFuture
    from .work import Work

_MOST_MAPS = 4  # of one `joblib.Parallel`; calls with other arrays have them inside
_LOOKED_AT = (
    8  # calls of a batch: where joblib puts many together they are short, and looking takes longer than pickling
)


class HasWork(Protocol):
    """What ends the work when it is gone."""

    work: Work


class SharedArrays:
    """Submits the batches of one `joblib.Parallel`.  ``least``: bytes from which an array is large; None: none is."""

    def __init__(self, slaves: HasWork, least: int | None) -> None:
        self._slaves, self._work, self._least = slaves, slaves.work, least
        self._lock = threading.RLock()  # guards what follows
        self._seen: dict[int, weakref.ref[Any]] = {}  # large arrays, by identity
        self._maps: dict[tuple[int, ...], tuple[Mailbox, tuple[Any, ...]]] = {}  # by their arrays' identities

    def submit_by_value(self, function: Callable[[], Any]) -> AnyFuture:
        """See `Work.submit_by_value`."""
        numpy, items = sys.modules.get("numpy"), getattr(function, "items", None)
        if numpy is None or self._least is None or type(items) is not list:
            return self._work.submit_by_value(function)
        arrays = self._arrays_of(items, numpy.ndarray)
        mailbox = self._map_of(arrays) if arrays else None
        if mailbox is None:
            return self._work.submit_by_value(function)
        return self._work.submit_input(mailbox, _without(function, arrays))

    def _arrays_of(self, items: list[Any], kind: type[Any]) -> tuple[Any, ...]:
        """The large arrays that stand in the first calls, each once; none if one of them was not seen before."""
        found: dict[int, Any] = {}
        for _, args, named in items[:_LOOKED_AT]:
            for value in (*args, *named.values()):
                if type(value) is kind and value.nbytes >= self._least and not value.dtype.hasobject:
                    found[id(value)] = value
        with self._lock:
            new = [value for key, value in found.items() if self._seen.get(key, _nothing)() is not value]
            for value in new:
                self._seen[id(value)] = weakref.ref(value)
        return () if new else tuple(found.values())

    def _map_of(self, arrays: tuple[Any, ...]) -> Mailbox | None:
        """Where calls with these go; None if there are too many others."""
        key = tuple(map(id, arrays))
        with self._lock:
            known = self._maps.get(key)
            if known is None and len(self._maps) < _MOST_MAPS:
                _, make = self._work.context.entrance.mailbox_of(CallWith(arrays))
                known = self._maps[key] = make(), arrays
        return None if known is None else known[0]

    def release(self) -> None:
        """The call is over: the slaves need not keep its arrays.  Never waits."""
        with self._lock:
            mailboxes = [mailbox for mailbox, _ in self._maps.values()]
            self._maps.clear()
            self._seen.clear()
        for mailbox in mailboxes:
            mailbox.when_done(mailbox.abandon)


def _nothing() -> None:
    """As a reference to what is gone."""


def _without(batch: Any, arrays: tuple[Any, ...]) -> Any:
    """A copy of the batch that has `Held` in the arrays' places."""
    held = {id(array): Held(index) for index, array in enumerate(arrays)}

    def replaced(value: Any) -> Any:
        return held.get(id(value), value)

    copied = copy.copy(batch)
    copied.items = [
        (function, tuple(map(replaced, args)), {name: replaced(value) for name, value in named.items()})
        for function, args, named in batch.items
    ]
    return copied
