"""The agent: one per machine and master.  One thread, one loop; it runs no user code.

    reports link   agent -> master   heartbeats, how runners ended, leases handed back (one way but for hello, goodbye)
    orders link    master -> agent   start a runner, recall a lease, end                  (a long poll, always open)

The loop waits for orders, for the death of a runner (SIGCHLD), for signals, and for the time of the next heartbeat.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from .crew import Crew, Slot
from .dial import Address
from .errors import Incompatible, MasterFinished, MasterGone, ProtocolError, Unreachable
from .link import AgentDeskProxy, CallFailed, Link
from .runner import Assignment, Closable
from .signals import Quit, Signals
from .wire import HANDSHAKE_SECONDS

log = logging.getLogger("slave")

_BEATS_PER_LEASE = 6
_REFUSED_SECONDS = 3.0  # a machine that answers and has nobody listening for so long has no master any more
_UNREACHABLE_LEASES = 10  # the same for a machine that does not answer: the network may come back, and we work on then
_AGAIN = 0.25  # seconds between two tries to reach a master that was lost
_GOODBYE_SECONDS = 1.0
_LONGEST_WAIT = 3600.0  # seconds; select() refuses what a lease without end would ask for
_POLL_WITHOUT_SIGCHLD = 0.5  # seconds; where no signal tells of a runner's death (Windows)
_DRAINED = "it was asked to end"
_BROKEN = (OSError, EOFError, ProtocolError)


class Post(NamedTuple):
    """What an agent is told at its start: where the master is, and which slaves to be."""

    agent: str
    addresses: Sequence[Address]
    key: bytes
    slots: Sequence[tuple[int | None, str | None]]  # number (None: the master gives one), output file
    grace: float = 30.0  # seconds that running tasks get to finish when a signal asks the agent to end
    stays: bool = False  # also when it has no slaves: the master may give it new ones
    # a batch system sends SIGTERM to all processes of a job: the agent hears it, and lets running tasks finish
    shielded: bool = False


class Agent:
    """Serves one master until that is done, gone, or a signal comes."""

    def __init__(self, post: Post, start_method: str | None = None) -> None:
        self._post = post
        self._reports = Link(post.addresses, post.key, ("agent", post.agent, "reports"))
        self._orders = Link(post.addresses, post.key, ("agent", post.agent, "orders"))
        self._desk = self._reports.proxy(AgentDeskProxy)
        self._order_desk = self._orders.proxy(AgentDeskProxy)
        self._welcome: dict[str, Any] = {}
        self._signals = Signals()
        self._crew = Crew(self._assign, self._inherited, self._signals.bell, start_method)
        self._next_beat = 0.0
        self._lost_at: float | None = None
        self._peer: Address = ("", 0)  # the address of the master at which it was reached last
        self._draining = False
        self._obeyed = 0  # the number of the last order that was carried out

    def enlist(self) -> None:
        """Connect and report for duty.

        Raises `SlaveError` (Unreachable, WrongKey, Incompatible), OSError or EOFError.
        """
        self._reports.connect()
        card = {
            "agent": self._post.agent,
            "run": self._welcome.get("run", ""),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": platform.python_version(),
            "connection": self._reports.count,
            "slots": [number for number, _ in self._post.slots] if not self._welcome else list(self._crew.slots),
            "runners": [(number, pid) for number, pid, _ in self._crew.alive()],
        }
        self._reports.connection.limit(HANDSHAKE_SECONDS)
        try:
            welcome = self._desk.enlist(card)
        except CallFailed as error:
            raise Incompatible(f"the master refused this slave: {error}") from None
        if welcome["done"]:
            raise MasterFinished("the master has finished")
        if self._welcome and welcome["run"] != self._welcome["run"]:
            raise MasterGone("the master has gone, and another one listens in its place")
        self._orders.connect()
        self._reports.connection.limit(None)
        for link in (self._reports, self._orders):
            link.be_patient(welcome["lease"])
        self._order_desk.ask_orders(self._post.agent, self._obeyed)
        if not self._welcome:
            self._welcome = welcome
            for number, (_, output) in zip(welcome["numbers"], self._post.slots):
                self._crew.add(number, output)
            self._signals.watch(self._crew.kill)  # before there is a runner that would die with us
            self._start_runners()
        self._lost_at, self._peer = None, self._reports.connection.peer
        self._next_beat = 0.0

    def serve(self) -> str:
        """Serve until the master is done, or no slave is left here; returns which.  Runners have ended in any case.

        Raises `MasterGone`, `WrongKey`, and `Quit` after a signal: then the running tasks got some time to finish.
        """
        try:
            while True:
                end = self._step()
                if end is not None:
                    return end
        except Quit as quit_:
            self._leave(f"it was ended by {quit_}")
            raise
        finally:
            self._crew.end()
            self._reports.drop()
            self._orders.drop()
            self._signals.close()

    def _leave(self, why: str) -> None:
        """Say goodbye, unless the master is too busy to hear it."""
        if self._lost_at is None:
            try:
                self._reports.connection.limit(_GOODBYE_SECONDS)
                self._desk.leave(self._post.agent, why)
            except (*_BROKEN, CallFailed) as error:
                log.info("the master could not be told that this slave ends: %s", error)

    def close(self) -> None:
        """Give up before `serve`."""
        self._crew.kill()
        self._reports.drop()
        self._orders.drop()
        self._signals.close()

    def _step(self) -> str | None:
        """Wait for something to happen and deal with it; why this is the end, if it is.  Raises as `serve`."""
        ready = self._wait()
        asked = self._signals.asked
        if asked is not None and not self._draining:
            log.warning("asked to end; running tasks have %g s to finish (again: at once)", self._post.grace)
            self._draining = True
            self._drain(list(self._crew.slots), self._post.grace)
        self._crew.stop_late()
        self._reap()
        if not self._crew.slots:
            if asked is not None:
                raise Quit(asked)
            if not self._post.stays:
                self._leave("it has no slaves any more")
                return "no slave is left here"
        if self._lost_at is not None:
            if not self._draining:
                self._try_again()
            return None
        try:
            if self._orders.connection in ready:
                last, orders = self._order_desk.orders()
                if ("end",) in orders:
                    return "the master is done"
                for order in orders:
                    self._obey(*order)
                self._obeyed = last
                self._order_desk.ask_orders(self._post.agent, last)
            if self._reports.connection in ready:
                raise EOFError("the master closed the connection")
            if time.monotonic() >= self._next_beat:
                self._beat()
        except (*_BROKEN, CallFailed) as error:
            self._lose(error)
        return None

    def _wait(self) -> list[object]:
        """What is readable, after at most the time to the next heartbeat or try."""
        sources: list[Any] = [self._signals.ear]
        patience = _AGAIN
        if self._lost_at is None:
            sources += [self._orders.connection, self._reports.connection]
            patience = min(max(0.0, self._next_beat - time.monotonic()), _LONGEST_WAIT)
        if not hasattr(signal, "SIGCHLD") or not self._crew.complete:
            patience = min(patience, _POLL_WITHOUT_SIGCHLD)
        patience = min(patience, self._crew.patience())
        ready, _, _ = select.select(sources, [], [], patience)
        if self._signals.ear in ready:
            self._signals.ear.recv(4096)
        return list(ready)

    def _reap(self) -> None:
        for ended in list(self._crew.reap()):
            level = logging.INFO if ended.exitcode or ended.task else logging.DEBUG  # else the master told it to end
            log.log(level, "runner %d (pid %d) ended with exit code %s", ended.number, ended.pid, ended.exitcode)
            self._say(functools.partial(self._desk.runner_ended, self._post.agent, *ended))
            if self._crew.slots[ended.number].draining:
                self._close_slot(ended.number, _DRAINED)
            elif self._crew.hopeless(ended.number):
                why = f"its process ends right after the start, last with exit code {ended.exitcode}"
                log.warning("slave %d is not started again: %s", ended.number, why)
                self._close_slot(ended.number, why)
        self._start_runners()

    def _drain(self, numbers: Sequence[int], grace: float) -> None:
        """Have slaves finish the tasks that run, and hand back what they have not started."""
        self._say(functools.partial(self._desk.drain, self._post.agent, numbers))
        for number in numbers:
            running = self._crew.drain(number, grace)
            if running:
                self._say(functools.partial(self._desk.recalled, self._post.agent, number, 0, running))
            elif number in self._crew.slots and not self._crew.slots[number].pid:
                self._close_slot(number, _DRAINED)

    def _close_slot(self, number: int, why: str) -> None:
        del self._crew.slots[number]
        self._say(functools.partial(self._desk.slot_closed, self._post.agent, number, why))

    def _start_runners(self) -> None:
        for trouble in self._crew.start_missing():
            log.warning("a runner cannot be started for now: %s", trouble)

    def _obey(self, order: str, *details: Any) -> None:
        if order == "start":
            number, output = details
            if number not in self._crew.slots:
                self._crew.add(number, output)
                self._start_runners()
        elif order == "recall":
            number, lease = details
            running = self._crew.recall(number, lease)
            if running is not None:
                self._desk.recalled(self._post.agent, number, lease, running)
        elif order == "stop":
            number, lease, cancelled = details
            running = self._crew.stop(number, lease, cancelled)
            if running is not None:
                self._desk.recalled(self._post.agent, number, lease, running)
        elif order == "drain":
            number, grace = details
            self._drain([number], grace)
        else:
            log.warning("the master gave an order that this release does not know: %s", order)

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + self._welcome["lease"] / _BEATS_PER_LEASE
        self._desk.beat(self._post.agent, self._crew.alive())

    def _say(self, report: Callable[[], None]) -> None:
        """Report, unless the master is out of reach: then `enlist` will tell it the whole state again."""
        if self._lost_at is None:
            try:
                report()
            except (*_BROKEN, CallFailed) as error:
                self._lose(error)

    def _lose(self, error: BaseException) -> None:
        log.warning("the connection to the master broke (%s); trying again", error)
        self._reports.drop()
        self._orders.drop()
        self._lost_at = time.monotonic()

    def _try_again(self) -> None:
        assert self._lost_at is not None
        lost_at, lost = self._lost_at, time.monotonic() - self._lost_at
        try:
            self.enlist()
            log.warning("connected to the master again, after %.1f s", lost)
        except Unreachable as error:
            self._lost_at = lost_at
            self._give_up_in_time(lost, self._peer in error.refused, error)
        except _BROKEN as error:
            self._lost_at = lost_at
            self._give_up_in_time(lost, False, error)

    def _give_up_in_time(self, lost: float, refused: bool, error: BaseException) -> None:
        """Raise `MasterGone` if the master has been out of reach, for ``lost`` seconds, for too long."""
        if lost > _UNREACHABLE_LEASES * self._welcome["lease"] or (refused and lost > _REFUSED_SECONDS):
            raise MasterGone(f"the master has been gone for {lost:.0f} s ({error})") from None

    def _assign(self, slot: Slot) -> Assignment:
        welcome = self._welcome
        return Assignment(
            number=slot.number,
            run=welcome["run"],
            addresses=self._post.addresses,
            key=self._post.key,
            patience=welcome["lease"],
            surroundings=welcome["surroundings"],
            output=slot.output,
            shielded=self._post.shielded,
        )

    def _inherited(self) -> list[Closable]:
        links = [link.connection for link in (self._reports, self._orders) if link.connected]
        return [*links, self._signals.ear]
