"""Announcer: answers slaves that look for masters on the local network (slave/discovery.py has what is said).

Only who proves that it holds the key is answered, each question once, and not more often than a crowd of slaves asks.
"""

from __future__ import annotations

import socket
import time
from collections import deque

from slave import discovery

from ..core.admission import Ration
from .keyring import Keyring

_PER_TURN = 32  # datagrams, so that a flood of them does not keep slaves from connecting
_PER_SECOND, _AT_ONCE = 100.0, 400.0  # answers
_REMEMBERED = 10_000  # questions


class Announcer:
    """``master``, ``port``, ``name``: what it says: a fingerprint, where it listens, and what it is called."""

    def __init__(self, keyring: Keyring, master: str, port: int, name: str) -> None:
        """Raises OSError if another program has the port for datagrams."""
        self._keyring, self._master, self._port, self._name = keyring, master, port, name
        self._ration = Ration(_PER_SECOND, _AT_ONCE)
        self._seen: set[bytes] = set()
        self._order: deque[bytes] = deque()
        self.sockets = discovery.listen()

    def readable(self, sock: socket.socket) -> None:
        """Answer what has come."""
        for _ in range(_PER_TURN):
            try:
                asked, asker = sock.recvfrom(2 * discovery.QUESTION_SIZE)
            except OSError:
                return
            answer = self._answer(asked)
            if answer is not None:
                try:
                    sock.sendto(answer, asker)
                except OSError:
                    continue  # there is no way to it any more

    def _answer(self, asked: bytes) -> bytes | None:
        ident = discovery.name_in(asked)
        key = None if ident is None or self._keyring.spent(ident) else self._keyring.secret(ident)
        if key is None or not discovery.proves(asked, key) or not self._is_new(discovery.nonce_of(asked)):
            return None
        if not self._ration.take(time.monotonic()):
            return None
        return discovery.answer(key, asked, self._master, self._keyring.run, self._port, self._name)

    def _is_new(self, nonce: bytes) -> bool:
        """Whether the question was not asked before: somebody may have recorded it."""
        if nonce in self._seen:
            return False
        self._seen.add(nonce)
        self._order.append(nonce)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
        return True

    def close(self) -> None:
        """Answer nobody any more."""
        for sock in self.sockets:
            sock.close()
