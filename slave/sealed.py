"""SealedTransport: authenticated records over another transport, for a Python or a user without TLS."""

from __future__ import annotations

import hashlib
import hmac
import struct

from .errors import Intercepted
from .records import RecordTransport
from .transport import Transport

_MAC = 16  # bytes
_RECORD = struct.Struct(f"!I{_MAC}s")  # length of the payload, MAC
_SMALL_BUFFER = 4096
_TAMPERS = "somebody between this machine and the other tampers with the connection"


class SealedTransport(RecordTransport):
    """Authenticated records, not encrypted, over ``inner``: length (4 bytes) | MAC (16) | payload (64 KiB at most).

    The MAC is keyed BLAKE2b (RFC 7693) over the record's number in its direction, its length and its payload, under a
    key for each direction that belongs to this connection alone.  So nothing can be changed, left out, repeated,
    swapped, reflected or brought in from another connection.  No byte is handed on before its record's MAC was found
    right.  Whoever finds a wrong one says so by a record without payload, as TLS does by an alert: so both ends know.
    """

    MOST = 64 * 1024

    def __init__(self, inner: Transport, send_key: bytes, receive_key: bytes) -> None:
        super().__init__(inner)
        self._send_mac = hashlib.blake2b(key=send_key, digest_size=_MAC)
        self._receive_mac = hashlib.blake2b(key=receive_key, digest_size=_MAC)
        self._sent = self._received = 0  # records
        self._alerted = False
        self._buffer = memoryview(bytearray(_SMALL_BUFFER))  # those from start to end are not checked yet
        self._start = self._end = 0
        self._checked = memoryview(b"")  # what can be handed on

    def _seal(self, payload: memoryview) -> None:
        mac = _mac(self._send_mac, self._sent, payload)
        self._sent += 1
        self._unsent = [memoryview(_RECORD.pack(payload.nbytes, mac)), payload]

    # -- receiving

    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`.  Raises `Intercepted` at a record that is not the other end's next one."""
        while not self._checked and not self._check():
            got = self._fill()
            if got is None:
                return None
            if not got:
                if self._end > self._start:
                    raise EOFError("the connection was closed in the middle of a record")
                return 0
        size = min(into.nbytes, self._checked.nbytes)
        into[:size] = self._checked[:size]
        self._checked = self._checked[size:]
        return size

    def has_more(self) -> bool:
        """See `Transport`."""
        return bool(self._checked) or self._end - self._start >= self._needed()

    def _needed(self) -> int:
        """The size of the record that comes next, as far as is known and if there can be such a one."""
        if self._end - self._start < _RECORD.size:
            return _RECORD.size
        length: int = _RECORD.unpack_from(self._buffer, self._start)[0]
        return _RECORD.size + (length if length <= self.MOST else 0)

    def _check(self) -> bool:
        """Check the next record, if it is here whole."""
        needed = self._needed()
        if self._end - self._start < needed:
            return False
        begin, end = self._start + _RECORD.size, self._start + needed
        length, mac = _RECORD.unpack_from(self._buffer, self._start)
        payload = self._buffer[begin:end]
        if length != payload.nbytes or not hmac.compare_digest(mac, self._expected(payload)):
            self._alert()
            raise Intercepted(f"{_TAMPERS}: a wrong record came")
        if not length:
            raise Intercepted(f"{_TAMPERS}: a wrong record came to the other")
        self._received += 1
        self._checked, self._start = payload, end
        return True

    def _alert(self) -> None:
        """Tell the other end, as far as that goes without waiting."""
        if self._unsent or self._alerted:
            return  # in the middle of a record nothing can be said
        self._alerted = True
        self._seal(memoryview(b""))
        self._under_way = 0
        try:
            self._push()
        except OSError:
            pass  # whoever reads or writes next is told

    def _expected(self, payload: memoryview) -> bytes:
        return _mac(self._receive_mac, self._received, payload)

    def _fill(self) -> int | None:
        """Read what there is behind the piece of a record that is here, with room for the whole of it."""
        needed, rest = self._needed(), bytes(self._buffer[self._start : self._end])
        if len(self._buffer) < needed:
            self._buffer = memoryview(bytearray(_RECORD.size + self.MOST))
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        got = self._inner.read_some(self._buffer[self._end :])
        self._end += got or 0
        return got


def _mac(keyed: hashlib.blake2b, number: int, payload: memoryview) -> bytes:
    mac = keyed.copy()
    mac.update(struct.pack("!QI", number, payload.nbytes))
    mac.update(payload)
    return mac.digest()
