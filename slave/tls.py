"""TlsTransport: TLS (RFC 8446) over a socket.

TLS is kept apart from the socket: many records come and go with one call to the kernel, where `ssl.SSLSocket` makes two
to read each and one to write it.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING, Any

from .errors import Intercepted
from .records import RecordTransport, would_wait
from .transport import SocketTransport

if TYPE_CHECKING:
    import ssl

_READ_AHEAD = 64 * 1024  # bytes that are read at once
_READ_MUCH = 128 * 1024  # the same in the middle of a large message; a connection keeps memory for so much


class TlsTransport(RecordTransport):
    """A socket with TLS.  `shake_hands` comes first.

    It says no goodbye: frames tell by themselves whether they are whole, and a connection's end proves nothing here.
    """

    MOST = 128 * 1024

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool, master: str = "") -> None:
        import ssl

        super().__init__(SocketTransport(sock, master))
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._spent = True  # no whole record is left in `_incoming`
        self._failure: BaseException | None = None  # found behind what could still be read

    def shake_hands(self) -> int | None:
        """Go on with TLS's handshake: None when it is done, else the event of `selectors` to wait for.

        The socket must not be blocking.  Raises `Intercepted`, EOFError, OSError.
        """
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except OSError as error:
                if not _wants_more(error):
                    self._answer()
                    raise meaning_of(error) from None
                done = False
            if self._outgoing.pending:
                self._unsent.append(memoryview(self._outgoing.read()))
            if not self._push():
                return selectors.EVENT_WRITE
            if done:
                self._spent = not self._incoming.pending
                return None
            if not self._fill(_READ_AHEAD):
                return selectors.EVENT_READ

    @property
    def certificate(self) -> bytes:
        """The certificate that the other end has shown, as DER; empty if none."""
        return self._tls.getpeercert(True) or b""

    # -- sending

    def _seal(self, payload: memoryview) -> None:
        try:
            self._tls.write(payload)
        except OSError as error:
            raise meaning_of(error) from None
        self._unsent.append(memoryview(self._outgoing.read()))

    def _answer(self) -> None:
        """Send what TLS itself has to say, as far as that goes: what is wrong, say."""
        if not self._outgoing.pending:
            return
        if not self._unsent:
            self._under_way = 0
        self._unsent.append(memoryview(self._outgoing.read()))
        try:
            self._push()
        except OSError:
            pass  # whoever reads or writes next is told

    # -- receiving

    def read_some(self, into: memoryview) -> int | None:
        """See `Transport`.  Raises `Intercepted` at a record that is not the other end's next one."""
        while True:
            got = self._take(into)
            if got:
                return got
            if not self._fill(_READ_AHEAD):
                return None

    def read_all(self, into: memoryview) -> None:
        """See `Transport`."""
        have = self._take(into)
        while have < into.nbytes:
            if not self._fill(_READ_MUCH if into.nbytes - have > _READ_MUCH else _READ_AHEAD):
                raise would_wait()
            have += self._take(into[have:])

    def has_more(self) -> bool:
        """See `Transport`."""
        return not self._spent or self._failure is not None

    def _take(self, into: memoryview) -> int:
        """Read what was received whole; 0 if nothing was."""
        if self._failure is not None:
            raise self._failure
        have, size = 0, into.nbytes
        try:
            while not self._spent and have < size:
                got: Any = self._tls.read(size - have, into[have:])
                if not got:
                    raise EOFError("the connection was closed")
                have += got
                self._spent = not self._incoming.pending and not self._tls.pending()
        except (OSError, EOFError) as error:
            self._spent = True
            if not _wants_more(error):
                self._answer()
                self._failure = meaning_of(error)
                if not have:
                    raise self._failure from None
        if self._outgoing.pending:
            self._answer()
        return have

    def _fill(self, most: int) -> bool:
        """Receive what there is; False if that is nothing.  Raises EOFError at the end of the stream."""
        try:
            data = self._sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            raise EOFError("the connection was closed")
        self._incoming.write(data)
        self._spent = False
        return True


def _wants_more(error: BaseException) -> bool:
    """Whether it only says that TLS has to be given more."""
    import ssl

    return isinstance(error, ssl.SSLWantReadError)


def meaning_of(error: BaseException) -> BaseException:
    """What an error of TLS means for the connection."""
    import ssl

    if not isinstance(error, ssl.SSLError):
        return error
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if isinstance(error, ended) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return EOFError("the connection was closed")
    reason = str(error.reason or error).lower().replace("_", " ")
    return Intercepted(f"somebody between this machine and the other changes what goes over the connection ({reason})")
