"""AgentDesk: what agents reach by proxy; and what the master's own launchers report of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from slave.crew import TIMED_OUT

from ..core.roster import AgentRecord, Order, SlaveState
from .books import Books, log
from .ends import describe_exit, tail
from .queues import POLL_SECONDS

RECONNECT_SECONDS = 1.0  # for an agent whose connection has ended to come back before its slaves' tasks go elsewhere
BY_HAND = "started by hand"


class AgentDesk:
    """Agents enlist here, renew their runners' leases, report deaths, and get their orders."""

    ident = "agents"
    exposed = ("enlist", "orders", "beat", "runner_ended", "slot_closed", "recalled", "drain", "leave")
    one_way = ("beat", "runner_ended", "slot_closed", "recalled", "drain")
    gathered = ()

    def __init__(self, books: Books) -> None:
        self._books = books

    def enlist(self, card: dict[str, Any]) -> dict[str, Any]:
        """An agent comes, or comes back after its connection broke (then ``card['run']`` names this master)."""
        books = self._books
        welcome: dict[str, Any] = {
            "run": books.run,
            "lease": books.table.term,
            "surroundings": books.surroundings,
            "numbers": [],
            "done": False,
        }
        if card["run"] not in ("", books.run):
            return welcome  # it looks for another master, and will see that this is not the one
        with books.lock:
            if books.closing:
                return {**welcome, "done": True}
            agent = books.roster.agents.setdefault(card["agent"], AgentRecord(card["agent"]))
            agent.connection = card["connection"]
            agent.host, agent.pid, agent.version = card["host"], card["pid"], card["version"]
            if not agent.enlisted:
                log.info("parallel: agent on %s (pid %d, Python %s) has come", agent.host, agent.pid, agent.version)
            pids = dict(card["runners"])
            if agent.enlisted and not card["run"]:
                self._start_over(agent)
            if agent.enlisted and card["run"]:
                self._end_missing(agent, card["slots"])
            elif not agent.numbers:
                agent.numbers = [self._slot(agent, number) for number in card["slots"]]
            agent.enlisted, welcome["numbers"] = True, agent.numbers
            for slave in books.roster.of_agent(agent.id):
                if slave.state is not SlaveState.ENDED:
                    slave.host = agent.host
                    books.heard(slave)
            for slave in books.roster.of_agent(agent.id):
                if slave.pid and slave.number in pids and pids[slave.number] != slave.pid:
                    books.lose(slave, 0, "its process ended while its agent was out of reach")
                    books.replace(slave)
        return welcome

    def orders(self, agent: str, acknowledged: int) -> tuple[int, list[Order]]:
        """The orders for an agent and the number of the last; waits for `POLL_SECONDS` at most.

        ``acknowledged``: the last number that it has; later ones are given again, since the answer may have been lost.
        The order ('end',) means that the master is done.
        """
        books = self._books
        with books.lock:
            record = books.roster.agents[agent]
            news = books.order_news.setdefault(agent, threading.Condition(books.lock))
            record.orders = [(number, order) for number, order in record.orders if number > acknowledged]
            if not record.orders and not books.closing:
                news.wait(POLL_SECONDS)
            if books.closing:
                return acknowledged, [("end",)]
            return record.last_order, [order for _, order in record.orders]

    def beat(self, agent: str, alive: Sequence[tuple[int, int, int]]) -> None:
        """These runners (number, pid, running task) are alive."""
        books = self._books
        with books.lock:
            for number, pid, running in alive:
                slave = books.roster.slaves[number]
                if slave.pid in (pid, 0) and slave.state is not SlaveState.ENDED:
                    slave.running = running
                    books.heard(slave)

    def runner_ended(
        self, agent: str, number: int, pid: int, exitcode: int | None, task: int, setup: int, cause: str
    ) -> None:
        """A runner's process ended while its agent lives; a new one is on its way."""
        books = self._books
        last_words = "" if cause else self._last_words(number)
        with books.lock:
            slave = books.roster.slaves[number]
            if books.closing or slave.pid not in (pid, 0):
                return
            if cause:
                if cause == TIMED_OUT:
                    books.time_out(slave, task)
                books.lose(slave, 0, f"its agent ended it: {cause}", wanted=True)
                books.replace(slave)
                return
            end = describe_exit(exitcode)
            if setup:
                end += " while it ran the context's setup"
                slave.barred.add(setup)
                if setup in books.trays:
                    books.trays[setup].failures[number] = end + last_words
            slave.end = end + last_words
            books.lose(slave, 0 if setup else task, end, last_words)
            books.replace(slave)
            books.wake_readers()

    def slot_closed(self, agent: str, number: int, why: str) -> None:
        """The agent gives a slave up."""
        last_words = self._last_words(number)
        with self._books.lock:
            self._books.end(self._books.roster.slaves[number], why + last_words)

    def recalled(self, agent: str, number: int, lease: int, running: int) -> None:
        """The slave will start no task of the lease (0: whichever it holds) after the one that runs."""
        with self._books.lock:
            self._books.wake_idle(self._books.table.hand_back_after(number, lease, running))

    def drain(self, agent: str, numbers: Sequence[int]) -> None:
        """These slaves end when their running tasks have."""
        books = self._books
        with books.lock:
            for number in numbers:
                slave = books.roster.slaves[number]
                if not slave.draining:  # else we asked for it
                    log.warning("parallel: %s leaves, since its agent was asked to end", str(slave))
                slave.draining = True
                books.stop_waiting(slave)

    def leave(self, agent: str, why: str) -> None:
        """The agent ends, and its runners with it; that is nobody's fault."""
        books = self._books
        with books.lock:
            for slave in books.roster.of_agent(agent):
                if slave.state is not SlaveState.ENDED:
                    books.lose(slave, 0, why)
                    books.end(slave, why)

    # -- not for slaves

    def agent_ended(self, agent: str, why: str, successor: str | None = None) -> list[int]:
        """A launcher saw the slave program end: its slaves are no more.

        If it had enlisted they move to the agent ``successor``, where one is named; returns the numbers of these.
        """
        books = self._books
        with books.lock:
            slaves = [slave for slave in books.roster.of_agent(agent) if slave.state is not SlaveState.ENDED]
        last_words = {slave.number: self._last_words(slave.number) for slave in slaves}
        moved: list[int] = []
        with books.lock:
            came = books.roster.agents[agent].enlisted
            for slave in slaves if not books.closing else ():
                slave.launched = False
                books.lose(slave, slave.suspect, f"its agent ended: {why}", last_words[slave.number])
                if successor is not None and came and not slave.draining:
                    books.roster.move(slave, successor)
                    moved.append(slave.number)
                else:
                    books.end(slave, why + last_words[slave.number])
        return moved

    def disconnected(self, role: Sequence[Any]) -> None:
        """A connection ended: if it was an agent's and it does not come back soon, its slaves are lost."""
        if role[:1] != ("agent",) or role[2] != "reports":
            return
        books = self._books
        with books.lock:
            agent = books.roster.agents.get(role[1])
            if agent is None or agent.connection != role[3]:
                return  # it is back already, on another connection
            due = time.monotonic() + RECONNECT_SECONDS
            for slave in books.roster.cut_off(agent.id, due):
                books.table.shorten(slave.number, due)

    def _start_over(self, agent: AgentRecord) -> None:
        """Another process of the same agent has come: its engine has started its job again."""
        books = self._books
        for slave in books.roster.of_agent(agent.id):
            if slave.pid:
                books.lose(slave, 0, "its job was started again")
            if slave.dismissed:
                books.order(agent.id, ("drain", slave.number, 0.0))
            slave.parting = ""
            books.roster.expect_again(slave)

    def _end_missing(self, agent: AgentRecord, slots: Sequence[int]) -> None:
        """An agent has come back without some of its slaves, and could not say so when they ended for good."""
        ordered = [order[1] for _, order in agent.orders if order[0] == "start"]
        for slave in self._books.roster.of_agent(agent.id):
            if slave.number not in slots and slave.number not in ordered and slave.state is not SlaveState.ENDED:
                why = "its process ended right after each start, while its agent was out of reach"
                self._books.lose(slave, 0, why)
                self._books.end(slave, why)

    def _last_words(self, number: int) -> str:
        """The end of a slave's output.  Without the lock: the file may be on a slow disk."""
        return tail(self._books.roster.slaves[number].output)

    def _slot(self, agent: AgentRecord, number: int | None) -> int:
        books = self._books
        if number is None:
            number = books.roster.new_number()
        if number not in books.roster.slaves:
            siblings = books.roster.of_agent(agent.id)
            slave = books.roster.expect(number, BY_HAND, agent.id)
            if siblings and siblings[0].launched:  # its launcher left it to the agent how many there are
                slave.name, slave.output, slave.launched = siblings[0].name, books.output_of(number), True
        return number
