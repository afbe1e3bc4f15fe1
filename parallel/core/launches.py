"""What is decided when a launcher speaks: slaves are to come, were started.  That they ended: `Agents.ended`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from slave.named import NamedTuple
from slave.protocol import StartRunner

from .slave import Contact, Life, SlaveRecord
from .state import State


class Expected(Protocol):
    """What a launcher knows of a slave that is to come: see parallel/launch/slave_service.py."""

    @property
    def name(self) -> str:
        """What and where it is, in words."""

    @property
    def open_ended(self) -> bool:
        """Whether its agent brings as many more as its machine has CPUs to use."""

    @property
    def has_launcher(self) -> bool:
        """Whether a launcher says when it has ended for good."""


class SlaveView(NamedTuple):
    """A slave as it is now: see parallel/launch/slave_service.py."""

    number: int
    text: str
    output: str | None
    came: bool
    lost: bool
    ended: bool
    done: int = 0


class Launches:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state

    def expect(self, agent: str, slaves: Sequence[Expected], now: float) -> list[int]:
        """An agent is to bring these slaves; returns their numbers."""
        numbers = []
        for one in slaves:
            slave = self._state.roster.expect(one.name, agent)
            slave.output = self._state.output_of(slave.number)
            slave.open_ended, slave.has_launcher = one.open_ended, one.has_launcher
            numbers.append(slave.number)
            self._state.roster.agent(agent).is_local = not one.has_launcher
        return numbers

    def describe(self, agent: str, now: float) -> list[SlaveView]:
        """All slaves of an agent; [] for one that is not known."""
        found = self._state.roster.agents.get(agent)
        slaves = [] if found is None else [*found.slaves.values(), *found.ended.values()]
        return [_view(slave) for slave in slaves]

    def started(
        self,
        agent: str,
        numbers: Sequence[int],
        names: Mapping[int, str],
        doing: str | None,
        now: float,
    ) -> None:
        """What the launcher says of slaves that it has started."""
        for number in numbers:
            slave = self._state.roster.slaves.get(number)
            if slave is not None:
                slave.name = names.get(number, slave.name)
                slave.doing = slave.doing if doing is None else doing

    def start_by_agent(self, agent: str, numbers: Sequence[int], nowhere: str, now: float) -> None:
        """The agent runs already and is to start these; ``nowhere``: the output file of those that have none."""
        self._state.now = now
        for number in numbers:
            slave = self._state.roster.slaves.get(number)
            if slave is not None:
                self._state.command(agent, StartRunner(number, slave.output or nowhere))


def _view(slave: SlaveRecord) -> SlaveView:
    lost = slave.contact is Contact.LOST or slave.life is Life.PARTED
    ended = slave.life is Life.ENDED
    return SlaveView(slave.number, str(slave), slave.output, bool(slave.host), lost, ended, slave.done)
