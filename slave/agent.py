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
from .errors import Incompatible, MasterGone, ProtocolError, Unreachable
from .link import AgentDeskProxy, CallFailed, Link
from .runner import Assignment, Closable
from .wire import HANDSHAKE_SECONDS

log = logging.getLogger("slave")

_BEATS_PER_LEASE = 6
_REFUSED_SECONDS = 3.0  # a machine that answers and has nobody listening for so long has no master any more
_UNREACHABLE_LEASES = 10  # the same for a machine that does not answer: the network may come back, and we work on then
_AGAIN = 0.25  # seconds between two tries to reach a master that was lost
_GOODBYE_SECONDS = 1.0
_POLL_WITHOUT_SIGCHLD = 0.5  # seconds; where no signal tells of a runner's death (Windows)
_BROKEN = (OSError, EOFError, ProtocolError)


class Post(NamedTuple):
    """What an agent is told at its start: where the master is, and which slaves to be."""

    agent: str
    addresses: Sequence[Address]
    key: bytes
    slots: Sequence[tuple[int | None, str | None]]  # number (None: the master gives one), output file


class Quit(Exception):
    """A signal asks the agent to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Agent:
    """Serves one master until that is done, gone, or a signal comes."""

    def __init__(self, post: Post, start_method: str | None = None) -> None:
        self._post = post
        self._reports = Link(post.addresses, post.key, ("agent", post.agent, "reports"))
        self._orders = Link(post.addresses, post.key, ("agent", post.agent, "orders"))
        self._desk = self._reports.proxy(AgentDeskProxy)
        self._order_desk = self._orders.proxy(AgentDeskProxy)
        self._crew = Crew(self._assign, self._inherited, start_method)
        self._welcome: dict[str, Any] = {}
        self._wake, self._wake_end = socket.socketpair()
        self._signalled: int | None = None
        self._next_beat = 0.0
        self._lost_at: float | None = None
        self._peer: Address = ("", 0)  # the address of the master at which it was reached last
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
            self._start_runners()
        self._lost_at, self._peer = None, self._reports.connection.peer
        self._beat()

    def serve(self) -> None:
        """Serve until the master is done.  Raises `MasterGone`, `Quit`, `WrongKey`.  Runners have ended in any case."""
        previous = self._watch_signals()
        try:
            while self._step():
                pass
        except Quit as quit_:
            self._crew.end()
            self._leave(f"it was ended by {quit_}")
            raise
        finally:
            self._crew.end()
            self._reports.drop()
            self._orders.drop()
            previous()
            self._wake.close()
            self._wake_end.close()

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
        self._wake.close()
        self._wake_end.close()

    def _step(self) -> bool:
        """Wait for something to happen and deal with it; False when the master is done."""
        ready = self._wait()
        if self._signalled is not None:
            raise Quit(self._signalled)
        self._reap()
        if self._lost_at is not None:
            self._try_again()
            return True
        try:
            if self._orders.connection in ready:
                last, orders = self._order_desk.orders()
                if ("end",) in orders:
                    return False
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
        return True

    def _wait(self) -> list[object]:
        """What is readable, after at most the time to the next heartbeat or try."""
        sources: list[Any] = [self._wake]
        patience = _AGAIN
        if self._lost_at is None:
            sources += [self._orders.connection, self._reports.connection]
            patience = max(0.0, self._next_beat - time.monotonic())
        if not hasattr(signal, "SIGCHLD") or not self._crew.complete:
            patience = min(patience, _POLL_WITHOUT_SIGCHLD)
        ready, _, _ = select.select(sources, [], [], patience)
        if self._wake in ready:
            self._wake.recv(4096)
        return list(ready)

    def _reap(self) -> None:
        for ended in list(self._crew.reap()):
            log.info("runner %d (pid %d) ended with exit code %s", ended.number, ended.pid, ended.exitcode)
            self._say(functools.partial(self._desk.runner_ended, self._post.agent, *ended))
            if self._crew.hopeless(ended.number):
                del self._crew.slots[ended.number]
                why = f"its process ends right after the start, last with exit code {ended.exitcode}"
                log.warning("slave %d is not started again: %s", ended.number, why)
                self._say(functools.partial(self._desk.slot_closed, self._post.agent, ended.number, why))
        self._start_runners()

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
        )

    def _inherited(self) -> list[Closable]:
        links = [link.connection for link in (self._reports, self._orders) if link.connected]
        return [*links, self._wake, self._wake_end]

    def _watch_signals(self) -> Callable[[], None]:
        """SIGCHLD wakes the loop; SIGTERM and SIGINT end it.  Returns what puts the old handlers back."""
        self._wake.setblocking(False)
        self._wake_end.setblocking(False)
        names = [name for name in ("SIGINT", "SIGTERM", "SIGCHLD") if hasattr(signal, name)]
        before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
        fd_before = signal.set_wakeup_fd(self._wake_end.fileno(), warn_on_full_buffer=False)
        for signum in before:
            signal.signal(signum, self._on_signal)

        def restore() -> None:
            signal.set_wakeup_fd(fd_before)
            for signum, handler in before.items():
                signal.signal(signum, handler)

        return restore

    def _on_signal(self, signum: int, frame: object) -> None:
        if signum == getattr(signal, "SIGCHLD", None):
            return
        if self._signalled is not None:  # the second time: at once
            self._crew.kill()
            os._exit(128 + signum)
        self._signalled = signum
