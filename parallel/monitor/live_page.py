"""A live page: the address, at once, and a thread that makes the rest a moment later.

To import a web server takes 40 ms, as long as a slave takes to start.  So the port is there first, where a browser that
comes too early waits, and the server when the run has begun.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from .page_server import PageServer
    from .recorder import Source

log = logging.getLogger("parallel")

_HOST = "127.0.0.1"
_LATER = 0.5  # seconds until the server is made
_WAITING = 32  # connections


class LivePage:
    """See the module's text.  ``source`` makes what it looks at.  Raises OSError if no port is to be had."""

    def __init__(self, source: Callable[[], Source], later: float = _LATER) -> None:
        self._make_source, self._later = source, later
        self._listener = socket.create_server((_HOST, 0), backlog=_WAITING)
        self._token = secrets.token_urlsafe(24)
        self.url = f"http://{_HOST}:{self._listener.getsockname()[1]}/{self._token}/"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="parallel page", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End.  May be called twice."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        server: PageServer | None = None
        try:
            if self._over.wait(self._later):
                return
            from .page_server import PageServer
            from .recorder import Recorder

            recorder = Recorder(self._make_source())
            server = PageServer(self._listener, self._token, recorder.data)
            server.start()
            while True:
                recorder.look()
                if self._over.wait(recorder.pause):
                    return
        except Exception:
            log.exception("parallel: the live page shows nothing new; please report this")
            self._over.wait()
        finally:
            if server is not None:
                server.close()
            self._listener.close()
