"""The agent tells the master what runners print, log and warn of: as far as the master wants that."""

from __future__ import annotations

import functools
import logging
import socket
import time
from typing import Callable

from .master_link import MasterLink
from .output_tail import Tails
from .protocol import EnlistReply, OutputPart
from .voice import Message, Voice

log = logging.getLogger("slave")


class OutputReports:
    """What one master is told of it.

    ``take``: has `hear` get what runners have said until now; it is called before what follows from that is told.
    """

    def __init__(self, master: MasterLink, take: Callable[[], None]) -> None:
        self._master, self._take = master, take
        self._tails: Tails | None = None  # of the runners' output, if the master wants that

    def begin(self, reply: EnlistReply) -> None:
        """The master has said what it wants."""
        if reply.shows or reply.levels is not None:
            self._tails = Tails(reply.shows)
            log.addHandler(self._tails.unwanted)

    def add(self, number: int, output: str | None) -> None:
        """A slave's output goes there from now on; None: to where this program's own does."""
        if self._tails is not None:
            self._tails.add(number, output)

    def remove(self, number: int) -> None:
        """The slave is no more."""
        if self._tails is not None:
            self._tails.remove(number)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._tails is not None:
            log.removeHandler(self._tails.unwanted)
            self._tails.close()
            self._tails = None

    def voice(self, slave: int) -> Voice | None:
        """What its runner is to tell us."""
        reply = self._master.session.first
        if self._tails is None or not hasattr(socket, "AF_UNIX"):
            return None
        return Voice(reply.levels, reply.shows, reply.shows and not self._tails.reads(slave))

    def patience(self, now: float) -> float:
        """Seconds until `tell` has something to do."""
        return 1e9 if self._tails is None else self._tails.patience(now)

    def hear(self, message: Message) -> None:
        """A runner tells something."""
        if self._tails is not None:
            self._tails.hear(message)

    def tell(self, last: bool = False) -> None:
        """Tell the master what runners have printed, if it wants that and it is time."""
        if self._tails is not None and self._master.session.connected:
            self._take()
            self._send(self._tails.look_last() if last else self._tails.look(time.monotonic()))
            records = self._tails.records()
            if records:
                service, agent = self._master.service, self._master.session.agent
                self._master.report(functools.partial(service.records, agent, records))

    def tell_of_end(self, number: int) -> None:
        """The slave's process has ended: tell what it printed last."""
        if self._tails is not None:
            self._take()
            self._send(self._tails.ended(number))

    def _send(self, parts: list[OutputPart]) -> None:
        if parts:
            self._master.report(functools.partial(self._master.service.output, self._master.session.agent, parts))
