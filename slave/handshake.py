"""Who holds the key: a mutual challenge and response, as pure functions of bytes.

    master -> slave   greeting   magic, version, nonce M                       42 bytes
    slave -> master   answer     magic, version, nonce S, HMAC("slave", M, S)  74 bytes
    master -> slave   verdict    code, HMAC("master", M, S)                    33 bytes

The HMAC is HMAC-SHA256 (RFC 2104, FIPS 198-1) under the key.  Each side's proof covers both nonces and its own role, so
that neither a recorded handshake nor a reflected one opens a door.  Every part has a fixed size and nothing of it is
unpickled: a stranger can make the master read 74 bytes and compute one HMAC, no more.  Magic and version come first
in the greeting and in the answer of every version of the protocol, so that two versions can tell each other apart.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

from .errors import Incompatible, ProtocolError, WrongKey
from .protocol import VERSION

_MAGIC = b"parallel"
_NONCE = 32
_OPENING = struct.Struct(f"!8sH{_NONCE}s")
GREETING_SIZE = _OPENING.size
ANSWER_SIZE = GREETING_SIZE + hashlib.sha256().digest_size
VERDICT_SIZE = 1 + hashlib.sha256().digest_size

_WELCOME, _WRONG_KEY, _WRONG_VERSION = b"\x00", b"\x01", b"\x02"


def greeting() -> bytes:
    """The master's first bytes, with a fresh nonce."""
    return _OPENING.pack(_MAGIC, VERSION, os.urandom(_NONCE))


def answer(key: bytes, greeted: bytes) -> bytes:
    """The slave's proof.

    Raises `ProtocolError` if ``greeted`` is not from a master, `Incompatible` if from another version.
    """
    magic, version, _ = _OPENING.unpack(greeted)
    if magic != _MAGIC:
        raise ProtocolError(f"what listens there is not a master: it said {bytes(greeted[:8])!r}")
    if version != VERSION:
        raise Incompatible(f"the master speaks protocol {version}, this slave {VERSION}: use the same release on both")
    opening = _OPENING.pack(_MAGIC, VERSION, os.urandom(_NONCE))
    return opening + _proof(key, b"slave", greeted, opening)


def judge(key: bytes, greeted: bytes, answered: bytes) -> tuple[bytes, str]:
    """The master's verdict to send, and why the peer is refused ('' if it is welcome)."""
    opening, proof = answered[:GREETING_SIZE], answered[GREETING_SIZE:]
    magic, version, _ = _OPENING.unpack(opening)
    refusal = bytes(VERDICT_SIZE - 1)
    if magic != _MAGIC:
        return _WRONG_VERSION + refusal, f"it does not speak this protocol: it said {bytes(opening[:8])!r}"
    if version != VERSION:
        return _WRONG_VERSION + refusal, f"it speaks protocol {version}, this master {VERSION}"
    if not hmac.compare_digest(proof, _proof(key, b"slave", greeted, opening)):
        return _WRONG_KEY + refusal, "it holds another key"
    return _WELCOME + _proof(key, b"master", greeted, opening), ""


def accept(key: bytes, greeted: bytes, answered: bytes, verdict: bytes) -> None:
    """The slave's check of the verdict.

    Raises `WrongKey` or `Incompatible` if it was refused or the master is false.
    """
    code, proof = verdict[:1], verdict[1:]
    if code == _WRONG_VERSION:
        raise Incompatible("the master speaks another protocol than this slave: use the same release on both")
    if code != _WELCOME:
        raise WrongKey("wrong key: the master holds another one; use the same key file on both machines")
    if not hmac.compare_digest(proof, _proof(key, b"master", greeted, answered[:GREETING_SIZE])):
        raise WrongKey("wrong key: what listens there could not prove that it holds this slave's key")


def _proof(key: bytes, role: bytes, greeted: bytes, opening: bytes) -> bytes:
    return hmac.new(key, role + b"\x00" + greeted + opening, hashlib.sha256).digest()
