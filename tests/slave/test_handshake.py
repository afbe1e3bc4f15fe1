"""The handshake, as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import handshake
from slave.errors import Incompatible, ProtocolError, WrongKey
from slave.protocol import VERSION
from slave.token import reusable

KEY, OTHER = b"k" * 32, b"o" * 32
F = bytes(range(32))


def greet() -> bytes:
    return handshake.greeting(handshake.TLS, F)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_both_hold_the_key() -> None:
    greeted = greet()
    assert handshake.read_greeting(greeted) == (handshake.TLS, F)
    answered = handshake.answer(KEY, greeted)
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == "" and handshake.judge_head(answered[: handshake.HEAD_SIZE])[1] == ""
    handshake.accept(KEY, greeted, answered, verdict)
    proof = handshake.inside_proof(KEY, greeted, answered)
    assert handshake.inside_proof_holds(KEY, greeted, answered, proof)
    sizes = handshake.GREETING_SIZE, handshake.ANSWER_SIZE, handshake.VERDICT_SIZE, handshake.PROOF_SIZE
    assert tuple(map(len, (greeted, answered, verdict, proof))) == sizes == (75, 90, 33, 32)


def test_another_key_is_refused_by_the_master() -> None:
    greeted = greet()
    answered = handshake.answer(OTHER, greeted)
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == "it holds another key"
    with pytest.raises(WrongKey, match="the master holds another one; use the same key file on both machines"):
        handshake.accept(OTHER, greeted, answered, verdict)


def test_a_token_of_another_key_is_told_as_one() -> None:
    greeted = greet()
    token = reusable(OTHER)
    answered = handshake.answer(token, greeted)
    verdict, _ = handshake.judge(KEY, greeted, answered)
    with pytest.raises(WrongKey, match="wrong key: this token is of another key than the master's, or of a run that"):
        handshake.accept(token, greeted, answered, verdict)


def test_a_false_master_is_refused_by_the_slave() -> None:
    greeted = greet()
    answered = handshake.answer(KEY, greeted)
    with pytest.raises(WrongKey, match="could not prove"):
        handshake.accept(KEY, greeted, answered, b"\x00" + bytes(32))


def test_no_proof_stands_for_another() -> None:
    """Neither another session's nor one's own, reflected, nor that of another part."""
    greeted = greet()
    answered = handshake.answer(KEY, greeted)
    verdict, _ = handshake.judge(KEY, greeted, answered)
    opening, slave, master = answered[:42], answered[42:], verdict[1:]
    inside = handshake.inside_proof(KEY, greeted, answered)
    assert handshake.judge(KEY, greet(), answered)[1]
    for proof in (master, inside):
        assert handshake.judge(KEY, greeted, opening + proof)[1]
    for proof in (slave, inside):
        with pytest.raises(WrongKey):
            handshake.accept(KEY, greeted, answered, b"\x00" + proof)
    for proof in (slave, master, *handshake.session_keys(KEY, greeted, answered)):
        assert not handshake.inside_proof_holds(KEY, greeted, answered, proof)


def other_version(opening: bytes) -> bytes:
    return opening[:8] + b"\x00\x63" + opening[10:]


def test_versions_that_differ_are_told_on_both_sides() -> None:
    with pytest.raises(Incompatible, match=f"the master speaks protocol 99, this slave {VERSION}"):
        handshake.answer(KEY, other_version(greet()))
    greeted = greet()
    answered = other_version(handshake.answer(KEY, greeted))
    verdict, refusal = handshake.judge(KEY, greeted, answered)
    assert refusal == f"it speaks protocol 99, this master {VERSION}: use the same release on both"
    assert handshake.judge_head(answered[: handshake.HEAD_SIZE]) == (verdict, refusal)
    with pytest.raises(Incompatible):
        handshake.accept(KEY, greeted, answered, verdict)


def test_what_is_no_master_is_told_as_such() -> None:
    with pytest.raises(ProtocolError, match="not a master: it said b'HTTP/1.1'"):
        handshake.answer(KEY, b"HTTP/1.1 400 Bad Request\r\n".ljust(75))
    assert "does not speak this protocol" in handshake.judge_head(b"GET / HTTP")[1]


def test_keys_are_not_shown() -> None:
    greeted = greet()
    keys = handshake.session_keys(KEY, greeted, handshake.answer(KEY, greeted))
    assert keys.slave != keys.master and repr(keys) == "<SessionKeys>"


@given(st.binary(min_size=74, max_size=74))
def test_no_noise_is_let_in(noise: bytes) -> None:
    assert handshake.judge(KEY, greet(), noise)[1]


@given(st.integers(0, 8 * handshake.GREETING_SIZE - 1))
def test_no_flipped_bit_of_the_greeting_goes_unnoticed(bit: int) -> None:
    greeted = greet()
    try:
        answered = handshake.answer(KEY, flipped(greeted, bit))
    except (ProtocolError, Incompatible):
        assert bit < 80
        return
    assert handshake.judge(KEY, greeted, answered)[1]
    true = handshake.answer(KEY, greeted)
    false = handshake.session_keys(KEY, flipped(greeted, bit), true)
    assert not set(false) & set(handshake.session_keys(KEY, greeted, true))


@given(st.integers(0, 8 * handshake.ANSWER_SIZE - 1))
def test_no_flipped_bit_of_the_answer_is_let_in(bit: int) -> None:
    greeted = greet()
    answered = handshake.answer(KEY, greeted)
    assert handshake.judge(KEY, greeted, flipped(answered, bit))[1]
    proof = handshake.inside_proof(KEY, greeted, flipped(answered, bit))
    assert not handshake.inside_proof_holds(KEY, greeted, answered, proof)


@given(st.integers(0, 8 * handshake.VERDICT_SIZE - 1))
def test_no_flipped_bit_of_the_verdict_is_believed(bit: int) -> None:
    greeted = greet()
    answered = handshake.answer(KEY, greeted)
    verdict, _ = handshake.judge(KEY, greeted, answered)
    with pytest.raises((WrongKey, Incompatible)):
        handshake.accept(KEY, greeted, answered, flipped(verdict, bit))


@given(st.integers(0, 8 * handshake.PROOF_SIZE - 1))
def test_no_flipped_bit_of_the_last_proof_is_let_in(bit: int) -> None:
    greeted = greet()
    answered = handshake.answer(KEY, greeted)
    proof = handshake.inside_proof(KEY, greeted, answered)
    assert not handshake.inside_proof_holds(KEY, greeted, answered, flipped(proof, bit))
