"""Join tokens: what brings a slave to its master in one word that can be pasted or read out.

    192.168.1.5:5757/3f2a9c0d8e7b6a51/14gk2-m9x7q-...      where the master is / its fingerprint / the secret
    r7w3k-...                                              the secret alone: the slave looks for the master

A token's secret is derived from the key, so that the master need not remember it, and nobody can get the key from it.
There are two kinds.  One that can be used **once** holds for one run of one master; from the first slave program that
enlists with it on, it is worthless to everybody else, and to that one when it has come with the secret that the master
gives it in exchange.  One that is **reusable** holds for all masters of that key, until the key is replaced.

The letters are those of Crockford's base 32, without I, L, O and U, of which the first three are read as 1, 1 and 0;
case and hyphens do not matter.  The last four check all the others, so that a typing error is told as one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from .dial import Address, format_address, parse_address
from .errors import KeyTrouble
from .keys import Key
from .named import NamedTuple

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_READ_AS = str.maketrans("ilo", "110")
_GROUP = 5  # letters between two hyphens
_SECRET, _NUMBER, _CHECK = 26, 8, 4  # letters: 130, 40 and 20 bits
_ONCE, _REUSABLE = "1", "r"
_SIZES = {_ONCE: 1 + _NUMBER + _SECRET + _CHECK, _REUSABLE: 1 + _SECRET + _CHECK}

_IDENT = 16
_ONCE_IDENT, _AGENT_IDENT = b"once", b"agent"
_REUSABLE_IDENT = b"reusable".ljust(_IDENT, b"\0")

_LOOKS_LIKE_ONE = r"(\S*/)?[0-9A-Za-z]{5}(-[0-9A-Za-z]{5}){4,}-?[0-9A-Za-z]{0,5}"
# what a paste that missed the end leaves: an address, or the first groups, with a digit (words are somebody's own key)
_CUT = rf"[^\s/]+:\d+/[0-9a-f]+(/\S*)?|(?=\D*\d)[1r][{_ALPHABET}]{{4}}(-[{_ALPHABET}]{{5}})+-?[{_ALPHABET}]{{0,5}}"

# what becomes of hyphens, and comes along unseen, where somebody's mail or text was copied from
_AS_TYPED = {
    **dict.fromkeys(map(ord, "\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), ""),
}
_AROUND = ".,;:!<>()[]{}\"'`*_"


class Token(NamedTuple):
    """``addresses``, ``master``: where its master is, and how its fingerprint begins; () and '' if it does not say."""

    key: Key
    addresses: Sequence[Address] = ()
    master: str = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def text(self) -> str:
        """The token as it is pasted."""
        where = ""
        if self.addresses:
            where = f"{','.join(map(format_address, self.addresses))}/{self.master}/"
        letters = _letters_of(self.key)
        whole = letters + _check(where, letters)
        return where + "-".join(whole[at : at + _GROUP] for at in range(0, len(whole), _GROUP))


def read_token(text: str) -> Token | None:
    """The token that a text is; None if it does not look like one.  Raises `KeyTrouble` for one with an error in it.

    Around it there may be what is copied along with it, as in ``token: r7w3k-... .``
    """
    text = text.translate(_AS_TYPED)
    whole = "".join(text.split())
    for candidate in (whole, *(word.strip(_AROUND) for word in text.split())):
        token = _whole_token(candidate)
        if token is not None:
            return token
    if not re.fullmatch(f"{_LOOKS_LIKE_ONE}|{_CUT}", whole):
        return None
    raise KeyTrouble(
        "there is an error in this token: a letter is missing or wrong; bring it here again (python3 -m parallel "
        "key --token, on the master's machine, shows one)"
    )


def _whole_token(text: str) -> Token | None:
    """The token that this text is, whatever hyphens it has; None if it is none, or one with an error in it."""
    where, slash, word = text.rpartition("/")
    letters = word.replace("-", "").lower().translate(_READ_AS)
    body, check = letters[:-_CHECK], letters[-_CHECK:]
    if not letters.isascii() or not letters.isalnum() or len(letters) != _SIZES.get(letters[0]):
        return None
    if _check(where + slash, body) != check:
        return None
    key = _key_of(body)
    if not slash:
        return Token(key)
    addresses, _, master = where.rpartition("/")
    return Token(key, [parse_address(one) for one in addresses.split(",")], master)


def check_token(key: Key) -> None:
    """Raises `KeyTrouble` if what stands in place of a key is a token with an error in it."""
    read_token(key.decode("utf-8", "replace"))


def looks_secret(text: str) -> bool:
    """Whether this is, or was, a token or a key: not to be shown in messages, wherever it was given."""
    looks = re.fullmatch(rf"{_LOOKS_LIKE_ONE}|{_CUT}|[0-9A-Fa-f]{{32,}}", text.strip())
    return bool(looks) or _whole_token(text.strip().translate(_AS_TYPED)) is not None


# -- secrets


def reusable(key: bytes) -> Key:
    """The secret of the reusable token of a key."""
    return Key(_secret(key, b"reusable token"), _REUSABLE_IDENT)


def new_once(key: bytes, run: str) -> Key:
    """The secret of a new token, to be used once in that run."""
    ident = (_ONCE_IDENT + secrets.token_bytes(_NUMBER * 5 // 8)).ljust(_IDENT, b"\0")
    return Key(_secret(key, b"token for once", run.encode(), ident), ident)


def for_agent(secret: bytes, agent: str) -> Key:
    """What the agent of that name gets in exchange for its token.  ``secret``: one of the run's own."""
    ident = _AGENT_IDENT + hashlib.sha256(agent.encode()).digest()[: _IDENT - len(_AGENT_IDENT)]
    return secret_of_agent(secret, ident)


