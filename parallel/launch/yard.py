"""Yard: all slaves that one manager launches, from their number to their end."""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Callable

from ..errors import InputError, InputTypeError
from ..service.books import Books, log
from ..service.desk import AgentDesk
from .base import Slave, SlaveArray
from .folder import RunFolder
from .group import Group, Member
from .local import LocalAgent, LocalSlave
from .plan import Plan

_POLL_SECONDS = 1.0  # between two questions to a launcher how its slave is
_CLOSE_SECONDS = 0.05  # the same when they have been told to end
_SOON = 5.0  # seconds of life below which a local agent "died soon", ...
_TRIES = 5  # ... and after so many such deaths in a row no other one is started


class Yard:
    """See the module's text.

    ``_lock`` guards what was added and started; the books' lock may be taken inside it, never the reverse.
    """

    def __init__(self, books: Books, desk: AgentDesk, plan: Plan) -> None:
        self._books, self._desk, self._plan = books, desk, plan
        self._lock = threading.Lock()
        self._known: list[Slave | SlaveArray] = []
        self._numbers: dict[int, Slave] = {}
        self._local_to_start: list[int] = []
        self._groups_to_start: list[Group] = []
        self._groups: list[Group] = []  # started
        self._folder = RunFolder()
        self._local: LocalAgent | None = None
        self._local_id = uuid.uuid4().hex
        self._local_started, self._local_deaths = 0.0, 0
        self._stop_event = threading.Event()
        self._watcher: threading.Thread | None = None
        books.output_of = plan.output_of

    def add(self, slave: Slave | SlaveArray) -> None:
        """Give each slave its number.  Raises `InputTypeError`, and `InputError` for the same object twice."""
        members = _members(slave)
        new: list[Slave | SlaveArray] = [slave, *members] if isinstance(slave, SlaveArray) else [*members]
        slave.check()
        counts = [1 if one.runners is None else one.runners for one in members]
        names = [repr(one) for one in members]
        with self._lock:
            for place, one in enumerate(new):
                if any(one is known for known in [*self._known, *new[:place]]):
                    raise InputError(f"{one!r} was added before; make a new one for each slave")
            if len(self._numbers) + sum(counts) > 1 or any(one.runners is None for one in members):
                self._plan.check_output()
            self._known.extend(new)
            agents = [self._local_id if isinstance(one, LocalSlave) else uuid.uuid4().hex for one in members]
            elsewhere: list[Member] = []
            with self._books.lock:
                for one, name, count, agent in zip(members, names, counts, agents):
                    numbers = [self._expect(one, name, agent) for _ in range(count)]
                    if isinstance(one, LocalSlave):
                        self._local_to_start += numbers
                    else:
                        elsewhere.append(Member(one, agent, numbers))
            if isinstance(slave, SlaveArray) and slave.together:
                self._group(slave, elsewhere)
            else:
                for member in elsewhere:
                    self._group(SlaveArray([member.slave]), [member])

    def _group(self, array: SlaveArray, members: Sequence[Member]) -> None:
        array.run_folder = self._folder
        self._groups_to_start.append(Group(array, members, self._books, self._desk, self._plan))

    def _expect(self, slave: Slave, name: str, agent: str) -> int:
        number = self._books.roster.new_number()
        record = self._books.roster.expect(number, name, agent, self._plan.output_of(number))
        record.with_others = slave.runners is None
        self._numbers[number] = slave
        return number

    def numbers_of(self, slave: Slave) -> list[int]:
        """The numbers of a slave that was added; none if it was not."""
        with self._lock:
            known = [number for number, one in self._numbers.items() if one is slave]
        with self._books.lock:
            agents = {self._books.roster.slaves[number].agent for number in known}
            if known and not isinstance(slave, LocalSlave):  # its agent may have brought more
                known = [one.number for one in self._books.roster.slaves.values() if one.agent in agents]
        return known

    def withdraw(self, number: int) -> bool:
        """End a slave that has not come yet; False if it has come, or is so near that its agent must end it."""
        with self._lock:
            if number in self._local_to_start:
                self._local_to_start.remove(number)
                with self._books.lock:
                    self._books.end(self._books.roster.slaves[number], "it was removed before it came")
                return True
            for group in [*self._groups_to_start, *self._groups]:
                member = group.member(number)
                if member is not None:
                    return group.withdraw(member)
            return number in self._numbers and not isinstance(self._numbers[number], LocalSlave)

    @property
    def leaves_this_machine(self) -> bool:
        """Whether some slave may run elsewhere, so that the server must be reachable from there."""
        return any(isinstance(known, Slave) and not isinstance(known, LocalSlave) for known in self._known)

    def start(self, connect_timeout: float) -> None:
        """Start what was added and not yet started.  Raises what a launcher's ``start`` raises."""
        with self._lock:
            if self._stop_event.is_set():
                return
            local, self._local_to_start = self._local_to_start, []
            if local:
                self._try_local(local, functools.partial(self._start_local, local))
            try:
                while self._groups_to_start:
                    group = self._groups_to_start.pop(0)
                    self._groups.append(group)
                    group.start()
            finally:
                if self._groups and self._watcher is None:
                    arguments = (connect_timeout,)
                    self._watcher = threading.Thread(
                        target=self._watch, args=arguments, daemon=True, name="parallel launchers"
                    )
                    self._watcher.start()

    def stop(self, grace: float) -> None:
        """Stop what still runs; the slaves have been told to end, and have ``grace`` seconds."""
        self._stop_event.set()
        deadline = time.monotonic() + grace
        with self._lock:
            if self._local is not None:
                with self._books.lock:  # one that has not come yet will not hear that it is to end
                    came = self._books.roster.agents[self._local_id].enlisted
                self._local.stop(grace if came else 0.0)
            while any(group.waits_for_end() for group in self._groups) and time.monotonic() < deadline:
                time.sleep(_CLOSE_SECONDS)
            for group in self._groups:
                group.stop()
            self._folder.remove()

    def _watch(self, connect_timeout: float) -> None:
        """Ask the launchers how their slaves are, until the yard stops."""
        while not self._stop_event.wait(_POLL_SECONDS):
            with self._lock:
                for group in self._groups:
                    if not group.over:
                        group.watch(connect_timeout)

    # -- local slaves

    def _try_local(self, numbers: Sequence[int], start: Callable[[], None]) -> None:
        """Start local slaves; those that cannot be started have ended, and the error goes to the caller."""
        try:
            start()
        except Exception as error:
            with self._books.lock:
                for number in numbers:
                    why = f"it could not be started: {type(error).__name__}: {error}"
                    self._books.end(self._books.roster.slaves[number], why)
            raise

    def _start_local(self, numbers: Sequence[int]) -> None:
        if self._local is not None:
            for number in numbers:
                self._plan.make_output(number)
                with self._books.lock:
                    path = self._plan.output_of(number) or os.devnull
                    self._books.order(self._local_id, ("start", number, path))
            return
        self._start_local_agent(numbers, fresh=True)

    def _start_local_agent(self, numbers: Sequence[int], fresh: bool) -> None:
        agent = self._local_id
        local = LocalAgent(lambda why: self._local_ended(agent, why))
        local.start(self._plan.job(agent, numbers, local=True, fresh=fresh))
        self._local, self._local_started = local, time.monotonic()

    def _local_ended(self, agent: str, why: str) -> None:
        """The local agent is gone.  Its slaves get another one, unless agents die soon again and again."""
        with self._lock:
            soon = time.monotonic() - self._local_started < _SOON
            self._local_deaths = self._local_deaths + 1 if soon else 1
            self._local, self._local_id = None, uuid.uuid4().hex
            again = self._local_deaths < _TRIES and not self._stop_event.is_set()
            numbers = self._desk.agent_ended(agent, why, self._local_id if again else None)
            if numbers:
                try:
                    self._try_local(numbers, functools.partial(self._start_local_agent, numbers, fresh=False))
                except Exception as error:
                    log.warning("parallel: the local slaves cannot be started again: %s", error)


def _members(slave: object) -> list[Slave]:
    """The slaves that were given to add_slave.  Raises `InputTypeError` if it is none."""
    members: list[Slave] = []
    for one in slave.slaves if isinstance(slave, SlaveArray) else [slave]:
        if not isinstance(one, Slave):
            raise InputTypeError(f"add_slave takes a Slave or a SlaveArray such as LocalSlave(), not {one!r}")
        members.append(one)
    return members
