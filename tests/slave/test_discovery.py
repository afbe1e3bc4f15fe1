"""What is said when slaves and masters look for each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.service import announcer as announcer_module
from parallel.service.announcer import Announcer
from parallel.service.keyring import Keyring
from slave import discovery, token
from slave.discovery import QUESTION_SIZE, answer, look, question, read_answer
from slave.keys import Key

KEY = Key(b"a key that both sides have")
MASTER = "ab" * 32


def asked_and_answered() -> tuple[bytes, bytes]:
    asked = question(KEY)
    return asked, answer(KEY, asked, MASTER, "the run", 4711, "script.py of me")


def test_an_answer_says_what_the_master_said() -> None:
    asked, answered = asked_and_answered()
    found = read_answer(KEY, asked, answered, "10.0.0.1")
    assert found == discovery.Found(MASTER, "the run", "script.py of me", [("10.0.0.1", 4711)])
    assert len(answered) <= len(asked) == QUESTION_SIZE


@given(st.text(max_size=500))
def test_no_answer_is_larger_than_its_question(name: str) -> None:
    asked = question(KEY)
    answered = answer(KEY, asked, MASTER, "r" * 16, 65535, name)
    assert len(answered) <= QUESTION_SIZE
    found = read_answer(KEY, asked, answered, "h")
    assert found is not None and name.startswith(found.name)


def test_nothing_of_it_can_be_read() -> None:
    asked, answered = asked_and_answered()
    for text in (MASTER.encode(), b"the run", b"4711", b"script.py", bytes(KEY)):
        assert text not in asked + answered


@given(st.integers(0, 8 * QUESTION_SIZE - 1))
def test_a_changed_bit_is_noticed(bit: int) -> None:
    asked, answered = asked_and_answered()
    place = bit // 8 % len(answered)
    changed = bytearray(answered)
    changed[place] ^= 1 << bit % 8
    assert read_answer(KEY, asked, bytes(changed), "h") is None
    place = bit // 8 % discovery._ASKED.size
    changed = bytearray(asked)
    changed[place] ^= 1 << bit % 8
    assert not discovery.proves(bytes(changed), KEY)


def test_an_answer_to_another_question_or_under_another_key_is_none() -> None:
    asked, answered = asked_and_answered()
    assert read_answer(KEY, question(KEY), answered, "h") is None
    assert read_answer(b"another key", asked, answered, "h") is None
    for noise in (b"", os.urandom(40), os.urandom(400), asked):
        assert read_answer(KEY, asked, noise, "h") is None


# -- a master's side

PORT = 5757  # for datagrams; those of other programs' masters here hold other keys


@pytest.fixture
def announcer() -> Iterator[Announcer]:
    made = Announcer(Keyring(KEY, "the run"), MASTER, 4711, "script.py")
    yield made
    made.close()


def test_who_proves_a_secret_is_answered_once(announcer: Announcer) -> None:
    asked = question(KEY)
    assert announcer._answer(asked) is not None
    assert announcer._answer(asked) is None, "somebody has recorded it"
    reusable = token.reusable(KEY)
    assert announcer._answer(question(reusable)) is not None
    once = token.new_once(KEY, "the run")
    assert announcer._answer(question(once)) is not None
    assert announcer._answer(question(token.new_once(KEY, "another run"))) is None


@given(st.binary(min_size=QUESTION_SIZE, max_size=QUESTION_SIZE) | st.binary(max_size=900))
def test_noise_is_not_answered(noise: bytes) -> None:
    ring = Keyring(KEY, "the run")
    made = Announcer.__new__(Announcer)
    made._keyring = ring
    assert made._answer(noise) is None
    assert made._answer(question(b"another key altogether")) is None


def test_a_token_that_is_spent_finds_nobody(announcer: Announcer) -> None:
    ring = announcer._keyring
    once = ring.new_token(reusable=False)
    given_ = ring.enlist(once.ident, "agent")
    assert given_ is not None and not ring.proved(given_.ident)
    assert announcer._answer(question(once)) is None
    assert announcer._answer(question(given_)) is not None


def test_a_crowd_is_answered_and_a_flood_is_not(announcer: Announcer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(announcer_module, "time", SimpleNamespace(monotonic=lambda: now))  # all at the same moment
    answers = [announcer._answer(question(KEY)) for _ in range(1000)]
    assert 400 <= sum(one is not None for one in answers) < 500


def test_many_masters_of_one_machine_may_listen() -> None:
    sockets = [sock for _ in range(3) for sock in discovery.listen()]
    for sock in sockets:
        sock.close()


def test_a_port_that_is_taken_alone_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        with pytest.raises(OSError):
            discovery.listen(sock.getsockname()[1])


def test_where_nobody_answers_nobody_is_found() -> None:
    assert look(b"a key that nobody else on this network holds", 0.4) == []
