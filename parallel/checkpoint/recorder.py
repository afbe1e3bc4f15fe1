"""Recorder: the tasks of one context, or of one map: each is added with its result if that is known, or else to run.

naming.py   who a task is, and whether a result in the file is its own
writer.py   what is written of the outcomes that come
reader.py   the outcomes as readers get them
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Protocol

from slave.protocol import Buffer, Setup

from ..core.chunk import NO_TASK, Inputs
from ..core.effects import Outcome
from .batch import Name
from .identity import SMALL
from .naming import REFERENCE, Known, Naming
from .reader import Reader
from .store import Store
from .writer import Writer

_MOST_MORE = 64  # tasks that are taken ahead while all are known


class Rules(NamedTuple):
    """What the user asks of a context's checkpoint."""

    durable: bool = False
    any_code: bool = False


class Place(Protocol):
    """What a recorder needs of its context's mailbox: see there."""

    ready: deque[Any]
    recorder: Any
    new_id: Callable[[], int]

    def add(self, payload: Buffer, timeout: float | None, retries: int, tag: object = None, id: int = 0) -> int:
        """One more task."""

    def add_for(self, addressee: Any, payload: Buffer, timeout: float | None, retries: int, id: int = 0) -> int:
        """The same for somebody of its own."""

    def add_input(self, inputs: Inputs, payload: Any) -> None:
        """One more input of a map; None: there is no such task."""

    def add_known(self, outcome: Outcome) -> None:
        """One more task, whose outcome is known."""


class _Waiting:
    def __init__(self, recorder: Recorder, reader: Reader) -> None:
        self._recorder, self._reader = recorder, reader

    def __enter__(self) -> None:
        self._recorder.waits += 1

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        self._recorder.waits -= 1
        if kind is None:
            self._reader.ensure_first()
        else:
            self._reader.let_write()


