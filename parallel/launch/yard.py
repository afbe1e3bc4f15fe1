"""Yard: all slaves that one manager launches, from their number to their end."""

from __future__ import annotations

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
_LOCAL_WAIT = 30.0  # seconds that a slave program looks for a master which is known to listen
_LOOPBACK = "127.0.0.1"


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

    def job(self, agent: str, numbers: Sequence[int], local: bool, wait: float) -> Job:
        """The job that brings the slaves ``numbers`` under one agent.  Makes their output files anew."""
        slots = [(number, self.output_of(number)) for number in numbers]
        for _, path in slots:
            if path is not None:
                _make_empty(path)
        orders = slave_orders(agent, self.addresses(local), self.key, slots, wait)
        return Job(slave_command(self.python, self.root), orders, tuple(numbers), slots[0][1])


class Yard:
    """See the module's text.

    ``_lock`` guards what was added and started; it is never held together with the books'.
    """

    def __init__(self, books: Books, desk: AgentDesk, plan: Plan) -> None:
        self._books, self._desk, self._plan = books, desk, plan
        self._lock = threading.Lock()
        self._known: list[Slave | SlaveArray] = []
        self._to_start: list[tuple[int, Slave, str]] = []  # number, slave, agent id
        self._watched: dict[int, tuple[Slave, str, float]] = {}  # number: slave, agent id, when it was started
        self._local: LocalAgent | None = None
        self._local_id = uuid.uuid4().hex
        self._stop_event = threading.Event()
        self._watcher: threading.Thread | None = None

    def add(self, slave: Slave | SlaveArray) -> None:
        """Give each slave its number.  Raises `InputTypeError`, and `InputError` for the same object twice."""
        if not isinstance(slave, (Slave, SlaveArray)):
            raise InputTypeError(f"add_slave takes a Slave or a SlaveArray such as LocalSlave(), not {slave!r}")
        slaves = slave.slaves if isinstance(slave, SlaveArray) else [slave]
        with self._lock:
            for one in [slave, *slaves]:
                if any(one is known for known in self._known):
                    raise InputError(f"{one!r} was added before; make a new one for each slave")
            launched = sum(isinstance(known, Slave) for known in self._known)
            if self._plan.output is not None and launched + len(slaves) > 1:
                _check_pattern(self._plan.output)
            self._known.extend([slave] if slave in slaves else [slave, *slaves])
            with self._books.lock:
                for one in slaves:
                    number = self._books.roster.new_number()
                    agent = self._local_id if isinstance(one, LocalSlave) else uuid.uuid4().hex
                    self._books.roster.expect(number, repr(one), agent, self._plan.output_of(number))
                    self._to_start.append((number, one, agent))

    @property
    def leaves_this_machine(self) -> bool:
        """Whether some slave may run elsewhere, so that the server must be reachable from there."""
        return any(isinstance(known, Slave) and not isinstance(known, LocalSlave) for known in self._known)

    def start(self, connect_timeout: float) -> None:
        """Start what was added and not yet started.  Raises what a launcher's ``start`` raises."""
        with self._lock:
            todo, self._to_start = self._to_start, []
            local = [(number, agent) for number, slave, agent in todo if isinstance(slave, LocalSlave)]
            if local:
                self._start_local(local)
            for number, slave, agent in todo:
                if not isinstance(slave, LocalSlave):
                    slave.start(self._plan.job(agent, [number], local=False, wait=connect_timeout))
                    self._watched[number] = (slave, agent, time.monotonic())
            if self._watched and self._watcher is None:
                arguments = (connect_timeout,)
                self._watcher = threading.Thread(
                    target=self._watch, args=arguments, daemon=True, name="parallel launchers"
                )
                self._watcher.start()

    def stop(self, grace: float) -> None:
        """Stop what still runs; the slaves have been told to end."""
        self._stop_event.set()
        with self._lock:
            if self._local is not None:
                self._local.stop(grace)
            for number, (slave, _, _) in self._watched.items():
                try:
                    if slave.poll() is None:
                        slave.stop()
                except Exception as error:
                    log.warning("parallel: slave %d (%r) could not be stopped: %s", number, slave, error)

    def _start_local(self, slaves: Sequence[tuple[int, str]]) -> None:
        if self._local is not None:
            for number, agent in slaves:
                path = self._plan.output_of(number)
                if path is not None:
                    _make_empty(path)
                with self._books.lock:
                    self._books.order(agent, ("start", number, path))
            return
        agent = self._local_id
        local = LocalAgent(lambda why: self._local_ended(agent, why))
        local.start(self._plan.job(agent, [number for number, _ in slaves], local=True, wait=_LOCAL_WAIT))
        self._local = local

    def _local_ended(self, agent: str, why: str) -> None:
        with self._lock:
            self._local, self._local_id = None, uuid.uuid4().hex
        self._desk.agent_ended(agent, why)

    def _watch(self, connect_timeout: float) -> None:
        """Ask the launchers how their slaves are, until the yard stops."""
        while not self._stop_event.wait(_POLL_SECONDS):
            with self._lock:
                for number in list(self._watched):
                    slave, agent, started = self._watched[number]
                    why = _how(slave)
                    if why is None and not self._has_come(number) and time.monotonic() - started > connect_timeout:
                        why = f"it did not connect within {connect_timeout:g} s (connect_timeout)"
                        slave.stop()
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


def _check_pattern(output: str) -> None:
    try:
        distinct = output % 0 != output % 1
    except TypeError:
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
