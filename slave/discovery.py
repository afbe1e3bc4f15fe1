"""Finding each other: a slave asks on the local network by UDP, and masters of the same key answer.

    slave -> all      question   magic '?', name K of a secret, nonce, HMAC under that secret, zeros     400 bytes
    master -> slave   answer     magic '!', both nonces, sealed text, HMAC                        400 bytes at most

A master answers only who proves that it holds the key, a token or what it got for one, and each question once; nobody
else hears a byte of it.  The answer, which tells where the master listens, who it is and what it works on, is encrypted
(HMAC-SHA256 in counter mode, then MAC, with keys that both nonces make), and never larger than the question, so that
nobody is hit by more than what a forger of addresses sends himself.  What it says is believed as far as the handshake
(handshake.py) proves it later.

Questions go to the broadcast address of each interface, to all nodes of each link by IPv6 (RFC 4291, section 2.7.1),
and to this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .dial import Address, is_loopback
from .keys import THE_KEY, Key

PORT = 5757  # of UDP, where masters listen

_QUESTION, _ANSWER = b"parallel?", b"parallel!"
_NONCE = _PROOF = 32
_ASKED = struct.Struct(f"!9s{len(THE_KEY)}s{_NONCE}s")
_ANSWERED = struct.Struct(f"!9s{_NONCE}s{_NONCE}s")
QUESTION_SIZE = 400
_LONGEST_TEXT = QUESTION_SIZE - _ANSWERED.size - _PROOF
_ASK_AGAIN = 0.3  # seconds: datagrams get lost
_ALL_NODES = "ff02::1"
_EVERYWHERE = "255.255.255.255"
_THIS_MACHINE = "127.255.255.255"
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # netdevice(7): the IPv4 address of an interface, and its mask


class Found(NamedTuple):
    """A master that answered: its fingerprint, the run, what it calls itself, and where it listens."""

    master: str
    run: str
    name: str
    addresses: Sequence[Address]


# -- what is said


def question(key: bytes) -> bytes:
    """A new question, under ``key``."""
    ident = key.ident if isinstance(key, Key) else THE_KEY
    said = _ASKED.pack(_QUESTION, ident, os.urandom(_NONCE))
    return (said + _mac(key, b"looks for masters", said)).ljust(QUESTION_SIZE, b"\0")


def name_in(asked: bytes) -> bytes | None:
    """Which secret a question says that it proves; None if it is no question."""
    if len(asked) != QUESTION_SIZE or not asked.startswith(_QUESTION):
        return None
    ident: bytes = _ASKED.unpack_from(asked)[1]
    return ident


def proves(asked: bytes, key: bytes) -> bool:
    """Whether whoever asks holds that secret."""
    said, proof = asked[: _ASKED.size], asked[_ASKED.size : _ASKED.size + _PROOF]
    return hmac.compare_digest(proof, _mac(key, b"looks for masters", said))


def nonce_of(asked: bytes) -> bytes:
    """What tells a question from every other one."""
    nonce: bytes = _ASKED.unpack_from(asked)[2]
    return nonce


def answer(key: bytes, asked: bytes, master: str, run: str, port: int, name: str) -> bytes:
    """The answer to a question; a long name is cut."""
    text = json.dumps([master, run, port, name]).encode()
    while len(text) > _LONGEST_TEXT:
        name = name[:-1]
        text = json.dumps([master, run, port, name]).encode()
    said = _ANSWERED.pack(_ANSWER, nonce_of(asked), os.urandom(_NONCE))
    said += _crypt(key, said, text)
    return said + _mac(key, b"answers", said)


def read_answer(key: bytes, asked: bytes, answered: bytes, host: str) -> Found | None:
    """What an answer from ``host`` says; None if it is none to this question, under this key."""
    said, proof = answered[:-_PROOF], answered[-_PROOF:]
    head, text = said[: _ANSWERED.size], said[_ANSWERED.size :]
    if len(answered) < _ANSWERED.size + _PROOF or not hmac.compare_digest(proof, _mac(key, b"answers", said)):
        return None
    if _ANSWERED.unpack(head)[:2] != (_ANSWER, nonce_of(asked)):
        return None
    master, run, port, name = json.loads(_crypt(key, head, text))
    return Found(str(master), str(run), str(name), [(host, int(port))])


def _crypt(key: bytes, head: bytes, text: bytes) -> bytes:
    """Encrypt or decrypt."""
    made = _mac(key, b"key of an answer", head)
    blocks = range((len(text) + _PROOF - 1) // _PROOF)
    stream = b"".join(_mac(made, b"stream", struct.pack("!I", block)) for block in blocks)
    return bytes(one ^ other for one, other in zip(text, stream))


def _mac(key: bytes, role: bytes, said: bytes) -> bytes:
    return hmac.new(key, role + b"\0" + said, hashlib.sha256).digest()


# -- asking


def look(key: bytes, seconds: float, master: str = "", port: int = PORT) -> list[Found]:
    """The masters of that key that answer within so many seconds.

    ``master``: how the fingerprint of a certain one begins, which is not waited for any longer when it has answered.
    """
    asked: list[bytes] = []
    found: dict[tuple[str, str], Found] = {}
    with _Sockets() as sockets:
        deadline = time.monotonic() + seconds
        next_question = 0.0
        while True:
            now = time.monotonic()
            if now >= deadline or (master and found):
                return [one._replace(addresses=sorted(one.addresses, key=_rank)) for one in found.values()]
            if now >= next_question:
                next_question = now + _ASK_AGAIN
                asked.append(question(key))
                sockets.ask(asked[-1], port)
            for answered, host in sockets.hear(min(next_question, deadline) - now):
                told = (read_answer(key, one, answered, host) for one in asked)
                for one in filter(None, told):
                    if one.master.startswith(master):
                        before = found.get((one.master, one.run), one).addresses
                        every = list(dict.fromkeys([*before, *one.addresses]))
                        found[one.master, one.run] = one._replace(addresses=every)


def _rank(address: Address) -> int:
    """Where an address stands among those of one master: one that holds for all machines comes first."""
    host = address[0]
    return 3 if is_loopback(host) else 2 if host.startswith("fe80:") else 1 if ":" in host else 0


class _Sockets:
    """One socket for IPv4 and one for IPv6, as far as this machine has them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError:
                continue
            sock.setblocking(False)
            if family == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self._sockets[family] = sock
            self._selector.register(sock, selectors.EVENT_READ)

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for sock in self._sockets.values():
            sock.close()

    def ask(self, asked: bytes, port: int) -> None:
        """Send a question everywhere."""
        for family, target in _targets(port):
            if family in self._sockets:
                try:
                    self._sockets[family].sendto(asked, target)
                except OSError:
                    continue  # no such network just now

    def hear(self, seconds: float) -> Iterator[tuple[bytes, str]]:
        """What comes within so many seconds, and from whom; after the first that came only what is here."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            while True:
                try:
                    answered, address = key.fileobj.recvfrom(2 * QUESTION_SIZE)  # type: ignore[union-attr]
                except OSError:
                    break
                yield answered, _scoped(address)


def _scoped(address: tuple[Any, ...]) -> str:
    """The host of an address, with the interface where it means nothing without."""
    host = str(address[0])
    if host.startswith("fe80:") and "%" not in host and address[3]:
        return f"{host}%{socket.if_indextoname(address[3])}"
    return host


def _targets(port: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    hosts = [_THIS_MACHINE, *_broadcasts(), _EVERYWHERE]
    for host in dict.fromkeys(hosts):
        yield socket.AF_INET, (host, port)
    for number, _ in socket.if_nameindex() if hasattr(socket, "if_nameindex") else []:
        yield socket.AF_INET6, (_ALL_NODES, port, 0, number)


def _broadcasts() -> Iterator[str]:
    """The broadcast address of each interface's network, where the system tells.

    It is computed, since what an interface has by that name is often not set.
    """
    try:
        import fcntl
    except ImportError:  # Windows: 255.255.255.255 goes out by all interfaces there
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            wanted = struct.pack("256s", name.encode()[:15])
            try:
                address, mask = (
                    int.from_bytes(fcntl.ioctl(sock, what, wanted)[20:24], "big")
                    for what in (_SIOCGIFADDR, _SIOCGIFNETMASK)
                )
            except OSError:
                continue  # an interface without one, or a system with other numbers
            yield socket.inet_ntoa(struct.pack("!I", address | ~mask & 0xFFFFFFFF))


def listen(port: int = PORT) -> list[socket.socket]:
    """A master's sockets, for all interfaces.  Several masters of one machine may listen.  Raises OSError."""
    made: list[socket.socket] = []
    try:
        for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError:
                continue  # this machine has none of that family
            made.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((host, port))
            except OSError:
                if family == socket.AF_INET:
                    raise
                made.pop().close()  # IPv6 is switched off
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made
