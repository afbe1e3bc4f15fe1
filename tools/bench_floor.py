"""What the machine can do: bare sockets and bare processes, as tools/bench.py measures them beside the peers."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from typing import Any, Callable

from tools import bench_peers

MEGABYTES = 10


def bare_tcp(messages: int) -> float:
    """MB/s of messages of `MEGABYTES` over the loopback from one process to another, each acknowledged by one byte."""
    return _transfer(messages, lambda sock: sock, lambda sock: sock)


def bare_tls(messages: int) -> float:
    """The same over an `ssl.SSLSocket`, with TLS as this library sets it up."""
    from slave import certificate  # here, since older releases, which are measured too, have none

    server = certificate.server_context(certificate.make_certificate())
    client = certificate.client_context()
    return _transfer(messages, lambda sock: server.wrap_socket(sock, server_side=True), client.wrap_socket)


def _transfer(messages: int, accept: Callable[[Any], Any], connect: Callable[[Any], Any]) -> float:
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        _send(listener.getsockname(), messages, connect)
    plain, _ = listener.accept()
    with listener, closing(accept(plain)) as sock:
        began = 0.0
        for _ in range(messages + 1):  # the first does not count
            view = memoryview(bytearray(MEGABYTES * 1_000_000))
            while view:
                view = view[sock.recv_into(view) :]
            sock.sendall(b"!")
            began = began or time.perf_counter()
        found = messages * MEGABYTES / (time.perf_counter() - began)
    os.waitpid(child, 0)
    return found


def _send(address: tuple[str, int], messages: int, connect: Callable[[Any], Any]) -> None:
    """The other process."""
    try:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = connect(plain)
        for _ in range(messages + 1):
            sock.sendall(bytes(MEGABYTES * 1_000_000))
            sock.recv(1)
    finally:
        os._exit(0)


def bare_processes(processes: int, loops: int, count: int) -> float:
    """Calls of `bench_peers.work` per second, by so many processes that do nothing else."""
    began = time.perf_counter()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(number, count, processes):
                    bench_peers.work(loops)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return count / (time.perf_counter() - began)


def loops_of(seconds: float) -> int:
    """The argument with which `bench_peers.work` takes so long here, alone on a processor."""
    loops, best = 100_000, float("inf")
    for _ in range(20):
        began = time.perf_counter()
        bench_peers.work(loops)
        best = min(best, time.perf_counter() - began)
    return max(1, round(loops * seconds / best))
