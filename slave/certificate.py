"""A throw-away certificate for one master, and the TLS contexts of both sides; the standard library alone.

Nobody vouches for the certificate: the key does, which authenticates its fingerprint (handshake.py).  So a self-signed
one on a fresh key is enough, there is no authority and no host name, and nothing to renew.  ECDSA on P-256 (FIPS 186-5,
SP 800-186) is what every TLS 1.3 implementation must have (RFC 8446, section 9.1), under strict system policies too.

`ssl` is imported where it is needed: a Python built without it can import this package, and says so in `need_tls`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import secrets
import sys
import tempfile
from typing import TYPE_CHECKING

from .errors import Incompatible
from .named import NamedTuple

if TYPE_CHECKING:
    import ssl

# P-256, also called secp256r1 and prime256v1: SEC 2, section 2.4.2; SP 800-186, section 3.2.1.3
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_BYTES = 32  # of a coordinate and of a private key

_NOTHING = (1, 1, 0)  # the point at infinity
_Point = tuple[int, int, int]  # Jacobian coordinates X, Y, Z of the point (X / Z^2, Y / Z^3)

_WHY = "the connection to a master is encrypted with TLS 1.3"
_REMEDY = (
    "use a Python with OpenSSL 1.1.1 or newer (the one of your system or of python.org has it), or do without "
    "encryption: parallel.Manager(encrypt=False) and --no-encryption"
)


class Certificate(NamedTuple):
    """A certificate with its private key; ``fingerprint`` is the SHA-256 of ``der``."""

    certificate_pem: str
    key_pem: str
    der: bytes
    fingerprint: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fingerprint.hex()}>"  # not the key


def make_certificate() -> Certificate:
    """A new one, on a key that nobody else has."""
    private = 1 + secrets.randbelow(_N - 1)
    public = _uncompressed(*_multiply(private))
    der = _certificate(private, public)
    key = _pem("EC PRIVATE KEY", _private_key(private, public))
    return Certificate(_pem("CERTIFICATE", der), key, der, hashlib.sha256(der).digest())


# -- TLS


def need_tls() -> None:
    """See that this Python has TLS 1.3.  Raises `Incompatible`."""
    here = f"this Python ({sys.executable}, {sys.version_info[0]}.{sys.version_info[1]})"
    try:
        import ssl
    except ImportError:
        raise Incompatible(f"{_WHY}, and {here} has no module ssl; {_REMEDY}") from None
    if not getattr(ssl, "HAS_TLSv1_3", False):
        raise Incompatible(f"{_WHY}, and {here} has none ({ssl.OPENSSL_VERSION}); {_REMEDY}")


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """The master's context, which shows ``certificate``.  Raises `Incompatible` where there is no TLS 1.3.

    It sends no session tickets: nothing is resumed here, and a socket that is readable means an answer.
    """
    need_tls()
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    _load(context, (certificate.certificate_pem + certificate.key_pem).encode())
    return context


@functools.lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """The slave's context.  Raises `Incompatible` where there is no TLS 1.3.

    It takes any certificate: which one was shown the slave compares with the fingerprint that the key vouches for.
    """
    need_tls()
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def fingerprint_of(context: ssl.SSLContext) -> bytes:
    """The fingerprint of the certificate that a server's ``context`` shows, learned by a handshake in memory.

    Raises ValueError if slaves could make no handshake with it.
    """
    need_tls()
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise ValueError(f"an ssl.SSLContext is needed, not {context!r}")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client = client_context().wrap_bio(to_client, to_server)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for end in (client, server, client, server):  # hello; hello to finished; finished; that one read
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
        der = client.getpeercert(True) if server.version() else None
        server.write(b"!")
        client.read(1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ValueError(
            f"slaves cannot connect with this ssl context ({reason}); it must be for a server (PROTOCOL_TLS_SERVER), "
            f"have a certificate and its key loaded, allow TLS 1.3 and ask for no certificate of the client"
        ) from None
    assert der is not None  # a server in TLS 1.3 without one fails above
    return hashlib.sha256(der).digest()


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load certificate and key, which `ssl` takes from a file only, and leave none."""
    if hasattr(os, "memfd_create"):
        try:
            handle = os.memfd_create("certificate")
        except OSError:
            pass  # forbidden here
        else:
            with os.fdopen(handle, "wb", buffering=0) as file:
                file.write(pem)
                path = f"/proc/self/fd/{handle}"
                if os.access(path, os.R_OK):
                    context.load_cert_chain(path)
                    return
    try:
        handle, path = tempfile.mkstemp()  # with mode 0600
    except FileNotFoundError:
        os.close(os.open(os.devnull, os.O_RDONLY))  # raises what is truly the matter if no descriptor is left
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


