"""A live page: the address, at once, and a thread that makes the rest a moment later.

To import a web server and what looks takes 40 ms, in which thousands of tasks could be done.  So the port is there
first, looks begin when the run has, and the server is made when somebody comes.
"""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from .page_server import PageServer
    from .recorder import Recorder, Source

log = logging.getLogger("parallel")

_HOST = "127.0.0.1"
_LATER = 1.5  # seconds until the first look, unless somebody comes before
_WAITING = 32  # connections


class LivePage:
    """See the module's text.  ``source`` makes what it looks at.  Raises OSError if no port is to be had."""

    def __init__(self, source: Callable[[], Source], later: float = _LATER) -> None:
        self._make_source, self._later = source, later
        self._listener = socket.create_server((_HOST, 0), backlog=_WAITING)
        self._token = secrets.token_urlsafe(24)
        self.url = f"http://{_HOST}:{self._listener.getsockname()[1]}/{self._token}/"
        self._waker, self._wake = socket.socketpair()
        self._over = False
        self._server: PageServer | None = None
        self._thread = threading.Thread(target=self._run, name="parallel page", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End.  May be called twice."""
        self._over = True
        try:
            self._wake.send(b"!")
        except OSError:
            pass  # it has ended
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            try:
                self._look_and_serve(selector)
            except Exception:
                log.exception("parallel: the live page shows nothing new; please report this")
                self._waker.recv(1)
            finally:
                if self._server is not None:
                    self._server.close()
                for sock in (self._listener, self._waker, self._wake):
                    sock.close()

    def _look_and_serve(self, selector: selectors.BaseSelector) -> None:
        """Until it is over; the server is made when somebody comes."""
        recorder: Recorder | None = None
        next_look = time.monotonic() + self._later
        while True:
            ready = selector.select(max(0.0, next_look - time.monotonic()))
            if self._over:
                return
            somebody = any(key.fileobj is self._listener for key, _ in ready)
            if recorder is None:
                from .recorder import Recorder

                recorder = Recorder(self._make_source())
                next_look = time.monotonic()
            if time.monotonic() >= next_look:
                recorder.look()
                next_look = time.monotonic() + recorder.pause
            if somebody:
                from .page_server import PageServer

                selector.unregister(self._listener)
                self._server = PageServer(self._listener, self._token, recorder.data)
                self._server.start()
