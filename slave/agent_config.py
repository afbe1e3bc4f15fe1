"""What an agent is told at its start."""

from __future__ import annotations

from collections.abc import Sequence

from .dial import Address
from .machine import Owner
from .named import NamedTuple


class AgentConfig(NamedTuple):
    """What an agent is told at its start: where the master is, and which slaves to be."""

    agent: str
    addresses: Sequence[Address]
    key: bytes
    slaves: Sequence[tuple[int | None, str | None]]  # number (None: the master gives one), output file
    grace: float = 30.0  # seconds that running tasks get to finish when a signal asks the agent to end
    stays: bool = False  # also when it has no slaves: the master may give it new ones
    # a batch system sends SIGTERM to all processes of a job: the agent hears it, and lets running tasks finish
    shielded: bool = False
    master: str | None = None  # the fingerprint of the master to serve, or its beginning; None: whoever holds the key
    # stdin is a pipe that the master's process, on this machine, holds open: its end is the end of the master
    tied: bool = False
    tags: Sequence[str] = ()  # what this machine has
    max_memory: int = 0  # bytes that a runner and what it started may use; 0: what the master says
    owner: Owner | None = None  # whom to step back for
    encrypt: bool = True  # False: a channel that is only authenticated will do
    # seconds that its runners are kept if the master is killed, for the next run of its program; None: as it says
    outlives: float | None = 0.0