def secret_of_agent(secret: bytes, ident: bytes) -> Key:
    """The same by the name of that secret."""
    return Key(_secret(secret, b"agent", ident), ident)


def secret_named(key: bytes, run: str, ident: bytes) -> Key | None:
    """The secret of the token that has this name; None if no token has."""
    if ident == _REUSABLE_IDENT:
        return reusable(key)
    if is_once(ident):
        return Key(_secret(key, b"token for once", run.encode(), ident), ident)
    return None


def is_once(ident: bytes) -> bool:
    """Whether this names a token that can be used once."""
    return ident.startswith(_ONCE_IDENT)


def is_agent(ident: bytes) -> bool:
    """Whether this names what an agent got in exchange for a token."""
    return ident.startswith(_AGENT_IDENT)


def _secret(key: bytes, *what: bytes) -> bytes:
    """Letters, as a token has them: 130 bits of an HMAC-SHA256."""
    said = b"\0".join([b"parallel", *what])
    return _written(hmac.new(key, said, hashlib.sha256).digest(), _SECRET).encode()


# -- letters


def _written(data: bytes, count: int) -> str:
    """The first ``count`` letters of data in base 32."""
    number = int.from_bytes(data, "big") >> (len(data) * 8 - count * 5)
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(count)))


def _read(letters: str) -> bytes:
    number = 0
    for letter in letters:
        number = number << 5 | max(0, _ALPHABET.find(letter))
    return number.to_bytes(len(letters) * 5 // 8, "big")


def _check(where: str, letters: str) -> str:
    said = f"{where.lower()}{letters}".encode()
    return _written(hashlib.sha256(said).digest(), _CHECK)


def _letters_of(key: Key) -> str:
    if key.ident == _REUSABLE_IDENT:
        return _REUSABLE + key.decode()
    return _ONCE + _written(key.ident[len(_ONCE_IDENT) :][: _NUMBER * 5 // 8], _NUMBER) + key.decode()


def _key_of(body: str) -> Key:
    if body[0] == _REUSABLE:
        return Key(body[1:].encode(), _REUSABLE_IDENT)
    number, secret = body[1 : 1 + _NUMBER], body[1 + _NUMBER :]
    return Key(secret.encode(), (_ONCE_IDENT + _read(number)).ljust(_IDENT, b"\0"))