class Recorder:
    """See the module's text.  ``setups``: the pickles of what is set up for its tasks.

    ``begin``: starts the slaves; it is called when results were asked for and there is a task that is not known.
    """

    def __init__(
        self, store: Store, rules: Rules, mailbox: Place, setups: Sequence[Setup], begin: Callable[[], object]
    ) -> None:
        self._store, self._mailbox, self._begin = store, mailbox, begin
        self._naming = naming = Naming(store, rules.any_code, setups)
        self._writer = writer = Writer(naming)
        self._reader = reader = Reader(
            store, rules.durable, naming, writer, mailbox.ready, mailbox.new_id, self._run_again
        )
        # what the mailbox and the store ask of those two: bound here, so that it takes no call more
        self.record = writer.record
        self.front, self.front_values, self.written = reader.front, reader.front_values, reader.written
        self.cannot_be_rebuilt, self.input_cannot_be_rebuilt = reader.cannot_be_rebuilt, reader.input_cannot_be_rebuilt
        self.cancelled, self.id_of = reader.cancelled, reader.id_of
        # the first task's function, if there is nothing else in its pickle that is referred to, and how that is seen
        self._usual: object = None
        self._references = 0
        self._names, self._next_id = writer.names, mailbox.new_id
        self._begun_identity, self._counts, self._seen = naming.begun_identity, store.counts, store.counts.seen
        self._added = self._known = 0  # tasks
        self._in_a_row = 0  # tasks that were known, up to the one that was added last
        self._runs_some = self._begun = False  # not all tasks are known; and the slaves have been started
        self._asked = self._told = False  # for results; the user was told what is known
        self.waits = 0  # readers that wait for an outcome, and write what comes
        mailbox.recorder = self

    # -- tasks

    def add(
        self,
        payload: bytes,
        name: str,
        timeout: float | None,
        retries: int,
        *,
        key: str | None = None,
        label: str = "",
        tag: object = None,
        task: object = None,
    ) -> int:
        """One more task, or its result at once.  Returns its id.

        ``name``: of its callable, which is ``task``; ``tag``: as of `Mailbox.add`.  Raises `ManagerClosed`,
        `CheckpointError`, and for a key that cannot be `InputError`.
        """
        named: Name | None = None
        place = -1
        if key is None and not label and name == self._naming.name:
            named = self._naming.like_first(payload)
        if named is None:
            named, place = self._naming.of_task(payload, name, key, label)
            if self._usual is None and task is not None:
                self._references, self._usual = self._naming.usual(task)
        self._added += 1
        id = self._mailbox.new_id()
        if place >= 0 and self._naming.is_usable(place, named):
            self._count_known(1)
            known = self._naming.make_known(id, place, named, payload, name, tag)
            known.timeout, known.retries = timeout, retries
            self._mailbox.add_known(known)  # type: ignore[arg-type]  # see `Reader.front`
            return id
        self._names[id] = named
        try:
            self._mailbox.add(payload, timeout, retries, tag, id)
        except BaseException:
            self._writer.forget(id)
            raise
        if self._in_a_row or not self._begun:
            self._runs()
        return id

    def add_usual(self, payload: bytes, task: object, timeout: float | None, retries: int) -> int:
        """The same in as little time as can be for a task that is like the first one: returns 0 if it is not."""
        if task is not self._usual or payload.count(REFERENCE) != self._references:
            return 0
        state = self._begun_identity()
        state.update(payload)
        identity = state.digest()
        bits = hash(identity) & SMALL
        if not self._counts.begins or self._seen.setdefault(bits, bits) is not bits:
            return 0
        self._added += 1
        id = self._next_id()
        self._names[id] = identity
        try:
            self._mailbox.add(payload, timeout, retries, None, id)
        except BaseException:
            self._writer.forget(id)
            raise
        if self._in_a_row or not self._runs_some or (self._asked and not self._begun):
            self._runs()
        return id

    def submit(self, addressee: Any, payload: bytes, timeout: float | None, retries: int, name: str) -> int:
        """The same for a task whose outcome only that one is to get.

        A result in the file is looked at now: a future that has its outcome cannot do without it later.
        """
        named, place = self._naming.of_task(payload, name, None, "")
        self._added += 1
        self._asked = True
        id = self._mailbox.new_id()
        if place >= 0 and self._naming.is_usable(place, named):
            known = self._naming.make_known(id, place, named, payload, name, None)
            if self._reader.read(known) is not None:
                self._count_known(1)
                addressee.settle(known)
                return id
        self._names[id] = named
        try:
            self._mailbox.add_for(addressee, payload, timeout, retries, id)
        except BaseException:
            self._writer.forget(id)
            raise
        self._runs()
        return id

    def begin_inputs(self, inputs: Inputs, name: str) -> Callable[[bytes, int, bool], None]:
        """The tasks are those inputs of a map of the function of that name.

        Returns what adds one more, or its result at once: ``(payload, index, plain)``, the last if it refers to no
        module.  That raises as `add`.
        """
        self._writer.by_input = True
        naming, names, add_input = self._naming, self._names, self._mailbox.add_input
        counts, seen, copy = self._counts, self._seen, self._begun_identity
        code, lock = self._store.code, self._store.naming

        def add(payload: bytes, index: int, plain: bool) -> None:  # this runs for each of millions of inputs
            as_ever = self._begun and counts.begins
            if as_ever and not (plain and not naming.refers):
                with lock:
                    as_ever = code.names_in(payload) == naming.refers
            if as_ever:
                state = copy()
                state.update(payload)
                identity = state.digest()
                bits = hash(identity) & SMALL
                if seen.setdefault(bits, bits) is bits:
                    names[index] = identity
                    self._added += 1
                    add_input(inputs, payload)
                    return
            with lock:
                self._add_input(inputs, payload, index, name)

        return add

    def _add_input(self, inputs: Inputs, payload: bytes, index: int, name: str) -> None:
        named, place = self._naming.of_task(payload, name, None, "")
        self._added += 1
        if place >= 0 and self._naming.is_usable(place, named):
            self._count_known(1)
            known = self._naming.make_known(self._mailbox.new_id(), place, named, payload, name, index)
            known.timeout, known.retries = inputs.timeout, inputs.retries
            self._mailbox.add_input(inputs, NO_TASK)
            self._mailbox.add_known(known)  # type: ignore[arg-type]  # see `Reader.front`
        else:
            self._names[index] = named
            self._mailbox.add_input(inputs, payload)
            self._runs()

    def _runs(self) -> None:
        """A task was added that is not known."""
        self._in_a_row = 0
        if not self._runs_some or not self._begun:
            self._runs_some = True
            if self._asked:
                self._begun = True
                self._begin()

    def _run_again(self, known: Known, id: int) -> None:
        """A task was taken to be known, and its result cannot be used: it is added under that id."""
        self._count_known(-1)
        self._names[known.tag if self._writer.by_input else id] = self._naming.entry_of(known)  # type: ignore[index]
        self._mailbox.add(known.payload, known.timeout, known.retries, known.tag, id)
        self._runs()

    def begin(self) -> None:
        """Results are asked for: start the slaves, if there is something for them to do."""
        self._asked = True
        if self._added and not self._told:
            self._tell()
        if self._runs_some:
            self._begun = True
            self._begin()

    # -- outcomes

    def note(self, outcomes: Sequence[Any]) -> None:
        """See `Store.note`."""
        self._store.note(self, outcomes)

    def waiting(self) -> _Waiting:
        """While a reader waits for an outcome; at the end what has come is written, or `CheckpointError` raised."""
        if not self._told:
            self._tell()
        return _Waiting(self, self._reader)

    def more(self) -> int:
        """How many tasks are to be added at least, since those added last were known."""
        return min(_MOST_MORE, 2 * self._in_a_row)

    # -- what the user is told

    def _count_known(self, more: int) -> None:
        self._known += more
        self._in_a_row += more
        self._store.known += more

    def _tell(self) -> None:
        """Say once what is known; and if nothing is, why that may be."""
        if not self._added:
            return
        self._told = True
        store = self._store
        if self._known:
            store.tell(f"{self._known} of {self._added} tasks have their results in {store.path}, and do not run again")
        elif not store.known:
            self._naming.tell_none_matches(self._added)
