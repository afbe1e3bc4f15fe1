"""Plain pickles are read as they are, and anything else is refused before it is loaded, whatever it would cost."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import plain
from slave.errors import ProtocolError

LENGTHS = [0, 1, 15, 16, 63, 64, 65, 255, 256, 257, 65535, 65536, 70_000]
LEAVES: list[Any] = [
    None,
    True,
    False,
    0,
    255,
    256,
    65535,
    65536,
    1 << 31,
    -1,
    1 << 70,
    -(1 << 400),
    1.5,
    -0.0,
    "\udc80",
]
LEAVES += ["x" * n for n in LENGTHS] + ["\u20ac" * n for n in LENGTHS] + [b"x" * n for n in LENGTHS]


@pytest.mark.parametrize("leaf", LEAVES, ids=range(len(LEAVES)))
def test_leaves(leaf: Any) -> None:
    for value in (leaf, (leaf,), [leaf, leaf], {"key": leaf}, (leaf,) * 5000):
        assert plain.loads(pickle.dumps(value, 5)) == value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(VALUES)
def test_all_that_messages_are_made_of(value: Any) -> None:
    assert plain.loads(pickle.dumps(value, 5)) == value
    assert plain.loads(bytearray(pickle.dumps(value, 5))) == value


@given(st.binary(max_size=60), st.integers(0, 300))
def test_bytes_in_messages_may_look_like_anything(noise: bytes, n: int) -> None:
    value = (noise, noise * n, [noise] * n)
    assert plain.loads(memoryview(pickle.dumps(value, 5))) == value


def test_buffers() -> None:
    parts: list[pickle.PickleBuffer] = []
    value = ("results", [pickle.PickleBuffer(bytearray(b"one")), pickle.PickleBuffer(b"two")])
    body = pickle.dumps(value, 5, buffer_callback=parts.append)
    assert plain.loads(body, [b"one", b"two"]) == ("results", [b"one", b"two"])
    with pytest.raises(ProtocolError, match="no pickle"):
        plain.loads(body, [b"one"])


NOT_PLAIN: dict[str, bytes] = {
    "a function": pickle.dumps(len, 5),
    "a class": pickle.dumps(object, 2),
    "an object": pickle.dumps(ValueError("x"), 5),
    "a set": pickle.dumps({1}, 5),
    "a bytearray": pickle.dumps(bytearray(9), 5),
    "a call": b"cos\nsystem\n(S'exit 1'\ntR.",
    "an extension": b"\x82\x01.",
    "a persistent id": b"\x80\x05N\x51.",
    "a number of 2^4096": pickle.dumps(1 << 4096, 5),
    "a text number": b"I1\n.",
    "memo index of 2^32": b"\x80\x05Nr\xff\xff\xff\xff.",
    "memo index as text": b"\x80\x05Np99999999\n.",
    "a bytearray of 2^40 bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "bytes of 2^40": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytes of 2^63": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 63) + b"x.",
    "a text of 2^31": b"\x80\x05X" + struct.pack("<I", 1 << 31) + b"x.",
    "a frame of 2^60": b"\x80\x05\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "nothing": b"",
    "no end": b"\x80\x05N",
    "an early end": b"\x80\x05N..",
    "another protocol": b"\x80\x04N.",
    "a cut text": b"\x80\x05\x8c\x09abc.",
    "nothing on the stack": b"\x80\x05.",
    "an end that is in a text": b"\x80\x05\x8c\x01.",
}


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain_is_refused_and_takes_nothing(what: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            plain.loads(NOT_PLAIN[what])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(VALUES, st.data())
def test_changed_bytes(value: Any, data: st.DataObject) -> None:
    """Whatever comes out of a changed pickle is made of builtins, or it is refused."""
    body = bytearray(pickle.dumps(value, 5))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = plain.loads(body)
    except ProtocolError:
        return
    assert builtin(found)


def builtin(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(builtin, value))
    if type(value) is dict:
        return all(builtin(key) and builtin(item) for key, item in value.items())
    return type(value) in (type(None), bool, int, float, str, bytes)
