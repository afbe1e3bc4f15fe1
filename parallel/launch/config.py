"""LaunchConfig: what all jobs of one manager have in common, and the names of its slaves' output files."""

from __future__ import annotations

import multiprocessing.process
import os
import stat
from collections.abc import Sequence
from typing import Callable

from slave import limits
from slave.private_files import open_output
from slave.signals import came_from_handler

from ..errors import InputError, LaunchError
from .job import INHERITED, Job, as_line, slave_command, slave_orders, this_python

Address = tuple[str, int]

# how long a slave program looks for its master, in seconds, and for how long if nobody listens there
_LOCAL = 1e9, 3.0  # the master may be busy or stopped; or it has ended
_ELSEWHERE = 45.0, 3.0  # by then it has told on which address it fails in which way, and a job has to end some time


class LaunchConfig:
    """How one manager launches.

    ``python``: shell fragment that starts Python on the slaves; None: this interpreter.  ``root``: the folder of the
    package ``slave``.  ``key``: the authkey.  ``output``: pattern for the output files' names; None: there are none;
    `INHERITED`: what local slaves print goes where this process's goes, and there are no files.
    ``addresses``: of the master, given whether the slave is local.
    """

    def __init__(
        self,
        python: str | None,
        root: str,
        key: bytes,
        output: str | None,
        addresses: Callable[[bool], Sequence[Address]],
    ) -> None:
        self.python, self.root, self.key, self.addresses = python, root, key, addresses
        self.inherits = output == INHERITED
        self.output = None if self.inherits else output
        self.encrypt = True
        self.slaves_wait, self.program = 0.0, ""  # seconds that slaves outlive the master; what they wait for then
        self.master_of: Callable[[bool], str | None] = lambda local: None  # the fingerprint that slaves are to find

    def output_of(self, number: int) -> str | None:
        """The path of a slave's output file."""
        if self.output is None:
            return None
        folder, name = os.path.split(os.path.abspath(self.output))
        return os.path.join(folder, _numbered(name, number))

    def make_output(self, number: int) -> None:
        """Make a slave's output file, empty.

        Raises `InputError` if it cannot be written, or others might have put it or a link there: see `open_output`.
        """
        path = self.output_of(number)
        if path is not None:
            _make_empty(path)

    def check_python(self) -> None:
        """Raises `InputError` if no Python is named, and this program is none that could be started again."""
        if self.python is None:
            this_python()

    def check_output(self) -> None:
        """Raises `InputError` if all slaves, which are several, would get one file."""
        first = self.output_of(0)
        if first is not None and first == self.output_of(1) and not _is_device(first):
            raise InputError(
                f"output={self.output!r} names one file for several slaves; put %d in it, as in 'slave%d.output'"
            )

    def job(
        self,
        agent: str,
        numbers: Sequence[int],
        local: bool,
        fresh: bool = True,
        output_of: Callable[[int], str | None] | None = None,
    ) -> Job:
        """The job that brings the slaves ``numbers`` under one agent.

        Makes their output files anew if ``fresh``; raises `InputError` if one cannot be written.  ``output_of``: the
        output file by place, where there may be more slaves than ``numbers``.
        """
        if fresh:
            for number in numbers:
                self.make_output(number)
        inherits = self.inherits and local
        slots = [(number, None if inherits else self.output_of(number) or os.devnull) for number in numbers]
        wait, refused = _LOCAL if local else _ELSEWHERE
        addresses = self.addresses(local)
        orders = slave_orders(
            agent,
            addresses,
            self.key,
            slots,
            wait,
            refused,
            stays=local,
            shielded=not local,
            master=self.master_of(local),
            encrypt=self.encrypt,
            master_pid=os.getpid() if local else 0,
            quiet=inherits,
            tied=local,
        )
        if local:  # so that its tasks can use the proxies of this program's multiprocessing managers
            orders["authkey"] = multiprocessing.process.current_process().authkey.hex()
        elif self.slaves_wait:
            orders.update(outlives=self.slaves_wait, program=self.program)
        return Job(
            slave_command(self.python, self.root),
            as_line(orders),
            tuple(numbers),
            self.output_of(numbers[0]),
            self.python,
            orders,
            output_of or (lambda place: self.output_of(numbers[place])),
        )


def _numbered(name: str, number: int) -> str:
    try:
        return name % number
    except (TypeError, ValueError):
        return name  # there is no %d in it; a % may be all the same


def _is_device(path: str) -> bool:
    """Whether many can write there, as to /dev/null or a terminal."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _make_empty(path: str) -> None:
    try:
        os.close(open_output(path, truncate=True))
    except OSError as error:
        if came_from_handler(error):
            raise
        if limits.no_descriptor(error):
            raise LaunchError(f"the output file {path} cannot be written: {limits.explained(error)}") from None
        raise InputError(
            f"the output file {path} cannot be written: {error.strerror}; "
            f"name another place: Manager(output='/tmp/slave%d.output')"
        ) from None
