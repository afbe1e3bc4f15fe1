"""A slave that outlives its master: it waits for the script to be started again, and serves that.

It looks where the old master was, and asks on the local network (discovery.py).  A master of the same key that runs the
same program of the same user is the one; it has another run, and another certificate, and the slave joins it as one
that was started by hand does.  Its runners are kept, with what their setups have returned (handover.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from .agent import Agent
from .dial import Address, format_address
from .discovery import look
from .errors import MasterFinished, MasterGone, NotStartedAgain, SlaveError

log = logging.getLogger("slave")

_LISTEN = 1.0  # seconds for masters to answer
_PAUSE = 1.0  # between two tries
_SETTLE = 3.0  # for runners to leave the old master, unless they are busy
_LOOK = 0.1  # between two looks whether they have


def serve_next(agent: Agent, program: str, seconds: float, others: bool = False) -> str:
    """Serve masters of that program, one after the other, until one is done; returns how that ended.

    ``agent``: as the first one has left it; ``seconds``: how long to look for the next one.  ``others``:
    masters of other programs are served, too, if there is none of this one.  Raises `NotStartedAgain` when none came in
    that time, `MasterGone` after one whose slaves do not wait, `MasterFinished` if one that came has nothing to do, and
    `Quit`.
    """
    while True:
        log.warning("the master is gone; waiting %g s for its program to be started again", seconds)
        try:
            if not _find(agent, program, time.monotonic() + seconds, others):
                raise NotStartedAgain(f"the master's program was not started again within {seconds:g} s")
        except BaseException:
            agent.close()
            raise
        log.warning("connected to the master of the next run")
        try:
            return agent.serve()
        except MasterGone as error:
            if not agent.outlives:
                raise
            log.warning("%s", error)
            seconds, program = agent.outlives, agent.program or program


def _find(agent: Agent, program: str, deadline: float, others: bool) -> bool:
    """Have the agent enlist with the next master; False if there is none by then."""
    told = ""
    settled = min(deadline, time.monotonic() + _SETTLE)
    while not agent.rests and time.monotonic() < settled:
        agent.rest(_LOOK)
    addresses = agent.config.addresses
    while time.monotonic() < deadline:
        for candidates, master in _candidates(agent, addresses, program, others):
            agent.rest(0.0)
            try:
                agent.enlist_with(candidates, master)
                return True
            except MasterFinished:
                raise
            except (SlaveError, OSError, EOFError) as error:
                if str(error) != told:
                    told = str(error)
                    log.info("no master yet at %s (%s)", ", ".join(map(format_address, candidates)), error)
        agent.rest(max(0.0, min(_PAUSE, deadline - time.monotonic())))
    return False


def _candidates(
    agent: Agent, addresses: Sequence[Address], program: str, others: bool
) -> Iterator[tuple[Sequence[Address], str | None]]:
    """Where the next master may be, with its fingerprint where that is known."""
    found = sorted(look(agent.config.key, _LISTEN), key=lambda one: not same_program(one.name, program))
    for one in found:
        if others or same_program(one.name, program):
            yield one.addresses, one.master
    yield addresses, None


def same_program(name: str, other: str) -> bool:
    """Whether two masters' names are of one program of one user, on whatever machine and in whatever process."""
    return name.partition(" on ")[0] == other.partition(" on ")[0]
