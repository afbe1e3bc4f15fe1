"""Reader: the outcomes of one context's tasks as readers get them: written by then, or out of the file if known."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Callable

from slave.protocol import VALUE

from ..core.effects import Outcome, Values
from ..errors import CheckpointError
from .batch import Name
from .naming import STORED, Known, Naming
from .store import Store
from .writer import Writer

_EARLIER = "a slave of an earlier run"


class Reader:
    """See the module's text.  ``ready``, ``new_id``: of the mailbox; ``durable``: what is given is on the disk.

    ``run_again``: adds a task that was known, under the id that is given, when its result cannot be used.
    """

    def __init__(
        self,
        store: Store,
        durable: bool,
        naming: Naming,
        writer: Writer,
        ready: deque[Any],
        new_id: Callable[[], int],
        run_again: Callable[[Known, int], None],
    ) -> None:
        self._store, self._durable, self._naming, self._writer = store, durable, naming, writer
        self._ready, self._new_id, self._run_again = ready, new_id, run_again
        self._names = writer.names  # a name is taken out with the outcome
        self._block: Sequence[int] = ()  # inputs whose results a reader has taken together, and gives one by one
        self._other_ids: dict[int, int] = {}  # of tasks whose results were damaged: the one that the user knows
        self._written_until: Any = None  # all in the mailbox up to this one, which is there, is in the file
        self._front: Name | Known | None = None  # of the outcome that `front` gave last

    # -- out of the mailbox

    def front(self) -> Outcome | None:
        """The mailbox's first outcome, as it is in the file by now.  None: look again.

        Raises `CheckpointError` if it cannot be written: it stays where it is, as it does in any case.
        """
        outcome: Outcome = self._ready[0]
        written = self._written_until
        if outcome.kind != VALUE or self._block or self._other_ids:
            return self._odd_front(outcome)
        if written is None or monotonic() > self._store.look_at:
            self._ensure_first(outcome)
        elif outcome is written:
            self._written_until = None
        self._front = self._names.pop(outcome.tag if self._writer.by_input else outcome.task, None)  # type: ignore[call-overload]
        return outcome

    def _odd_front(self, outcome: Outcome) -> Outcome | None:
        self._leave_block()
        self._passes(outcome)
        if outcome.kind != STORED:
            return self.written(outcome)
        known: Known = outcome  # type: ignore[assignment]
        read = self.read(known)
        if read is None:
            self._ready.popleft()
            id = self._new_id()
            self._other_ids[id] = known.task
            self._run_again(known, id)
        else:
            self._front = known
        return read

    def front_values(self, values: Values) -> None:
        """These, the first in the mailbox, are in the file by now.  Raises as `front`."""
        self._leave_block()
        if self._written_until is None or monotonic() > self._store.look_at:
            self._ensure_first(values)
        else:
            self._passes(values)
        self._block = values.indices

    def _leave_block(self) -> None:
        for index in self._block:
            self._names.pop(index, None)
        self._block = ()

    def _passes(self, first: Outcome | Values) -> None:
        """That one is about to be taken out of the mailbox."""
        if first is self._written_until:
            self._written_until = None

    # -- out of no mailbox

    def written(self, outcome: Outcome) -> Outcome:
        """The same outcome, which is in the file by now.  Raises `CheckpointError`."""
        if outcome.kind == STORED:
            read = self.read(outcome)  # type: ignore[arg-type]
            if read is None:
                raise CheckpointError(f"a result in {self._store.path} cannot be read any more, and was a moment ago")
            return read
        self.ensure()
        named = self._front = self._names.pop(self._writer.key_of(outcome), None)
        if named is not None and outcome.kind != VALUE:
            self._naming.release(named)
        if outcome.task in self._other_ids:
            outcome = outcome._replace(task=self._other_ids.pop(outcome.task))
        return outcome

    def read(self, known: Known) -> Outcome | None:
        """The outcome that is in the file; None if that is damaged, or not to be read."""
        file = self._store.file
        why = "it is damaged"
        try:
            found = file.find(file.index.offset(known.place))
            if found is not None and found.entry[:2] == (self._naming.identity_of(known), known.nth):
                payload = file.load(found)
                if payload is not None:
                    return Outcome(known.task, VALUE, _EARLIER, *payload, payload=known.payload, tag=known.tag)
        except OSError as error:
            why = error.strerror or str(error)
        self._store.tell(f"a result in {self._store.path} cannot be used, and its task runs again: {why}")
        return None

    # -- what becomes of tasks

    def cannot_be_rebuilt(self) -> None:
        """The result that `front` gave cannot be rebuilt here: that is a failure, to be tried again in the next run."""
        front, self._front = self._front, None
        if front is not None:
            entry = self._naming.entry_of(front)
            self._store.drop(entry)
            self._naming.release(entry)

    def input_cannot_be_rebuilt(self, index: int) -> None:
        """The same of the result of an input that `front_values` gave."""
        self._front = self._names.pop(index, None)
        self.cannot_be_rebuilt()

    def id_of(self, task: int) -> int:
        """By what id the scheduler knows a task, of which the user knows this one."""
        return next((new for new, old in self._other_ids.items() if old == task), task)

    def cancelled(self, task: int | None = None) -> None:
        """No outcome comes of the task, or of any that has none: it may be added again as what it was."""
        known: set[object] = set()
        if task is None:
            with suppress(CheckpointError):  # the next reader meets it
                self._store.ensure(False)  # what has come for futures, say
            known.update(self._block)
            for outcome in self._ready.copy():
                known.update(outcome.indices if type(outcome) is Values else (self._writer.key_of(outcome),))
        for id in [id for id in list(self._names) if id not in known] if task is None else [task]:
            self._writer.forget(id)

    # -- into the file

    def ensure(self) -> None:
        """What has come is in the file.  Raises `CheckpointError`."""
        self._store.ensure(self._durable)

    def ensure_first(self) -> None:
        """The same of what a reader takes first, and maybe not of large results behind it."""
        ready = self._ready.copy()
        self._store.ensure(self._durable, ready[0] if ready else None)

    def _ensure_first(self, first: Outcome | Values) -> None:
        """That one, the first in the mailbox, is in the file.  Raises `CheckpointError`."""
        last = self._ready[-1]
        everything = self._store.ensure(self._durable, first)
        self._written_until = last if everything and last is not first else None

    def let_write(self) -> None:
        """No reader writes what has come: the store's thread is to do it."""
        self._store.wake()
