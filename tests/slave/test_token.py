"""Join tokens, as text and as secrets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.service.keyring import Guest, Keyring, TokenUsed
from slave.errors import KeyTrouble
from slave.keys import THE_KEY, Key
from slave.token import Token, check_token, is_once, looks_secret, new_once, read_token, reusable

KEY = b"a key that both sides have"
ADDRESSES = [("192.168.1.5", 5757), ("fd77:213::1", 5757), ("node1.lab", 1)]
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


def tokens() -> list[Token]:
    return [Token(reusable(KEY)), Token(new_once(KEY, "run"), ADDRESSES, "0123456789abcdef"), Token(new_once(KEY, "r"))]


@pytest.mark.parametrize("place", range(3))
def test_a_token_is_what_its_text_says(place: int) -> None:
    token = tokens()[place]
    found = read_token(token.text())
    assert found is not None
    assert (found.key, found.key.ident, list(found.addresses), found.master) == (
        token.key,
        token.key.ident,
        list(token.addresses),
        token.master,
    )
    assert len(token.text().split()) == 1


def test_it_may_be_read_out_and_pasted_in_pieces() -> None:
    token = tokens()[0]
    heard = token.text().upper().replace("1", "I").replace("0", "O")
    for text in (heard, heard.replace("I", "L"), f"  {token.text()[:20]}\n{token.text()[20:]} "):
        found = read_token(text)
        assert found is not None and found.key == token.key


@pytest.mark.parametrize("place", range(3))
def test_it_may_come_without_hyphens_with_others_and_with_what_stood_around_it(place: int) -> None:
    token = tokens()[place]
    start, text = token.text().rfind("/") + 1, token.text()
    where, word = text[:start], text[start:]
    for told in (
        where + word.replace("-", ""),
        where + word.replace("-", " "),
        where + word.replace("-", "\N{EN DASH}"),
        f"\N{ZERO WIDTH NO-BREAK SPACE}{text[: start + 8]}\N{ZERO WIDTH SPACE}{text[start + 8 :]}",
        f"the token: {text}.",
        f"token\t<{text}>",
        f"`{text}`",
    ):
        found = read_token(told)
        assert found is not None and found.key == token.key and list(found.addresses) == list(token.addresses), told
    assert looks_secret(where + word.replace("-", ""))


@given(st.data())
def test_one_wrong_letter_is_told_as_an_error(data: st.DataObject) -> None:
    token = tokens()[data.draw(st.integers(0, 2))]
    text = token.text()
    start = text.rfind("/") + 1
    place = data.draw(st.sampled_from([at for at in range(start, len(text)) if text[at] != "-"]))
    other = data.draw(st.sampled_from([letter for letter in LETTERS if letter != text[place]]))
    with pytest.raises(KeyTrouble, match="there is an error in this token: a letter is missing or wrong"):
        read_token(text[:place] + other + text[place + 1 :])


def test_a_missing_letter_and_another_address_are_told_too() -> None:
    for text in (tokens()[0].text()[:-1], tokens()[0].text() + "a", tokens()[1].text().replace("5757", "5758", 1)):
        with pytest.raises(KeyTrouble, match="there is an error in this token"):
            check_token(Key(text.encode()))


@pytest.mark.parametrize("which", range(3))
def test_a_token_that_was_cut_short_is_told_and_not_taken_for_a_key(which: int) -> None:
    text = tokens()[which].text()
    for end in range(text.find("/") + 2 if "/" in text else 18, len(text)):
        with pytest.raises(KeyTrouble, match="there is an error in this token"):
            read_token(text[:end])
        assert looks_secret(text[:end])


@given(st.text(max_size=80))
def test_other_texts_are_no_tokens(text: str) -> None:
    try:
        assert read_token(text) is None
    except KeyTrouble:
        assert text.count("-") >= 1 or re.search(r":\d+/", text)


@pytest.mark.parametrize(
    "text",
    ["ab" * 32, "correct horse battery staple", "correct-horse-battery-staple", "x" * 31, "royal-rover-train-north"],
)
def test_a_key_is_not_taken_for_a_token(text: str) -> None:
    assert read_token(text) is None


def test_secrets_differ_and_nothing_shows_them() -> None:
    one, two = new_once(KEY, "run"), new_once(KEY, "run")
    assert len({bytes(one), bytes(two), bytes(reusable(KEY)), bytes(reusable(KEY + b"!"))}) == 4
    assert reusable(KEY) == reusable(KEY)
    token = Token(one, ADDRESSES, "ab")
    assert one.decode() not in f"{token} {token!r} {one} {one!r}"


# -- the master's side


def test_a_keyring_knows_its_secrets_and_no_others() -> None:
    ring = Keyring(KEY, "this run")
    assert ring.secret(THE_KEY) == KEY
    for secret in (ring.new_token(reusable=True), ring.new_token(reusable=False), new_once(KEY, "this run")):
        assert ring.secret(secret.ident) == secret
    other = new_once(KEY, "another run")
    assert ring.secret(other.ident) != other
    for ident in (b"x" * 16, b"agent".ljust(16, b"\0"), bytes(15) + b"\1"):
        assert ring.secret(ident) is None


def test_a_token_for_once_is_one_agent_s_and_then_nobody_s() -> None:
    ring = Keyring(KEY, "run")
    token = ring.new_token(reusable=False)
    assert is_once(token.ident) and not ring.proved(token.ident)
    given = ring.enlist(token.ident, "agent 1")
    assert given is not None and ring.secret(given.ident) == given != token
    assert ring.enlist(token.ident, "agent 1") == given, "its first connection broke"
    assert not ring.proved(token.ident)
    with pytest.raises(TokenUsed, match="used before"):
        ring.enlist(token.ident, "agent 2")
    guest = Guest(ring)
    assert guest.secret(given.ident) == given and not guest.proved(given.ident) and guest.ident == given.ident
    assert ring.proved(token.ident) == "its token was used before"
    with pytest.raises(TokenUsed):
        ring.enlist(token.ident, "agent 1")
    assert not ring.proved(given.ident), "the agent comes back as often as it needs"


def test_the_key_and_a_reusable_token_are_exchanged_for_nothing() -> None:
    ring = Keyring(KEY, "run")
    for ident in (THE_KEY, ring.new_token(reusable=True).ident):
        assert ring.enlist(ident, "agent") is None and not ring.proved(ident)
