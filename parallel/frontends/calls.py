"""Calls: how the calls that a pool makes of one function go to the slaves.

With each task goes the function's pickle, which mostly is its name.  A large one, that of a partial with data, is sent
once to each runner: then its tasks go to a mailbox of their own (slave/mapped.py), which is kept for the next calls of
the same function.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from slave.calls import call_each, call_each_starred
from slave.protocol import Payload, Setup

from ..checks import name_of
from ..payload import digest_of

if TYPE_CHECKING:
    from ..entrance import Entrance
    from ..service.mailbox import Addressee, Mailbox, Recorder

_LARGE = 16 * 1024  # bytes of a pickled function
_KEPT = 4  # large functions

Pack = Callable[[Any], Payload]


class Kept:
    """A mailbox of a large function, which is given up when nobody can add to it any more, and all is done."""

    def __init__(self, mailbox: Mailbox, all_of_them: set[Mailbox]) -> None:
        self.mailbox = mailbox
        all_of_them.add(mailbox)
        weakref.finalize(self, _give_up, mailbox, all_of_them).atexit = False


def _give_up(mailbox: Mailbox, all_of_them: set[Mailbox]) -> None:
    def when_done() -> None:
        all_of_them.discard(mailbox)
        mailbox.abandon()

    mailbox.when_done(when_done)


class Calls:
    """What adds tasks, each with an input of one function, or with a tuple of them.  For any thread."""

    def __init__(self, pack: Pack, mailbox: Mailbox, name: str, kept: Kept | None = None) -> None:
        self._pack, self._mailbox, self._name, self._kept = pack, mailbox, name, kept

    @property
    def recorder(self) -> Recorder | None:
        """What knows results of earlier runs, and has to be asked before an outcome is used."""
        return self._mailbox.recorder

    def pack(self, item: object) -> Payload:
        """The pickle of a task.  Raises `UnpicklableError`, `InputTypeError`."""
        return self._pack(item)

    def add(self, tasks: Sequence[tuple[Addressee, Payload]]) -> None:
        """Add tasks that were packed.  Raises `ManagerClosed`, and `CheckpointError` if there is one."""
        recorder = self._mailbox.recorder
        if recorder is None:
            self._mailbox.add_all_for(tasks)
            return
        for addressee, payload in tasks:
            assert type(payload) is bytes  # with a checkpoint
            recorder.submit(addressee, payload, None, 0, self._name)


class Functions:
    """The functions that are called in one context."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._lock = threading.RLock()  # guards what follows
        self._mailboxes: set[Mailbox] = set()  # of large functions
        self._small: object = None  # the one that was used last and is not large
        self._large: deque[tuple[bytes, Kept]] = deque()  # by digest; the one that was used last stands last

    def calls(self, function: Callable[..., Any], each: bool, starred: bool) -> Calls:
        """The way for calls of this function; ``each``: with each of a tuple of inputs, ``starred``: as arguments.

        Raises `UnpicklableError` and `InputTypeError` for the function.
        """
        entrance, name = self._entrance, name_of(function)
        mailbox, mapper = entrance.mailbox, call_each_starred if starred else call_each
        if function is not self._small:
            payload, make = entrance.mailbox_of(functools.partial(mapper, function) if each else function)
            if len(payload) >= _LARGE:
                kept = self._kept(payload, make)
                return Calls(entrance.pack_input, kept.mailbox, name, kept)
            self._small = function
        if each:
            return Calls(lambda inputs: entrance.pack(mapper, (function, inputs), {}), mailbox, name)
        return Calls(lambda item: entrance.pack(function, (item,), {}), mailbox, name)

    def call(self, function: Callable[..., Any], args: tuple[object, ...], named: dict[str, object]) -> Calls:
        """The way for this one call."""
        entrance = self._entrance
        return Calls(lambda item: entrance.pack(function, args, named), entrance.mailbox, name_of(function))

    def _kept(self, payload: Setup, make: Callable[[], Mailbox]) -> Kept:
        digest = digest_of(payload)
        with self._lock:
            found = next((one for one in self._large if one[0] == digest), None)
            if found is None:
                found = digest, Kept(make(), self._mailboxes)
            else:
                self._large.remove(found)
            self._large.append(found)
            if len(self._large) > _KEPT:
                self._large.popleft()
            return found[1]

    def wait(self) -> None:
        """Wait until no call is left, or none can be made any more, and all callbacks have returned."""
        for mailbox in self._all():
            mailbox.wait_until_done()

    def when_done(self, errand: Callable[[], object]) -> None:
        """Have this called then, in the thread of the callbacks.  Never waits."""
        first, *others = self._all()
        if others:
            errand = _after(others, errand)
        first.when_done(errand)

    def cancel(self) -> None:
        """Drop the calls that wait, and stop those that run."""
        for mailbox in self._all():
            mailbox.cancel()

    def _all(self) -> list[Mailbox]:
        return [self._entrance.mailbox, *self._mailboxes]


def _after(mailboxes: list[Mailbox], errand: Callable[[], object]) -> Callable[[], object]:
    """The errand, when these are done, too."""
    for mailbox in mailboxes:
        errand = functools.partial(mailbox.when_done, errand)
    return errand
