"""Looking for a master that may not be there yet."""

from __future__ import annotations

import logging
import math
import time

from .agent import Agent, AgentConfig
from .dial import format_address
from .errors import Intercepted, SlaveError, Unreachable

log = logging.getLogger("slave")

_PAUSE = 1.0  # seconds between two tries


def find_master(config: AgentConfig, seconds: float, refused_seconds: float = math.inf) -> Agent:
    """An agent that has enlisted; tries for ``seconds``, but for ``refused_seconds`` if machines answer and refuse.

    Raises the last `Unreachable` or `Intercepted` when the time is over, and `WrongKey` or `Incompatible` at once.
    """
    began = time.monotonic()
    told = False
    while True:
        agent = Agent(config)
        try:
            agent.enlist()
            return agent
        except BaseException as error:
            agent.close()
            refused = isinstance(error, Unreachable) and not error.others
            left = began + (min(seconds, refused_seconds) if refused else seconds) - time.monotonic()
            if not isinstance(error, (Unreachable, Intercepted, OSError, EOFError)) or left <= 0:
                raise _as_slave_error(error, config) from None
            if not told:
                log.warning("no master yet (%s); trying for %.0f s", error, seconds)
                told = True
            time.sleep(min(_PAUSE, left))
            # another one first: somebody between may let all handshakes through and break what comes then
            config = config._replace(addresses=[*config.addresses[1:], *config.addresses[:1]])


def _as_slave_error(error: BaseException, config: AgentConfig) -> BaseException:
    if isinstance(error, SlaveError) and not isinstance(error, Unreachable):
        return error
    if isinstance(error, (Unreachable, OSError, EOFError)):
        names = ", ".join(format_address(address) for address in config.addresses)
        refused, others = (error.refused, error.others) if isinstance(error, Unreachable) else ((), True)
        return Unreachable(f"cannot reach the master at {names}: {error}", refused, others)
    return error
