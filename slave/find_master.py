"""Looking for a master that may not be there yet."""

from __future__ import annotations

import logging
import math
import time
from typing import Callable

from . import certificate, limits
from .agent import Agent
from .agent_config import AgentConfig
from .dial import format_address
from .errors import Incompatible, Intercepted, OutOfResources, Rejected, SlaveError, Unreachable, WrongKey
from .transport import UNIX

log = logging.getLogger("slave")

_PAUSE = 1.0  # seconds between two tries
_LONG = 1e6  # seconds that nobody wants to read
Errors = tuple[type[SlaveError], ...]
_UNPROVED = (Unreachable, Intercepted, WrongKey, Incompatible, OSError, EOFError)


def find_master(
    config: AgentConfig,
    seconds: float,
    refused_seconds: float = math.inf,
    at_once: Errors = (),
    master_lives: Callable[[], bool] = lambda: True,
) -> Agent:
    """An agent that has enlisted; tries for ``seconds``, but for ``refused_seconds`` if machines answer and refuse.

    Whoever stands on the way can say "wrong key" or "another version" in the master's name, and prove nothing: only the
    master itself ends the search before the time is over.  Then raises what the last try ended with: `Unreachable`,
    `Intercepted`, `WrongKey` or `Incompatible`.  Raises `Incompatible` at once if this Python cannot do what is asked
    of it, and what `Agent.enlist` raises when the master has proved that it is one, or one of ``at_once``.

    A local slave (``stays``) has one way to its master, which runs on this machine: if the system says that there is
    none, waiting is no use, and the master is to be told.  It ends, too, when ``master_lives`` says so.
    """
    if config.encrypt and not all(host.startswith(UNIX) for host, _ in config.addresses):
        certificate.need_tls()
    began = time.monotonic()
    told: set[type[BaseException]] = set()
    while True:
        agent = Agent(config)
        try:
            agent.enlist()
            return agent
        except BaseException as error:
            agent.close()
            refused = isinstance(error, Unreachable) and not error.others
            left = began + (min(seconds, refused_seconds) if refused else seconds) - time.monotonic()
            exhausted = _exhausted(error)
            if exhausted is not None:  # of this process: waiting brings none back
                text = f"{_as_slave_error(error, config)}; {limits.told(exhausted)}"
                raise OutOfResources(text) from None
            if (config.stays and isinstance(error, Unreachable) and error.no_way) or not master_lives():
                left = 0.0
            if isinstance(error, (Rejected, *at_once)) or not isinstance(error, _UNPROVED) or left <= 0:
                raise _as_slave_error(error, config) from None
            if type(error) not in told:
                how_long = f"for {left:.0f} s" if left < _LONG else "as long as it runs"
                log.warning("no master yet (%s); trying %s", error, how_long)
                told.add(type(error))
            time.sleep(min(_PAUSE, left))
            # another one first: somebody between may let all handshakes through and break what comes then
            config = agent.config._replace(addresses=[*config.addresses[1:], *config.addresses[:1]])


def _exhausted(error: BaseException) -> BaseException | None:
    """Which limit kept some address from being tried; the error itself if not even a selector was to be had."""
    if isinstance(error, Unreachable):
        return error.exhausted
    return error if limits.no_descriptor(error) else None


def _as_slave_error(error: BaseException, config: AgentConfig) -> BaseException:
    if isinstance(error, SlaveError) and not isinstance(error, Unreachable):
        return error
    if isinstance(error, (Unreachable, OSError, EOFError)):
        names = ", ".join(format_address(address) for address in config.addresses)
        said = str(error).removeprefix(names + ": ")  # the only one is not named twice
        text = f"cannot reach the master at {names}: {said}"
        if isinstance(error, Unreachable):
            return Unreachable(text, error.refused, error.others, error.no_way)
        return Unreachable(text)
    return error
