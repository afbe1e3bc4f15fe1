"""What the channel costs: the same work over a Unix socket, over TLS, authenticated only, and over bare TLS sockets.

    python3 tools/bench_channel.py [--rounds 5]

One slave program with two slaves, started by hand on this machine, so that what is sent crosses the loopback; medians
over rounds that go through all ways in turn.  ``bare TLS`` is what Python's ssl does between two processes that
exchange the same 10 MB messages and nothing else.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)

import parallel  # noqa: E402 - found only after the lines above
from slave import certificate  # noqa: E402
from tools import bench_peers  # noqa: E402

KEY = "the key of this benchmark"
MEGABYTES = 10
MESSAGES = 40
TASKS = 50_000
WAYS: dict[str, dict[str, Any] | None] = {
    "Unix socket": None,
    "TLS": {"port": 0},
    "authenticated only": {"port": 0, "encrypt": False},
}


def bare_tls() -> float:
    """MB/s of 10 MB messages over a TLS socket, each acknowledged by one byte."""
    made = certificate.make_certificate()
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        _send(listener.getsockname())
    plain, _ = listener.accept()
    with listener, certificate.server_context(made).wrap_socket(plain, server_side=True) as sock:
        began = time.perf_counter()
        for _ in range(MESSAGES):
            view = memoryview(bytearray(MEGABYTES * 1_000_000))
            while view:
                view = view[sock.recv_into(view) :]
            sock.sendall(b"!")
        found = MESSAGES * MEGABYTES / (time.perf_counter() - began)
    os.waitpid(child, 0)
    return found


def _send(address: tuple[str, int]) -> None:
    """The other process."""
    data = bytes(MEGABYTES * 1_000_000)
    plain = socket.create_connection(address)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with certificate.client_context().wrap_socket(plain) as sock:
        for _ in range(MESSAGES):
            sock.sendall(data)
            sock.recv(1)
    os._exit(0)


def measure(options: dict[str, Any] | None) -> tuple[float, float]:
    """MB/s of 10 MB results, no-op tasks per second, of a manager with these options; None: local slaves."""
    with parallel.Manager(output=None, authkey=KEY.encode(), **(options or {})) as manager:
        program = None
        if options is None:
            for _ in range(2):
                manager.add_slave(parallel.LocalSlave())
        else:
            more = ["--no-encryption"] if options.get("encrypt") is False else []
            command = [sys.executable, "-m", "slave", f"127.0.0.1:{manager.address[1]}", "-n", "2", "-q", "-q", *more]
            program = subprocess.Popen(command, env={**os.environ, "PARALLEL_AUTHKEY": KEY})
        manager.wait_for_slaves(2, 60)
        context = manager.get_context()
        found = _rate(context, bench_peers.ten_megabytes, MESSAGES) * MEGABYTES, _rate(context, bench_peers.noop, TASKS)
    if program is not None:
        program.wait()
    return found


def _rate(context: Any, task: Any, count: int) -> float:
    """Tasks per second, after some that do not count."""
    for number in (count // 10, count):
        began = time.perf_counter()
        for _ in range(number):
            context.add_task(task)
        for _ in context.get_results_unordered():
            pass
    return count / (time.perf_counter() - began)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    bare: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        bare.append(bare_tls())
        for way, options in WAYS.items():
            found[way].append(measure(options))
    line = statistics.median(bare)
    print(f"median of {rounds} rounds; bare TLS: {line:,.0f} MB/s\n")
    print(
        "| | 10 MB results, MB/s | of bare TLS | no-op tasks per second | of the Unix socket |\n|---|---|---|---|---|"
    )
    noop = statistics.median(rate for _, rate in found["Unix socket"])
    for way, measured in found.items():
        size, rate = (statistics.median(column) for column in zip(*measured))
        print(f"| {way} | {size:,.0f} | {size / line:.2f} | {rate:,.0f} | {rate / noop:.2f} |")


if __name__ == "__main__":
    main()
