"""The private parts of multiprocessing.managers that this project stands on, all touched here.

`BaseManager` and its proxies are the frame of the whole: what of them is not public may change from one Python to the
next, so tests/slave/test_mp_adapter.py tries this file on each Python that is installed.

    listener_client   the serializers: by name a class that listens and a function that dials
    Server            its constructor listens; everything else is ours
    BaseManager       how a server is made from its registry, address, key and serializer
    BaseProxy         the constructor with ``incref=False``, `_incref`, `_callmethod`
    Process           of a forked one the two pipes that it would keep open, `_popen.finalizer`; its `_identity`, and
                      the `_pid` of `parent_process()`, of one that was forked by a process between
    Connection        which pickles, wrongly, wherever multiprocessing's own pickler does not do it
"""

from __future__ import annotations

import copyreg
import threading
from multiprocessing import connection, get_context, managers, parent_process
from typing import Any, Callable, NoReturn

SERIALIZER = "parallel"


def register_serializer(listener: type[Any], client: Callable[..., Any]) -> None:
    """Have managers of the serializer `SERIALIZER` listen and dial by these."""
    managers.listener_client[SERIALIZER] = (listener, client)  # type: ignore[attr-defined]  # typeshed leaves it out


class Server(managers.Server):
    """Listens at its address, and does nothing else of what the stock server does."""

    public = ["accept_connection"]  # noqa: RUF012 - as the base class has it

    def __init__(self, address: tuple[str, int], authkey: bytes) -> None:
        """Raises OSError if the address cannot be had."""
        super().__init__({}, address, authkey, SERIALIZER)
        self.listener: Any  # made by the line above, from the serializer
        self.stop_event = threading.Event()


class Manager(managers.BaseManager):
    """A manager whose server runs in this process.  ``server``: the class of it, made with address and key."""

    def __init__(self, address: tuple[str, int], authkey: bytes, server: Callable[[Any, bytes], Any]) -> None:
        super().__init__(address, authkey, serializer=SERIALIZER)
        self._server_class = server

    def get_server(self) -> Any:
        """The server, listening.  Raises OSError if the address cannot be had."""
        state: Any = self
        return self._server_class(state._address, bytes(state._authkey))


def _refuse(connection: object) -> NoReturn:
    kind = type(connection).__name__
    raise NotImplementedError(f"{kind} objects should only be shared between processes through inheritance")


# what pickle makes of one is the number of a descriptor: another's in another process, which would write to it and
# close it.  The pickler of multiprocessing's own children goes by a table of its own
copyreg.pickle(connection.Connection, _refuse)


def spare_descriptors(process: Any) -> None:
    """Close the pipes by which this process and one that it has just forked would see each other's end.

    Two descriptors for each runner are too many where 1,024 may be open.  What needs them is `join` with a time limit,
    and ``parent_process().is_alive()`` over there.
    """
    process._popen.finalizer()


def next_identity() -> tuple[int, ...]:
    """What the next process that is started here would be known by: another for each."""
    process: Any = get_context("fork").Process()
    return process._identity  # type: ignore[no-any-return]


def set_identity(process: Any, identity: tuple[int, ...]) -> None:
    """Have a process that is to be started be known by that."""
    process._identity = identity


def set_parent(pid: int) -> None:
    """Have `parent_process` say so: the process that started this one stood in for another."""
    parent: Any = parent_process()
    if parent is not None:
        parent._pid = pid


class Proxy(managers.BaseProxy):
    """A proxy on an object with a fixed id, which no connection is spent on making or counting.

    ``call(method, args)`` carries out a call and returns its answer.
    """

    def __init__(self, ident: str, address: tuple[str, int], authkey: bytes, call: Callable[[str, Any], Any]) -> None:
        token = managers.Token(type(self).__name__, address, ident)
        super().__init__(token, SERIALIZER, authkey=authkey, incref=False)
        self._call = call

    def _incref(self) -> None:
        """Nothing: the object lives as long as the master, and a forked process has no business with it."""

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = None) -> Any:
        return self._call(methodname, args)
