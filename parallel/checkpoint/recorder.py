"""Recorder: the tasks of one context, or of one map: which are known, and what comes of the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Callable, NamedTuple, Protocol

from slave.protocol import VALUE, Buffer

from ..core.effects import Outcome
from ..errors import CheckpointError, InputError
from .code import changed
from .format import MOST_NAME, RESULT, Entry
from .identity import Identities, of_key
from .results_file import Origin
from .store import Record, Store

_MOST_MORE = 64  # tasks that are taken ahead while all are known
_EARLIER = "a slave of an earlier run"
_STORED = -1  # the kind of an outcome that stands for a result in the file; it is a `_Known`


_make = tuple.__new__  # three times as quick as the class itself, for millions of tasks


class Rules(NamedTuple):
    """What the user asks of a context's checkpoint."""

    durable: bool = False
    any_code: bool = False


class Place(Protocol):
    """What a recorder needs of its context's mailbox: see there."""

    added: int
    ready: deque[Outcome]
    recorder: Any

    def new_id(self) -> int:
        """For a task that is about to be added."""

    def add(self, payload: Buffer, timeout: float | None, retries: int, tag: object = None, id: int = 0) -> int:
        """One more task."""

    def add_for(self, addressee: Any, payload: Buffer, timeout: float | None, retries: int, id: int = 0) -> int:
        """The same for somebody of its own."""

    def add_known(self, outcome: Outcome) -> None:
        """One more task, whose outcome is known."""

    def tell_of_known(self) -> None:
        """Have readers look that wait."""


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
            self._recorder.ensure()
        else:
            self._recorder.let_write()


