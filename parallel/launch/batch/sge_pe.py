"""SGEPESlaveArray: slaves in the slots of the parallel job in which the master runs.  See sge_pe(5), qrsh(1)."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import InputError
from ..program_array import Placed, ProgramArray, Start
from ..run_command import require
from .sge import REMEDY


class Granted(NamedTuple):
    """What a job was granted on one host."""

    host: str
    slots: int


class SGEPESlaveArray(ProgramArray):
    """One slave for each slot that this job was granted: on this host directly, on others by ``qrsh -inherit``.

    For a script that itself runs in a job with a parallel environment: ``qsub -pe mpi 16 ...``.  The environment needs
    ``control_slaves TRUE`` if it has several hosts.

    Raises `InputError` outside such a job.
    """

    def __init__(self) -> None:
        path = os.environ.get("PE_HOSTFILE")
        if not path:
            raise InputError(
                "SGEPESlaveArray() works in a job with a parallel environment, and PE_HOSTFILE is not set: submit this "
                "script with 'qsub -pe NAME SLOTS ...'; elsewhere use SGEQsubSlaveArray"
            )
        try:
            with open(path) as file:
                self._granted = parse_hostfile(file.read())
        except (OSError, ValueError) as error:
            raise InputError(f"the file of granted hosts, {path}, cannot be read: {error}") from None
        super().__init__([Placed(f"SGEPESlaveArray()[{one.host}]", one.slots) for one in self._granted])

    def __repr__(self) -> str:
        return "SGEPESlaveArray()"

    def check(self) -> None:
        """See `Slave.check`."""
        if any(not is_here(one.host) for one in self._granted):
            require("qrsh", REMEDY)

    def starts(self, script: str) -> list[Start]:
        """See `ProgramArray.starts`."""
        return [Start(start_command(one.host, script, place), [place]) for place, one in enumerate(self._granted)]


def parse_hostfile(text: str) -> list[Granted]:
    """Lines of host, slots, queue, processors; a host may have several.  Raises ValueError."""
    slots: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2:
            slots[words[0]] = slots.get(words[0], 0) + int(words[1])
    if not slots:
        raise ValueError("it names no host")
    return [Granted(host, count) for host, count in slots.items()]


def is_here(host: str) -> bool:
    """Whether that is this host's name, with or without its domain."""
    return host.split(".")[0] == socket.gethostname().split(".")[0]


def start_command(host: str, script: str, place: int) -> Sequence[str]:
    """What starts the slaves at a host.  qrsh has a shell there split the command again."""
    if is_here(host):
        return ["/bin/sh", script, str(place)]
    return ["qrsh", "-inherit", "-nostdin", host, "/bin/sh", shlex.quote(script), str(place)]
