"""Entrance: how tasks get into a context: pickled, by tags of whoever waits for them, and with the slaves started.

`Context.submit` goes this way, and so do the front ends, which have tags of their own (`Addressee`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Protocol

from slave.mapped import Mapped
from slave.protocol import Payload, Setup

from .core.state import ContextRules
from .errors import InputTypeError
from .payload import Packer, dump, quick_dump, setup_dump
from .program import Program
from .service.dispatcher import Dispatcher
from .service.mailbox import Mailbox

if TYPE_CHECKING:
    from .checkpoint.recorder import Recorder


class Record(Protocol):
    """Makes the recorder of a context's tasks, or of a map's, if there is a checkpoint: see parallel/checkpoint."""

    def __call__(self, mailbox: Mailbox, setups: Sequence[Setup], begin: Callable[[], object], /) -> Recorder:
        """For that mailbox, whose tasks need those setups; ``begin`` starts the slaves."""


class Owner(Protocol):
    """What a context needs of the manager that made it."""

    program: Program
    dispatcher: Dispatcher

    def begin(self) -> None:
        """Start the slaves that were added."""

    def tell_slaves(self) -> None:
        """Have them learn what has changed in the program."""


class Entrance:
    """See the module's text.

    ``rules``: of contexts that are based on this one.  ``record``, ``setups``: see `Record`.
    """

    def __init__(
        self, manager: Owner, mailbox: Mailbox, rules: ContextRules, record: Record | None, setups: Sequence[Setup]
    ) -> None:
        self.program = manager.program
        self._record, self._setups = record, setups
        self._manager, self._mailbox, self._rules = manager, mailbox, rules
        self._packer = Packer(manager.program, in_parts=record is None)
        self._begun = False

    @property
    def mailbox(self) -> Mailbox:
        """Where the tasks go; the first look starts the slaves, unless there is a checkpoint, which may know all."""
        if not self._begun and self._mailbox.recorder is None:
            self._manager.begin()
            self._begun = True
        return self._mailbox

    def pack(self, task: Callable[..., Any], args: tuple[object, ...], named: dict[str, object]) -> Payload:
        """The pickle of a task.  Raises `InputTypeError` if it is not callable, `UnpicklableError`."""
        if not callable(task):
            raise InputTypeError(f"a task must be callable, and {task!r} is not; to pass data, use functools.partial")
        if self.program.glance():
            self._manager.tell_slaves()
        return self._packer.task(task, args, named)

    def pack_input(self, item: object) -> bytes:
        """The pickle of an input of a mapped function.  Raises `UnpicklableError`."""
        self.look()
        return quick_dump("the input", self.program, item)

    def input_packer(self) -> Callable[[object], Payload]:
        """What pickles the inputs of a map.  It raises `UnpicklableError`."""
        return Packer(self.program, in_parts=self._record is None).input

    def look(self) -> None:
        """Have slaves learn what has changed in the program, if something may have."""
        if self.program.glance():
            self._manager.tell_slaves()

    def mailbox_of(self, function: Callable[..., Any]) -> tuple[Setup, Callable[[], Mailbox]]:
        """The pickle of a function for `slave.mapped`, and what makes a mailbox whose tasks are pickled inputs of it.

        Raises `UnpicklableError`.
        """
        self.look()
        payload = setup_dump(Mapped(function, False, self._mailbox.id), "the function", self.program)

        def make() -> Mailbox:
            mailbox = Mailbox(self._manager.dispatcher, payload, self._rules)
            self.record_calls(mailbox, function, False)
            return mailbox

        return payload, make

    def record_calls(self, mailbox: Mailbox, function: object, starred: bool) -> Recorder | None:
        """The recorder for inputs of a function, which are the mailbox's tasks, if there is a checkpoint."""
        if self._record is None:
            return None
        again = dump((function, starred), "the function", self.program)  # as it is in another run, too
        return self._record(mailbox, [*self._setups, again], self._manager.begin)
