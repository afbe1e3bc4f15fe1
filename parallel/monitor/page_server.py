"""The live page's server: the standard library's, on the loopback, read-only, and for those who know its address.

The address holds a random token, since others may have accounts on this machine; what comes without it is answered as
if there was nothing.  The Host header must name this server, so that no page of elsewhere gets at it by a name of its
own (DNS rebinding).  Nothing can be changed by it, and every file comes from here: the policy in each answer forbids a
browser all else, and to make markup of what is text.
"""

from __future__ import annotations

import hmac
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Callable

_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_SECONDS = 10.0  # without a byte of a request, or of its answer
_MOST = 32  # requests at a time; who comes then takes the place of the one that has been here for longest


class PageServer(socketserver.ThreadingTCPServer):
    """Serves what ``data(since)`` returns, JSON, and the page that shows it, to who comes to ``listener``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, token: str, data: Callable[[int], bytes]) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.data, self.token = data, token
        self.hosts = {f"{name}:{port}" for name in (host, "localhost")}
        folder = Path(__file__).parent
        self.files = {name: ((folder / file).read_bytes(), kind) for name, (file, kind) in _FILES.items()}
        self._lock = threading.Lock()  # guards what follows
        self._open: dict[Any, None] = {}  # the longest here first
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.2,), name="parallel page server", daemon=True
        )

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()
        self._thread.join()
        with self._lock:
            for request in list(self._open):
                self._cut(request)

    def _cut(self, request: Any) -> None:
        """End it: its thread finds that nothing more comes.  ``_lock`` is held."""
        self._open.pop(request)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Make room for one more: somebody who drips could keep all places for ever."""
        with self._lock:
            if len(self._open) >= _MOST:
                self._cut(next(iter(self._open)))
            self._open[request] = None
        return True

    def shutdown_request(self, request: Any) -> None:
        """It is over."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, or takes too long."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _SECONDS
    server_version, sys_version = "parallel", ""

    def do_GET(self) -> None:
        """The page, its parts and its data."""
        self._serve(body=True)

    def do_HEAD(self) -> None:
        """The same without its body."""
        self._serve(body=False)

    def _serve(self, body: bool) -> None:
        path, _, query = self.path.partition("?")
        token, slash, name = path.lstrip("/").partition("/")
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._answer(HTTPStatus.FORBIDDEN, b"this server has another name\n", body=body)
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            self._answer(HTTPStatus.NOT_FOUND, b"there is nothing here\n", body=body)
        elif name == "data":
            since = query.partition("since=")[2]
            number = int(since[:15]) if since[:15].isdigit() else 0
            self._answer(HTTPStatus.OK, self.server.data(number), "application/json", body)
        elif name in self.server.files:
            self._answer(HTTPStatus.OK, *self.server.files[name], body)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is nothing here\n", body=body)

    def _answer(
        self, status: HTTPStatus, data: bytes, kind: str = "text/plain; charset=utf-8", body: bool = True
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What cannot be served: other methods, and what is no request."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.close_connection = True
        self._answer(status, f"{status.phrase}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody wants to read that."""
