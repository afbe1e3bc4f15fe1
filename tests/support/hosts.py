"""Hosts that share nothing: a network namespace, a mount namespace, another user, a bare virtual environment.

A bare host sees this machine's system, one Python by itself, and an empty home; not this checkout, not what
belongs to the user who runs the tests, no temporary file of anybody.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tests.support.network import TwoHosts
from tests.support.programs import ROOT
from tests.support.users import OTHER

_BARE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/python /mnt/home
mount --bind {python} /mnt/python
for folder in /tmp /var/tmp /home; do mount -t tmpfs -o mode=1777 none $folder; done
for folder in {hidden}; do mount -t tmpfs -o mode=755 none $folder; done
chown {user}:{user} /mnt/home
exec setpriv --reuid {user} --regid {user} --clear-groups env -i PATH=/mnt/home/venv/bin:/usr/bin:/bin HOME=/mnt/home \
    LANG=C.UTF-8 LD_LIBRARY_PATH=/mnt/python/lib /bin/sh -c {command}
"""
_VENV = 'cd "$HOME"; [ -d venv ] || /mnt/python/bin/python3 -m venv --without-pip venv || exit 9; '


def possible() -> bool:
    """Whether this machine and user can make mount namespaces."""
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


def bare(hosts: TwoHosts, host: str, python: str, command: str) -> list[str]:
    """The command line that runs a shell command on a bare host, where ``python3`` is the Python of that program."""
    home = Path(os.path.expanduser("~root")).resolve()
    tops = {Path("/", *ROOT.resolve().parts[1:2]), home} - {Path("/tmp"), Path("/usr"), Path("/home")}
    script = _BARE.format(
        python=shlex.quote(str(Path(python).resolve().parent.parent)),
        hidden=" ".join(shlex.quote(str(top)) for top in sorted(tops)),
        user=OTHER,
        command=shlex.quote(_VENV + command),
    )
    return [*hosts.on(host), "unshare", "-m", "/bin/sh", "-c", script]
