"""Modules that the master sends: `MasterFinder` in `sys.meta_path` asks the master for what a slave cannot import.

A module is asked for by the name of its top-level package, once; the answer is the whole of that, as an archive that is
unpacked in a folder of this machine's cache (module_cache.py).  From then on it is imported from there as any other:
`__file__`, data beside it, tracebacks with source lines, children of the process, which get `sys.path`.

What the slave has itself comes first where it is the same.  The interpreter's library and site-packages are its own
affair (but for packages that the master names, ``ship``); a module in a folder of the user's is compared with the
master's, by names, sizes and times, and if these differ by content.  On the master's own machine nothing is compared.

What the master does not have either is asked for once, until its environment changes.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Callable, TypeVar

from . import archive, missing
from .errors import ProtocolError, SlaveError
from .link import CallFailed, Link, ModuleServiceProxy
from .module_cache import ModuleCache
from .named import NamedTuple
from .protocol import ABSENT, ARCHIVE, SAME, Buffer, ModuleReply
from .search_path import OWN, kind_of

_BROKEN = (OSError, EOFError, SlaveError)
_PAUSE = 0.2  # seconds between two tries to reach the master
_MAIN = "__main__"
_LIBRARY: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())

T = TypeVar("T")
_Spec = importlib.machinery.ModuleSpec


class ModuleClient:
    """Asks the master for modules over a connection of its own: for any thread of a runner, and for its forks."""

    def __init__(self, make_link: Callable[[], Link], slave: int, cache: ModuleCache) -> None:
        self._cache = cache
        self.change(make_link, slave)

    def change(self, make_link: Callable[[], Link], slave: int) -> None:
        """Ask there from now on."""
        self._make_link, self._slave = make_link, slave
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards the connection: one thread asks at a time
        self._link = self._make_link()
        self._service = self._link.proxy(ModuleServiceProxy)

    def find(self, name: str, stamp: str) -> ModuleReply:
        """See `ModuleServiceProxy.find`.  Raises `CallFailed`, OSError, EOFError or `SlaveError`."""
        return self._ask(lambda service: service.find(self._slave, name, stamp))

    def setup(self, context: int) -> ModuleReply:
        """See `ModuleServiceProxy.setup`.  Raises the same."""
        return self._ask(lambda service: service.setup(self._slave, context))

    def folder_of(self, found: ModuleReply) -> str:
        """The folder where an archive is unpacked.  Raises the same, and `ProtocolError` if it is not what was said."""
        return self._cache.folder_of(found.digest, lambda: self._fetch(found.digest, found.size))

    def rest(self) -> None:
        """Close the connection for now."""
        if self._link.connected and self._pid == os.getpid():
            with self._lock:
                self._link.drop()

    def _fetch(self, digest: str, size: int) -> Buffer:
        if size > archive.MOST:
            raise ProtocolError(f"an archive of {size} bytes was announced")
        return fetched(size, lambda at: self._ask(lambda service: service.piece(self._slave, digest, at)))

    def _ask(self, question: Callable[[ModuleServiceProxy], T]) -> T:
        """Ask, again and again if the connection breaks, until the master has been out of reach for a lease."""
        if self._pid != os.getpid():  # the connection is the parent's
            self._begin()
        with self._lock:
            deadline = time.monotonic() + self._link.patience
            while True:
                try:
                    if not self._link.connected:
                        self._link.connect()
                        self._link.connection.limit(self._link.patience)
                    return question(self._service)
                except _BROKEN:
                    self._link.drop()
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_PAUSE)


def pieces(size: int, piece: Callable[[int], Buffer]) -> Iterator[Buffer]:
    """So many bytes, of which ``piece`` gets some from an offset on.  Raises `ProtocolError` if there are fewer."""
    at = 0
    while at < size:
        more: Any = piece(at)
        if not more:
            raise ProtocolError("the master has less than it had announced")
        at += len(more)
        yield more


def fetched(size: int, piece: Callable[[int], Buffer]) -> bytearray:
    """The same in one piece."""
    data = bytearray()
    for more in pieces(size, piece):
        data += more
    return data


class Sent(NamedTuple):
    """A top-level module that the master has sent: the folder to import it from, and what is not in it."""

    folder: str
    reply: ModuleReply


class MasterFinder:
    """See the module's text.  Goes into `sys.meta_path` in front of what looks into `sys.path`."""

    def __init__(self, client: ModuleClient, environment: Mapping[str, Any], same_machine: bool) -> None:
        self._client, self._same_machine, self._host = client, same_machine, environment["host"]
        self._ship = frozenset(environment.get("ship") or ())
        self._sent: dict[str, Sent | None] = {}  # by top-level name; None: what is here is used
        self._absent: dict[str, ModuleReply] = {}
        self._asking = threading.local()  # .name: what this thread asks for, and may not ask in turn
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards the decision about a name; made anew in a fork

    def install(self) -> None:
        """Let imports ask the master."""
        place = next((at for at, one in enumerate(sys.meta_path) if one is importlib.machinery.PathFinder), None)
        sys.meta_path.insert(len(sys.meta_path) if place is None else place, self)

    def take_over(self, environment: Mapping[str, Any], since: int) -> bool:
        """The master's environment has changed: what it did not have it may have now.

        False if a part of a package that is imported here was loaded anew there after its description number ``since``:
        the rest of it would be another than what is here.
        """
        changed = {name.partition(".")[0] for name, number in environment["changed"].items() if number > since}
        with self._lock:
            if any(self._sent.get(name) is not None and name in sys.modules for name in changed - {_MAIN}):
                return False
            for name in [*self._absent, *changed]:
                self._sent.pop(name, None)
            self._absent.clear()
        self._ship = frozenset(environment.get("ship") or ())
        return True

    def has_sent(self, path: str) -> bool:
        """Whether the file is of a module that the master has sent."""
        return any(sent is not None and path.startswith(sent.folder + os.sep) for sent in self._sent.values())

    def another(self, main: str | None) -> str:
        """A module that was imported here and is another one with the next master, which is asked; '': there is none.

        ``main``: the script, if it was.
        """
        for top, sent in list(self._sent.items()):
            module = sys.modules.get(top)
            if top == _MAIN:
                if main is None:
                    continue
                local = [archive.Found(os.path.basename(main), main)] if sent is None else []
            elif module is None:
                continue
            else:
                local = _local_files(top, module.__spec__) if sent is None else []
            try:
                reply = self._client.find(top, _stamp_of(local))
            except (*_BROKEN, CallFailed):
                return top
            if sent is not None and (reply.kind, reply.digest) != (ARCHIVE, sent.reply.digest):
                return top
            if sent is None and reply.kind == ARCHIVE and not _is_same(local, reply.digest):
                return top
        return ""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As the import system calls it.  Raises ImportError if the master has it, and it cannot be had."""
        top = name.partition(".")[0]
        if top in _LIBRARY or top == _MAIN or getattr(self._asking, "name", None) is not None:
            return None
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._asking.name = top
            try:
                return self._find(name, top, path)
            finally:
                self._asking.name = None

    def main_file(self, path: str) -> str | None:
        """The master's script, where this machine has not the same at the same place.  None: it has, or nobody has."""
        if self._same_machine:
            return None
        here = [archive.Found(os.path.basename(path), path)] if os.path.isfile(path) else []
        sent = self._decide(_MAIN, here)
        return None if sent is None else os.path.join(sent.folder, os.path.basename(path))

    # -- which

    def _find(self, name: str, top: str, path: Sequence[str] | None) -> _Spec | None:
        if name == top:
            return self._find_top(top)
        sent = self._sent.get(top)
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is None and sent is None and _is_namespace(getattr(sys.modules.get(top), "__spec__", None)):
            sent = self._decide(top, [])  # a part of it may be the master's
            if sent is not None:
                folder = os.path.join(sent.folder, *name.split(".")[:-1])
                found = importlib.machinery.PathFinder.find_spec(name, [folder])
        if found is None and sent is not None and name in sent.reply.compiled:
            raise ModuleNotFoundError(self._about_compiled(name, sent.reply), name=name)
        return None if sent is None else found

    def _find_top(self, top: str) -> _Spec | None:
        local = importlib.machinery.PathFinder.find_spec(top)
        if top not in self._sent and local is not None and self._stays(top, local):
            return None
        sent = self._decide(top, [] if _is_namespace(local) else _local_files(top, local))
        if sent is None:
            return None
        return importlib.machinery.PathFinder.find_spec(top, None if _is_namespace(local) else [sent.folder])

    def _stays(self, top: str, local: _Spec) -> bool:
        """Whether what is here is used without a question."""
        if self._same_machine:
            return True
        if top in self._ship:
            return False
        folder = _folder_of(local)
        return folder is None or kind_of(folder) != OWN

    def _decide(self, top: str, local: list[archive.Found]) -> Sent | None:
        """Ask the master, once."""
        if top in self._sent:
            return self._sent[top]
        try:
            reply = self._client.find(top, _stamp_of(local))
            sent = self._take(top, reply, local)
        except _BROKEN as error:
            raise ImportError(f"the master ({self._host}) could not be asked for {top}: {error}", name=top) from error
        except CallFailed as error:
            text = str(error).strip().splitlines()[-1]
            raise ImportError(f"{top} cannot be had from the master ({self._host}): {text}", name=top) from None
        self._sent[top] = sent
        if reply.kind == ABSENT:
            self._absent[top] = reply
            of_library = bool(reply.origin) and not (reply.compiled or reply.requirement)
            missing.learn(top, reply.requirement, of_library)
            if reply.compiled and not local:
                raise ModuleNotFoundError(self._about_compiled(top, reply), name=top)
        return sent

    def _take(self, top: str, reply: ModuleReply, local: list[archive.Found]) -> Sent | None:
        """What is to be used now; None: what is here."""
        if reply.kind != ARCHIVE:
            assert reply.kind in (ABSENT, SAME)
            return None
        if _is_same(local, reply.digest):
            return None
        folder = self._client.folder_of(reply)
        if top != _MAIN and folder not in sys.path:
            sys.path.append(folder)  # children that import by themselves are told so
        is_package = os.path.isdir(os.path.join(folder, top))
        missing.learn_sent(folder, "script" if top == _MAIN else top, is_package, reply.origin)
        return Sent(folder, reply)

    def _about_compiled(self, name: str, reply: ModuleReply) -> str:
        return (
            f"{name} is a compiled extension module, and such are not sent; the master ({self._host}) has it in "
            f"{reply.origin}. {missing.how_to_install(name, reply.requirement)}"
        )


def _is_namespace(spec: _Spec | None) -> bool:
    return spec is not None and spec.submodule_search_locations is not None and not spec.has_location


def _local_files(top: str, spec: _Spec | None) -> list[archive.Found]:
    try:
        return [] if spec is None else archive.without_compiled(archive.files_of(top, spec))[0]
    except OSError:
        return []


def _stamp_of(local: list[archive.Found]) -> str:
    try:
        return archive.stamp_of(local) if local else ""
    except OSError:
        return ""  # it comes from a zip file, or has just gone


def _is_same(local: list[archive.Found], digest: str) -> bool:
    try:
        return bool(local) and archive.content_hash(archive.read(local)) == digest
    except (OSError, ValueError):
        return False


def _folder_of(spec: _Spec) -> str | None:
    """The entry of sys.path that a top-level module comes from; None if it is from none."""
    locations = spec.submodule_search_locations
    if locations is not None:
        first = next(iter(locations), None)
        return None if first is None else os.path.dirname(os.path.abspath(first))
    return os.path.dirname(spec.origin) if spec.has_location and spec.origin is not None else None
