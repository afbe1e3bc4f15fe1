"""Who holds the key: a mutual challenge and response, as pure functions of bytes.

    master -> slave   greeting   magic, version, mode, nonce M, fingerprint F          75 bytes
    slave -> master   answer     magic, version, name K, nonce S, HMAC("slave", all)   90 bytes
    master -> slave   verdict    code, HMAC("master", all)                             33 bytes
                      from here on by the mode: TLS, sealed records, or plain bytes
    slave -> master   proof      HMAC("inside", greeting, answer)                      32 bytes

The HMAC is HMAC-SHA256 (RFC 2104, FIPS 198-1) under the key, or under the secret that K names: that of a join token, or
what the master gave the holder of one (token.py).  Each side's proof covers both nonces and its own role, so that
neither a recorded handshake nor a reflected one opens a door.  Every part has a fixed size and nothing of it is
unpickled: a stranger can make the master read 90 bytes and compute one HMAC, no more.  Magic and version come first
in the greeting and in the answer of every version of the protocol, so that two versions can tell each other apart.

Somebody who has nothing yet may say `FETCH` instead of an answer: then the master sends slave.pyz, which is no secret,
and hangs up.  Whoever fetches it knows its hash from elsewhere.

F is the SHA-256 of the certificate that the master shows in TLS, as in the channel binding "tls-server-end-point" (RFC
5929, section 4), or else 32 random bytes.  The verdict proves that the holder of the key said it: so the slave knows
whom it speaks with when the same certificate stands at the other end of its own TLS connection.  Whoever merely passed
the first three parts on cannot show that certificate to the slave, and the slave's last proof, which goes through the
channel alone, he never sees: so he cannot open a channel of his own to the master either.  In sealed records the
session keys, which he cannot compute, do the same.  F also names the master: a slave can be told whom it is to serve.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

from .errors import Incompatible, ProtocolError, WrongKey
from .keys import THE_KEY, Key
from .named import NamedTuple
from .protocol import VERSION

PLAIN, TLS, SEALED = 0, 1, 2  # PLAIN is for Unix sockets alone; SEALED is authenticated, and not encrypted

_MAGIC = b"parallel"
_NONCE = 32
FINGERPRINT_SIZE = PROOF_SIZE = hashlib.sha256().digest_size
_HEAD = struct.Struct("!8sH")
_GREETING = struct.Struct(f"!8sHB{_NONCE}s{FINGERPRINT_SIZE}s")
_OPENING = struct.Struct(f"!8sH{len(THE_KEY)}s{_NONCE}s")
HEAD_SIZE = _HEAD.size  # magic and version, with which every version's greeting and answer begin
GREETING_SIZE = _GREETING.size
ANSWER_SIZE = _OPENING.size + PROOF_SIZE
VERDICT_SIZE = 1 + PROOF_SIZE

FETCH = b"slave.pyz?"  # as long as a head

_WELCOME, _WRONG_KEY, _WRONG_VERSION, _USED = b"\x00", b"\x01", b"\x02", b"\x03"


class Offer(NamedTuple):
    """What a greeting says: how the channel will be protected, and by whom it is offered."""

    mode: int
    fingerprint: bytes


class SessionKeys(NamedTuple):
    """The keys of one connection's sealed records, each named by the side that sends with it."""

    slave: bytes
    master: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # not the keys


# -- master


def greeting(mode: int, fingerprint: bytes) -> bytes:
    """The master's first bytes, with a fresh nonce."""
    if len(fingerprint) != FINGERPRINT_SIZE:
        raise ValueError(f"a fingerprint has {FINGERPRINT_SIZE} bytes, not {len(fingerprint)}")
    return _GREETING.pack(_MAGIC, VERSION, mode, os.urandom(_NONCE), fingerprint)


def judge_head(head: bytes) -> tuple[bytes, str]:
    """The master's verdict on the first `HEAD_SIZE` bytes of an answer, if they are enough to refuse it; as `judge`."""
    magic, version = _HEAD.unpack(head)
    if magic != _MAGIC:
        return _refusal(_WRONG_VERSION), f"it does not speak this protocol: it said {bytes(head[:8])!r}"
    if version != VERSION:
        why = f"it speaks protocol {version}, this master {VERSION}: use the same release on both"
        return _refusal(_WRONG_VERSION), why
    return b"", ""


def is_other_version(head: bytes) -> bool:
    """Whether an answer that begins so is that of a slave program of another version."""
    magic, version = _HEAD.unpack_from(head)
    return bool(magic == _MAGIC and version != VERSION)


