"""CommandSlaveArray: slaves that any command starts which can run another one."""

from __future__ import annotations

import re
import shlex
import string
import subprocess

from ..errors import InputError, InputTypeError
from .arguments import python_text, whole_number
from .bootstrap import receiving_command
from .pipe import PipedSlave
from .program_array import Placed, ProgramArray, Start
from .run_command import environment, require
from .staging import CLAIM

_FIELDS = {"command", "quoted", "n", "i"}


class CommandSlaveArray(ProgramArray):
    """``n`` slaves that a shell command starts, in which these stand for

        {command}   what starts one slave, some words
        {quoted}    the same as one word, for a program that hands it on to another shell
        {n}         how many slaves there are
        {i}         the number of one of them, from 0 on

    ``'mpirun -n {n} {command}'`` runs once and starts all; with {i} the command runs once for each slave:
    ``'bsub -J slave{i} {command}'``.  The machines must share this user's home, or what XDG_CACHE_HOME names.  Where
    they do not, use `PipedCommandSlave`.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no such command.
    """

    def __init__(self, template: str, n: int) -> None:
        self._fields = check_template(template)
        self._template, self._n = template, whole_number(n, "CommandSlaveArray")
        self.index = "index=$1" if "i" in self._fields else CLAIM.format(count=n)
        super().__init__([Placed(f"{self!r}[{place}]") for place in range(n)])

    def __repr__(self) -> str:
        return f"CommandSlaveArray({self._template!r}, {self._n})"

    def check(self) -> None:
        """See `Slave.check`."""
        check_program(self._template)

    def starts(self, script: str) -> list[Start]:
        """See `ProgramArray.starts`."""
        if "i" not in self._fields:
            command = shell_command(self._template, f"/bin/sh {shlex.quote(script)}", self._n, 0)
            return [Start(command, range(self._n))]
        return [
            Start(shell_command(self._template, f"/bin/sh {shlex.quote(script)} {i}", self._n, i), [i])
            for i in range(self._n)
        ]


class PipedCommandSlave(PipedSlave):
    """Slaves behind a command that passes stdin and stdout on to where it runs {command}: nothing is shared with it.

    ``'docker run -i --rm --network host python:3.12 {command}'``, ``'kubectl run one -i --image=python -- {command}'``
    ``n``: how many; None: as many as there are CPUs to use there.  ``python``: what starts Python there.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no such command.
    """

    def __init__(self, template: str, n: int | None = 1, python: str = "python3") -> None:
        super().__init__(n)
        fields = check_template(template)
        if fields & {"i", "n"}:
            raise InputError(f"{template!r} starts one slave program: there is no {{i}} and no {{n}} in it")
        python_text(python, "PipedCommandSlave")
        self._template, self._python = template, python

    def __repr__(self) -> str:
        return f"PipedCommandSlave({self._template!r})"

    def check(self) -> None:
        """See `Slave.check`."""
        check_program(self._template)

    def command(self, python: str | None, nonce: tuple[int, int]) -> list[str]:
        """See `PipedSlave.command`."""
        return shell_command(self._template, receiving_command(self._python, nonce), 1, 0)


def check_template(template: str) -> set[str]:
    """The fields of a template.  Raises `InputError`."""
    if not isinstance(template, str):
        raise InputTypeError(f"the command must be text such as 'mpirun -n {{n}} {{command}}', not {template!r}")
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise InputError(f"the command {template!r} cannot be read: {error}; braces of its own are doubled") from None
    if not fields <= _FIELDS:
        wrong = ", ".join(f"{{{field}}}" for field in sorted(fields - _FIELDS))
        raise InputError(f"the command {template!r} has {wrong}; there are {{command}}, {{quoted}}, {{n}} and {{i}}")
    if not fields & {"command", "quoted"}:
        raise InputError(f"the command {template!r} starts no slave: where should {{command}} stand in it?")
    return fields


def check_program(template: str) -> None:
    """Raises `InputError` if the first word of a template is no program that is found here."""
    first = template.split()[0]
    if not re.fullmatch(r"[\w./+-]+", first):
        return  # a variable, a quote, ...: the shell will tell
    command = ["/bin/sh", "-c", 'command -v "$0"', first]
    if subprocess.run(command, capture_output=True, check=False, env=environment()).returncode:
        require(first, "add it to PATH, or write it with its folder")


def shell_command(template: str, command: str, n: int, i: int) -> list[str]:
    """The argument vector that runs a filled template."""
    # told to end, together with what it runs, the shell is to wait for that: who sees it end kills what is left
    text = "trap 'exit 143' TERM\n" + template.format(command=command, quoted=shlex.quote(command), n=n, i=i)
    return ["/bin/sh", "-c", text]
