"""Naming: what the tasks of one context are written under, and whether a result in the file is of one of them.

A name is made of the task's identity, of the how-manieth of these it is, of what its result comes from (its origin: the
name of its callable, the setup, and the user's modules with a digest of each), and of a key and a label if it has them.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import FunctionType

from slave.protocol import Setup

from ..errors import InputError
from .batch import Name
from .code import changed
from .format import MOST_NAME, Entry
from .identity import SMALL, Identities, of_key
from .results_file import Origin
from .store import Store

REFERENCE = pickle.STACK_GLOBAL  # each reference in a pickle has this byte; it may also stand elsewhere
STORED = -1  # the kind of an outcome that stands for a result in the file; it is a `Known`
_NONE = object()

_make = tuple.__new__  # three times as quick as the class itself, for millions of tasks


class Known:
    """Stands in the mailbox for an outcome that is in the file: where, and what it takes to run the task after all.

    There may be millions, so it is small.
    """

    __slots__ = "key", "label", "name", "nth", "payload", "place", "retries", "tag", "task", "timeout"

    kind, size = STORED, 0  # as of `Outcome`

    def __init__(
        self, task: int, place: int, nth: int, payload: bytes, name: str, key: bytes, label: bytes, tag: object
    ) -> None:
        self.task, self.place, self.nth, self.payload, self.name = task, place, nth, payload, name
        self.key, self.label, self.tag = key, label, tag
        self.timeout: float | None = None
        self.retries = 0


class Naming:
    """See the module's text.  ``setups``: the pickles of what is set up for the tasks.

    ``any_code``: results are used whatever code has made them.
    """

    def __init__(self, store: Store, any_code: bool, setups: Sequence[Setup]) -> None:
        self._store, self._any_code = store, any_code
        self._identities = Identities(setups)
        self.begun_identity = self._identities.begun.copy  # of a task's pickle: see `Identities.of_pickle`
        self._setup_names = [store.code.names_in(setup) for setup in setups]
        # by the task's name and what it refers to; guarded by `Store.naming`, as the store's counts are
        self._origins: dict[tuple[str, tuple[bytes, ...]], int] = {}
        # what its first task comes from, as nearly all do: the number, what its pickle refers to, and its name
        self.origin, self.name = -1, "?"
        self.refers: tuple[bytes, ...] = (b"?",)
        self._keyed = self._stale = 0  # tasks with a key; those whose results were made by other code

    # -- new tasks

    def like_first(self, payload: bytes) -> bytes | None:
        """What a task is written under that is like the first one, and whose identity is a new one; else None."""
        store = self._store
        with store.naming:
            if not store.counts.begins or store.code.names_in(payload) != self.refers:
                return None
        identity = self._identities.of_pickle(payload)
        bits = hash(identity) & SMALL
        if store.counts.seen.setdefault(bits, bits) is not bits:
            return None
        return identity

    def of_task(self, payload: bytes, name: str, key: str | None, label: str) -> tuple[Name, int]:
        """What the task is written under, and the place of its result in the index or -1.

        Raises `CheckpointError`, and `InputError` for a key that another task has.
        """
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
        if not (text or label or nth) and origin == self.origin:
            return identity, place
        self._keyed += bool(text)
        parts = identity, nth, origin, text, label.encode()[:MOST_NAME] if label else b"", 0
        return _make(Entry, parts), place

    def usual(self, task: object) -> tuple[int, object]:
        """How many references the pickle of a task of that function has, and the function: see `Recorder.add_usual`.

        If it goes by reference, and nothing else in the first task's pickle does; else an object that is no task.
        """
        if type(task) is not FunctionType:
            return 0, _NONE
        try:
            alone = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
        except Exception:  # it is sent by value
            return 0, _NONE
        if alone[2:3] == pickle.FRAME:
            alone = alone[11:]  # the size of the frame may look like a reference
        same = self._store.code.names_in(alone) == self.refers
        return alone.count(REFERENCE), task if same else _NONE

    def make_known(self, id: int, place: int, named: Name, payload: bytes, name: str, tag: object) -> Known:
        """What stands for the task's result, which is at that place of the index."""
        _, nth, _, key, label, _ = self.entry_of(named)
        return Known(id, place, nth, payload, name, key, label, tag)

    def is_usable(self, place: int, named: Name) -> bool:
        """Whether the result was made by the same code, or by any if that is wanted."""
        file, entry = self._store.file, self.entry_of(named)
        number = file.index.origin(place)
        if number == entry.origin or self._any_code:
            return True
        then, now = file.origins.get(number), file.origins[entry.origin]
        if then is not None and not changed(then, now, exactly=bool(entry.key)):
            return True
        self._stale += 1
        self._store.tell_of_code(number, now)
        return False

    # -- tasks that have a name

    def entry_of(self, named: Name | Known) -> Entry:
        """The name in full.  Raises `CheckpointError`."""
        if type(named) is bytes:
            return Entry(named, 0, self.origin)
        if not isinstance(named, Known):
            return named  # type: ignore[return-value]  # the one that is left
        with self._store.naming:
            origin = self._origin_of(named.payload, named.name)
        return Entry(self.identity_of(named), named.nth, origin, named.key, named.label)

    def identity_of(self, known: Known) -> bytes:
        """The first half of its name: see `Identities`."""
        return of_key(known.key) if known.key else self._identities.of_pickle(known.payload)

    def release(self, named: Name) -> None:
        """Its task came to nothing, and is to have the same name if it is added again."""
        entry = self.entry_of(named)
        with self._store.naming:
            self._store.counts.release(entry.identity, entry.nth)

    def _origin_of(self, payload: bytes, name: str) -> int:
        """The number of what a task's result comes from.  Raises `CheckpointError`."""
        refers = self._store.code.names_in(payload)
        if refers == self.refers and name == self.name:
            return self.origin
        origin = self._origins.get((name, refers))
        if origin is None:
            origin = self._origins[name, refers] = self._new_origin(name, refers)
        if self.origin < 0:
            self.origin, self.refers, self.name = origin, refers, name
        return origin

    def _new_origin(self, name: str, found: tuple[bytes, ...]) -> int:
        modules = self._store.code.modules(*self._setup_names, found)
        return self._store.write_origin(Origin(name, self._identities.setup, modules))

    # -- what the user is told

    def tell_none_matches(self, added: int) -> None:
        """None of so many tasks is known: say why that may be, if it is not for a reason that was told."""
        store = self._store
        held = len(store.file.index)
        if not held or self._stale or added <= self._keyed:
            return
        setup = self._identities.setup
        same = any(
            origin.setup == setup for number, origin in store.file.origins.items() if number < store.first_origin
        )
        what = "tasks that pickle as these do" if same else "a setup that pickles as this one does"
        store.tell(
            f"none of the {held} results in {store.path} is of the {added} tasks that were added, or of {what}. If "
            f"these are the same tasks, their pickles differ from run to run, as those of sets do, and of objects "
            f'that hold addresses or times: name each, by add_task(..., key="...") or map(..., key=...)'
        )
