"""What the contexts' setups returned on this slave, cached by context id."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any, Callable

from . import forks
from .environment import Environment
from .mapped import Mapped, call, call_alone
from .memory import Unfit
from .outcome import Packed, pack_failure
from .parted import arrived
from .protocol import Buffer


class SetupFailed(Exception):
    """A context's setup raised on this slave; ``outcome`` is the packed failure."""

    def __init__(self, context: int, outcome: Packed) -> None:
        super().__init__(context, outcome)
        self.context, self.outcome = context, outcome


class Contexts:
    """The arguments for each context's tasks: setup runs at most once per process and context, also if it fails."""

    def __init__(self, environment: Environment, payload_of: Callable[[int], Buffer | None]) -> None:
        self._environment = environment
        self._payload_of = payload_of
        self._cached: dict[int, tuple[object, ...] | SetupFailed] = {}
        self._mapped: dict[int, Mapped] = {}  # the functions of those that are maps
        self.noting = False  # the pickles of setups, since this process may be kept for another master
        self._digests: dict[int, bytes] = {}  # of those, by context
        self._kept: dict[bytes, list[tuple[object, ...]]] = {}  # what they returned in the run before, by digest

    def ready(self, context: int) -> bool:
        """Whether the context's setup has run and not failed."""
        return isinstance(self._cached.get(context), tuple)

    def call(self, context: int, task: Any) -> object:
        """What a task of the context returns; in a map's, what its function returns for this input."""
        arguments = self._cached.get(context)
        if type(arguments) is not tuple:
            arguments = self.arguments(context)
        mapped = self._mapped.get(context)
        if mapped is None:
            return call(task, arguments)
        function, starred, _ = mapped
        if arguments or starred:
            return function(*task, *arguments) if starred else function(task, *arguments)
        return function(task)

    def call_of(self, context: int) -> Callable[[Any], object]:
        """What is called with each task of the context, which is `ready`: as `call`, in less time."""
        mapped, alone = self._mapped.get(context), not self._cached[context]
        if alone and mapped is None:
            return call_alone
        if alone and mapped is not None and not mapped.starred:
            return mapped.function
        return functools.partial(self.call, context)

    def arguments(self, context: int) -> tuple[object, ...]:
        """Setup's result as arguments: a tuple unpacked, None as none, anything else as one.  Raises `SetupFailed`."""
        known = self._cached.get(context)
        if known is None:
            known = self._cached[context] = self._run(context)
        if isinstance(known, SetupFailed):
            raise known
        return known

    def forget(self, contexts: Iterable[int]) -> None:
        """Drop what the master has no more tasks for."""
        for context in contexts:
            self._cached.pop(context, None)
            self._mapped.pop(context, None)
            self._digests.pop(context, None)

    def keep(self) -> None:
        """Another master's contexts come: what setups have returned is for those with the same pickles."""
        for context, digest in self._digests.items():
            arguments = self._cached.get(context)
            if isinstance(arguments, tuple):
                self._kept.setdefault(digest, []).append(arguments)
        for table in (self._cached, self._mapped, self._digests):
            table.clear()

    def _run(self, context: int) -> tuple[object, ...] | SetupFailed:
        payload = self._payload_of(context)  # a broken connection is not setup's failure
        if payload is None:
            return ()
        digest = b""
        if self.noting and not isinstance(payload, Unfit):
            digest = hashlib.blake2b(payload, digest_size=16).digest()
            kept = self._kept.get(digest)
            if kept:
                self._digests[context] = digest
                return kept.pop()
        try:
            if isinstance(payload, Unfit):
                raise MemoryError(f"no memory here for the context's setup of {payload.size} bytes")
            setup = self._environment.loads(arrived(payload))
            if digest and not isinstance(setup, Mapped):
                self._digests[context] = digest
                self._kept.clear()  # these are other ones, and there may be no memory for both
            value = setup if isinstance(setup, Mapped) else setup()
        except BaseException as error:  # whatever setup does, sys.exit included, it costs the context, not the slave
            if forks.came_back:
                forks.leave(error)
            return SetupFailed(context, pack_failure(error))
        if forks.came_back:
            forks.leave(None)
        if isinstance(setup, Mapped):
            return self._map(context, setup)
        if value is None:
            return ()
        return value if isinstance(value, tuple) else (value,)

    def _map(self, context: int, mapped: Mapped) -> tuple[object, ...] | SetupFailed:
        """The context is a map: its arguments are those of the one that it is based on."""
        try:
            arguments = self.arguments(mapped.base) if mapped.base else ()
        except SetupFailed as failed:
            return SetupFailed(context, failed.outcome)
        self._mapped[context] = mapped
        return arguments
