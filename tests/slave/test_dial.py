"""Reaching the master at one of several addresses."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from slave import dial
from slave.errors import Unreachable

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:5757", ("host", 5757)),
        ("10.1.2.3:1", ("10.1.2.3", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1]:80", ("fe80::1", 80)),
    ],
)
def test_addresses_as_text(text: str, address: tuple[str, int]) -> None:
    assert dial.parse_address(text) == address
    assert dial.format_address(address) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":5757", "host:x", "::1:5757", "[]:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        dial.parse_address(text)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(ValueError, match=f"there is no port {port}; ports are 1 to 65535"):
        dial.parse_address(f"host:{port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_every_address_is_told_with_its_error() -> None:
    port = free_port()
    with pytest.raises(Unreachable) as caught:
        dial.dial([("127.0.0.1", port), ("no.such.host.invalid", port)], KEY, 1.0)
    text = str(caught.value)
    assert f"127.0.0.1:{port}: connection refused" in text
    assert f"no.such.host.invalid:{port}: unknown host" in text
    assert caught.value.refused == {("127.0.0.1", port)} and caught.value.others


def test_a_refusal_everywhere_is_recognised() -> None:
    with pytest.raises(Unreachable) as caught:
        dial.dial([("127.0.0.1", free_port())], KEY, 1.0)
    assert len(caught.value.refused) == 1 and not caught.value.others


def test_what_hangs_up_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        port = server.getsockname()[1]
        import threading

        threading.Thread(target=lambda: server.accept()[0].close()).start()
        with pytest.raises(Unreachable, match="connected, but it did not complete the handshake: the connection was"):
            dial.dial([("127.0.0.1", port)], KEY, 1.0)


def test_a_family_of_addresses_that_this_machine_does_not_know_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    port = free_port()
    with pytest.raises(Unreachable, match=f"::1.*not supported by protocol; 127.0.0.1:{port}: connection refused"):
        dial.dial([("::1", port), ("127.0.0.1", port)], KEY, 1.0)
