"""Roster: the agents by id and the slaves by number, and how many there are of which kind.

Every change of a slave's state goes through here, so that what hot paths ask (how many are connected? may one still
come?) is counted and not walked for.
"""

from __future__ import annotations

import math

from .slave import AgentRecord, Contact, Life, Move, Sign, SlaveRecord


class Roster:
    """See the module's text.  Only the scheduler calls what changes it."""

    def __init__(self) -> None:
        self.agents: dict[str, AgentRecord] = {}  # those that have not ended, or whose slaves may come again
        self.slaves: dict[int, SlaveRecord] = {}  # those that have not ended
        self.ended: dict[int, SlaveRecord] = {}  # the others: for reports only
        self.connected: dict[int, SlaveRecord] = {}  # those that may be given tasks
        self.lost = 0  # how many of `slaves` are LOST
        self._next_number = 0
        self._none_before = 0.0  # no slave is missed before that

    def expect(self, name: str, agent: str) -> SlaveRecord:
        """A new slave, which has a number that none had before."""
        number = self._next_number
        self._next_number += 1
        slave = self.slaves[number] = SlaveRecord(number, name, agent)
        self.agent(agent).slaves[number] = slave
        return slave

    def agent(self, id: str) -> AgentRecord:
        """The agent with that id; made if there is none."""
        found = self.agents.get(id)
        if found is None:
            found = self.agents[id] = AgentRecord(id)
        return found

    def of_agent(self, id: str) -> list[SlaveRecord]:
        """The slaves of an agent that have not ended."""
        found = self.agents.get(id)
        return [] if found is None else list(found.slaves.values())

    def known(self, number: int) -> SlaveRecord | None:
        """A slave, also if it has ended."""
        return self.slaves.get(number) or self.ended.get(number)

    def every(self) -> list[SlaveRecord]:
        """All slaves that there ever were, by number."""
        both = {**self.slaves, **self.ended}
        return [both[number] for number in sorted(both)]

    # -- moves

    def move(self, slave: SlaveRecord, move: Move) -> None:
        """Change what becomes of a slave.  Raises `IllegalMove`."""
        slave.move(move)
        if slave.life is Life.ENDED:
            self._sign(slave, Sign.FORGET)
            del self.slaves[slave.number]
            self.ended[slave.number] = slave
            self._leave_agent(slave)
            self.agents[slave.agent].ended[slave.number] = slave
            slave.knows.clear()
            slave.setup_failed.clear()
            slave.unfit_for.clear()
            slave.lacks.clear()
            slave.to_forget.clear()
            slave.told_to_forget.clear()
        self._count(slave)

    def join(self, slave: SlaveRecord, pid: int, connection: int) -> None:
        """A runner is this slave now."""
        self.move(slave, Move.JOIN)
        slave.pid, slave.connection, slave.speaks, slave.parting = pid, connection, True, ""
        slave.memory, slave.stopped = 0, False
        slave.host = slave.host or self.agents[slave.agent].host

    def replace(self, slave: SlaveRecord) -> None:
        """Its runner has ended, and its agent starts another one."""
        self.move(slave, Move.REPLACE)
        slave.pid = slave.running = 0
        slave.speaks = False

    def part(self, slave: SlaveRecord, why: str) -> None:
        """It left; its launcher has the last word."""
        self.move(slave, Move.PART)
        self._processes_gone(slave)
        slave.parting = why

    def start_over(self, slave: SlaveRecord, agent: str) -> None:
        """Its processes are gone, and others of ``agent`` are on their way."""
        self.move(slave, Move.START_OVER)
        self._processes_gone(slave)
        slave.parting = ""
        if slave.agent != agent:
            self._leave_agent(slave)
            slave.agent = agent
            self.agent(agent).slaves[slave.number] = slave

    def _processes_gone(self, slave: SlaveRecord) -> None:
        slave.host, slave.pid, slave.running, slave.connection = "", 0, 0, 0
        slave.speaks = False
        slave.due = math.inf
        self._sign(slave, Sign.FORGET)

    def _leave_agent(self, slave: SlaveRecord) -> None:
        del self.agents[slave.agent].slaves[slave.number]

    def forget_agent(self, id: str) -> None:
        """The agent has ended, and is forgotten unless it has slaves whose launcher may start it again."""
        if id in self.agents and not self.agents[id].slaves:
            del self.agents[id]

    # -- signs of life

    def heard(self, slave: SlaveRecord, now: float, term: float) -> bool:
        """A sign of life, good for ``term`` seconds; True if the slave had been lost."""
        slave.heard, slave.due = now, now + term
        if slave.contact is Contact.HEARD:
            return False
        was_lost = slave.contact is Contact.LOST
        self._sign(slave, Sign.HEAR)
        return was_lost

    def cut_off(self, agent: str, due: float) -> list[SlaveRecord]:
        """The agent's connection has ended: its slaves are missed at ``due`` unless they are heard again."""
        cut = [slave for slave in self.of_agent(agent) if slave.contact in (Contact.HEARD, Contact.CUT_OFF)]
        for slave in cut:
            slave.due = min(slave.due, due)
            self._none_before = min(self._none_before, due)
            self._sign(slave, Sign.CUT)
        return cut

    def missed(self, now: float, term: float) -> list[SlaveRecord]:
        """The slaves that are overdue and not known to be lost yet.  ``term``: seconds, as in `heard`."""
        if now < self._none_before:
            return []
        here = [slave for slave in self.slaves.values() if slave.contact is not Contact.LOST]
        found = [slave for slave in here if slave.due <= now]
        first = min((slave.due for slave in here), default=math.inf)
        self._none_before = 0.0 if found or first == math.inf else min(first, now + term)  # or who is heard now first
        return found

    def lose(self, slave: SlaveRecord) -> None:
        """It is missed."""
        self._sign(slave, Sign.MISS)

    def shift(self, seconds: float) -> None:
        """The master was stopped for so long and could hear nobody."""
        for slave in self.slaves.values():
            slave.heard += seconds
            slave.due += seconds

    def _sign(self, slave: SlaveRecord, sign: Sign) -> None:
        self.lost -= slave.contact is Contact.LOST
        slave.sign(sign)
        self.lost += slave.contact is Contact.LOST
        self._count(slave)

    def _count(self, slave: SlaveRecord) -> None:
        if slave.connected:
            self.connected[slave.number] = slave
        else:
            self.connected.pop(slave.number, None)

    # -- what may still come

    def open_ended(self) -> bool:
        """Whether an agent is to come of which nobody knows how many slaves it brings."""
        return any(slave.open_ended and not self.agents[slave.agent].enlisted for slave in self.slaves.values())

    def has_others(self, failed_on: dict[int, object], lost_too: bool) -> bool:
        """Whether a slave works or may come that is not one of ``failed_on``; with ``lost_too`` or come back."""
        if not failed_on:
            return len(self.slaves) > (0 if lost_too else self.lost)
        others = [slave for number, slave in self.slaves.items() if number not in failed_on]
        return any((lost_too or slave.contact is not Contact.LOST) and self._may_come(slave) for slave in others)

    def _may_come(self, slave: SlaveRecord) -> bool:
        """False if it left an agent that goes on with others: its launcher has no word for it before that one ends."""
        if slave.life is not Life.PARTED:
            return True
        others = self.agents[slave.agent].slaves.values()
        return all(one.life is Life.PARTED or one.contact is Contact.LOST for one in others)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        for number, slave in self.slaves.items():
            slave.check()
            assert slave.number == number and slave.life is not Life.ENDED, f"{slave} has ended and is kept"
            assert (number in self.connected) == slave.connected, f"{slave} is counted wrongly"
            assert self.agents[slave.agent].slaves[number] is slave, f"{slave} is not its agent's"
        assert set(self.connected) <= set(self.slaves), "a slave that has ended is given tasks"
        assert self.lost == sum(slave.contact is Contact.LOST for slave in self.slaves.values()), "lost ones"
        assert all(slave.life is Life.ENDED for slave in self.ended.values()), "a slave has ended too early"
        for agent in self.agents.values():
            assert set(agent.slaves) <= set(self.slaves), f"agent {agent.id} keeps a slave that has ended"
