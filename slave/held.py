"""Large values that tasks share, sent once to each runner: in the function of a map, whose inputs are the tasks."""

from __future__ import annotations

from typing import Any, NamedTuple


class Held(NamedTuple):
    """Stands in a call for one of the values."""

    place: int


class CallWith:
    """Calls a batch of joblib's, with the values in their places.

    They are arrays, and read-only where they arrive: no task is to change them under another one.
    """

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for value in self.values:
            value.flags.writeable = False

    def __call__(self, batch: Any, *setup: object) -> Any:
        """What the batch returns; what a setup returned is not for it."""
        batch.items = [
            (function, tuple(map(self._fill, args)), {name: self._fill(value) for name, value in named.items()})
            for function, args, named in batch.items
        ]
        return batch()

    def _fill(self, value: Any) -> Any:
        return self.values[value.place] if type(value) is Held else value
