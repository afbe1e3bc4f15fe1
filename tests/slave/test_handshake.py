"""The handshake, as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import handshake
from slave.errors import Incompatible, ProtocolError, WrongKey

KEY, OTHER = b"k" * 32, b"o" * 32


def test_both_hold_the_key() -> None:
    greeted = handshake.greeting()
    answered = handshake.answer(KEY, greeted)
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == ""
    handshake.accept(KEY, greeted, answered, verdict)
    sizes = handshake.GREETING_SIZE, handshake.ANSWER_SIZE, handshake.VERDICT_SIZE
    assert (len(greeted), len(answered), len(verdict)) == sizes == (42, 74, 33)


def test_another_key_is_refused_by_the_master() -> None:
    greeted = handshake.greeting()
    answered = handshake.answer(OTHER, greeted)
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == "it holds another key"
    with pytest.raises(WrongKey, match="the master holds another one; use the same key file on both machines"):
        handshake.accept(OTHER, greeted, answered, verdict)


def test_a_false_master_is_refused_by_the_slave() -> None:
    greeted = handshake.greeting()
    answered = handshake.answer(KEY, greeted)
    with pytest.raises(WrongKey, match="could not prove"):
        handshake.accept(KEY, greeted, answered, b"\x00" + bytes(32))


def test_an_answer_does_not_fit_another_greeting() -> None:
    answered = handshake.answer(KEY, handshake.greeting())
    assert handshake.judge(KEY, handshake.greeting(), answered)[1]


def test_the_masters_own_proof_is_no_answer() -> None:
    greeted = handshake.greeting()
    answered = handshake.answer(KEY, greeted)
    verdict, _ = handshake.judge(KEY, greeted, answered)
    assert handshake.judge(KEY, greeted, answered[:42] + verdict[1:])[1]


def other_version(opening: bytes) -> bytes:
    return opening[:8] + b"\x00\x63" + opening[10:]


def test_versions_that_differ_are_told_on_both_sides() -> None:
    with pytest.raises(Incompatible, match="the master speaks protocol 99, this slave 2"):
        handshake.answer(KEY, other_version(handshake.greeting()))
    greeted = handshake.greeting()
    answered = other_version(handshake.answer(KEY, greeted))
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == "it speaks protocol 99, this master 2"
    with pytest.raises(Incompatible):
        handshake.accept(KEY, greeted, answered, verdict)


def test_what_is_no_master_is_told_as_such() -> None:
    with pytest.raises(ProtocolError, match="not a master: it said b'HTTP/1.1'"):
        handshake.answer(KEY, b"HTTP/1.1 400 Bad Request\r\n".ljust(42))


@given(st.binary(min_size=74, max_size=74))
def test_no_noise_is_let_in(noise: bytes) -> None:
    assert handshake.judge(KEY, handshake.greeting(), noise)[1]


@given(st.integers(0, 73), st.integers(1, 255))
def test_no_flipped_byte_is_let_in(at: int, flip: int) -> None:
    greeted = handshake.greeting()
    answered = bytearray(handshake.answer(KEY, greeted))
    answered[at] ^= flip
    assert handshake.judge(KEY, greeted, bytes(answered))[1]
