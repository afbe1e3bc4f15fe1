"""Group: what one call of add_slave brought, other than local slaves, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

from ..core.roster import SlaveState
from ..service.books import Books, log
from ..service.desk import AgentDesk
from ..service.ends import UNREACHABLE, last_line
from .base import Slave, SlaveArray, TryAgain
from .job import Job
from .plan import Plan

_NOTE_SECONDS = 0.02  # for each slave, between two looks at what those do that are not connected
_RETRY = 2.0, 60.0  # seconds between two tries to start what cannot be started just now: at first, at most


class Member(NamedTuple):
    """One slave program: it has an agent, and is one slave or several."""

    slave: Slave
    agent: str
    numbers: Sequence[int]  # the slaves known beforehand; the agent may bring more


class Group:
    """One array, or one slave as an array of one.

    The caller, a `Yard`, has one thread here at a time.  The books' lock is taken inside.
    """

    def __init__(self, array: SlaveArray, members: Sequence[Member], books: Books, desk: AgentDesk, plan: Plan) -> None:
        self.array, self.members = array, list(members)
        self._books, self._desk, self._plan = books, desk, plan
        self._left = list(members)  # those that have not ended
        self._jobs: list[Job] = []  # made for the first try to start it
        self._started = False
        self._since = 0.0  # when it was started
        self._next_note = 0.0  # when the status is told next what they do
        self._told: set[str] = set()  # troubles that the user has been told of
        self._pause, self._again = _RETRY[0], 0.0  # until the next try to start it, and when that is

    def __repr__(self) -> str:
        return repr(self.array if self.array.together else self.members[0].slave)

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return not self._left

    # -- start

    def start(self) -> None:
        """Start it.  What cannot be started has ended, and the error goes to the caller; or it is tried again later."""
        if not self._left:
            return
        try:
            if not self._jobs:
                self._jobs = [
                    self._plan.job(one.agent, one.numbers, local=False, output_of=self._output_of(one))
                    for one in self.members
                ]
                self._launch()
            self.array.start(self._jobs)
        except TryAgain as error:
            if not self._again:
                log.warning("parallel: %r cannot be started just now: %s; trying again", self, error)
            self._again = time.monotonic() + self._pause
            self._pause = min(_RETRY[1], 2 * self._pause)
            self._note(self._left, str(error))
        except BaseException as error:
            why = f"it could not be started: {type(error).__name__}: {error}"
            if self.array.together:
                self._stop(self.members)  # a part of it may have been started; or Ctrl-C came in the middle
            self._end(self._left, why)
            raise
        else:
            self._started, self._since = True, time.monotonic()
            self._rename()
            self._stop([one for one in self.members if one not in self._left])  # were removed before

    def _output_of(self, member: Member) -> Callable[[int], str | None]:
        def output_of(place: int) -> str | None:
            if place < len(member.numbers):
                return self._plan.output_of(member.numbers[place])
            with self._books.lock:
                numbers = self._books.roster.agents[member.agent].numbers
            if place >= len(numbers):
                return None
            self._plan.make_output(numbers[place])
            return self._plan.output_of(numbers[place])

        return output_of

    def _launch(self) -> None:
        """From now on we have the last word on how these slaves end."""
        with self._books.lock:
            for one in self._left:
                for number in one.numbers:
                    slave = self._books.roster.slaves[number]
                    slave.launched, slave.preemptible = True, one.slave.preemptible

    def _rename(self) -> None:
        """What was started may have a better name than before."""
        names = [repr(one.slave) for one in self.members]
        with self._books.lock:
            for one, name in zip(self.members, names):
                for number in one.numbers:
                    slave = self._books.roster.slaves[number]
                    if slave.name != name:
                        slave.rename(name)

    # -- watch

    def watch(self, connect_timeout: float) -> None:
        """Ask the launcher how its slaves are; end those that have ended, or that have not connected in time."""
        if not self._started:
            if self._again and time.monotonic() >= self._again:
                try:
                    self.start()
                except Exception as error:
                    log.warning("parallel: %r cannot be started: %s", self, error)
            return
        self.array.urgent = any(self._is_lost(one) for one in self._left)
        late = time.monotonic() - self._since > connect_timeout
        for one, why in self._ends():
            if why is None and late and not self._has_come(one):
                why = f"it did not connect within {connect_timeout:g} s (connect_timeout)"
                self._stop([one])
            if why is not None:
                if UNREACHABLE in _last_word(self._plan.output_of(one.numbers[0])):
                    why += f" ({UNREACHABLE})"
                self._left.remove(one)
                self._desk.agent_ended(one.agent, why)
        if time.monotonic() >= self._next_note:
            self._note(self._left, None)
            self._next_note = time.monotonic() + _NOTE_SECONDS * len(self._left)

    def _ends(self) -> list[tuple[Member, str | None]]:
        """How those have ended that had not when they were asked before; None for those that have not."""
        try:
            ends: Sequence[str | None] = self.array.poll()
        except Exception as error:
            ends = [f"its launcher cannot say how it is: {type(error).__name__}: {error}"] * len(self.members)
        left = {id(one) for one in self._left}
        return [(one, why) for one, why in zip(self.members, ends) if id(one) in left]

    def _note(self, members: Sequence[Member], doing: str | None) -> None:
        """Have the status tell what these do; None: what their launchers say."""
        for one in members:
            words = one.slave.doing if doing is None else doing
            if doing is None and not self._has_come(one):
                said = _last_word(self._plan.output_of(one.numbers[0]))
                words += f"; its last words: {said}" if said else ""
                self._warn(one, said if UNREACHABLE in said else one.slave.trouble)
            with self._books.lock:
                for number in one.numbers:
                    self._books.roster.slaves[number].doing = words

    def _warn(self, member: Member, trouble: str) -> None:
        """Tell the user of a trouble at once, and once."""
        if trouble and trouble not in self._told:
            self._told.add(trouble)
            with self._books.lock:
                name = str(self._books.roster.slaves[member.numbers[0]])
            log.warning("parallel: %s cannot come: %s", name, trouble)

    # -- end

    def member(self, number: int) -> Member | None:
        """The one with that slave, if it was started or is to be, and has not ended."""
        return next((one for one in self._left if number in one.numbers), None)

    def withdraw(self, member: Member) -> bool:
        """End one that has not come yet; False if it has, or is so near that its agent must end it."""
        if self._started and self._has_come(member):
            return False
        if self._started:
            self._stop([member])
        self._end([member], "it was removed before it came")
        return True

    def waits_for_end(self) -> bool:
        """Whether some that had come have not ended; for shutdown, after they were told to."""
        if not self._started:
            return False
        self.array.urgent, self.array.closing = False, True
        for one, why in self._ends():
            if why is not None:
                self._left.remove(one)
        return any(self._has_come(one) for one in self._left)

    def stop(self) -> None:
        """Stop what has not ended, whatever its launcher says to that."""
        if self._started or self._again:
            self._stop(self._left)
            self.array.finish()

    def _stop(self, members: Sequence[Member]) -> None:
        if not members:
            return
        try:
            self.array.stop([one.slave for one in members])
        except Exception as error:
            numbers = ", ".join(str(number) for one in members for number in one.numbers)
            log.warning("parallel: slave %s (%r) could not be stopped: %s", numbers, self, error)

    def _end(self, members: Sequence[Member], why: str) -> None:
        with self._books.lock:
            for one in list(members):
                self._left.remove(one)
                for number in one.numbers:
                    slave = self._books.roster.slaves[number]
                    slave.launched = False
                    self._books.end(slave, why)

    def _has_come(self, member: Member) -> bool:
        with self._books.lock:
            return any(self._books.roster.slaves[number].host for number in member.numbers)

    def _is_lost(self, member: Member) -> bool:
        with self._books.lock:
            slaves = [self._books.roster.slaves[number] for number in member.numbers]
            return any(slave.state is SlaveState.LOST or slave.parting for slave in slaves)


def _last_word(path: str | None) -> str:
    """The last line of a slave's output file; and what to do if that says that it cannot connect."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            line = last_line(file)
    except OSError:
        return ""
    unreachable = "no master yet" in line or "cannot reach the master" in line
    return f"{line} ({UNREACHABLE})" if unreachable else line
