"""A message made in pieces is the message that pickle would make."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import plain
from slave.errors import ProtocolError
from slave.pieces import END, FLOAT, INT, SINGLE, SINGLES, head, outcomes, piece, turned
from slave.protocol import VALUE, as_pickle, checked_values, outcome_message, unpack_entries

NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([2**16, 2**31 - 1, 2**31, 2**40, 2**63 - 1]))
DATA = st.one_of(st.binary(max_size=20), st.sampled_from([bytes(255), bytes(256), bytes(70_000)]))


@given(NUMBERS, NUMBERS, NUMBERS, st.lists(st.tuples(NUMBERS, DATA), max_size=20))
def test_pieces_make_a_plain_pickle_of_the_message(
    slave: int, lease: int, context: int, values: list[tuple[int, bytes]]
) -> None:
    whole = head(slave, lease, context) + b"".join(piece(*one) for one in values) + END
    flat = [part for one in values for part in one]
    assert plain.loads(whole) == pickle.loads(whole) == ("results", "values", (slave, lease, context, flat), {})
    assert len(head(2**40, 2**40, 2**40)) <= 96, "it has room in the memory that the agent sees"


def packed(task: int, number: int, value: object) -> bytes:
    """As stretch.py does it."""
    if type(value) is float:
        return FLOAT.pack(b"J", number, b"G", value)
    return INT.pack(b"J", task, b"J", value) if type(value) is int else SINGLE.pack(b"J", task, SINGLES[value])  # type: ignore[index]


SMALL = st.one_of(st.floats(), st.integers(-(2**31), 2**31 - 1), st.none(), st.booleans())


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), SMALL), max_size=20))
def test_what_stands_for_itself_is_packed_in_one_step(values: list[tuple[int, object]]) -> None:
    numbers = turned([task for task, _ in values])
    made = head(1, 2, 3) + b"".join(packed(task, number, value) for (task, value), number in zip(values, numbers))
    _, _, (*whose, found), _ = plain.loads(made + END)
    assert whose == [1, 2, 3] and repr(found) == repr([part for one in values for part in one])
    assert list(map(type, found[1::2])) == [type(value) for _, value in values]
    wanted = [outcome_message(1, 2, 3, task, VALUE, as_pickle(value), ()) for task, value in values]  # type: ignore[arg-type]
    assert outcomes(made) == wanted


@pytest.mark.parametrize(
    "parts",
    [
        None,
        (1, 2, 3),
        (1, 2, 3, None),
        (1, 2, 3, [4]),
        (1, 2, 3, [4, b"", 5]),
        (1, 2, 3, [b"", b""]),
        (1, 2, 3, [True, b""]),
        (1, 2, 3, [4, bytearray(1)]),
        ("1", 2, 3, []),
        (1, None, 3, []),
        (1, 2, [], []),
    ],
)
def test_what_are_no_values_is_refused(parts: object) -> None:
    assert checked_values((1, 2, 3, [4, b"four", 5, b""]))[3] == [4, b"four", 5, b""]
    with pytest.raises(ProtocolError, match="values have"):
        checked_values(parts)


def test_the_tasks_of_a_lease_have_their_contexts() -> None:
    assert unpack_entries([3, [1, b"a", 2, b"b"], 4, [5, b"c"]]) == [(1, 3, b"a"), (2, 3, b"b"), (5, 4, b"c")]
    assert unpack_entries([3, (7, [None, 2]), 3, [1, b"a"]]) == [(7, 3, None), (8, 3, 2), (1, 3, b"a")]
