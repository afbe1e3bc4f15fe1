"""A slave that outlives its master: it waits for the script to be started again, and serves that.

It looks where the old master was, and asks on the local network (discovery.py).  A master of the same key that runs the
same program of the same user is the one; it has another run, and another certificate, and the slave joins it as one
that was started by hand does.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence

from .agent import Agent, AgentConfig
from .dial import Address, format_address
from .discovery import look
from .errors import MasterFinished, MasterGone, SlaveError
from .keys import Key

log = logging.getLogger("slave")

_LISTEN = 1.0  # seconds for masters to answer
_PAUSE = 1.0  # between two tries


def serve_next(config: AgentConfig, program: str, seconds: float) -> str:
    """Serve masters of that program, one after the other, until one is done; returns how that ended.

    ``config``: as it was for the first one; ``seconds``: how long to look for the next one, each time.  Raises
    `MasterGone` when none came in that time, `MasterFinished` if one that came has nothing to do, `Quit`.
    """
    while True:
        log.warning("the master is gone; waiting %g s for its program to be started again", seconds)
        agent = _find(config, program, time.monotonic() + seconds)
        if agent is None:
            raise MasterGone(f"the master's program was not started again within {seconds:g} s")
        log.warning("connected to the master of the next run")
        try:
            return agent.serve()
        except MasterGone as error:
            log.warning("%s", error)


def _find(config: AgentConfig, program: str, deadline: float) -> Agent | None:
    """An agent that has enlisted with the next master; None if there is none by then."""
    told = ""
    while time.monotonic() < deadline:
        for addresses, master in _candidates(config, program):
            agent = Agent(
                config._replace(
                    agent=secrets.token_hex(16),
                    addresses=addresses,
                    master=master,
                    slaves=[(None, output) for _, output in config.slaves],
                    stays=False,
                )
            )
            try:
                agent.enlist()
                return agent
            except MasterFinished:
                agent.close()
                raise
            except (SlaveError, OSError, EOFError) as error:
                agent.close()
                if str(error) != told:
                    told = str(error)
                    log.info("no master yet at %s (%s)", ", ".join(map(format_address, addresses)), error)
            except BaseException:
                agent.close()
                raise
        time.sleep(max(0.0, min(_PAUSE, deadline - time.monotonic())))
    return None


def _candidates(config: AgentConfig, program: str) -> Iterator[tuple[Sequence[Address], str | None]]:
    """Where the next master may be, with its fingerprint where that is known."""
    for found in look(Key(config.key), _LISTEN):
        if same_program(found.name, program):
            yield found.addresses, found.master
    yield config.addresses, None


def same_program(name: str, other: str) -> bool:
    """Whether two masters' names are of one program of one user, on whatever machine and in whatever process."""
    return name.partition(" on ")[0] == other.partition(" on ")[0]
