"""A watcher's connection to a master, from this or another machine: over the same authenticated channel as slaves'."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from slave.dial import Address, format_address
from slave.errors import MasterGone, ProtocolError, SlaveError, Unreachable
from slave.link import CallFailed, Link, ServiceProxy
from slave.protocol import MONITOR_SERVICE, WATCHER, Role

from .plain_json import shaped
from .status import Status

_ANSWER_SECONDS = 15.0  # for the master to answer
_PATIENCE = 10.0  # seconds after which a silent machine is given up


class Refused(SlaveError):
    """The master refused what was asked of it; ``str()`` says why."""

    exit_code = 10


class _Proxy(ServiceProxy):
    service = MONITOR_SERVICE

    def ask(self, method: str, args: tuple[object, ...]) -> Any:
        """What the master answers, from JSON."""
        answer = self._callmethod(method, args)
        try:
            return json.loads(bytes(answer))
        except (ValueError, TypeError, RecursionError):
            raise ProtocolError("the master answered what is no JSON") from None


class Watcher:
    """Asks one master.  Every method raises `SlaveError`: `Unreachable`, `MasterGone` if it was there, `Refused` ..."""

    def __init__(
        self, addresses: Sequence[Address], key: bytes, *, master: str | None = None, encrypt: bool = True
    ) -> None:
        self._addresses = addresses
        self._link = Link(
            addresses, key, Role(WATCHER, 0, "", os.getpid(), 0), _PATIENCE, master=master, encrypt=encrypt
        )
        self._proxy = self._link.proxy(_Proxy)
        self._was_there = False

    def close(self) -> None:
        """Hang up."""
        self._link.drop()

    def status(self) -> Status:
        """How things are."""
        return shaped(Status, self._ask("status"))

    def failures(self, after: int) -> list[dict[str, Any]]:
        """The last tasks that failed, later ones than that number: see `controls.told_failure`."""
        return [one for one in _as(list, self._ask("failures", after)) if isinstance(one, dict)]

    def output(self, places: Mapping[str, int]) -> dict[str, Any]:
        """See `output_tail.lines`."""
        found: dict[str, Any] = _as(dict, self._ask("output", json.dumps(places)))
        return found

    def surroundings(self) -> dict[str, Any]:
        """See `Controls.surroundings`."""
        found: dict[str, Any] = _as(dict, self._ask("surroundings"))
        return found

    def stop(self) -> None:
        """Have the manager shut down."""
        self._ask("stop")

    def drain(self, slave: int, grace: float | None = None) -> None:
        """Have a slave end."""
        self._ask("drain", slave, grace)

    def add(self, count: int) -> None:
        """Start so many more slaves on the master's machine."""
        self._ask("add", count)

    def _ask(self, method: str, *args: object) -> Any:
        try:
            if not self._link.connected:
                self._link.connect()
                self._link.connection.limit(_ANSWER_SECONDS)
            answer = self._proxy.ask(method, args)
            self._was_there = True
            return answer
        except CallFailed as error:
            raise Refused(_first_line(str(error))) from None
        except socket.timeout:
            self._link.drop()
            raise Unreachable(f"{self._where} does not answer within {_ANSWER_SECONDS:g} s: is it stopped?") from None
        except (Unreachable, EOFError, OSError) as error:
            self._link.drop()
            if self._was_there:
                raise MasterGone(f"{self._where} has ended") from None
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(f"{self._where} hung up: {error}") from None

    @property
    def _where(self) -> str:
        return f"the master at {', '.join(map(format_address, self._addresses))}"


def _as(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise ProtocolError(f"the master answered with {type(value).__name__} in place of {kind.__name__}")
    return value


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["the master refused, and does not say why"])[-1]
