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
        self._folders: list[Path] = []
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
        for folder in self._folders:
            shutil.rmtree(folder)
        for name in self.names.values():
            _run("ip", "netns", "del", name)

    def on(self, host: str) -> tuple[str, ...]:
        """What to put before a command to run it on a host."""
        return ("ip", "netns", "exec", self.names[host])

    def add_blind_network(self) -> None:
        """Give the master an address in a network that the slave's packets never come back from."""
        for place, name in enumerate(self.names.values(), 1):  # on each host a cable that leads nowhere
            _run("ip", "-n", name, "link", "add", "blind0", "type", "veth", "peer", "name", "blind1")
            _run("ip", "-n", name, "addr", "add", f"10.213.99.{place}/24", "dev", "blind0")
            for end in ("blind0", "blind1"):
                _run("ip", "-n", name, "link", "set", end, "up")

    def without_names(self, host: str) -> None:
        """The host's name service is a server that does not answer, behind a router that loses everything.

        One question takes a minute, by which it is told from what a busy machine takes for anything else.
        """
        folder, name = Path("/etc/netns") / self.names[host], self.names[host]
        folder.mkdir(parents=True)  # ip-netns(8): what stands here is mounted over /etc
        self._folders.append(folder)
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\noptions timeout:30 attempts:2\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        router = SUBNET + "254"
        _run("ip", "-n", name, "neigh", "add", router, "lladdr", "02:00:00:00:00:09", "dev", "eth0")
        _run("ip", "-n", name, "route", "add", "default", "via", router)

    def cable(self, up: bool) -> None:
        """Pull the cable, or plug it in again."""
        _run("ip", "-n", self.names["slave"], "link", "set", "eth0", "up" if up else "down")


class Firewall:
    """Rules of one host of `TwoHosts`, taken away one by one or with the host.

    Where one lock guards the rules of all namespaces, other tests may hold it just now (-w: wait for it).
    """

    def __init__(self, hosts: TwoHosts, host: str) -> None:
        self._on = hosts.on(host)

    @staticmethod
    def possible() -> bool:
        """Whether there is a program to make rules with."""
        return shutil.which("iptables") is not None

    def add(self, *rule: str) -> None:
        """Such as ``INPUT -p tcp --dport 5757 -j DROP``."""
        _run(*self._on, "iptables", "-w", "-I", *rule)

    def remove(self, *rule: str) -> None:
        """Take a rule away that was added."""
        _run(*self._on, "iptables", "-w", "-D", *rule)
