"""Launcher: all slaves that one manager launches, from their number to their end.

add_slave    Launcher.add      expects the slaves; makes a Group of each launcher, or hands them to the LocalGroup
a run        Launcher.start    starts the groups one after another, in the user's thread
meanwhile    a thread for each group asks its launcher how its slaves are; one waits for the local agent's end
shutdown     Launcher.stop     has all groups stop at once, each in its own thread, and waits as long as is agreed
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection, Sequence

from slave.named import NamedTuple

from ..errors import InputError, InputTypeError
from .ahead import Ahead
from .base import Slave, SlaveArray
from .config import LaunchConfig
from .group import Group
from .local import LocalGroup, LocalSlave
from .slave_service import ExpectedSlave, SlaveService
from .staging import StagingFolder
from .unit import Unit

log = logging.getLogger("parallel")

_LOOK_SECONDS = 0.005  # between two looks whether all groups have ended
_CLEAN_UP_SECONDS = 2.0  # for another thread to remove the staging folder


class _Added(NamedTuple):
    """What `Launcher` knows of a slave or array that was added."""

    what: Slave | SlaveArray
    agent: str  # '' for a local slave and for an array
    numbers: list[int]


class Launcher:
    """See the module's text.

    There is no lock here that `stop` would need: what it reads are dicts, of which each change is one step.
    """

    def __init__(self, service: SlaveService, config: LaunchConfig, ahead: Ahead | None = None) -> None:
        self._service, self._config = service, config
        self._added: dict[int, _Added] = {}  # by id() of the slave or array, which this keeps from being reused
        self._groups_of: dict[int, tuple[Group, Unit] | None] = {}  # by a slave's number; None for a local one
        self._leaves = False
        self._new: dict[Group, None] = {}  # to be started, in this order
        self._groups: dict[Group, None] = {}  # begun and not ended
        self._local = LocalGroup(service, config, ahead)
        self._staging, self._removing = StagingFolder(), threading.Lock()
        self._staging.slaves_wait = config.slaves_wait
        self._inside: set[int] = set()  # the threads in `add` and `start`
        self._closing, self._grace = False, 0.0
        self._gave_up = False  # on some groups: the last of them cleans up

    def add(self, slave: Slave | SlaveArray) -> None:
        """Give each slave its number.  Raises `InputTypeError`, and `InputError` for the same object twice."""
        slaves = _slaves_of(slave)
        self._config.check_python()
        slave.check()
        names = [repr(one) for one in slaves]
        thread = threading.get_ident()
        self._inside.add(thread)
        try:
            self._claim([slave, *slaves] if isinstance(slave, SlaveArray) else slaves)
            units: list[Unit] = []
            try:
                for one, name in zip(slaves, names):
                    units += self._expect(one, name)
                if isinstance(slave, SlaveArray) and slave.together:
                    self._make_group(slave, units)
                else:
                    for unit in units:
                        self._make_group(SlaveArray([unit.slave]), [unit])
            except BaseException:  # Ctrl-C: nobody is to wait for what nobody will start
                for unit in units:
                    if unit.numbers[0] not in self._groups_of:
                        self._service.ended(unit.agent, "adding it was interrupted", numbers=unit.numbers)
                raise
        finally:
            self._inside.discard(thread)

    def _claim(self, new: Sequence[Slave | SlaveArray]) -> None:
        """Raises `InputError` if one was added before, or if they cannot have an output file each."""
        claimed: list[int] = []
        try:
            for one in new:
                claim = _Added(one, "", [])
                if self._added.setdefault(id(one), claim) is not claim:
                    raise InputError(f"{one!r} was added before; make a new one for each slave")
                claimed.append(id(one))
            slaves = [one for one in new if isinstance(one, Slave)]
            count = sum(one.runners or 2 for one in slaves)  # None: nobody knows, but there may be several
            if slaves and len(self._groups_of) + count > 1:
                self._config.check_output()
        except BaseException:
            for key in claimed:
                del self._added[key]
            raise

    def _expect(self, slave: Slave, name: str) -> list[Unit]:
        """Have the service expect what a slave brings; returns its unit, for a local one none."""
        local = isinstance(slave, LocalSlave)
        count = 1 if slave.runners is None else slave.runners
        expected = [ExpectedSlave(name, slave.runners is None, not local)] * count
        if local:
            numbers = self._local.add(expected)
            self._groups_of.update(dict.fromkeys(numbers))
            self._added[id(slave)] = _Added(slave, "", numbers)
            return []
        agent = secrets.token_hex(16)
        try:
            numbers = self._service.expect(agent, expected)
        except BaseException:  # a signal's handler: nobody is to wait for what nobody will start
            if self._service.describe(agent):
                self._service.ended(agent, "adding it was interrupted")
            raise
        self._added[id(slave)] = _Added(slave, agent, numbers)
        self._leaves = True
        if not self._local.has_new:
            self._local.end_ahead()  # this is no program with local slaves
        return [Unit(slave, name, agent, numbers)]

    def _make_group(self, array: SlaveArray, units: Sequence[Unit]) -> None:
        if not units:
            return
        array.staging = self._staging
        group = Group(array, units, self._service, self._config, self._ended)
        for unit in units:
            self._groups_of.update(dict.fromkeys(unit.numbers, (group, unit)))
        self._new[group] = None

    def numbers_of(self, slave: Slave) -> list[int]:
        """The numbers of a slave that was added; none if it was not."""
        added = self._added.get(id(slave))
        if added is None:
            return []
        known = added.numbers
        brought = [view.number for view in self._service.describe(added.agent)] if added.agent else []
        return [*known, *(number for number in brought if number not in known)]

    def withdraw(self, number: int) -> bool:
        """End a slave that has not come yet; False if it has come, or is so near that its agent must end it."""
        if number not in self._groups_of:
            return False
        found = self._groups_of[number]
        if found is None:
            return self._local.withdraw(number)
        group, unit = found
        return group.withdraw(unit)

    @property
    def leaves_this_machine(self) -> bool:
        """Whether some slave may run elsewhere, so that the server must be reachable from there."""
        return self._leaves

    @property
    def has_new(self) -> bool:
        """Whether something was added and not yet started."""
        return bool(self._new) or self._local.has_new

    def start(self, connect_timeout: float) -> None:
        """Start what was added and not yet started.  Raises what a launcher's ``start`` raises."""
        thread = threading.get_ident()
        self._inside.add(thread)
        try:
            if not self._closing:
                self._local.start()
                self._local.end_ahead()
            for group in list(self._new):
                if self._closing:
                    break
                if group.is_new:
                    self._groups[group] = None
                    group.start(connect_timeout)
                self._new.pop(group, None)
        finally:
            self._inside.discard(thread)
            if self._closing:
                self.stop(self._grace)  # which came in the middle, and did not see all that has been started since

    def _ended(self, group: Group) -> None:
        """Nothing is left to be done for a group."""
        self._groups.pop(group, None)
        self._new.pop(group, None)
        if self._gave_up:
            self._clean_up()

    def stop(self, grace: float, waiting: Collection[int] = ()) -> None:
        """Stop what still runs; the slaves have been told to end, and have ``grace`` seconds.

        A launcher that does not come back soon after that is left behind.  May be called again, from any thread, and
        from a signal handler that interrupted `add`, `start` or `stop`.  ``waiting``: beside the calling thread those
        that wait for its return, by their idents; it may change meanwhile.
        """
        deadline = time.monotonic() + grace
        self._grace, self._closing = grace, True
        caller = threading.get_ident()

        def interrupting() -> bool:
            return not self._inside.isdisjoint({caller, *waiting})

        for group in list(self._groups):
            group.close(deadline)
        self._local.stop(grace, interrupting)
        while True:
            for group in list(self._groups):
                if not group.is_closing:  # another thread has begun to start it since
                    group.close(deadline)
            left = [one for one in list(self._groups) if one.is_alive or one.is_starting]
            if interrupting():  # what a waiting thread is in the middle of starting, it stops when it goes on with that
                left = [one for one in left if not one.is_starting]
            now = time.monotonic()
            if all(group.is_late(now) for group in left):
                break
            time.sleep(_LOOK_SECONDS)
        for group in left:
            log.warning("parallel: %s is left behind: %s", group.name, group.what_it_does())
        self._gave_up = True
        self._clean_up()
        deadline = time.monotonic() + _CLEAN_UP_SECONDS
        while self._removing.locked() and time.monotonic() < deadline:  # the last group's thread cleans up
            time.sleep(_LOOK_SECONDS)

    def _clean_up(self) -> None:
        """Remove the staging folder if nobody needs it; else its watchdog does that when this process ends."""
        if not any(one.is_alive or one.is_starting for one in list(self._groups)) and self._removing.acquire(
            blocking=False
        ):
            try:
                self._staging.remove()
            finally:
                self._removing.release()


def _slaves_of(slave: object) -> list[Slave]:
    """The slaves that were given to add_slave.  Raises `InputTypeError` if it is none."""
    slaves: list[Slave] = []
    for one in slave.slaves if isinstance(slave, SlaveArray) else [slave]:
        if not isinstance(one, Slave):
            raise InputTypeError(f"add_slave takes a Slave or a SlaveArray such as LocalSlave(), not {one!r}")
        slaves.append(one)
    return slaves
