"""A live page: a server, a recorder, and the thread that takes its looks."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from ..service.dispatcher import Dispatcher
from ..service.monitor_service import Controls
from .page_server import PageServer
from .recorder import Recorder, Source
from .status import Status
from .survey import status_of

log = logging.getLogger("parallel")


class LivePage:
    """See the module's text.  Raises OSError if no port is to be had."""

    def __init__(self, source: Source, port: int = 0) -> None:
        self.recorder = Recorder(source)
        self._server = PageServer(self.recorder.data, port)
        self.url = self._server.url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="parallel page", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._server.start()

    def close(self) -> None:
        """End.  May be called twice."""
        if not self._over.is_set():
            self._over.set()
            self._server.close()
            self._thread.join()

    def _look(self) -> None:
        while True:
            try:
                self.recorder.look()
            except Exception:
                log.exception("parallel: the live page shows nothing new; please report this")
                return
            if self._over.wait(self.recorder.pause):
                return


class OwnSource:
    """A manager of this process."""

    def __init__(self, dispatcher: Dispatcher, controls: Controls, name: str) -> None:
        self._dispatcher, self._controls, self._name = dispatcher, controls, name

    def status(self) -> Status:
        """How things are."""
        return status_of(self._dispatcher, self._name)

    def failures(self, after: int) -> list[dict[str, Any]]:
        """See `Controls`."""
        found: list[dict[str, Any]] = self._asked("failures", after)
        return found

    def output(self, places: Mapping[str, int]) -> dict[str, Any]:
        """See `Controls`."""
        found: dict[str, Any] = self._asked("output", json.dumps(places))
        return found

    def _asked(self, method: str, *args: object) -> Any:
        """What is looked up in the dispatcher's thread, and made here."""
        work = self._dispatcher.call(lambda now: getattr(self._controls, method)(*args))
        return json.loads(work())
