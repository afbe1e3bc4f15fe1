"""Identity: what tells this master from all others, and how its connections are protected.

With TLS (the default) it is a throw-away certificate, made when it is first needed, or the one in the context that the
user gave; else 32 random bytes.  Slaves that prove that they hold the key learn its fingerprint with that proof
(slave/handshake.py), so a relay in between, which has another certificate, is found out.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from slave import certificate
from slave.errors import SlaveError
from slave.handshake import PLAIN, SEALED, TLS

from ..errors import InputError

if TYPE_CHECKING:
    import ssl

SHOWN = 16  # hex digits of a fingerprint in commands: 64 bits, which nobody finds a second certificate for by chance


class Identity:
    """See the module's text.  ``_lock`` guards what is made once."""

    def __init__(self, encrypt: bool, context: ssl.SSLContext | None) -> None:
        self.encrypt = encrypt
        self._lock = threading.Lock()
        self._random = secrets.token_bytes(32)
        self._context, self._fingerprint = context, b""

    def mode(self, unix: bool) -> int:
        """How connections are protected that come by a Unix socket, or by TCP."""
        return PLAIN if unix else TLS if self.encrypt else SEALED

    def fingerprint(self, unix: bool) -> bytes:
        """32 bytes."""
        if unix or not self.encrypt:
            return self._random
        self.context()
        return self._fingerprint

    def context(self) -> ssl.SSLContext | None:
        """The server's side of TLS; None without.  Raises `InputError` where this Python cannot do it."""
        if not self.encrypt:
            return None
        with self._lock:
            if self._context is None:
                try:
                    made = certificate.make_certificate()
                    self._context, self._fingerprint = certificate.server_context(made), made.fingerprint
                except SlaveError as error:
                    why = f"{error}; or Manager(encrypt=False): then what is sent is only authenticated"
                    raise InputError(why) from None
            elif not self._fingerprint:
                try:
                    self._fingerprint = certificate.fingerprint_of(self._context)
                except Exception as error:
                    raise InputError(
                        f"tls={self._context!r} cannot serve: {type(error).__name__}: {error}; it must be a server's "
                        f"context, with a certificate loaded: load_cert_chain"
                    ) from None
        return self._context