class Recorder:
    """See the module's text.  ``setups``: the pickles of what is set up for its tasks.

    ``begin``: starts the slaves; it is called when results were asked for and there is a task that is not known.
    """

    def __init__(
        self, store: Store, rules: Rules, mailbox: Place, setups: Sequence[bytes], begin: Callable[[], object]
    ) -> None:
        self._store, self._mailbox, self._rules, self._begin = store, mailbox, rules, begin
        self._identities = Identities(setups)
        self._setup_names = [store.code.names_in(setup) for setup in setups]
        self._origins: dict[tuple[str, tuple[bytes, ...]], int] = {}  # by the task's name and what it refers to
        self._names: dict[int, Entry] = {}  # by task: under what its result is to be written
        self._other_ids: dict[int, int] = {}  # of tasks whose results were damaged: the one that the user knows
        self._front: Entry | _Known | None = None  # of the outcome that `front` gave last
        self._added = self._unnamed = self._known = self._stale = 0  # tasks; those of them without a key
        self._in_a_row = 0  # tasks that were known, up to the one that was added last
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
    ) -> int:
        """One more task, or its result at once.  Returns its id.

        ``name``: of its callable; ``tag``: as of `Mailbox.add`.  Raises `ManagerClosed`, `CheckpointError`, and for a
        key that cannot be `InputError`.
        """
        entry, place = self._entry(payload, name, key, label)
        id = self._mailbox.new_id()
        if place >= 0 and self._is_usable(place, entry):
            self._count_known(1)
            known = _Known(id, place, entry.nth, payload, name, entry.key, entry.label, tag)
            known.timeout, known.retries = timeout, retries
            self._mailbox.add_known(known)  # type: ignore[arg-type]  # see `front`
        else:
            self._add(id, entry, lambda: self._mailbox.add(payload, timeout, retries, tag, id))
        return id

    def submit(self, addressee: Any, payload: bytes, timeout: float | None, retries: int, name: str) -> int:
        """The same for a task whose outcome only that one is to get.

        A result in the file is looked at now: a future that has its outcome cannot do without it later.
        """
        entry, place = self._entry(payload, name, None, "")
        self._asked = True
        id = self._mailbox.new_id()
        if place >= 0 and self._is_usable(place, entry):
            known = _Known(id, place, entry.nth, payload, name, b"", b"", None)
            if self._read(known) is not None:
                self._count_known(1)
                addressee.settle(known)
                return id
        self._add(id, entry, lambda: self._mailbox.add_for(addressee, payload, timeout, retries, id))
        return id

    def _add(self, id: int, entry: Entry, add: Callable[[], object]) -> None:
        """A task runs, whose result is not known."""
        self._names[id] = entry
        try:
            add()
        except BaseException:
            self.cancelled(id)
            raise
        self._runs()

    def _entry(self, payload: bytes, name: str, key: str | None, label: str) -> tuple[Entry, int]:
        """What the task is written under, and the place of its result in the index or -1."""
        store = self._store
        text = b"" if key is None else key.encode()
        with store.naming:
            identity, origin = self._identify(payload, name, text)
            if text and store.counts.is_used(identity):
                raise InputError(
                    f"the key {key!r} was given to another task in this run: each task of {store.path} needs one of "
                    f"its own"
                )
            nth, place = store.counts.next(identity)
        self._added += 1
        if not text:
            self._unnamed += 1
        parts = identity, nth, origin, text, label.encode()[:MOST_NAME] if label else b"", 0
        return _make(Entry, parts), place

    def _identify(self, payload: bytes, name: str, key: bytes) -> tuple[tuple[int, int], int]:
        """A task's identity, and the number of what its result comes from."""
        found = name, self._store.code.names_in(payload)
        origin = self._origins.get(found)
        if origin is None:
            origin = self._origins[found] = self._new_origin(*found)
        return of_key(key) if key else self._identities.of_pickle(payload), origin

    def _entry_of(self, known: _Known) -> Entry:
        with self._store.naming:
            identity, origin = self._identify(known.payload, known.name, known.key)
        return Entry(identity, known.nth, origin, known.key, known.label)

    def _new_origin(self, name: str, found: tuple[bytes, ...]) -> int:
        modules = self._store.code.modules(*self._setup_names, found)
        return self._store.write_origin(Origin(name, self._identities.setup, modules))

    def _runs(self) -> None:
        """A task was added that is not known."""
        self._in_a_row = 0
        if self._asked:
            self._begin()

    def begin(self) -> None:
        """Results are asked for: start the slaves, if there is something for them to do."""
        self._asked = True
        if self._added and not self._told:
            self._tell()
        if self._mailbox.added:
            self._begin()

    def id_of(self, task: int) -> int:
        """By what id the scheduler knows a task, of which the user knows this one."""
        return next((new for new, old in self._other_ids.items() if old == task), task)

    def cancelled(self, task: int | None = None) -> None:
        """No outcome comes of the task, or of any that has none: it may be added again as what it was."""
        known: set[int] = set()
        if task is None:
            with suppress(CheckpointError):  # the next reader meets it
                self._store.ensure(False)  # what has come for futures, say
            known = {outcome.task for outcome in self._mailbox.ready.copy()}
        for id in [id for id in list(self._names) if id not in known] if task is None else [task]:
            entry = self._names.pop(id, None)
            if entry is not None:
                self._release(entry)

    def _release(self, entry: Entry) -> None:
        with self._store.naming:
            self._store.counts.release(entry.identity, entry.nth)

    # -- outcomes, for the dispatcher and the store

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """See `Store.note`."""
        self._store.note(self, outcomes)

    def record(self, outcomes: Sequence[Outcome], records: list[Record]) -> int:
        """See `Source`.  Failures are not written, for they are to be tried again."""
        names, size = self._names, 0
        for outcome in outcomes:
            task, kind, _, data, buffers, bytes_, *_ = outcome
            entry = names.get(task)
            if entry is not None and kind == VALUE:
                records.append((RESULT, entry, data, buffers))
                size += bytes_
        return size

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
        outcome = self._mailbox.ready[0]
        if outcome.kind == VALUE and not self._other_ids:
            store = self._store
            if store.queue or monotonic() > store.look_at or self._rules.durable:
                self.ensure()
            self._front = self._names.pop(outcome.task, None)
            return outcome
        if outcome.kind != _STORED:
            return self.written(outcome)
        known: _Known = outcome  # type: ignore[assignment]
        read = self._read(known)
        if read is None:
            self._mailbox.ready.popleft()
            self._run_again(known)
        else:
            self._front = known
        return read

    def ensure(self) -> None:
        """What has come is in the file.  Raises `CheckpointError`."""
        self._store.ensure(self._rules.durable)

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
        entry = self._front = self._names.pop(outcome.task, None)
        if entry is not None and outcome.kind != VALUE:
            self._release(entry)
        if outcome.task in self._other_ids:
            outcome = outcome._replace(task=self._other_ids.pop(outcome.task))
        return outcome

    def cannot_be_rebuilt(self) -> None:
        """The result that `front` gave cannot be rebuilt here: that is a failure, to be tried again in the next run."""
        front, self._front = self._front, None
        if front is not None:
            entry = self._entry_of(front) if isinstance(front, _Known) else front
            self._store.drop(entry)
            self._release(entry)

    def _read(self, known: _Known) -> Outcome | None:
        """The outcome that is in the file; None if that is damaged, or not to be read."""
        file = self._store.file
        why = "it is damaged"
        try:
            found = file.find(file.index.offset(known.place))
            if found is not None and (found.entry.identity, found.entry.nth) == self._entry_of(known)[:2]:
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
        self._names[id] = self._entry_of(known)
        self._mailbox.add(known.payload, known.timeout, known.retries, known.tag, id)
        self._runs()

    # -- what the user is told

    def _count_known(self, more: int) -> None:
        self._known += more
        self._in_a_row += more
        self._store.known += more

    def _is_usable(self, place: int, entry: Entry) -> bool:
        """Whether the result was made by the same code, or by any if that is wanted."""
        file = self._store.file
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
        elif held and not store.known and not self._stale and self._unnamed:
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
