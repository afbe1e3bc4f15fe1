"""A slow and lossy line between two network namespaces, for kernels that have no netem.

    python3 -m tests.support.slowlink NAMESPACE ADDRESS NAMESPACE ADDRESS --delay SECONDS --loss FRACTION

Each end is a tun device (Linux, Documentation/networking/tuntap.rst).  Says "ready" when both are up, and runs until it
is killed; the devices go with it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_CLONE_NEWNET = 0x40000000
_LONGEST_PACKET = 65536


def open_end(namespace: str, name: str, address: str, peer: str) -> int:
    """A tun device in a namespace; returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN_NO_PI))
        subprocess.run(["ip", "addr", "add", address, "peer", peer, "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        return end
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


def carry(ends: tuple[int, int], delay: float, loss: float, seed: int) -> None:
    """Take packets out of each end and put them into the other, later, or not at all; in order, for ever."""
    chance = random.Random(seed)
    under_way: dict[int, deque[tuple[float, bytes]]] = {ends[0]: deque(), ends[1]: deque()}
    while True:
        due = min((queue[0][0] for queue in under_way.values() if queue), default=time.monotonic() + 60)
        readable, _, _ = select.select(ends, [], [], max(0.0, due - time.monotonic()))
        now = time.monotonic()
        for end in readable:
            packet = os.read(end, _LONGEST_PACKET)
            if chance.random() >= loss:
                under_way[ends[1] if end == ends[0] else ends[0]].append((now + delay, packet))
        for end, queue in under_way.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(end, queue.popleft()[1])
                except OSError:
                    pass  # as any line drops what its end cannot take


def main() -> None:
    """Open both ends and carry."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("namespace_a", "address_a", "namespace_b", "address_b"):
        parser.add_argument(name)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ends = (
        open_end(options.namespace_a, "slow0", options.address_a, options.address_b),
        open_end(options.namespace_b, "slow0", options.address_b, options.address_a),
    )
    print("ready", flush=True)
    carry(ends, options.delay, options.loss, options.seed)


if __name__ == "__main__":
    main()
