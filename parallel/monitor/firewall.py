"""Whether a firewall of this machine is likely to keep slaves out, as far as this user may know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

_SECONDS = 5.0  # for a program of the system's to answer
_MAC = "/usr/libexec/ApplicationFirewall/socketfilterfw"

Run = Callable[[list[str]], str]


def evidence(port: int, root: Path = Path("/"), run: Run | None = None) -> list[str]:
    """What speaks for it, with what to do, in lines; nothing if there is no sign.

    ``root``, ``run``: where files of the system are looked for, and what runs its programs and returns what they say.
    """
    ask = _output if run is None else run
    found: list[str] = []
    if _enabled(root / "etc/ufw/ufw.conf"):
        found.append(f"the firewall ufw is on: sudo ufw allow {port}/tcp")
    if (root / "run/firewalld").exists() or ask(["firewall-cmd", "--state"]).strip() == "running":
        found.append(f"firewalld is running: sudo firewall-cmd --add-port={port}/tcp")
    if not found and _drops(ask(["nft", "list", "ruleset"]), ask(["iptables", "-S", "INPUT"])):
        found.append(
            f"rules of this machine drop what comes in: sudo iptables -I INPUT -p tcp --dport {port} -j ACCEPT"
        )
    if sys.platform == "darwin" and "enabled" in ask([_MAC, "--getglobalstate"]).lower():
        found.append(f"the firewall of macOS is on: allow {sys.executable} in System Settings, Network, Firewall")
    return found


def _enabled(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.strip().lower() == "enabled=yes" for line in text.splitlines())


def _drops(nft: str, iptables: str) -> bool:
    """Whether the chain for what comes in drops what no rule lets in; '' where only an administrator may ask."""
    chain = [line for line in nft.splitlines() if "hook input" in line]
    if any("policy drop" in line for line in chain):
        return True
    rules = iptables.splitlines()
    last = rules[-1] if rules else ""
    return (
        "-P INPUT DROP" in rules
        or last in ("-A INPUT -j DROP", "-A INPUT -j REJECT")
        or (last.startswith("-A INPUT -j REJECT"))
    )


def _output(command: list[str]) -> str:
    """What a program says; '' if there is none, or it refuses."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"]
    program = next((path for one in folders if os.access(path := os.path.join(one, command[0]), os.X_OK)), None)
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
