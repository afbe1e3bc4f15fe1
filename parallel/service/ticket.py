"""Ticket: a place where one thread waits for one answer.

It is one plain lock, used once as a flag.  The waiting thread holds nothing else meanwhile, so a signal handler that
runs in it, at whatever line, may itself wait on a ticket of its own.
"""

from __future__ import annotations

import threading
from typing import Any


class Ticket:
    """Answered once, by the dispatcher; waited for by one thread."""

    __slots__ = ("_flag", "answered", "error", "value")

    def __init__(self) -> None:
        self._flag = threading.Lock()
        self._flag.acquire()
        self.answered = False
        self.value: object = None
        self.error: BaseException | None = None

    def answer(self, value: object) -> None:
        """Wake the thread that waits."""
        if not self.answered:
            self.value, self.answered = value, True
            self._flag.release()

    def refuse(self, error: BaseException) -> None:
        """Wake the thread that waits; it is to raise this."""
        self.error = error
        self.answer(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the answer came, within ``seconds`` if given.  Raises nothing of the answer: see `result`."""
        if self.answered:
            return True
        longest = threading.TIMEOUT_MAX if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
        self._flag.acquire(timeout=longest)
        return self.answered

    def result(self) -> object:
        """The answer.  Raises the error that stands in its place."""
        if self.error is not None:
            raise self.error
        return self.value


class AsyncTicket:
    """The same for a coroutine of the running event loop."""

    def __init__(self) -> None:
        import asyncio  # which whoever awaits something has imported

        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()

    def answer(self, value: object) -> None:
        """Wake the coroutine that waits."""
        self._tell(self._future.set_result, value)

    def refuse(self, error: BaseException) -> None:
        """Wake the coroutine that waits; it is to raise this."""
        self._tell(self._future.set_exception, error)

    def _tell(self, set_outcome: Any, outcome: object) -> None:
        def tell() -> None:
            if not self._future.done():
                set_outcome(outcome)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more

    async def result(self) -> Any:
        """The answer, waited for.  Raises the error that stands in its place."""
        return await self._future
