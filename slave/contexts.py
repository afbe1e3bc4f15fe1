"""What the contexts' setups returned on this slave, cached by context id."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Callable

from . import forks
from .environment import Environment
from .outcome import Packed, pack_failure
from .protocol import Buffer
from .wire import Unfit


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

    def ready(self, context: int) -> bool:
        """Whether the context's setup has run and not failed."""
        return isinstance(self._cached.get(context), tuple)

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

    def _run(self, context: int) -> tuple[object, ...] | SetupFailed:
        payload = self._payload_of(context)  # a broken connection is not setup's failure
        if payload is None:
            return ()
        here = os.getpid()
        try:
            if isinstance(payload, Unfit):
                raise MemoryError(f"no memory here for the context's setup of {payload.size} bytes")
            value = self._environment.loads(payload)()
        except BaseException as error:  # whatever setup does, sys.exit included, it costs the context, not the slave
            if os.getpid() != here:
                forks.leave(error)
            return SetupFailed(context, pack_failure(error))
        if os.getpid() != here:
            forks.leave(None)
        if value is None:
            return ()
        return value if isinstance(value, tuple) else (value,)
