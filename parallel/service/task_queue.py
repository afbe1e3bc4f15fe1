"""TaskQueue: where runners get their tasks, by proxy (slave/link.py has the other end)."""

from __future__ import annotations

from typing import Any

from slave.protocol import TASK_QUEUE, JoinRequest, LeaseMessage, Payload, Times
from slave.wire import OUT_OF_BAND, opaque

from ..core import events as ev
from ..core.chunk import Chunk, ids_of
from ..core.effects import Granted
from ..core.scheduler import Scheduler
from . import checked
from .peer import Call


class TaskQueue:
    """Hands out leases.  The methods: see slave/protocol.py."""

    service = TASK_QUEUE

    def __init__(self, scheduler: Scheduler) -> None:
        self._runners, self._state = scheduler.runners, scheduler.state

    def join(self, call: Call, request: Any) -> None:
        """See `Runners.join`."""
        join = checked.message(JoinRequest, request)
        call.own_slave(join.slave)
        self._runners.join(call, join, call.now)

    def fetch(self, call: Call, request: Any) -> None:
        """See `Runners.fetch`."""
        call.encode = self._lease_message
        fetch = checked.fetch_request(request)
        call.own_slave(fetch.slave)
        self._runners.fetch(call, fetch, call.now)

    def setup_of(self, call: Call, slave: Any, context: Any) -> None:
        """See `Runners.setup_of`."""
        call.own_slave(slave)
        setup = self._runners.setup_of(slave, checked.number(context))
        call.answer(None if setup is None else opaque(setup))

    def environment(self, call: Call, slave: Any) -> None:
        """See `State.environment_of`."""
        call.own_slave(slave)
        call.answer(dict(self._state.environment_of(slave)))

    def times(self, call: Call, told: Any) -> None:
        """When the runner did what: for a trace."""
        times = checked.message(Times, told)
        call.own_slave(times.slave)
        if self._state.watched:
            self._state.tell(ev.TasksTimed(call.now, times.slave, times))

    def _lease_message(self, granted: Granted | None) -> tuple[Any, ...] | None:
        """The answer to `fetch` as it goes to the slave."""
        return lease_message(granted, self._state.environment.get("number", 0))


def _packed(payload: Payload) -> Any:
    return payload if len(payload) < OUT_OF_BAND else opaque(payload)


def lease_message(granted: Granted | None, environment: int) -> tuple[Any, ...] | None:
    """The same; ``environment``: the number of the master's, as it is now."""
    if granted is None:
        return None
    lease, forget, most = granted
    if lease is None:
        return tuple(LeaseMessage(0, (), {}, list(forget), 0, {}))
    limits: dict[int, float] = {}
    entries: list[Any] = []
    for task in lease.tasks.parts.values():
        if task.timeout is not None:
            limits.update(dict.fromkeys(ids_of(task), task.timeout))
        if type(task) is Chunk:
            payloads = task.inputs if task.plain else list(map(_packed, task.inputs))
            entries += (task.context, (task.first, payloads))
            continue
        if not entries or entries[-2] != task.context or type(entries[-1]) is not list:
            entries += (task.context, [])
        entries[-1] += (task.id, _packed(task.payload))
    return lease.id, entries, limits, list(forget), environment, dict(most)  # a `LeaseMessage`
