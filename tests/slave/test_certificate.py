"""The throw-away certificate, on each Python that is installed, also where the system's policy for TLS is strict."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from slave import certificate
from slave.errors import Incompatible
from tests.support.programs import environment, pythons

PROBE = """
import gc, hashlib, os, socket, ssl, sys, tempfile
from slave import handshake, introduction
from slave.certificate import fingerprint_of, make_certificate, server_context

for _ in range(3):
    made = make_certificate()
    assert made.fingerprint == hashlib.sha256(made.der).digest() == hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(made.certificate_pem)).digest()
    context = server_context(made)
    assert fingerprint_of(context) == made.fingerprint
near, far = socket.socketpair()
near.setblocking(False)
far.setblocking(False)
one = introduction.OneKey(b"k" * 32)
master = introduction.receive(far, one, mode=handshake.TLS, fingerprint=made.fingerprint, context=context)
slave = introduction.introduce(near, b"k" * 32)
running, ends = {"master": master, "slave": slave}, {}
while running:
    for name, steps in list(running.items()):
        try:
            next(steps)
        except StopIteration as done:
            ends[name] = done.value
            del running[name]
assert ends["slave"].write_some([b"some", b"thing"]) == 9
into = bytearray(20)
assert ends["master"].read_some(memoryview(into)) == 9 and into[:9] == b"something"
assert ends["slave"].master == ends["master"].master == made.fingerprint.hex()
assert ends["slave"].read_some(memoryview(into)) is None
assert not os.listdir(tempfile.gettempdir()), os.listdir(tempfile.gettempdir())
for end in ends.values():
    end.close()
print("ok")
"""

STRICT = """
openssl_conf = here
[here]
ssl_conf = ssl
[ssl]
system_default = all
[all]
MinProtocol = TLSv1.3
CipherString = DEFAULT:@SECLEVEL=2
"""


@pytest.mark.parametrize("strict", [False, True], ids=["usual", "strict"])
@pytest.mark.parametrize("version, python", pythons())
def test_both_sides_agree_on_every_python(
    own_folder: Path, temporary_folder: Path, version: str, python: str, strict: bool
) -> None:
    variables = {"TMPDIR": str(temporary_folder)}
    if strict:
        (own_folder / "openssl.cnf").write_text(STRICT)
        variables["OPENSSL_CONF"] = str(own_folder / "openssl.cnf")
    done = subprocess.run(
        [python, "-W", "error", "-c", PROBE],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("trouble", ["absent", "forbidden", "without /proc"])
def test_where_there_is_no_memory_file_the_temporary_one_is_gone_at_once(
    monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    modes = []
    real = ssl.SSLContext.load_cert_chain

    def load(self: ssl.SSLContext, path: str, **options: Any) -> None:
        modes.append(os.stat(path).st_mode & 0o777)
        real(self, path, **options)

    def forbidden(name: str) -> int:
        raise PermissionError(name)

    if trouble == "absent":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif trouble == "forbidden":
        monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    made = certificate.make_certificate()
    assert certificate.fingerprint_of(certificate.server_context(made)) == made.fingerprint
    assert modes == [0o600] and not os.listdir(tempfile.gettempdir())


def test_the_private_key_is_not_shown() -> None:
    made = certificate.make_certificate()
    assert repr(made) == f"<Certificate {made.fingerprint.hex()}>"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_the_certificate_is_well_formed(own_folder: Path) -> None:
    made = certificate.make_certificate()
    (own_folder / "cert.pem").write_text(made.certificate_pem)
    (own_folder / "key.pem").write_text(made.key_pem)
    for command in ("verify -x509_strict -CAfile cert.pem cert.pem", "ec -in key.pem -check -noout"):
        done = subprocess.run(["openssl", *command.split()], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_multiples_of_the_generator() -> None:
    """2 G and (N - 1) G = -G, as in the NIST's point multiplication examples."""
    x, y = certificate._G
    assert certificate._multiply(1) == (x, y)
    assert certificate._multiply(certificate._N - 1) == (x, certificate._P - y)
    assert certificate._multiply(2) == (
        0x7CF27B188D034F7E8A52380304B51AC3C08969E277F21B35A60B48FC47669978,
        0x07775510DB8ED040293D9AC69F7430DBBA7DADE63CE982299E04B79D227873D1,
    )


def test_der_lengths_and_integers() -> None:
    assert certificate._der(4, bytes(127))[:2] == b"\x04\x7f"
    assert certificate._der(4, bytes(128))[:3] == b"\x04\x81\x80"
    assert certificate._der(4, bytes(256))[:4] == b"\x04\x82\x01\x00"
    assert [certificate._integer(one) for one in (0, 127, 128, 256)] == [
        b"\x02\x01\x00",
        b"\x02\x01\x7f",
        b"\x02\x02\x00\x80",
        b"\x02\x02\x01\x00",
    ]


def test_a_sites_own_context_of_any_tickets_is_taken() -> None:
    made = certificate.make_certificate()
    context = certificate.server_context(made)
    context.num_tickets = 2
    assert certificate.fingerprint_of(context) == made.fingerprint


def unfit(what: str) -> Any:
    context = certificate.server_context(certificate.make_certificate())
    if what == "asks for a certificate":
        context.verify_mode = ssl.CERT_REQUIRED
    elif what == "old":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return {"empty": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "client": certificate.client_context()}.get(what, context)


@pytest.mark.parametrize("what", ["empty", "client", "asks for a certificate", "old"])
def test_a_sites_context_with_which_no_slave_could_connect_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match="slaves cannot connect with this ssl context .*; it must be for a server"):
        certificate.fingerprint_of(unfit(what))
    with pytest.raises(ValueError, match="an ssl.SSLContext is needed, not 'a text'"):
        certificate.fingerprint_of("a text")  # type: ignore[arg-type]


def test_a_python_without_tls_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate.client_context.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ssl, "HAS_TLSv1_3", False)
        with pytest.raises(Incompatible, match="has none .*OpenSSL.*encrypt=False.* and --no-encryption"):
            certificate.need_tls()
    monkeypatch.setitem(sys.modules, "ssl", None)
    with pytest.raises(Incompatible, match=f"this Python .{sys.executable}, 3.* has no module ssl; use a Python with"):
        certificate.client_context()


def test_the_package_can_be_imported_without_ssl() -> None:
    program = "import sys; sys.modules['ssl'] = None; import slave.cli, slave.certificate, slave.introduction"
    subprocess.run([sys.executable, "-c", program], env=environment(), timeout=60, check=True)
