"""Yard: all slaves that one manager launches, from their number to their end."""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Callable

from slave.dial import Address

from ..errors import InputError, InputTypeError
from ..service.books import Books, log
from ..service.desk import AgentDesk
from .base import Slave, SlaveArray
from .job import Job, slave_command, slave_orders
from .local import LocalAgent, LocalSlave

_POLL_SECONDS = 1.0  # between two questions to a launcher how its slave is
_EVER = 1e9  # seconds that a local slave program looks for its master, which may be busy or stopped, ...
_SOON = 5.0  # seconds of life below which a local agent "died soon", ...
_TRIES = 5  # ... and after so many such deaths in a row no other one is started
_LOCAL_REFUSED = 3.0  # ... unless nobody listens there any more


class Plan:
    """How one manager launches: what all its jobs have in common."""

    def __init__(
        self,
        python: str | None,
        root: str,
        key: bytes,
        output: str | None,
        addresses: Callable[[bool], Sequence[Address]],  # of the master, given whether the slave is local
    ) -> None:
        self.python, self.root, self.key, self.output, self.addresses = python, root, key, output, addresses

    def output_of(self, number: int) -> str | None:
        """The path of a slave's output file."""
        if self.output is None:
            return None
        return os.path.abspath(self.output % number if "%" in self.output else self.output)

    def make_output(self, number: int) -> None:
        """Make a slave's output file, empty.  Raises `InputError` if it cannot be written."""
        path = self.output_of(number)
        if path is not None:
            _make_empty(path)

    def job(self, agent: str, numbers: Sequence[int], local: bool, wait: float, fresh: bool = True) -> Job:
        """The job that brings the slaves ``numbers`` under one agent, which looks for the master for ``wait`` seconds.

        Makes their output files anew if ``fresh``; raises `InputError` if one cannot be written.
        """
        if fresh:
            for number in numbers:
                self.make_output(number)
        slots = [(number, self.output_of(number) or os.devnull) for number in numbers]
        refused = _LOCAL_REFUSED if local else wait
        orders = slave_orders(agent, self.addresses(local), self.key, slots, wait, refused, stays=local)
        return Job(slave_command(self.python, self.root), orders, tuple(numbers), self.output_of(numbers[0]))