def judge(key: bytes, greeted: bytes, answered: bytes) -> tuple[bytes, str]:
    """The master's verdict to send, and why the peer is refused ('' if it is welcome)."""
    verdict, reason = judge_head(answered[:HEAD_SIZE])
    if reason:
        return verdict, reason
    opening, proof = answered[: _OPENING.size], answered[_OPENING.size :]
    if not hmac.compare_digest(proof, _proof(key, b"slave", greeted + opening)):
        return _refusal(_WRONG_KEY), "it holds another key"
    return _WELCOME + _proof(key, b"master", greeted + opening), ""


def name_of(answered: bytes) -> bytes:
    """Of which secret an answer says that it proves it."""
    _, _, ident, _ = _OPENING.unpack_from(answered)
    return bytes(ident)


def used() -> bytes:
    """The verdict on somebody whose token was used before."""
    return _refusal(_USED)


def _refusal(code: bytes) -> bytes:
    return code + bytes(PROOF_SIZE)


# -- slave


def check_head(head: bytes) -> None:
    """See by the first `HEAD_SIZE` bytes of a greeting whether a master of this version speaks.

    Raises `ProtocolError` if it is no master, `Incompatible` if it speaks another version.
    """
    magic, version = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise ProtocolError(f"what listens there is not a master: it said {bytes(head[:8])!r}")
    if version != VERSION:
        raise Incompatible(f"the master speaks protocol {version}, this slave {VERSION}: use the same release on both")


def own_head() -> bytes:
    """What tells a master of another version that a slave program has come, which goes then."""
    return _HEAD.pack(_MAGIC, VERSION)


def read_greeting(greeted: bytes) -> Offer:
    """What a greeting offers, which nothing vouches for yet.  Raises as `check_head`."""
    check_head(greeted[:HEAD_SIZE])
    _, _, mode, _, fingerprint = _GREETING.unpack(greeted)
    return Offer(mode, fingerprint)


def answer(key: bytes, greeted: bytes) -> bytes:
    """The slave's proof.  Raises as `check_head`."""
    check_head(greeted[:HEAD_SIZE])
    ident = key.ident if isinstance(key, Key) else THE_KEY
    opening = _OPENING.pack(_MAGIC, VERSION, ident, os.urandom(_NONCE))
    return opening + _proof(key, b"slave", greeted + opening)


def accept(key: bytes, greeted: bytes, answered: bytes, verdict: bytes) -> None:
    """The slave's check of the verdict.

    Raises `WrongKey` or `Incompatible` if it was refused or the master is false.
    """
    code, proof = verdict[:1], verdict[1:]
    if code == _WRONG_VERSION:
        raise Incompatible("the master speaks another protocol than this slave: use the same release on both")
    if code == _USED:
        raise WrongKey(
            "the token was used before, and can be used once; on the master's machine this shows another one: "
            "python3 -m parallel key --token"
        )
    if code != _WELCOME and getattr(key, "ident", THE_KEY) != THE_KEY:
        raise WrongKey(
            "wrong key: this token is of another key than the master's, or of a run that is over; on the master's "
            "machine this shows the one that holds now: python3 -m parallel key --token"
        )
    if code != _WELCOME:
        raise WrongKey("wrong key: the master holds another one; use the same key file on both machines")
    if not hmac.compare_digest(proof, _proof(key, b"master", greeted + answered[: _OPENING.size])):
        raise WrongKey("wrong key: what listens there could not prove that it holds this slave's key")


# -- both


def inside_proof(key: bytes, greeted: bytes, answered: bytes) -> bytes:
    """What the slave says first inside the channel: that it, and nobody who passed the handshake on, has opened it."""
    return _proof(key, b"inside", greeted + answered)


def inside_proof_holds(key: bytes, greeted: bytes, answered: bytes, proof: bytes) -> bool:
    """Whether that was said."""
    return hmac.compare_digest(proof, inside_proof(key, greeted, answered))


def session_keys(key: bytes, greeted: bytes, answered: bytes) -> SessionKeys:
    """The keys for sealed records: they depend on the key, on both nonces and on F, and differ by direction."""
    both = greeted + answered
    return SessionKeys(_proof(key, b"records of the slave", both), _proof(key, b"records of the master", both))


def _proof(key: bytes, role: bytes, said: bytes) -> bytes:
    return hmac.new(key, role + b"\x00" + said, hashlib.sha256).digest()
