"""A map's results that are given without a lock: each once, in whatever thread, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import math
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from parallel import at_hand, mapping
from parallel.core.chunk import Inputs
from parallel.core.effects import Values
from parallel.errors import RemoteError
from parallel.map_inputs import MapInputs
from parallel.mapping import MapResults
from parallel.program import Program
from parallel.quick_values import QuickValues
from parallel.service.mailbox import Mailbox


class Box:
    """As much of a mailbox as a map needs: blocks of values are there from the start."""

    recorder, wants_tasks, coming, read, label = None, False, 0.0, False, ""

    def __init__(self, blocks: Sequence[Sequence[Any]]) -> None:
        self.ready: deque[Values] = deque()
        self.added: list[bytes] = []
        for block in blocks:
            places = list(range(len(block)))
            self.ready.append(Values("slave 0", places, places, list(block), 0))

    def inputs(self, limit: float | None, retries: int) -> Inputs:
        return Inputs(1, limit, retries)

    def add_input(self, stream: Inputs, payload: bytes) -> None:
        self.added.append(payload)

    def add_inputs(self, stream: Inputs, payloads: Sequence[bytes]) -> None:
        self.added += payloads

    def wanted_at_first(self) -> int:
        return 1 << 20

    def wanted(self, seconds: float, most: int = 0) -> int:
        return 1 << 20

    def no_more_tasks(self) -> None:
        self.wants_tasks = False

    def took(self, values: Values) -> None:
        self.ready.popleft()

    def wait(self, for_tasks: bool) -> bool:
        return bool(self.ready)

    def abandon(self) -> None:
        pass

    def tell(self, what: object) -> None:
        pass

    def _forget(self) -> None:
        pass

    _dispatcher = property(lambda self: self)


def results_of(box: Box, inputs: Iterable[Any] = ()) -> MapResults[Any]:
    mailbox: Any = box  # which has what is needed
    taken = MapInputs(mailbox, iter(inputs), lambda item: pickle.dumps(item, 5), limit=None, retries=0, ahead=None)
    return MapResults(
        mailbox, taken, Program(), ordered=False, originals=False, context=None, when_over=lambda mailbox: None
    )


def as_value(data: Any) -> Any:
    """What a member of a block stands for."""
    return pickle.loads(data) if isinstance(data, bytes) else data


def pickles(*values: object) -> list[bytes]:
    return [pickle.dumps(value, 5) for value in values]


class Broken:
    """Cannot be rebuilt."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Interrupted:
    """Ctrl-C comes the first time that it is rebuilt."""

    def __reduce__(self) -> Any:
        return interrupted_once, ()


interrupts = 0


def interrupted_once() -> str:
    global interrupts
    interrupts += 1
    if interrupts == 1:
        signal.raise_signal(signal.SIGINT)
    return "rebuilt"


def test_blocks_are_given_one_after_the_other() -> None:
    assert list(results_of(Box([pickles(1, 2, 3), pickles(4), pickles(*range(5, 100))]))) == list(range(1, 100))


def test_values_that_stand_for_themselves_are_given_among_others() -> None:
    block: list[Any] = [1, *pickles("two"), None, 4.5, True, *pickles([6])]
    assert list(results_of(Box([block, [7, 8]]))) == [1, "two", None, 4.5, True, [6], 7, 8]


def test_while_tasks_are_wanted_a_block_is_not_begun_anew_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which took 30 us for each, since what is left of the block is copied: as long as the last inputs had taken."""
    begun = []

    class Counted(QuickValues):
        def __init__(self, block: Values, first: int) -> None:
            begun.append(first)
            super().__init__(block, first)

    monkeypatch.setattr(mapping, "QuickValues", Counted)
    box = Box([list(range(1000))])
    results = results_of(box, itertools.repeat(1))
    box.wants_tasks = True
    results._inputs._rests_until = math.inf
    assert list(itertools.islice(results, 1000)) == list(range(1000))
    assert len(begun) <= 1


def test_what_cannot_be_rebuilt_is_an_error_in_its_place_and_the_others_are_given() -> None:
    results = results_of(Box([pickles(0, 1, Broken(), 3, Broken(), Broken(), 6), pickles(Broken(), 8)]))
    found: list[object] = []
    while True:
        try:
            found += results
            break
        except RemoteError as error:
            assert error.index is not None
            found.append(f"error {error.index}")
    assert found == [0, 1, "error 2", 3, "error 4", "error 5", 6, "error 0", 8]


def test_ctrl_c_while_a_value_is_rebuilt_loses_none() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        results = results_of(Box([pickles(0, 1, Interrupted(), 3)]))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyboardInterrupt):
            next(results)
        assert list(results) == ["rebuilt", 3]
    finally:
        signal.signal(signal.SIGINT, before)


def test_several_threads_get_each_value_once() -> None:
    blocks = [pickles(*range(at, at + 50)) for at in range(0, 10_000, 50)]
    results, found = results_of(Box(blocks)), [[] for _ in range(4)]  # type: ignore[var-annotated]
    threads = [threading.Thread(target=one.extend, args=(results,)) for one in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(value for one in found for value in one) == list(range(10_000))


def test_another_thread_takes_over_in_the_middle_of_a_block() -> None:
    results = results_of(Box([pickles(*range(10))]))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(next(results)))
    thread.start()
    thread.join(30)
    assert found == [4] and list(results) == [5, 6, 7, 8, 9]


def test_a_map_that_is_closed_gives_no_more() -> None:
    box = Box([pickles(*range(10))])
    box.cancel = lambda: 0  # type: ignore[attr-defined]
    results = results_of(box)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    results.close()
    assert list(results) == []


# -- inputs
@pytest.mark.parametrize("inputs", [range(1000), list(range(1000)), tuple(range(1000)), [1, "a", None, 2.5, b"b"]])
def test_inputs_at_hand_are_added_together(inputs: Sequence[Any]) -> None:
    box = Box([])
    assert list(results_of(box, inputs)) == []
    assert [as_value(one) for one in box.added] == list(inputs)


class Number(int):
    """Not a number as others are."""


@pytest.mark.parametrize("odd", [Number(3), [3], (1, 2), Broken()])
def test_inputs_among_which_is_something_else_are_taken_one_by_one(odd: object) -> None:
    iterator = iter([1, odd, 3])
    assert at_hand.may_be(iterator) and at_hand.taken(iterator, 3) == [] and next(iterator) == 1
    assert at_hand.taken(iter([1, odd, 3]), 1) == [1], "only what is taken is looked at"


def test_inputs_that_may_have_to_be_waited_for_are_not_at_hand() -> None:
    assert not any(map(at_hand.may_be, [(i for i in range(3)), map(int, "12"), iter({1, 2}), iter({1: 2}), zip([1])]))


def test_a_list_that_grows_or_is_at_its_end() -> None:
    numbers = [1]
    iterator = iter(numbers)
    assert at_hand.taken(iterator, 5) == [1]
    numbers.append(2)
    assert at_hand.taken(iterator, 5) == [2]
    assert list(iterator) == []
    numbers.append(3)
    assert at_hand.taken(iterator, 5) == []


def test_the_box_is_as_the_mailbox() -> None:
    names = [name for name, value in vars(Box).items() if callable(value) and name not in ("__init__", "tell")]
    assert all(hasattr(Mailbox, name) for name in names)
