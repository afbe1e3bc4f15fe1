"""What the machine can do: bare sockets and bare processes, as tools/bench.py measures them beside the peers."""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Callable

from tools import bench_peers

MEGABYTES = 10
_ROOM = 64 * 1024  # bytes: for any message of `bare_hops`


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


def bare_hops(processes: int, count: int) -> tuple[float, float]:
    """Microseconds that a call alone takes, there and back, by the way of a task and with nothing done on it.

    From one thread to another, by a local socket to a process and back; all is pickled.  The median, and what one in
    a hundred exceeds.
    """
    pairs = [socket.socketpair() for _ in range(processes)]
    for _, far in pairs:
        if os.fork() == 0:
            for near, _ in pairs:
                near.close()
            _answer(far)
    for _, far in pairs:
        far.close()
    asked, answered = queue.SimpleQueue[Any](), queue.SimpleQueue[Any]()
    threading.Thread(target=_dispatch, args=([near for near, _ in pairs], asked, answered), daemon=True).start()
    times = []
    for _ in range(200 + count):
        began = time.perf_counter()
        asked.put(pickle.dumps(bench_peers.noop, 5))
        pickle.loads(answered.get())
        times.append(time.perf_counter() - began)
    asked.put(None)
    for _ in pairs:
        os.wait()
    times = sorted(times[200:])  # the first do not count
    return times[count // 2] * 1e6, times[count - 1 - count // 100] * 1e6


def _dispatch(sockets: Sequence[socket.socket], asked: Any, answered: Any) -> None:
    """The thread between."""
    for sock in itertools.cycle(sockets):
        call = asked.get()
        if call is None:
            break
        sock.sendall(pickle.dumps((1, call), 5))
        answered.put(pickle.loads(sock.recv(_ROOM))[1])
    for sock in sockets:
        sock.close()


def _answer(sock: socket.socket) -> None:
    """The other process."""
    try:
        while data := sock.recv(_ROOM):
            number, call = pickle.loads(data)
            sock.sendall(pickle.dumps((number, pickle.dumps(pickle.loads(call)(), 5)), 5))
    finally:
        os._exit(0)


def loops_of(seconds: float) -> int:
    """The argument with which `bench_peers.work` takes so long here, alone on a processor."""
    loops, best = 100_000, float("inf")
    for _ in range(20):
        began = time.perf_counter()
        bench_peers.work(loops)
        best = min(best, time.perf_counter() - began)
    return max(1, round(loops * seconds / best))
