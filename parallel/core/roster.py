"""Roster: the agents and slaves we know, when each was last heard, what each may run.

A slave is a number with an output file, its *slot*; the process behind it may die and be replaced.

    EXPECTED  it was launched, or its agent has enlisted, and it has not joined yet
    READY     it has joined and is heard
    LOST      nothing was heard of it for a lease; it may come back
    ENDED     its agent is gone or will not start it again
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Any

Order = tuple[Any, ...]


class SlaveState(enum.Enum):
    """See the module's text."""

    EXPECTED = "expected"
    READY = "ready"
    LOST = "lost"
    ENDED = "ended"


class SlaveRecord:
    """What the master knows of one slave."""

    def __init__(self, number: int, name: str, agent: str, output: str | None = None) -> None:
        self.number, self.name, self.agent, self.output = number, name, agent, output
        self.state = SlaveState.EXPECTED
        self.host, self.pid = "", 0
        self.heard = 0.0  # when the last sign of life came; 0 before the first
        self.due = math.inf  # when it is lost unless it is heard
        self.draining = False  # it was asked to end, and gets no more leases
        self.cut = False  # its agent's connection has ended and not come back
        self.connection = 0  # which of its process's connections is the current one
        self.call = 0  # counts its connections and calls for tasks, so that a stale one can be told
        self.running = 0  # the task that its last heartbeat named
        self.launched = False  # its launcher will say when it has ended for good: its engine may start it again
        self.with_others = False  # its agent brings as many more as its machine has processors
        self.preemptible = False  # its engine may end it at any moment, for which no task is to blame
        self.dismissed = False  # the user had it removed
        self.doing = ""  # what its launcher says that it does, while it is not connected
        self.parting = ""  # why it left, as long as its launcher has not said that this was the end
        self.done = 0  # tasks settled by it
        self.barred: set[int] = set()  # contexts whose setup failed on it
        self.knows: set[int] = set()  # contexts that its process may have set up
        self.to_forget: list[int] = []  # contexts that are gone and that it has not been told of
        self._text, self._text_of = f"slave {number} ({name})", ("", 0)
        self.end = ""  # how it ended, or how its last process did

    def rename(self, name: str) -> None:
        """Its launcher knows better now what and where it is."""
        self.name, self._text, self._text_of = name, f"slave {self.number} ({name})", ("", 0)

    def __str__(self) -> str:
        if self._text_of != (self.host, self.pid):  # made once for each process: every result names its slave
            self._text_of = self.host, self.pid
            pid = f", pid {self.pid}" if self.pid else ""
            where = f" on {self.host}{pid}" if self.host else ""
            self._text = f"slave {self.number} ({self.name}{where})"
        return self._text

    @property
    def suspect(self) -> int:
        """The task to blame if it vanishes now; 0 for none, as when somebody has asked it to end."""
        return 0 if self.preemptible or self.draining else self.running

    @property
    def alive(self) -> bool:
        """Whether it works or may be about to."""
        return self.state in (SlaveState.EXPECTED, SlaveState.READY)


class AgentRecord:
    """What the master knows of one agent."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.host, self.pid, self.version = "", 0, ""
        self.enlisted = False
        self.numbers: list[int] = []  # its slaves when it enlisted first
        self.connection = 0  # which of its connections is the current one
        self.orders: list[tuple[int, Order]] = []  # numbered, given and not yet acknowledged
        self.last_order = 0


class Roster:
    """All agents by id and all slaves by number."""

    def __init__(self) -> None:
        self.agents: dict[str, AgentRecord] = {}
        self.slaves: dict[int, SlaveRecord] = {}
        self._next_number = 0

    def new_number(self) -> int:
        """A number that no slave had before."""
        self._next_number += 1
        return self._next_number - 1

    def expect(self, number: int, name: str, agent: str, output: str | None = None) -> SlaveRecord:
        """A slave that was launched, or whose agent has enlisted."""
        self.agents.setdefault(agent, AgentRecord(agent))
        slave = self.slaves[number] = SlaveRecord(number, name, agent, output)
        return slave

    def move(self, slave: SlaveRecord, agent: str) -> None:
        """The slave's agent is gone, and another one is on its way, which will start its process anew."""
        self.agents.setdefault(agent, AgentRecord(agent))
        slave.agent = agent
        self.expect_again(slave)

    def expect_again(self, slave: SlaveRecord) -> None:
        """The slave's processes are gone, and others may be on their way."""
        slave.state, slave.host, slave.pid = SlaveState.EXPECTED, "", 0
        slave.due, slave.cut, slave.draining = math.inf, False, slave.dismissed

    def of_agent(self, agent: str) -> list[SlaveRecord]:
        """The slaves of one agent."""
        return [slave for slave in self.slaves.values() if slave.agent == agent]

    def alive(self) -> Iterator[SlaveRecord]:
        """The slaves that work or may be about to."""
        return (slave for slave in self.slaves.values() if slave.alive)

    def possible(self) -> int:
        """How many slaves are connected, may come, or may come back."""
        return sum(slave.state is not SlaveState.ENDED for slave in self.slaves.values())

    def open_ended(self) -> bool:
        """Whether an agent is to come of which nobody knows how many slaves it brings."""
        waiting = (slave for slave in self.slaves.values() if slave.with_others and slave.state is not SlaveState.ENDED)
        return any(not self.agents[slave.agent].enlisted for slave in waiting)

    def ready(self) -> list[SlaveRecord]:
        """The slaves that have joined and are heard."""
        return [slave for slave in self.slaves.values() if slave.state is SlaveState.READY]

    def heard(self, slave: SlaveRecord, now: float, term: float) -> bool:
        """A sign of life from a slave, good for ``term`` seconds; True if it had been lost."""
        slave.heard, slave.due, slave.cut = now, now + term, False
        if slave.state is not SlaveState.LOST:
            return False
        slave.state = SlaveState.READY if slave.pid else SlaveState.EXPECTED
        return True

    def cut_off(self, agent: str, due: float) -> list[SlaveRecord]:
        """The agent's connection has ended: its slaves are lost at ``due`` unless they are heard again."""
        cut = [slave for slave in self.of_agent(agent) if slave.alive and slave.due < math.inf]
        for slave in cut:
            slave.cut, slave.due = True, min(slave.due, due)
        return cut

    def silent(self, now: float) -> list[SlaveRecord]:
        """The slaves that are overdue and not known to be lost yet."""
        return [slave for slave in self.alive() if slave.due <= now]

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long and could hear nobody."""
        for slave in self.slaves.values():
            slave.heard += seconds
            slave.due += seconds

    def hopeful(self, context: int, lost_too: bool) -> bool:
        """Whether some slave works or may come that could run the context's tasks; with ``lost_too`` or come back."""
        lost = [slave for slave in self.slaves.values() if lost_too and slave.state is SlaveState.LOST]
        return any(context not in slave.barred for slave in [*self.alive(), *lost])

    def forget_context(self, context: int) -> list[SlaveRecord]:
        """A context is gone: the slaves that must be told so."""
        told = [slave for slave in self.slaves.values() if context in slave.knows]
        for slave in told:
            slave.knows.discard(context)
            slave.to_forget.append(context)
        for slave in self.slaves.values():
            slave.barred.discard(context)
        return told
