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

from .lock_free import Once
from .ticket import Ticket

log = logging.getLogger("parallel")

_LOOK_AGAIN = 1.0  # seconds; whoever waits for this thread looks whether it lives


class Courier:
    """See the module's text.  Safe to use from any thread."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._started = False
        self._post = Once()  # the thread that is first is the courier
        self._thread: threading.Thread | None = None  # which that is, or was at the end
        self._finishing = threading.Lock()  # held by the thread that does what came behind the end: one at a time
        self._stopped = False

    def start(self) -> None:
        """Start the thread, unless it runs.

        No lock: a signal handler may interrupt this, and submit tasks.  Two threads that are started are one courier,
        and one that finds nothing to do.
        """
        if not self._started:
            threading.Thread(target=self._run, daemon=True, name="parallel courier").start()
            self._started = True

    def send(self, errand: Callable[[], object]) -> None:
        """Have it done soon, after what was left here before.  Never waits for that.

        Behind the end too, where there are errands of errands, and callbacks of what a closed manager refuses.
        """
        self._errands.put(errand)
        if self._stopped and not self.is_this_thread:
            try:
                threading.Thread(target=self._finish, daemon=True, name="parallel courier").start()
            except RuntimeError:  # the interpreter ends, and nobody waits any more; or no thread can be had
                log.exception("parallel: a callback cannot be called")

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is one of its errands."""
        return threading.current_thread() is self._thread

    def flush(self) -> None:
        """Wait until what was left here before is done.  Not for its own errands: they do not wait."""
        if not self._started or self.is_this_thread:
            return
        ticket = Ticket()
        self.send(lambda: ticket.answer(None))
        while not ticket.wait(_LOOK_AGAIN) and (self._thread is None or self._thread.is_alive()):
            pass

    def stop(self) -> None:
        """End when all is done that was left here by then.  Does not wait for that."""
        self._errands.put(None)

    def _run(self) -> None:
        if not self._post.first():
            return
        self._thread = threading.current_thread()
        while True:
            errand = self._errands.get()
            if errand is None:
                break
            self._do(errand)
            del errand  # while it sleeps it keeps nobody's results
        self._stopped = True  # who leaves something here and does not see this has it done now
        self._finish()

    def _finish(self) -> None:
        while not self._errands.empty():
            if not self._finishing.acquire(blocking=False):
                return  # that thread looks again
            self._thread = threading.current_thread()
            self._do_what_is_left()
            self._finishing.release()

    def _do_what_is_left(self) -> None:
        while True:
            try:
                errand = self._errands.get_nowait()
            except queue.Empty:
                return
            if errand is not None:
                self._do(errand)

    def _do(self, errand: Callable[[], object]) -> None:
        try:
            errand()
        except BaseException:  # SystemExit too: it would end this thread, and the next callbacks were never called
            log.exception("parallel: a callback raised")
