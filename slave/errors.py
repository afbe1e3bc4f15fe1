"""Every way the slave program can fail, each with its own exit code.

The exit codes are part of the command line's contract: 0 the master is done, 2 the command line is wrong (argparse),
130 and 143 ended by Ctrl-C and SIGTERM as usual in a shell, and those below.
"""

from __future__ import annotations

from collections.abc import Iterable


class SlaveError(Exception):
    """The slave cannot go on; ``str()`` is one line that says what failed and what to do."""

    exit_code = 1


class WrongKey(SlaveError):
    """Master and slave hold different keys.  Not raised for a missing key: that is `KeyTrouble`."""

    exit_code = 3


class Unreachable(SlaveError):
    """No address of the master answered; the message lists every address tried with its error.

    ``refused``: the addresses where a machine answered that the master does not listen there (nobody does, or another
    master), which is how a master that has ended looks.
    ``others``: whether some address failed in another way.
    ``no_way``: whether this machine's system says of each that there is no way to it, or that it is not permitted.
    ``exhausted``: why some could not even be tried: this process may open no more files, or have no more memory.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        refused: Iterable[tuple[str, int]] = (),
        others: bool = True,
        no_way: bool = False,
        exhausted: OSError | None = None,
    ) -> None:
        super().__init__(message)
        self.refused, self.others, self.no_way = frozenset(refused), others, no_way
        self.exhausted = exhausted


class WrongMaster(SlaveError):
    """Another master answers at an address than the one that this slave is to serve: one failed address."""

    exit_code = 4


class MasterFinished(SlaveError):
    """The master is done, or was done before this slave found it: nothing is wrong."""

    exit_code = 0


class MasterGone(SlaveError):
    """The master was there and vanished without saying goodbye.

    A master that ends says so: then the exit code is 0.
    """

    exit_code = 5


class NotStartedAgain(MasterGone):
    """Its program was not started again while its slaves waited for that."""


class Incompatible(SlaveError):
    """Master and slave cannot work together.

    They speak different versions of the protocol, or one insists on an encryption that the other does not offer, or
    this Python is too old or has no TLS.
    """

    exit_code = 6


class Rejected(Incompatible):
    """The master, which has proved that it is one, refused this slave: there is no use in trying again."""


class BadRequest(SlaveError):
    """The command line asks for something that this machine cannot do."""

    exit_code = 2


class KeyTrouble(SlaveError):
    """There is no usable key: none found, too short, or in a file that others may read."""

    exit_code = 7


class ProtocolError(SlaveError):
    """The peer sent what nobody who speaks this protocol sends (a frame too large, say)."""

    exit_code = 8


class Oversized(Exception):
    """A message is larger than its reader takes, and was not sent.  Not a fault of the connection, which is as before.

    Payloads are not concerned: large ones travel beside the message.
    """


class Intercepted(ProtocolError):
    """Somebody between this machine and the master relays the connection, or changes what goes over it.

    Nothing of what he said was believed.  Another address, or another try, may well do.
    """


class OutOfResources(SlaveError):
    """This machine, or a limit that was set for this process, leaves it without memory or descriptors."""

    exit_code = 9


class SeveralMasters(SlaveError):
    """Several masters answer, and nobody says which one to serve."""

    exit_code = 4
