"""A manager as watchers see it: how it is found on this machine, and what they may ask and order."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Callable

from slave.dial import format_address

from .service import registry
from .service.endpoint import Endpoint
from .service.monitor_service import Controls

if TYPE_CHECKING:
    from .service.dispatcher import Dispatcher

log = logging.getLogger("parallel")


def controls_of(
    manager: Callable[[], object | None], dispatcher: Dispatcher, endpoint: Endpoint, name: str, ships: bool
) -> Callable[[], Controls]:
    """What makes the controls, when a watcher comes for the first time.  ``manager``: None when it is gone."""

    def addresses() -> list[str]:
        return [format_address(address) for address in endpoint.addresses(local=False)]

    def make() -> Controls:
        from .monitor import controls

        return controls.Controls(manager, dispatcher, name, addresses, ships)  # type: ignore[arg-type]

    return make


class Registration:
    """The file by which this user's commands on this machine find the master.  ``endpoint`` is open."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        address, master = endpoint.addresses(local=True)[0], endpoint.fingerprint(local=True)
        entry = registry.Entry(os.getpid(), name, address, master, endpoint.identity.encrypt, endpoint.keyring.watch)
        self._path: str | None = None
        try:
            self._path = registry.register(entry)
        except OSError as error:  # a home that is read-only, say: then nobody finds it without its address
            log.debug("parallel: commands on this machine do not find this master by themselves: %s", error)

    def close(self) -> None:
        """Remove it."""
        if self._path is not None:
            registry.unregister(self._path)
