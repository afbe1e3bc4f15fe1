"""Courier: the one thread of a manager in which users' callbacks run, and everything else that waits for no reader.

It is started by the first that needs it, sleeps until there is something to do, and is told so by the dispatcher.  What
it does may be the user's code: callbacks of futures.  These may submit more tasks; one that takes long holds up other
callbacks, and nothing else.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Callable

from .ticket import Ticket

log = logging.getLogger("parallel")

_LOOK_AGAIN = 1.0  # seconds; whoever waits for this thread looks whether it lives


class Courier:
    """See the module's text.  Safe to use from any thread."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._starting = threading.Lock()  # held for as long as it takes to start the thread
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, daemon=True, name="parallel courier")
                    thread.start()
                    self._thread = thread

    def send(self, errand: Callable[[], object]) -> None:
        """Have it done soon, after what was left here before.  Never waits."""
        self._errands.put(errand)

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is one of its errands."""
        return threading.current_thread() is self._thread

    def flush(self) -> None:
        """Wait until what was left here before is done.  Not for its own errands: they do not wait."""
        thread = self._thread
        if thread is None or self.is_this_thread:
            return
        ticket = Ticket()
        self._errands.put(lambda: ticket.answer(None))
        while not ticket.wait(_LOOK_AGAIN) and thread.is_alive():
            pass

    def stop(self) -> None:
        """End when all is done that was left here before.  Does not wait for that."""
        self._errands.put(None)

    def _run(self) -> None:
        while True:
            errand = self._errands.get()
            if errand is None:
                return
            try:
                errand()
            except Exception:
                log.exception("parallel: a callback raised")
            del errand  # while it sleeps it keeps nobody's results
