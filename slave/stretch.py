"""A stretch: tasks of one context, which a runner runs in a loop that does for each only what it must.

Each is noted in the status before it begins, a recall is heeded, and its value lies where the agent sees it before the
next one begins (gathering.py).  What nobody can see meanwhile is done for several together: the session learns of
values when they are sent, or at the end.  Where more is to be done for each (time limits, a fresh process after so many
tasks, a trace), `Runner._run_lease` does it.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Protocol

from . import forks
from .gathering import GATHER, SHORT, USED, WATCHED, Gatherer
from .outcome import Packed, pack_failure, pack_value
from .pieces import FLOAT, INT, MOST, SINGLE, SINGLES, head, piece, turned
from .protocol import ATOMS, VALUE
from .session import RunnerSession
from .shared_status import RECALL, TASK, SharedStatus

_LARGE = 4096  # bytes of a pickled value that is posted as any other outcome


class Host(Protocol):
    """What is used of the runner."""

    def send_gathered(self) -> None:
        """Send what was gathered; on a new connection, if need be."""

    def post(self, packed: Packed) -> None:
        """Post the outcome of the first unstarted task."""


class Stretch:
    """See the module's text."""

    def __init__(self, session: RunnerSession, status: SharedStatus, gathered: Gatherer, host: Host) -> None:
        self._session, self._status, self._gathered, self._host = session, status, gathered, host
        self.error: BaseException | None = None  # why the task that was left cannot be rebuilt; for whoever tells that

    def run(self, call: Callable[[Any], object], loads: Callable[[Any], Any]) -> int:
        """Run the first unstarted tasks, as long as they are of one context; returns how many.

        ``call`` is called with each, ``loads`` rebuilds one that is pickled.  Leaves the first that is recalled, cannot
        be rebuilt, or came in parts.
        """
        session, status, gathered = self._session, self._status, self._gathered
        cells, data, clock = gathered.cells, gathered.data, time.monotonic_ns
        pack_float, pack_int, pack_single = FLOAT.pack_into, INT.pack_into, SINGLE.pack_into
        room = gathered.room - FLOAT.size
        tasks = list(session.unstarted)
        numbers = [task for task, _, _ in tasks]
        if max(numbers) >= MOST:
            return 0
        context = tasks[0][1]
        self._begin(context)
        ran = told = 0  # of those that ran, so many of whose outcomes the session knows
        used = begun = gathered.used  # bytes of the round; so many of which it knows
        most = room if session.keeps else -1  # so many are used at the most before one more piece
        soon, late = gathered.last + SHORT, gathered.since + GATHER
        for (task, other, payload), number in zip(tasks, turned(numbers)):
            if other != context:
                break
            status[TASK] = task
            if status[RECALL] and session.recalled(status[RECALL]):
                break
            if type(payload) not in ATOMS:
                if type(payload) is not bytes:
                    break
                try:
                    payload = loads(payload)
                except BaseException as error:
                    if forks.came_back:
                        forks.leave(error)
                    self.error = error
                    break
            packed: Packed | None = None
            try:
                value = call(payload)
                payload, kind = None, type(value)
                if kind is float and used <= most:
                    pack_float(data, used, b"J", number, b"G", value)
                    end = used + FLOAT.size
                elif kind is int and used <= most and -MOST <= value < MOST:  # type: ignore[operator]
                    pack_int(data, used, b"J", task, b"J", value)
                    end = used + INT.size
                elif (value is None or kind is bool) and used <= most:
                    pack_single(data, used, b"J", task, SINGLES[value])  # type: ignore[index]
                    end = used + SINGLE.size
                else:
                    packed, value = pack_value(value), None  # the next call is not to find it in memory
                    made = _made(task, packed)
                    end = used + len(made)
                    if made and end <= most:
                        data[used:end] = made
                        packed = None
            except BaseException as error:  # sys.exit and KeyboardInterrupt too: see `Runner`
                if forks.came_back:
                    forks.leave(error)
                packed = pack_failure(error)
            if forks.came_back:
                forks.leave(None)
            now = clock()
            if packed is not None:
                self._tell(used, begun, ran - told)
                self._host.post(packed)
                told = ran = ran + 1
                used = begun = gathered.used
                most = room if session.keeps else -1
                soon, late = gathered.last + SHORT, gathered.since + GATHER
                continue
            if not used:
                gathered.begin_round(now, end)
                late = now + GATHER
            used = cells[USED] = end
            ran += 1
            if now < soon and now < late and cells[WATCHED]:  # as `Gatherer.may_wait` has it
                soon = now + SHORT
                continue
            gathered.last = soon - SHORT
            waits = gathered.may_wait(now, last=ran == len(tasks))
            soon = now + SHORT
            if not waits and ran < len(tasks):
                self._tell(used, begun, ran - told)
                self._host.send_gathered()
                told, used, begun = ran, 0, 0
                most = room if session.keeps else -1
        gathered.last = soon - SHORT
        self._tell(used, begun, ran - told)
        return ran

    def _begin(self, context: int) -> None:
        """Let values of this context be gathered."""
        session, gathered = self._session, self._gathered
        if not gathered.is_of(session.lease, context):
            if not gathered.empty:
                self._host.send_gathered()
            gathered.begin(session.lease, context, head(session.slave, session.lease, context))

    def _tell(self, used: int, begun: int, count: int) -> None:
        """The session and the gatherer are to know of the last values, which stand behind so many bytes."""
        gathered = self._gathered
        gathered.used = used
        if count:
            self._session.values(count, gathered.pieces_from(begun))


def _made(task: int, packed: Packed) -> bytes:
    """The piece of an outcome; empty if it is none that is gathered."""
    kind, data, buffers = packed
    if kind != VALUE or buffers or len(data) >= _LARGE:  # type: ignore[arg-type]  # it is bytes
        return b""
    return piece(task, data)  # type: ignore[arg-type]
