"""Lane: calls of one user of a `Work`, so many of them at a time, whose callbacks run in a thread of the lane's own.

For front ends whose callbacks are somebody else's code, and may wait: joblib's take a lock that the user's thread holds
while it asks the user's iterator for tasks, and that may wait for results of the same manager.  In the courier, which
is one thread for all, they would hold up everybody, and could wait for each other for ever.

The thread is there while calls are outstanding: from the first of them until the last one's callback has returned.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections import deque
from typing import Any, Callable, NamedTuple, Protocol

from .work import exiting

log = logging.getLogger("parallel")

_LONGEST_CALLBACK = 5.0  # seconds for which `cancel` waits for one

AnyFuture = concurrent.futures.Future[Any]
Callback = Callable[[AnyFuture], object]


class Slaves(Protocol):
    """What a lane needs of a `Work`."""

    def submit_by_value(self, function: Callable[[], Any]) -> AnyFuture:
        """See `Work.submit_by_value`."""


class _Call(NamedTuple):
    function: Callable[[], object]
    callback: Callback | None
    round: int  # calls of earlier ones were cancelled


class Lane:
    """See the module's text.  Safe to use from any thread, callbacks among them.

    ``most``: how many calls the slaves have at a time; None: all.  ``failed``: gets a callback and what it raised.
    """

    def __init__(self, slaves: Slaves, most: int | None, failed: Callable[[Any, BaseException], object]) -> None:
        self._slaves, self._most, self._failed = slaves, most, failed
        self._changed = threading.Condition()  # guards what follows; nothing is called while it is held
        self._waiting: deque[_Call] = deque()  # for others to be done
        self._running: set[AnyFuture] = set()
        self._outstanding = 0  # calls whose callbacks have not returned
        self._round = 0
        self._calls_back: threading.Thread | None = None  # the lane's thread, while it is in a callback
        self._done: queue.SimpleQueue[tuple[AnyFuture, _Call]] = queue.SimpleQueue()

    @property
    def idle(self) -> bool:
        """Whether no call is outstanding."""
        return not self._outstanding

    def submit(self, function: Callable[[], object], callback: Callback | None) -> None:
        """Have a slave call it, now or when others are done; then ``callback`` gets its future.  Does not raise."""
        with self._changed:
            call = _Call(function, callback, self._round)
            self._outstanding += 1
            begins = self._outstanding == 1
            if self._most is not None and self._outstanding - len(self._waiting) > self._most:
                self._waiting.append(call)
                return
        if begins:
            threading.Thread(target=self._run, daemon=True, name="parallel lane").start()
        self._start(call)

    def _start(self, call: _Call) -> None:
        try:
            if exiting():
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            future = self._slaves.submit_by_value(call.function)
        except Exception as error:  # a manager that was shut down: whoever waits for the callback is to be told
            future = concurrent.futures.Future()
            future.set_exception(error)
        with self._changed:
            self._running.add(future)
            late = call.round != self._round
        if late:
            future.cancel()
        future.add_done_callback(lambda future: self._done.put((future, call)))

    def cancel(self) -> None:
        """Drop the calls that wait, and cancel those that slaves have.  Their callbacks will not be called any more.

        A callback that has begun is waited for, though not for ever: it may itself wait for something.
        """
        with self._changed:
            self._round += 1
            self._outstanding -= len(self._waiting)
            self._waiting.clear()
            running = list(self._running)
        for future in running:
            future.cancel()
        with self._changed:
            if self._calls_back is not threading.current_thread():
                self._changed.wait_for(lambda: self._calls_back is None, _LONGEST_CALLBACK)

    def _run(self) -> None:
        while True:
            future, call = self._done.get()
            with self._changed:
                self._running.discard(future)
                following = self._waiting.popleft() if self._waiting else None
                wanted = call.round == self._round
                self._calls_back = threading.current_thread() if wanted else None
            if following is not None:
                self._start(following)
            if wanted:
                self._call_back(call.callback, future)
            del future, call, following
            with self._changed:
                self._calls_back = None
                self._changed.notify_all()
                self._outstanding -= 1
                if not self._outstanding:
                    return

    def _call_back(self, callback: Callback | None, future: AnyFuture) -> None:
        if callback is None:
            return
        try:
            callback(future)
        except BaseException as error:  # here it would reach nobody
            log.exception("parallel: a callback raised")
            with contextlib.suppress(Exception):  # no more can be done: it is told, in any case
                self._failed(callback, error)
