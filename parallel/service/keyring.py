"""Keyring: which secrets open this master's door: the key, tokens derived from it, and what agents got for a token.

A token that can be used once goes this way:

    fresh     a slave program proves that it holds it, and enlists
    claimed   by that agent, which is told a secret of its own; another agent is refused
    spent     when that agent has come with its own secret: from now on nobody gets in with it

So an agent whose connection breaks while it enlists may try again, and nobody else can.
"""

from __future__ import annotations

import secrets
import threading

from slave import token
from slave.keys import THE_KEY, Key
from slave.protocol import WATCHER


class TokenUsed(Exception):
    """Another slave has used this token."""


class Keyring:
    """The master's secrets.  ``_lock`` guards which tokens are claimed and spent."""

    def __init__(self, key: bytes, run: str) -> None:
        self.key, self.run = key, run
        self.watch = _watch_secret()  # opens the door for watchers alone: see registry.py
        self._for_agents = secrets.token_bytes(32)
        self._lock = threading.RLock()
        self._claimed: dict[bytes, bytes] = {}  # by the name of a token that of its agent's secret
        self._spent: set[bytes] = set()  # names of tokens
        self._tokens: dict[bytes, bytes] = {}  # by the name of an agent's secret that of the token it came with

    def secret(self, ident: bytes) -> Key | None:
        """The secret of that name; None if there is none."""
        if ident == THE_KEY:
            return Key(self.key)
        if ident == self.watch.ident:
            return self.watch
        if token.is_agent(ident):
            return token.secret_of_agent(self._for_agents, ident) if ident in self._tokens else None
        return token.secret_named(self.key, self.run, ident)

    def proved(self, ident: bytes) -> str:
        """Somebody has proved that it holds that secret; returns why it is refused all the same, or ''."""
        with self._lock:
            if ident in self._spent:
                return "its token was used before"
            if ident in self._tokens:
                self._spent.add(self._tokens[ident])
        return ""

    def spent(self, ident: bytes) -> bool:
        """Whether it is a token that nobody gets in with any more."""
        with self._lock:
            return ident in self._spent

    def may(self, ident: bytes, kind: str) -> bool:
        """Whether somebody who came with that secret may have that role (slave/protocol.py)."""
        if ident == self.watch.ident:
            return kind == WATCHER
        return kind != WATCHER or not (token.is_once(ident) or token.is_agent(ident))

    def enlist(self, ident: bytes, agent: str) -> Key | None:
        """An agent that came with this secret enlists; returns the one that it gets in exchange, if it gets one.

        Raises `TokenUsed`.
        """
        if not token.is_once(ident):
            return None
        given = token.for_agent(self._for_agents, agent)
        with self._lock:
            if ident in self._spent or self._claimed.setdefault(ident, given.ident) != given.ident:
                raise TokenUsed("this token was used before, and can be used once")
            self._tokens[given.ident] = ident
        return given

    def new_token(self, reusable: bool) -> Key:
        """The secret of a token: a new one that can be used once, or the one that can be used again."""
        return token.reusable(self.key) if reusable else token.new_once(self.key, self.run)


def _watch_secret() -> Key:
    ident = (b"watch" + secrets.token_bytes(8)).ljust(len(THE_KEY), b"\0")
    return Key(secrets.token_hex(32).encode(), ident)


class Guest:
    """The keyring for one stranger: it notes which secret that has proved."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.ident = b""  # the name of the secret

    def secret(self, ident: bytes) -> bytes | None:
        """See `Keyring`."""
        return self._keyring.secret(ident)

    def proved(self, ident: bytes) -> str:
        """See `Keyring`."""
        self.ident = ident
        return self._keyring.proved(ident)
