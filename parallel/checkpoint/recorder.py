"""Recorder: the tasks of one context, or of one map: which are known, and what comes of the others."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from types import FunctionType
from typing import Any, Callable, NamedTuple, Protocol

from slave.protocol import VALUE, Buffer, Setup

from ..core.chunk import Inputs
from ..core.effects import Outcome, Values
from ..errors import CheckpointError, InputError
from .batch import Batch, Name
from .code import changed
from .format import MOST_NAME, Entry
from .format import SMALL as SMALL_RESULT
from .identity import SMALL, Identities, of_key
from .results_file import Origin
from .store import Store

_MOST_MORE = 64  # tasks that are taken ahead while all are known
_MANY = 6  # outcomes that are quicker looked at together
_OUTCOMES, _VALUES, _BYTES = {Outcome}, {VALUE}, {bytes}
_EARLIER = "a slave of an earlier run"
_REFERENCE = pickle.STACK_GLOBAL  # each reference in a pickle has this byte; it may also stand elsewhere
_NONE = object()
_STORED = -1  # the kind of an outcome that stands for a result in the file; it is a `_Known`


_make = tuple.__new__  # three times as quick as the class itself, for millions of tasks


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

    def add_input(self, inputs: Inputs, payload: bytes | None) -> None:
        """One more input of a map; None: there is no such task."""

    def add_known(self, outcome: Outcome) -> None:
        """One more task, whose outcome is known."""


class _Known:
    """Stands in the mailbox for an outcome that is in the file: where, and what it takes to run the task after all.

    There may be millions, so it is small.
    """

    __slots__ = "key", "label", "name", "nth", "payload", "place", "retries", "tag", "task", "timeout"

    kind, size = _STORED, 0  # as of `Outcome`

    def __init__(
        self, task: int, place: int, nth: int, payload: bytes, name: str, key: bytes, label: bytes, tag: object
    ) -> None:
        self.task, self.place, self.nth, self.payload, self.name = task, place, nth, payload, name
        self.key, self.label, self.tag = key, label, tag
        self.timeout: float | None = None
        self.retries = 0


class _Waiting:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder.waits += 1

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        self._recorder.waits -= 1
        if kind is None:
            self._recorder.ensure_first()
        else:
            self._recorder.let_write()


class Recorder:
    """See the module's text.  ``setups``: the pickles of what is set up for its tasks.

    ``begin``: starts the slaves; it is called when results were asked for and there is a task that is not known.
    """

    def __init__(
        self, store: Store, rules: Rules, mailbox: Place, setups: Sequence[Setup], begin: Callable[[], object]
    ) -> None:
        self._store, self._mailbox, self._rules, self._begin = store, mailbox, rules, begin
        self._identities = Identities(setups)
        self._setup_names = [store.code.names_in(setup) for setup in setups]
        self._origins: dict[tuple[str, tuple[bytes, ...]], int] = {}  # by the task's name and what it refers to
        # by task, or by the input of a map: under what its result is to be written
        self._names: dict[int, Name] = {}
        self._by_input = False  # its outcomes' tags are these keys
        self._block: Sequence[int] = ()  # inputs whose results a reader has taken together, and gives one by one
        self._other_ids: dict[int, int] = {}  # of tasks whose results were damaged: the one that the user knows
        self._written_until: Any = None  # all in the mailbox up to this one, which is there, is in the file
        self._front: Name | _Known | None = None  # of the outcome that `front` gave last
        self._inputs = Inputs(0, None, 0)  # if the tasks are inputs of a map: those, and the name of its function
        self._calls = ""
        self._runs_some = self._begun = False  # not all tasks are known; and the slaves have been started
        # what its first task comes from, as nearly all do: the number, what its pickle refers to, and its name
        self._origin, self._name = -1, "?"
        self._refers: tuple[bytes, ...] = (b"?",)
        # its function, if there is nothing else in its pickle that is referred to, and how that is seen
        self._usual: object = None
        self._references = 0
        self._begun_identity = self._identities.begun.copy
        self._counts, self._seen = store.counts, store.counts.seen
        self._added = self._keyed = self._known = self._stale = 0  # tasks; those of them with a key
        self._in_a_row = 0  # tasks that were known, up to the one that was added last
        self._asked = self._told = False  # for results; the user was told what is known
        self.waits = 0  # readers that wait for an outcome, and write what comes
        self._ready, self._next_id = mailbox.ready, mailbox.new_id
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
        if key is None and not label and name == self._name:
            named = self._new_name(payload)
        if named is None:
            named, place = self._named(payload, name, key, label)
            if self._usual is None and task is not None:
                self._learn(task)
        id = self._mailbox.new_id()
        if place >= 0 and self._is_usable(place, named):
            self._count_known(1)
            known = self._make_known(id, place, named, payload, name, tag)
            known.timeout, known.retries = timeout, retries
            self._mailbox.add_known(known)  # type: ignore[arg-type]  # see `front`
            return id
        self._names[id] = named
        try:
            self._mailbox.add(payload, timeout, retries, tag, id)
        except BaseException:
            self.cancelled(id)
            raise
        if self._in_a_row or not self._begun:
            self._runs()
        return id

    def add_usual(self, payload: bytes, task: object, timeout: float | None, retries: int) -> int:
        """The same in as little time as can be for a task that is like the first one: returns 0 if it is not."""
        if task is not self._usual or payload.count(_REFERENCE) != self._references:
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
            self.cancelled(id)
            raise
        if self._in_a_row or not self._runs_some or (self._asked and not self._begun):
            self._runs()
        return id

    def _learn(self, task: object) -> None:
        """See `add_usual`: the first task is a function, by reference, and nothing else in its pickle is one."""
        self._usual = _NONE
        if type(task) is not FunctionType:
            return
        try:
            alone = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
        except Exception:  # it is sent by value
            return
        if alone[2:3] == pickle.FRAME:
            alone = alone[11:]  # the size of the frame may look like a reference
        self._references = alone.count(_REFERENCE)
        if self._store.code.names_in(alone) == self._refers:
            self._usual = task

    def submit(self, addressee: Any, payload: bytes, timeout: float | None, retries: int, name: str) -> int:
        """The same for a task whose outcome only that one is to get.

        A result in the file is looked at now: a future that has its outcome cannot do without it later.
        """
        named, place = self._named(payload, name, None, "")
        self._asked = True
        id = self._mailbox.new_id()
        if place >= 0 and self._is_usable(place, named):
            known = self._make_known(id, place, named, payload, name, None)
            if self._read(known) is not None:
                self._count_known(1)
                addressee.settle(known)
                return id
        self._names[id] = named
        try:
            self._mailbox.add_for(addressee, payload, timeout, retries, id)
        except BaseException:
            self.cancelled(id)
            raise
        self._runs()
        return id

    def begin_inputs(self, inputs: Inputs, name: str) -> Callable[[bytes, int, bool], None]:
        """The tasks are those inputs of a map of the function of that name.

        Returns what adds one more, or its result at once: ``(payload, index, plain)``, the last if it refers to no
        module.  That raises as `add`.
        """
        self._inputs, self._calls, self._by_input = inputs, name, True
        naming, counts, names, code = self._store.naming, self._store.counts, self._names, self._store.code
        seen, copy, add_input = counts.seen, self._identities.begun.copy, self._mailbox.add_input

        def add(payload: bytes, index: int, plain: bool) -> None:  # this runs for each of millions of inputs
            as_ever = self._begun and counts.begins
            if as_ever and not (plain and not self._refers):
                with naming:
                    as_ever = code.names_in(payload) == self._refers
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
            with naming:
                self._add_input(payload, index, *self._named(payload, name, None, ""))

        return add

    def _new_name(self, payload: bytes) -> bytes | None:
        """What a task is written under that is like the first one, and whose identity is a new one; else None."""
        store = self._store
        with store.naming:
            if not store.counts.begins or store.code.names_in(payload) != self._refers:
                return None
        identity = self._identities.of_pickle(payload)
        bits = hash(identity) & SMALL
        if self._seen.setdefault(bits, bits) is not bits:
            return None
        self._added += 1
        return identity

    def _add_input(self, payload: bytes, index: int, named: Name, place: int) -> None:
        inputs = self._inputs
        if place >= 0 and self._is_usable(place, named):
            self._count_known(1)
            known = self._make_known(self._mailbox.new_id(), place, named, payload, self._calls, index)
            known.timeout, known.retries = inputs.timeout, inputs.retries
            self._mailbox.add_input(inputs, None)
            self._mailbox.add_known(known)  # type: ignore[arg-type]  # see `front`
        else:
            self._names[index] = named
            self._mailbox.add_input(inputs, payload)
            self._runs()

    def _named(self, payload: bytes, name: str, key: str | None, label: str) -> tuple[Name, int]:
        """What the task is written under, and the place of its result in the index or -1."""
        store = self._store
        text = b"" if key is None else key.encode()
        with store.naming:
            origin = self._origin_of(payload, name)
            identity = of_key(text) if text else self._identities.of_pickle(payload)
            if text and store.counts.is_used(identity):
                raise InputError(
                    f"the key {key!r} was given to another task in this run: each task of {store.path} needs one of "
                    f"its own"
                )
            nth, place = store.counts.next(identity)
        self._added += 1
        if not (text or label or nth) and origin == self._origin:
            return identity, place
        self._keyed += bool(text)
        parts = identity, nth, origin, text, label.encode()[:MOST_NAME] if label else b"", 0
        return _make(Entry, parts), place

    def _origin_of(self, payload: bytes, name: str) -> int:
        """The number of what a task's result comes from.  Raises `CheckpointError`."""
        refers = self._store.code.names_in(payload)
        if refers == self._refers and name == self._name:
            return self._origin
        origin = self._origins.get((name, refers))
        if origin is None:
            origin = self._origins[name, refers] = self._new_origin(name, refers)
        if self._origin < 0:
            self._origin, self._refers, self._name = origin, refers, name
        return origin

    def _entry_of(self, named: Name | _Known) -> Entry:
        if type(named) is bytes:
            return Entry(named, 0, self._origin)
        if not isinstance(named, _Known):
            return named  # type: ignore[return-value]  # the one that is left
        with self._store.naming:
            origin = self._origin_of(named.payload, named.name)
        return Entry(self._identity_of(named), named.nth, origin, named.key, named.label)

    def _identity_of(self, known: _Known) -> bytes:
        return of_key(known.key) if known.key else self._identities.of_pickle(known.payload)

    def _make_known(self, id: int, place: int, named: Name, payload: bytes, name: str, tag: object) -> _Known:
        _, nth, _, key, label, _ = self._entry_of(named)
        return _Known(id, place, nth, payload, name, key, label, tag)

    def _new_origin(self, name: str, found: tuple[bytes, ...]) -> int:
        modules = self._store.code.modules(*self._setup_names, found)
        return self._store.write_origin(Origin(name, self._identities.setup, modules))

    def _runs(self) -> None:
        """A task was added that is not known."""
        self._in_a_row = 0
        if not self._runs_some or not self._begun:
            self._runs_some = True
            if self._asked:
                self._begun = True
                self._begin()

    def begin(self) -> None:
        """Results are asked for: start the slaves, if there is something for them to do."""
        self._asked = True
        if self._added and not self._told:
            self._tell()
        if self._runs_some:
            self._begun = True
            self._begin()

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
                known.update(outcome.indices if type(outcome) is Values else (self._key_of(outcome),))
        for id in [id for id in list(self._names) if id not in known] if task is None else [task]:
            named = self._names.pop(id, None)
            if named is not None:
                self._release(named)

    def _key_of(self, outcome: Outcome) -> Any:
        """Where its task stands in `_names`."""
        return outcome.tag if self._by_input else outcome.task

    def _release(self, named: Name) -> None:
        entry = self._entry_of(named)
        with self._store.naming:
            self._store.counts.release(entry.identity, entry.nth)

    # -- outcomes, for the dispatcher and the store

    def note(self, outcomes: Sequence[Any]) -> None:
        """See `Store.note`."""
        self._store.note(self, outcomes)

    def record(self, outcomes: Sequence[Any], batch: Batch) -> None:
        """See `Source`.  Failures are not written, for they are to be tried again."""
        if len(outcomes) < _MANY or not self._record_small(outcomes, batch):
            self._record_each(outcomes, batch)

    def _record_small(self, outcomes: Sequence[Any], batch: Batch) -> bool:
        """If all are small results that may stand in a group.  By calls for all at once, not one by one."""
        if set(map(type, outcomes)) != _OUTCOMES:
            return False
        tasks, kinds, _, data, buffers, sizes, _, _, tags = zip(*outcomes)
        names = list(map(self._names.get, tags if self._by_input else tasks))
        if (
            set(kinds) != _VALUES
            or any(buffers)
            or set(map(type, names)) != _BYTES
            or set(map(type, data)) != _BYTES
            or max(map(len, data)) > SMALL_RESULT
        ):
            return False
        batch.size += sum(sizes)
        batch.add_small(self._origin, names, data)  # type: ignore[arg-type]
        return True

    def _record_each(self, outcomes: Sequence[Any], batch: Batch) -> None:
        names, origin, by_input = self._names, self._origin, self._by_input
        for outcome in outcomes:
            batch.size += outcome.size
            if type(outcome) is Values:
                self._record_values(outcome, batch)
            elif outcome.kind == VALUE:
                named = names.get(outcome.tag if by_input else outcome.task)
                data = outcome.data
                if type(named) is bytes and type(data) is bytes and len(data) <= SMALL_RESULT and not outcome.buffers:
                    batch.add_small(origin, (named,), (data,))
                elif named is not None:
                    batch.add(named, origin, data, outcome.buffers)

    def _record_values(self, values: Values, batch: Batch) -> None:
        names = self._names
        try:
            batch.add_all([names[index] for index in values.indices], self._origin, values.data)
        except KeyError:  # some have been cancelled
            for index, data in zip(values.indices, values.data):
                named = names.get(index)
                if named is not None:
                    batch.add(named, self._origin, data, ())

    # -- outcomes, for readers

    def waiting(self) -> _Waiting:
        """While a reader waits for an outcome; at the end what has come is written, or `CheckpointError` raised."""
        if not self._told:
            self._tell()
        return _Waiting(self)

    def more(self) -> int:
        """How many tasks are to be added at least, since those added last were known."""
        return min(_MOST_MORE, 2 * self._in_a_row)

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
        self._front = self._names.pop(outcome.tag if self._by_input else outcome.task, None)  # type: ignore[call-overload]
        return outcome

    def _odd_front(self, outcome: Outcome) -> Outcome | None:
        self._leave_block()
        self._passes(outcome)
        if outcome.kind != _STORED:
            return self.written(outcome)
        known: _Known = outcome  # type: ignore[assignment]
        read = self._read(known)
        if read is None:
            self._ready.popleft()
            self._run_again(known)
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

    def ensure(self) -> None:
        """What has come is in the file.  Raises `CheckpointError`."""
        self._store.ensure(self._rules.durable)

    def ensure_first(self) -> None:
        """The same of what a reader takes first, and maybe not of large results behind it."""
        ready = self._ready.copy()
        self._store.ensure(self._rules.durable, ready[0] if ready else None)

    def _ensure_first(self, first: Outcome | Values) -> None:
        """That one, the first in the mailbox, is in the file.  Raises `CheckpointError`."""
        last = self._ready[-1]
        everything = self._store.ensure(self._rules.durable, first)
        self._written_until = last if everything and last is not first else None

    def let_write(self) -> None:
        """No reader writes what has come: the store's thread is to do it."""
        self._store.wake()

    def written(self, outcome: Outcome) -> Outcome:
        """The same outcome, which is in the file by now.  Raises `CheckpointError`."""
        if outcome.kind == _STORED:
            read = self._read(outcome)  # type: ignore[arg-type]
            if read is None:
                raise CheckpointError(f"a result in {self._store.path} cannot be read any more, and was a moment ago")
            return read
        self.ensure()
        named = self._front = self._names.pop(self._key_of(outcome), None)
        if named is not None and outcome.kind != VALUE:
            self._release(named)
        if outcome.task in self._other_ids:
            outcome = outcome._replace(task=self._other_ids.pop(outcome.task))
        return outcome

    def cannot_be_rebuilt(self) -> None:
        """The result that `front` gave cannot be rebuilt here: that is a failure, to be tried again in the next run."""
        front, self._front = self._front, None
        if front is not None:
            entry = self._entry_of(front)
            self._store.drop(entry)
            self._release(entry)

    def input_cannot_be_rebuilt(self, index: int) -> None:
        """The same of the result of an input that `front_values` gave."""
        self._front = self._names.pop(index, None)
        self.cannot_be_rebuilt()

    def _read(self, known: _Known) -> Outcome | None:
        """The outcome that is in the file; None if that is damaged, or not to be read."""
        file = self._store.file
        why = "it is damaged"
        try:
            found = file.find(file.index.offset(known.place))
            if found is not None and found.entry[:2] == (self._identity_of(known), known.nth):
                payload = file.load(found)
                if payload is not None:
                    return Outcome(known.task, VALUE, _EARLIER, *payload, payload=known.payload, tag=known.tag)
        except OSError as error:
            why = error.strerror or str(error)
        self._store.tell(f"a result in {self._store.path} cannot be used, and its task runs again: {why}")
        return None

    def _run_again(self, known: _Known) -> None:
        self._count_known(-1)
        id = self._mailbox.new_id()
        self._other_ids[id] = known.task
        self._names[known.tag if self._by_input else id] = self._entry_of(known)  # type: ignore[index]
        self._mailbox.add(known.payload, known.timeout, known.retries, known.tag, id)
        self._runs()

    # -- what the user is told

    def _count_known(self, more: int) -> None:
        self._known += more
        self._in_a_row += more
        self._store.known += more

    def _is_usable(self, place: int, named: Name) -> bool:
        """Whether the result was made by the same code, or by any if that is wanted."""
        file, entry = self._store.file, self._entry_of(named)
        number = file.index.origin(place)
        if number == entry.origin or self._rules.any_code:
            return True
        then, now = file.origins.get(number), file.origins[entry.origin]
        if then is not None and not changed(then, now, exactly=bool(entry.key)):
            return True
        self._stale += 1
        self._store.tell_of_code(number, now)
        return False

    def _tell(self) -> None:
        """Say once what is known; and if nothing is, why that may be."""
        if not self._added:
            return
        self._told = True
        store = self._store
        held = len(store.file.index)
        if self._known:
            store.tell(f"{self._known} of {self._added} tasks have their results in {store.path}, and do not run again")
        elif held and not store.known and not self._stale and self._added > self._keyed:
            setup = self._identities.setup
            same = any(
                origin.setup == setup for number, origin in store.file.origins.items() if number < store.first_origin
            )
            what = "tasks that pickle as these do" if same else "a setup that pickles as this one does"
            store.tell(
                f"none of the {held} results in {store.path} is of the {self._added} tasks that were added, or of "
                f"{what}. If these are the same tasks, their pickles differ from run to run, as those of sets do, and "
                f'of objects that hold addresses or times: name each, by add_task(..., key="...") or map(..., key=...)'
            )
