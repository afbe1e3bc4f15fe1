"""SSHSlave: slaves on a machine that ssh reaches, where nothing but Python is installed.

See pipe.py.  What ~/.ssh/config says of the host holds.
"""

from __future__ import annotations

from ..errors import InputError
from .arguments import python_text, words_of
from .bootstrap import receiving_command
from .pipe import PipedSlave
from .run_command import require

# a machine that vanishes is noticed in half a minute; nobody is there to type a password
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
_REMEDY = "install an OpenSSH client"
_SSH_FAILED = 255  # the exit code for ssh's own failures; else it is that of what ran there
_CANNOT_RUN, _NOT_FOUND = 126, 127  # a shell's, sh(1)
_NAME = "name the Python to use there: SSHSlave({host!r}, python='/path/to/python3')"
_HINTS = {  # by what ssh says
    "Permission denied (": (
        "nobody is there to type a password; make a key, ssh-keygen, and copy it, ssh-copy-id {host}"
    ),
    "HOST IDENTIFICATION HAS CHANGED": (
        "its key is another than it was; if it was installed anew: ssh-keygen -R {host}, then log in "
        "once by hand, ssh {host}"
    ),
    "Too many authentication failures": (
        "ssh offers too many keys: name the one, options='-o IdentitiesOnly=yes -i FILE', or do so in ~/.ssh/config"
    ),
    "Host key verification failed": "log in once by hand, ssh {host}, and accept its key",
    "Could not resolve hostname": "the name is wrong, or is missing in ~/.ssh/config",
}
# what a server says, or does without a word, when too many knock at once (MaxStartups), or while it starts
_PASSING = (
    "kex_exchange_identification",
    "ssh_exchange_identification",
    "Exceeded MaxStartups",
    "Not allowed at this time",
    "Connection reset by",
    "Connection closed by",
    "banner exchange",
    "Resource temporarily unavailable",
    "Temporary failure in name resolution",
    "System is booting up",
)


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
        if python is not None:
            python_text(python, "SSHSlave")
        self._host, self._python, self._n = host, python, n

    def __repr__(self) -> str:
        return f"SSHSlave({self._host!r}{'' if self._n is None else f', {self._n}'})"

    def check(self) -> None:
        """See `Slave.check`."""
        require("ssh", _REMEDY)

    def command(self, python: str | None, nonce: tuple[int, int]) -> list[str]:
        """See `PipedSlave.command`."""
        there = receiving_command(self._python or python or "python3", nonce)
        return ["ssh", *self._options, *_OPTIONS, self._host, f"exec {there}"]

    def hint(self, code: int, words: str) -> str:
        """See `PipedSlave.hint`."""
        if code == _NOT_FOUND:
            return _NAME.format(host=self._host)
        if code == _CANNOT_RUN:
            return f"what is to start Python there cannot be run; {_NAME.format(host=self._host)}"
        for symptom, remedy in _HINTS.items() if code == _SSH_FAILED else ():
            if symptom in words:
                return remedy.format(host=self._host)
        return ""

    def may_pass(self, code: int, words: str) -> bool:
        """See `PipedSlave.may_pass`."""
        return code == _SSH_FAILED and any(one in words for one in _PASSING) and not any(one in words for one in _HINTS)

    def silence(self) -> str:
        """See `PipedSlave.silence`."""
        return (
            f"ssh runs, and what it should start on {self._host} says nothing; perhaps the shell's startup file there "
            f"(~/.bashrc, ~/.cshrc) starts another shell (exec zsh) or waits for somebody to type: only do that in "
            f"interactive shells"
        )
