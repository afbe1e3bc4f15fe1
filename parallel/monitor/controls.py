"""What watchers ask and order of a manager: the answers, as JSON (service/monitor_service.py calls)."""

from __future__ import annotations

import calendar
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, Callable, Protocol

from slave.missing import version_of
from slave.outcome import unpack_failure
from slave.protocol import FAILURE, GIVEN_UP, RELEASE
from slave.search_path import LIBRARY, PACKAGES, kind_of

from ..core.failures import FailedTask
from ..pickled import name_in
from ..service.dispatcher import Dispatcher
from . import output_tail
from .firewall import evidence
from .survey import survey

log = logging.getLogger("parallel")

_MOST_ENDS = 20_000  # characters on how attempts ended

Work = Callable[[], bytes]


class ManagerGone(Exception):
    """The manager was shut down."""


class Manager(Protocol):
    """What is used of a `Manager`."""

    def add_slaves(self, n: int | None = None) -> None:
        """Add local slaves."""

    def remove_slave(self, slave: Any, grace: float | None = None) -> None:
        """Have one end."""

    def shutdown(self, *, wait: bool = True) -> None:
        """End."""


class Controls:
    """See the module's text.  ``manager``: None when it is gone.  ``addresses``: those that it offers others."""

    def __init__(
        self,
        manager: Callable[[], Manager | None],
        dispatcher: Dispatcher,
        name: str,
        addresses: Callable[[], list[str]],
        shipped: bool,
    ) -> None:
        self._manager, self._dispatcher, self._name = manager, dispatcher, name
        self._addresses, self._ships = addresses, shipped

    def status(self) -> Work:
        """How things are, as `Status.as_dict` has it."""
        found = survey(self._dispatcher, self._name, time.monotonic())
        return lambda: _json(found.as_dict())

    def failures(self, after: int) -> Work:
        """The last tasks that failed."""
        state = self._dispatcher.scheduler.state
        found, now = state.failures.after(after), time.monotonic()
        labels = {id: record.rules.label or record.rules.name for id, record in state.contexts.items()}
        return lambda: _json([told_failure(one, now, labels.get(one.context, "")) for one in found])

    def output(self, places: str) -> Work:
        """What has been written to slaves' output files since; ``places``: by slave how much is known, as JSON."""
        slaves = self._dispatcher.scheduler.state.roster.slaves
        paths = {number: slave.output for number, slave in slaves.items() if slave.output is not None}
        return lambda: _json(output_tail.lines(paths, json.loads(places)))

    def surroundings(self) -> Work:
        """What doctor compares on another machine."""

        def surroundings() -> bytes:
            addresses = self._addresses()
            ports = [int(one.rpartition(":")[2]) for one in addresses if not one.startswith("unix:")]
            told = {
                "release": RELEASE,
                "python": platform.python_version(),
                "executable": sys.executable,
                "clock": calendar.timegm(time.gmtime()),
                "addresses": addresses,
                "firewall": evidence(ports[0]) if ports else [],
                "ships": self._ships,
                "packages": packages_of_program(),
            }
            return _json(told)

        return surroundings

    def stop(self) -> Work:
        """Have the manager shut down."""

        def stop() -> bytes:
            there = self._there()
            log.warning("parallel: shutting down, as python3 -m parallel stop said")
            there.shutdown(wait=False)
            return _json(None)

        return stop

    def drain(self, slave: int, grace: float | None) -> Work:
        """Have a slave end.  Raises `InputError` if there is none of that number."""

        def drain() -> bytes:
            self._there().remove_slave(slave, grace)
            return _json(None)

        return drain

    def add(self, count: int) -> Work:
        """Start more slaves on the manager's machine."""

        def add() -> bytes:
            self._there().add_slaves(count)
            return _json(None)

        return add

    def _there(self) -> Manager:
        found = self._manager()
        if found is None:
            raise ManagerGone("the manager was shut down")
        return found


def told_failure(failed: FailedTask, now: float, context: str) -> dict[str, Any]:
    """A task that failed, for people."""
    name = failed.label or (name_in(failed.payload) if failed.payload else "") or context
    error, traceback = _of_kind(failed)
    return {
        "number": failed.number,
        "ago": now - failed.time,
        "context": failed.context,
        "task": failed.task,
        "label": name,
        "slave": failed.slave,
        "error": error,
        "traceback": traceback,
    }


def _of_kind(failed: FailedTask) -> tuple[str, str]:
    if failed.data is None:
        return "its error is too large to be shown here", ""
    if failed.kind == FAILURE:
        failure = unpack_failure(failed.data)
        return f"{failure.type_name}: {failure.message}", failure.traceback
    if failed.kind == GIVEN_UP:
        return "it ended its slave too often", "\n".join(map(str, failed.data))[:_MOST_ENDS]
    return f"it ran for longer than {failed.data:g} s", ""


def packages_of_program() -> dict[str, str]:
    """The installed packages that the user's program has imported itself, with their versions ('' if not known).

    No code of the user's is run: his objects are asked for nothing, and modules that load late stay as they are.
    """
    found = {name for module in _users_modules() for name in _named_in(_namespace_of(module))}
    packages = sorted(name for name in found if _kind(sys.modules.get(name)) == PACKAGES)
    return {name: version_of(name).partition(" ")[2] for name in packages}


def _users_modules() -> Iterator[ModuleType]:
    for name, module in sys.modules.copy().items():
        ours = name.partition(".")[0] in ("parallel", "slave")
        if not ours and _is_module(module) and (name == "__main__" or _kind(module) not in (LIBRARY, PACKAGES)):
            yield module


def _is_module(value: object) -> bool:
    return issubclass(type(value), ModuleType)  # isinstance would ask the object


def _namespace_of(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    return found


def _named_in(namespace: dict[str, Any]) -> Iterator[str]:
    for value in namespace.copy().values():
        if _is_module(value):
            name = _namespace_of(value).get("__name__")
        elif type(value) in (type, FunctionType):
            name = (
                type.__getattribute__(value, "__dict__").get("__module__") if type(value) is type else value.__module__
            )
        else:
            continue
        if type(name) is str:
            yield name.partition(".")[0]


def _kind(module: object) -> str:
    spec = _namespace_of(module).get("__spec__") if _is_module(module) else None  # type: ignore[arg-type]  # it is one
    file = spec.origin if type(spec) is ModuleSpec else None
    return kind_of(os.path.dirname(file)) if type(file) is str and os.path.isabs(file) else LIBRARY


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