# -- the curve


def _double(point: _Point) -> _Point:
    """SEC 1, section 2.2.1, in Jacobian coordinates and for a = -3 (EFD, dbl-2001-b)."""
    x, y, z = point
    delta, gamma = z * z % _P, y * y % _P
    beta = x * gamma % _P
    alpha = 3 * (x - delta) * (x + delta) % _P
    x3 = (alpha * alpha - 8 * beta) % _P
    z3 = ((y + z) * (y + z) - gamma - delta) % _P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % _P, z3


def _add_generator(point: _Point) -> _Point:
    """``point`` + G (EFD, madd: the second point's Z is 1)."""
    x, y, z = point
    if not z:
        return (*_G, 1)
    zz = z * z % _P
    h, r = (_G[0] * zz - x) % _P, (_G[1] * z * zz - y) % _P
    if not h:
        return _NOTHING if r else _double(point)
    hh = h * h % _P
    hhh, v = h * hh % _P, x * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - y * hhh) % _P, z * h % _P


def _multiply(factor: int) -> tuple[int, int]:
    """The point ``factor`` * G, for a factor from 1 to N - 1: double and add."""
    point = _NOTHING
    for bit in bin(factor)[2:]:
        point = _double(point)
        if bit == "1":
            point = _add_generator(point)
    inverse = pow(point[2], -1, _P)
    square = inverse * inverse % _P
    return point[0] * square % _P, point[1] * square * inverse % _P


def _uncompressed(x: int, y: int) -> bytes:
    """A point as octets: SEC 1, section 2.3.3."""
    return b"\x04" + x.to_bytes(_BYTES, "big") + y.to_bytes(_BYTES, "big")


def _sign(private: int, data: bytes) -> bytes:
    """ECDSA with SHA-256: FIPS 186-5, section 6.4.1; the pair as DER: RFC 5480, appendix A."""
    digest = int.from_bytes(hashlib.sha256(data).digest(), "big")
    r = s = 0
    while not (r and s):
        nonce = 1 + secrets.randbelow(_N - 1)
        r = _multiply(nonce)[0] % _N
        s = pow(nonce, -1, _N) * (digest + r * private) % _N
    return _sequence(_integer(r), _integer(s))


# -- DER: ITU-T X.690, sections 8 and 10


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, *parts)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes, unused: int = 0) -> bytes:
    return _der(0x03, bytes([unused]), content)


_ECDSA_SHA256 = _sequence(bytes.fromhex("06082a8648ce3d040302"))  # 1.2.840.10045.4.3.2: RFC 5758, section 3.2
_P256 = bytes.fromhex("06082a8648ce3d030107")  # 1.2.840.10045.3.1.7: RFC 5480, section 2.1.1.1
_EC_KEY = _sequence(bytes.fromhex("06072a8648ce3d0201"), _P256)  # 1.2.840.10045.2.1
_NAME = _sequence(_der(0x31, _sequence(bytes.fromhex("0603550403"), _der(0x0C, b"parallel"))))  # the common name
# from 2000 on, without end (RFC 5280, section 4.1.2.5): two machines' clocks need not agree
_VALIDITY = _sequence(_der(0x17, b"000101000000Z"), _der(0x18, b"99991231235959Z"))
# for signatures alone (RFC 5280, section 4.2.1.3), as TLS 1.3 wants it (RFC 8446, section 4.4.2.2); critical
_KEY_USAGE = _sequence(bytes.fromhex("0603551d0f"), _der(0x01, b"\xff"), _der(0x04, _bits(b"\x80", 7)))


def _certificate(private: int, public: bytes) -> bytes:
    """A version 3 certificate: RFC 5280, section 4.1."""
    to_be_signed = _sequence(
        _der(0xA0, _integer(2)),
        _integer(1 + secrets.randbits(64)),
        _ECDSA_SHA256,
        _NAME,
        _VALIDITY,
        _NAME,
        _sequence(_EC_KEY, _bits(public)),
        _der(0xA3, _sequence(_KEY_USAGE)),
    )
    return _sequence(to_be_signed, _ECDSA_SHA256, _bits(_sign(private, to_be_signed)))


def _private_key(private: int, public: bytes) -> bytes:
    """RFC 5915, section 3."""
    content = private.to_bytes(_BYTES, "big")
    return _sequence(_integer(1), _der(0x04, content), _der(0xA0, _P256), _der(0xA1, _bits(public)))


def _pem(label: str, der: bytes) -> str:
    """RFC 7468."""
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
