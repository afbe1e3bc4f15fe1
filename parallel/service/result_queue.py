"""ResultQueue: where runners post what came of their tasks, by proxy (slave/link.py has the other end)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slave.memory import Unfit
from slave.outcome import pack_failure, unpack_failure
from slave.protocol import (
    RESULT_QUEUE,
    VALUE,
    Buffer,
    GiveBack,
    OutcomeMessage,
    RebuildFailure,
    SetupFailure,
    ValuesMessage,
    checked_outcome,
    outcome_message,
)
from slave.shared_memory import as_sent

from ..core.scheduler import Scheduler
from . import checked
from .peer import Call


class ResultQueue:
    """Takes outcomes in.  The methods: see slave/protocol.py."""

    service = RESULT_QUEUE

    def __init__(self, scheduler: Scheduler) -> None:
        self._runners = scheduler.runners

    def post(self, batch: Sequence[OutcomeMessage | ValuesMessage], now: float) -> None:
        """See `Runners.outcomes`.  All that arrived together, of whatever slaves."""
        self._runners.outcomes(batch, now)

    def post_and_wait(self, call: Call, *message: Any) -> None:
        """See `Runners.outcome_and_wait`."""
        slave, lease, context, task, kind, data, buffers = checked_outcome(message)
        fit = outcome_message(slave, lease, context, task, *_fit(kind, data, buffers))
        self._runners.outcome_and_wait(call, fit, call.now)

    def setup_failed(self, call: Call, failure: Any) -> None:
        """See `Runners.setup_failed`."""
        message = checked.message(SetupFailure, failure)
        call.own_slave(message.slave)
        message = message._replace(data=_own(message.data))
        told = unpack_failure(message.data)
        self._runners.setup_failed(call, message, told.type_name, told.message, call.now)

    def rebuild_failed(self, call: Call, failure: Any) -> None:
        """See `Runners.rebuild_failed`."""
        message = checked.message(RebuildFailure, failure)
        message = message._replace(data=_own(message.data))
        told = unpack_failure(message.data)
        self._runners.rebuild_failed(call, message, told.type_name, told.message, call.now)

    def give_back(self, call: Call, request: Any) -> None:
        """See `Runners.give_back`."""
        back = checked.message(GiveBack, request)
        call.own_slave(back.slave)
        self._runners.give_back(call, back, call.now)


def _own(data: Any) -> Any:
    """A failure, which may be kept for long, is not to be the memory of a slave that waits for it to come back."""
    try:
        return as_sent(data)
    except MemoryError:
        return Unfit.of(memoryview(data).nbytes)


def _fit(kind: int, data: Buffer, buffers: Sequence[Buffer]) -> tuple[int, Buffer, Sequence[Buffer]]:
    """The outcome, or a failure in its place if the master had no memory for a part of it."""
    if kind != VALUE:
        data = _own(data)
    missing = sum(part.size for part in (data, *buffers) if isinstance(part, Unfit))
    if not missing:
        return kind, data, buffers
    return pack_failure(MemoryError(f"the master has no memory for this task's result of {missing} bytes or more"))
