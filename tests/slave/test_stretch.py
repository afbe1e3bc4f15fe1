"""Inputs of a map run one after the other: each once, none of their outcomes lost, whatever breaks and whenever."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Sequence
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slave import plain
from slave.gathering import WATCHED, Gatherer, Watch, new_shared_memory
from slave.outcome import Packed, unpack_failure
from slave.pieces import END
from slave.protocol import FAILURE, VALUE, LeaseMessage, OutcomeMessage, checked_values, outcomes_of
from slave.session import MOST_UNANSWERED, RunnerSession
from slave.shared_status import RECALL, TASK, new_shared_status
from slave.stretch import Stretch

LEASE, SLAVE, MAP = 7, 3, 5


class Breaks(Exception):
    """A value that is to be raised."""


class Machine:
    """A runner's session, the memory that its agent sees, and what has come to the master, over any connection.

    ``breaks``: which of the sendings break their connection; what is sent by the runner then does not arrive.
    """

    def __init__(self, payloads: Sequence[Any], breaks: Sequence[int] = (), context: Sequence[int] = ()) -> None:
        self.session = RunnerSession(SLAVE, 4711, "run")
        contexts = [*context, *[MAP] * (len(payloads) - len(context))]
        entries = [(number, of, one) for number, (of, one) in enumerate(zip(contexts, payloads), 1)]
        self.session.fetched(LeaseMessage(LEASE, entries, {}, []))
        self.status, self.memory = new_shared_status(fork=True), new_shared_memory(fork=True)
        self.gatherer = Gatherer(self.memory, lambda: None)
        self.gatherer.cells[WATCHED] = 1
        self.arrived: list[OutcomeMessage] = []
        self.breaks, self.sendings, self.answers = set(breaks), 0, 0
        self.stretch = Stretch(self.session, self.status, self.gatherer, self)
        self.begun: list[int] = []

    # -- as the runner does

    def send_gathered(self) -> None:
        pieces = self.gatherer.pieces
        assert pieces
        self._send(lambda: self.values(pieces))
        self.gatherer.clear()

    def post(self, packed: Packed) -> None:
        message, one_way = self.session.outcome(*packed)
        if not one_way:
            self.answers += 1
            self._flush()
            self.arrived.append(message)
            self.session.answered()
            return

        def arrive() -> None:
            self._flush()
            self.arrived.append(message)

        self._send(arrive)

    def _flush(self) -> None:
        if not self.gatherer.empty:
            self.values(self.gatherer.pieces)
            self.gatherer.clear()

    def _send(self, arrive: Callable[[], None]) -> None:
        self.sendings += 1
        if self.sendings in self.breaks:
            self.reconnect()
        else:
            arrive()

    def reconnect(self) -> None:
        """What was gathered is forgotten, and what is unanswered said again."""
        self.gatherer.clear()
        for one in self.session.unanswered:
            if isinstance(one, bytes):
                self.values(one)
            else:
                self.arrived.append(one)

    def values(self, pieces: bytes) -> None:
        """Such a message arrives."""
        service, method, message, named = plain.loads(pieces + END)
        assert (service, method, named) == ("results", "values", {})
        self.arrived += outcomes_of(checked_values(message))

    # -- what the tests ask for

    def run(self, call: Callable[[Any], object], loads: Callable[[Any], Any] = pickle.loads) -> int:
        def noted(item: Any) -> object:
            self.begun.append(self.status[TASK])
            return call(item)

        before = len(self.session.unstarted)
        ran = self.stretch.run(noted, loads)
        self.session.check()
        assert len(self.session.unstarted) == before - ran
        return ran

    @property
    def found(self) -> dict[int, Any]:
        """By task what came of it, in the end; the same each time."""
        self._flush()
        found: dict[int, Any] = {}
        for _, lease, _, task, kind, data, buffers in self.arrived:
            assert lease == LEASE
            value = pickle.loads(data, buffers=buffers) if kind == VALUE else unpack_failure(data).type_name
            assert repr(found.setdefault(task, value)) == repr(value)
        return found


def give_or_raise(item: Any) -> object:
    if isinstance(item, Breaks):
        raise item
    return item


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 10**30, bytes(5000), bytes(300_000), Breaks("no")]),
    st.floats(),
    st.text(max_size=10),
    st.binary(max_size=300),
    st.lists(st.integers(), max_size=3),
)


@given(
    st.lists(VALUES, min_size=1, max_size=60),
    st.lists(st.integers(1, 30), max_size=5),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
@settings(deadline=None)
def test_each_runs_once_and_each_value_arrives(values: list[Any], breaks: list[int], watched: list[bool]) -> None:
    machine = Machine([pickle.dumps(one, 5) for one in values], breaks)

    def call(item: Any) -> object:
        machine.gatherer.cells[WATCHED] = watched[len(machine.begun) - 1]
        return give_or_raise(item)

    assert machine.run(call) == len(values)
    assert machine.begun == list(range(1, len(values) + 1)), "the status names each before it begins"
    wanted = {task: "Breaks" if isinstance(one, Breaks) else one for task, one in enumerate(values, 1)}
    found = {task: "Breaks" if "Breaks" in repr(one) else one for task, one in machine.found.items()}
    assert repr(sorted(found.items(), key=lambda one: one[0])) == repr(list(wanted.items()))


def test_numbers_and_none_stand_for_themselves_and_are_not_rebuilt() -> None:
    inputs = [1, -2.5, None, True, False, 2**70]
    machine = Machine(inputs)
    assert machine.run(lambda item: item, loads=lambda _: pytest.fail("none is pickled")) == len(inputs)
    assert list(machine.found.values()) == inputs
    assert list(map(type, machine.found.values())) == list(map(type, inputs))


def test_each_value_lies_where_the_agent_sees_it_before_the_next_one_begins() -> None:
    machine = Machine([0.5, 2, None, True, pickle.dumps([4])])

    def call(item: object) -> object:
        pieces = Watch(machine.memory).rest()
        gathered = outcomes_of(plain.loads(pieces + END)[2]) if pieces else []
        known = {task for _, _, _, task, *_ in [*machine.arrived, *gathered]}
        assert known == set(range(1, machine.status[TASK])), "or it has come already"
        return item

    assert machine.run(call) == 5
    assert list(machine.found.values()) == [0.5, 2, None, True, [4]]


def test_without_an_agent_that_looks_each_is_sent_at_once() -> None:
    machine = Machine([1, 2, 3])
    machine.gatherer.cells[WATCHED] = 0
    machine.run(lambda item: item)
    assert machine.sendings == 2 and list(machine.found) == [1, 2, 3]


def test_a_recall_is_heeded_before_the_next_one() -> None:
    machine = Machine([1, 2, 3, 4])

    def call(item: int) -> int:
        machine.status[RECALL] = LEASE if item == 2 else LEASE + 1
        return item

    assert machine.run(call) == 2
    assert list(machine.found) == [1, 2] and machine.session.give_back().unstarted == [3, 4]


def test_it_ends_where_the_map_does() -> None:
    machine = Machine([1, 2, 3], context=[MAP, MAP, MAP + 1])
    assert machine.run(lambda item: item) == 2
    assert machine.run(lambda item: item) == 1
    assert machine.found == {1: 1, 2: 2, 3: 3}
    assert {task: context for _, _, context, task, *_ in machine.arrived} == {1: MAP, 2: MAP, 3: MAP + 1}


@pytest.mark.parametrize("payload", [b"no pickle", (pickle.dumps(1), [])])
def test_what_cannot_be_rebuilt_or_came_in_parts_is_left(payload: object) -> None:
    machine = Machine([1, payload, 3])
    assert machine.run(lambda item: item) == 1
    assert [task for task, _, _ in machine.session.unstarted] == [2, 3] and list(machine.found) == [1]
    assert machine.run(lambda item: item) == 0, "its first one is, too"


def test_what_cannot_be_rebuilt_is_tried_once_and_why_is_kept() -> None:
    machine, tried = Machine([1, b"no pickle", 3]), []

    def loads(payload: bytes) -> object:
        tried.append(payload)
        raise ModuleNotFoundError("No module named 'absent'")

    assert machine.run(lambda item: item, loads) == 1 and tried == [b"no pickle"]
    assert isinstance(machine.stretch.error, ModuleNotFoundError)


def test_very_large_numbers_of_tasks_are_left() -> None:
    machine = Machine([1, 2])
    machine.session.unstarted[1] = (1 << 31, MAP, 2)
    assert machine.run(lambda item: item) == 0


def test_when_much_is_unanswered_an_answer_is_waited_for() -> None:
    count = MOST_UNANSWERED // 3000 + 10
    machine = Machine([1] * count)
    machine.run(lambda item: bytes(3000))
    assert machine.answers == 1 and len(machine.found) == count


def test_a_value_is_gone_when_the_next_one_begins() -> None:
    class Value(list):  # type: ignore[type-arg]
        """It can be referred to weakly."""

        def __reduce__(self) -> tuple[Any, ...]:
            return list, ()

    machine = Machine([0, 1, 2])
    former: list[weakref.ref[Value]] = []

    def call(item: int) -> Value:
        assert all(one() is None for one in former), "two large ones might not fit"
        value = Value()
        former.append(weakref.ref(value))
        return value

    machine.run(call)
    assert list(machine.found.values()) == [[], [], []]


def test_a_failure_is_posted_alone_and_behind_the_values() -> None:
    machine = Machine([1, 0, 3])
    machine.run(lambda item: 6 // item)
    assert [(task, kind) for _, _, _, task, kind, *_ in machine.arrived] == [(1, VALUE), (2, FAILURE)]
    assert machine.found == {1: 6, 2: "ZeroDivisionError", 3: 2}