class Yard:
    """See the module's text.

    ``_lock`` guards what was added and started; the books' lock
    may be taken inside it, never the reverse.
    """

    def __init__(self, books: Books, desk: AgentDesk, plan: Plan) -> None:
        self._books, self._desk, self._plan = books, desk, plan
        self._lock = threading.Lock()
        self._known: list[Slave | SlaveArray] = []
        self._numbers: dict[int, Slave] = {}
        self._to_start: list[tuple[int, Slave, str]] = []  # number, slave, agent id
        self._watched: dict[int, tuple[Slave, str, float]] = {}  # number: slave, agent id, when it was started
        self._local: LocalAgent | None = None
        self._local_id = uuid.uuid4().hex
        self._local_started, self._local_deaths = 0.0, 0
        self._stop_event = threading.Event()
        self._watcher: threading.Thread | None = None

    def add(self, slave: Slave | SlaveArray) -> None:
        """Give each slave its number.  Raises `InputTypeError`, and `InputError` for the same object twice."""
        slaves = _members(slave)
        new: list[Slave | SlaveArray] = [slave, *slaves] if isinstance(slave, SlaveArray) else [*slaves]
        names = [repr(one) for one in slaves]
        with self._lock:
            for place, one in enumerate(new):
                if any(one is known for known in [*self._known, *new[:place]]):
                    raise InputError(f"{one!r} was added before; make a new one for each slave")
            launched = sum(isinstance(known, Slave) for known in self._known)
            if self._plan.output is not None and launched + len(slaves) > 1:
                _check_pattern(self._plan.output)
            self._known.extend(new)
            with self._books.lock:
                for one, name in zip(slaves, names):
                    number = self._books.roster.new_number()
                    agent = self._local_id if isinstance(one, LocalSlave) else uuid.uuid4().hex
                    self._books.roster.expect(number, name, agent, self._plan.output_of(number))
                    self._to_start.append((number, one, agent))
                    self._numbers[number] = one

    def number_of(self, slave: Slave) -> int | None:
        """The number of a slave that was added; None if it was not."""
        with self._lock:
            return next((number for number, known in self._numbers.items() if known is slave), None)

    def withdraw(self, number: int) -> bool:
        """End a slave that has not come yet; False if it has come, or is so near that its agent must end it."""
        with self._lock:
            waits = [one for one in self._to_start if one[0] == number]
            self._to_start = [one for one in self._to_start if one[0] != number]
            started = self._watched.get(number)
            if not waits and (started is None or self._has_come(number)):
                return False
            if started is not None:
                del self._watched[number]
                _stop(number, started[0])
            with self._books.lock:
                self._books.end(self._books.roster.slaves[number], "it was removed before it came")
            return True

    @property
    def leaves_this_machine(self) -> bool:
        """Whether some slave may run elsewhere, so that the server must be reachable from there."""
        return any(isinstance(known, Slave) and not isinstance(known, LocalSlave) for known in self._known)

    def start(self, connect_timeout: float) -> None:
        """Start what was added and not yet started.  Raises what a launcher's ``start`` raises."""
        with self._lock:
            if self._stop_event.is_set():
                return
            local = [(number, agent) for number, slave, agent in self._to_start if isinstance(slave, LocalSlave)]
            self._to_start = [one for one in self._to_start if not isinstance(one[1], LocalSlave)]
            if local:
                self._try(local, functools.partial(self._start_local, local))
            while self._to_start:
                number, slave, agent = self._to_start.pop(0)
                self._try([(number, agent)], functools.partial(self._start_one, number, slave, agent, connect_timeout))
            if self._watched and self._watcher is None:
                arguments = (connect_timeout,)
                self._watcher = threading.Thread(
                    target=self._watch, args=arguments, daemon=True, name="parallel launchers"
                )
                self._watcher.start()

    def _try(self, slaves: Sequence[tuple[int, str]], start: Callable[[], None]) -> None:
        """Start slaves; those that cannot be started have ended, and the error goes to the user."""
        try:
            start()
        except Exception as error:
            with self._books.lock:
                for number, _ in slaves:
                    why = f"it could not be started: {type(error).__name__}: {error}"
                    self._books.end(self._books.roster.slaves[number], why)
            raise

    def _start_one(self, number: int, slave: Slave, agent: str, connect_timeout: float) -> None:
        slave.start(self._plan.job(agent, [number], local=False, wait=connect_timeout))
        self._watched[number] = (slave, agent, time.monotonic())

    def stop(self, grace: float) -> None:
        """Stop what still runs; the slaves have been told to end."""
        self._stop_event.set()
        with self._lock:
            if self._local is not None:
                self._local.stop(grace)
            for number, (slave, _, _) in self._watched.items():
                _stop(number, slave)

    def _start_local(self, slaves: Sequence[tuple[int, str]]) -> None:
        if self._local is not None:
            for number, agent in slaves:
                self._plan.make_output(number)
                with self._books.lock:
                    path = self._plan.output_of(number) or os.devnull
                    self._books.order(agent, ("start", number, path))
            return
        self._start_local_agent([number for number, _ in slaves], fresh=True)

    def _start_local_agent(self, numbers: Sequence[int], fresh: bool) -> None:
        agent = self._local_id
        local = LocalAgent(lambda why: self._local_ended(agent, why))
        local.start(self._plan.job(agent, numbers, local=True, wait=_EVER, fresh=fresh))
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
                slaves = [(number, self._local_id) for number in numbers]
                try:
                    self._try(slaves, functools.partial(self._start_local_agent, numbers, fresh=False))
                except Exception as error:
                    log.warning("parallel: the local slaves cannot be started again: %s", error)

    def _watch(self, connect_timeout: float) -> None:
        """Ask the launchers how their slaves are, until the yard stops."""
        while not self._stop_event.wait(_POLL_SECONDS):
            with self._lock:
                for number in list(self._watched):
                    slave, agent, started = self._watched[number]
                    why = _how(slave)
                    if why is None and not self._has_come(number) and time.monotonic() - started > connect_timeout:
                        why = f"it did not connect within {connect_timeout:g} s (connect_timeout)"
                        _stop(number, slave)
                    if why is not None:
                        del self._watched[number]
                        self._desk.agent_ended(agent, why)

    def _has_come(self, number: int) -> bool:
        with self._books.lock:
            return bool(self._books.roster.slaves[number].host)


def _how(slave: Slave) -> str | None:
    try:
        return slave.poll()
    except Exception as error:
        return f"its launcher cannot say how it is: {type(error).__name__}: {error}"


def _stop(number: int, slave: Slave) -> None:
    """Stop a slave that has not ended, whatever its launcher says to that."""
    try:
        if slave.poll() is None:
            slave.stop()
    except Exception as error:
        log.warning("parallel: slave %d (%r) could not be stopped: %s", number, slave, error)


def _members(slave: object) -> list[Slave]:
    """The slaves that were given to add_slave.  Raises `InputTypeError` if it is none."""
    members: list[Slave] = []
    for one in slave.slaves if isinstance(slave, SlaveArray) else [slave]:
        if not isinstance(one, Slave):
            raise InputTypeError(f"add_slave takes a Slave or a SlaveArray such as LocalSlave(), not {one!r}")
        members.append(one)
    return members


def _check_pattern(output: str) -> None:
    try:
        distinct = output % 0 != output % 1
    except (TypeError, ValueError):
        distinct = False
    if not distinct:
        raise InputError(f"output={output!r} names one file for several slaves; put %d in it, as in 'slave%d.output'")


def _make_empty(path: str) -> None:
    try:
        with open(path, "wb"):
            pass
    except OSError as error:
        raise InputError(
            f"the output file {path} cannot be written: {error.strerror}; "
            f"name another place: Manager(output='/tmp/slave%d.output')"
        ) from None
