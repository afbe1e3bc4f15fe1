"""Hosts in network namespaces, joined by a virtual cable: real machines as far as the network is concerned."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SUBNET = "10.213.77."


def possible() -> bool:
    """Whether this machine and user can make network namespaces."""
    if not shutil.which("ip") or os.geteuid() != 0:
        return False
    done = subprocess.run(["ip", "netns", "add", f"probe{os.getpid()}"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", f"probe{os.getpid()}"], capture_output=True, check=False)
    return done.returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class TwoHosts:
    """Two namespaces, 'master' at .1 and 'slave' at .2 of a network of their own, by IPv4 and IPv6."""

    def __init__(self) -> None:
        self.names = {host: f"pl-{host}-{os.getpid()}" for host in ("master", "slave")}
        self.addresses = {"master": SUBNET + "1", "slave": SUBNET + "2"}
        self.addresses6 = {"master": "fd77:213::1", "slave": "fd77:213::2"}

    def __enter__(self) -> TwoHosts:
        for name in self.names.values():
            _run("ip", "netns", "add", name)
        master, slave = self.names.values()
        _run("ip", "link", "add", "eth0", "netns", master, "type", "veth", "peer", "name", "eth0", "netns", slave)
        for host, name in self.names.items():
            _run("ip", "-n", name, "addr", "add", self.addresses[host] + "/24", "dev", "eth0")
            if Path("/proc/net/if_inet6").exists():
                _run("ip", "-n", name, "addr", "add", self.addresses6[host] + "/64", "dev", "eth0", "nodad")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names.values():
            _run("ip", "netns", "del", name)

    def on(self, host: str) -> tuple[str, ...]:
        """What to put before a command to run it on a host."""
        return ("ip", "netns", "exec", self.names[host])

    def cable(self, up: bool) -> None:
        """Pull the cable, or plug it in again."""
        _run("ip", "-n", self.names["slave"], "link", "set", "eth0", "up" if up else "down")
