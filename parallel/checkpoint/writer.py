"""Writer: which outcomes of one context's tasks are to be written, and under what names.

The store's thread or a reader asks for it (see `Store`), while tasks are added and outcomes are taken by others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slave.protocol import VALUE, as_pickle

from ..core.effects import Outcome, Values
from .batch import Batch, Name
from .format import SMALL
from .naming import Naming

_MANY = 6  # outcomes that are quicker looked at together
_OUTCOMES, _VALUES, _BYTES = {Outcome}, {VALUE}, {bytes}


class Writer:
    """See the module's text."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        # by task, or by the input of a map: under what its result is to be written; whoever adds a task puts it in,
        # and it stays until a reader takes the outcome
        self.names: dict[int, Name] = {}
        self.by_input = False  # the outcomes' tags are these keys

    def key_of(self, outcome: Outcome) -> Any:
        """Where its task stands in `names`."""
        return outcome.tag if self.by_input else outcome.task

    def forget(self, key: int) -> None:
        """No outcome comes of that task: it may be added again as what it was."""
        named = self.names.pop(key, None)
        if named is not None:
            self._naming.release(named)

    def record(self, outcomes: Sequence[Any], batch: Batch) -> None:
        """See `Source`.  Failures are not written, for they are to be tried again."""
        if len(outcomes) < _MANY or not self._record_small(outcomes, batch):
            self._record_each(outcomes, batch)

    def _record_small(self, outcomes: Sequence[Any], batch: Batch) -> bool:
        """If all are small results that may stand in a group.  By calls for all at once, not one by one."""
        if set(map(type, outcomes)) != _OUTCOMES:
            return False
        tasks, kinds, _, data, buffers, sizes, _, _, tags = zip(*outcomes)
        names = list(map(self.names.get, tags if self.by_input else tasks))
        if set(kinds) != _VALUES or any(buffers) or set(map(type, names)) != _BYTES:
            return False
        pickles = list(map(as_pickle, data))
        if set(map(type, pickles)) != _BYTES or max(map(len, pickles)) > SMALL:
            return False
        batch.size += sum(sizes)
        batch.add_small(self._naming.origin, names, pickles)  # type: ignore[arg-type]
        return True

    def _record_each(self, outcomes: Sequence[Any], batch: Batch) -> None:
        names, origin, by_input = self.names, self._naming.origin, self.by_input
        for outcome in outcomes:
            batch.size += outcome.size
            if type(outcome) is Values:
                self._record_values(outcome, batch)
            elif outcome.kind == VALUE:
                named = names.get(outcome.tag if by_input else outcome.task)
                data = as_pickle(outcome.data)
                if type(named) is bytes and type(data) is bytes and len(data) <= SMALL and not outcome.buffers:
                    batch.add_small(origin, (named,), (data,))
                elif named is not None:
                    batch.add(named, origin, data, outcome.buffers)

    def _record_values(self, values: Values, batch: Batch) -> None:
        names = self.names
        try:
            pickles = list(map(as_pickle, values.data))
            batch.add_all([names[index] for index in values.indices], self._naming.origin, pickles)
        except KeyError:  # some have been cancelled
            for index, data in zip(values.indices, values.data):
                named = names.get(index)
                if named is not None:
                    batch.add(named, self._naming.origin, as_pickle(data), ())
