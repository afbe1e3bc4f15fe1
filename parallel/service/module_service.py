"""ModuleService: where runners get the master's modules, by proxy (slave/imports.py has the other end)."""

from __future__ import annotations

import threading
from typing import Any

from slave.archive import setup_hash
from slave.errors import ProtocolError
from slave.protocol import ABSENT, ARCHIVE, MODULE_SERVICE, PIECE, SETUP_PIECE, ModuleReply, Setup
from slave.wire import opaque

from ..core.scheduler import Scheduler
from . import checked
from .module_source import ModuleSource
from .peer import Call

_MOST_HASHES = 100


class ModuleService:
    """Says what there is, and hands it out in pieces.  The methods: see slave/protocol.py.

    Whatever reads files or packs is done by side threads; a piece is there, and small.  ``large``: bytes.
    """

    service = MODULE_SERVICE

    def __init__(self, scheduler: Scheduler, source: ModuleSource | None, large: float) -> None:
        self._runners, self._source, self._large = scheduler.runners, source, large
        self._hashing = threading.Lock()  # guards what follows, while one is made; of side threads
        self._hashes: dict[int, str] = {}  # of large setups, by context

    def find(self, call: Call, slave: Any, name: Any, stamp: Any) -> None:
        """See `ModuleSource.find`."""
        call.own_slave(slave)
        module, known = checked.text(name), checked.text(stamp)
        if not module.isidentifier():
            raise ProtocolError(f"{module!r} is not the name of a top-level module")
        source = self._source
        if source is None:
            call.answer(tuple(ModuleReply(ABSENT)))
        else:
            self._aside(call, lambda: source.find(module, known))

    def setup(self, call: Call, slave: Any, context: Any) -> None:
        """A large setup's hash and size."""
        call.own_slave(slave)
        payload = self._runners.setup_of(slave, checked.number(context))
        if payload is None or len(payload) < self._large:
            call.answer(tuple(ModuleReply(ABSENT)))
        else:
            number = checked.number(context)
            self._aside(call, lambda: ModuleReply(ARCHIVE, self._hash_of(number, payload), len(payload)))

    def _hash_of(self, context: int, payload: Setup) -> str:
        """Made once for all runners that ask."""
        with self._hashing:
            found = self._hashes.get(context)
            if found is None:
                found = self._hashes[context] = setup_hash(payload)
                if len(self._hashes) > _MOST_HASHES:
                    del self._hashes[next(iter(self._hashes))]
            return found

    def setup_piece(self, call: Call, slave: Any, context: Any, offset: Any) -> None:
        """A piece of a large setup; b'' if the context is gone."""
        call.own_slave(slave)
        payload, at = self._runners.setup_of(slave, checked.number(context)), checked.number(offset)
        call.answer(opaque(b"" if payload is None or at < 0 else memoryview(payload)[at : at + SETUP_PIECE]))

    def piece(self, call: Call, slave: Any, digest: Any, offset: Any) -> None:
        """See `ModuleSource.piece`."""
        call.own_slave(slave)
        text, at = checked.text(digest), checked.number(offset)
        piece = b"" if self._source is None or at < 0 else self._source.piece(text, at, PIECE)
        call.answer(opaque(piece))

    def _aside(self, call: Call, work: Any) -> None:
        """Answer with what ``work`` returns, which may read files; with a refusal if it raises."""

        def tried() -> ModuleReply | str:
            try:
                reply: ModuleReply = work()
                return reply
            except Exception as error:  # a file that cannot be read, a finder of the user's
                return f"{type(error).__name__}: {error}"

        def then(found: ModuleReply | str, now: float) -> None:
            if isinstance(found, str):
                call.refuse(found)
            else:
                call.answer(tuple(found))

        call.aside(tried, then)
