"""SSHSlave: slaves on a machine that ssh reaches, where nothing but Python is installed.

See pipe.py.  What ~/.ssh/config says of the host holds.
"""

from __future__ import annotations

from ..errors import InputError
from .arguments import words_of
from .bootstrap import receiving_command
from .pipe import PipedSlave
from .run_command import require

# a machine that vanishes is noticed in half a minute; nobody is there to type a password
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
_REMEDY = "install an OpenSSH client"
_HINTS = {
    "Permission denied": "nobody is there to type a password; make a key, ssh-keygen, and copy it, ssh-copy-id {host}",
    "Host key verification failed": "log in once by hand, ssh {host}, and accept its key",
    "Could not resolve hostname": "the name is wrong, or is missing in ~/.ssh/config",
    "not found": "name the Python to use there: SSHSlave({host!r}, python='/path/to/python3')",
}


class SSHSlave(PipedSlave):
    """Slaves on ``host``, as you would type it for ssh: a name of ~/.ssh/config, ``user@host``, ...

    ``n``: how many; None: as many as there are CPUs to use there.  ``python``: the shell fragment that starts Python
    there; default: the manager's, else ``python3``.  ``options``: more text for ssh's command line, '-p 2222'.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no ssh.
    """

    def __init__(self, host: str, n: int | None = None, python: str | None = None, options: str = "") -> None:
        super().__init__(n)
        if not isinstance(host, str) or not host or host.startswith("-") or host.split() != [host]:
            raise InputError(f"{host!r} is no name of a host for ssh")
        self._options = words_of(options, "ssh")
        self._host, self._python, self._n = host, python, n

    def __repr__(self) -> str:
        return f"SSHSlave({self._host!r}{'' if self._n is None else f', {self._n}'})"

    def check(self) -> None:
        """See `Slave.check`."""
        require("ssh", _REMEDY)

    def command(self, python: str | None) -> list[str]:
        """See `PipedSlave.command`."""
        there = receiving_command(self._python or python or "python3")
        return ["ssh", *self._options, *_OPTIONS, self._host, f"exec {there}"]

    def hint(self, said: str) -> str:
        """See `PipedSlave.hint`."""
        for symptom, remedy in _HINTS.items():
            if symptom in said:
                return remedy.format(host=self._host)
        return ""
