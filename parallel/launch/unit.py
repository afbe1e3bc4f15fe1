"""Unit: one slave program of a group."""

from __future__ import annotations

from collections.abc import Sequence

from slave.named import NamedTuple

from .base import Slave


class Unit(NamedTuple):
    """It has an agent, and is one slave or several.  ``name``: its slave's repr when it was added."""

    slave: Slave
    name: str
    agent: str
    numbers: Sequence[int]  # the slaves known beforehand; the agent may bring more
