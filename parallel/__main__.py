"""``python3 -m parallel COMMAND``: what one can do with this package without a script."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from slave.errors import SlaveError

from .commands import add, checkpoint, doctor, drain, key, page, report, slave_file, status, stop

_COMMANDS: dict[str, Any] = {
    "status": status,
    "page": page,
    "report": report,
    "doctor": doctor,
    "add": add,
    "drain": drain,
    "stop": stop,
    "checkpoint": checkpoint,
    "key": key,
    "slave-file": slave_file,
}


WORDS = {  # the README has them, too
    "master": "your program: it makes tasks and reads their results",
    "slave": "what runs tasks, one at a time, on this machine or another; it has a number",
    "agent": "the slave program on a machine: it starts the processes of its slaves and speaks for them",
    "runner": "the process of a slave, in which tasks run; when it dies another one takes its place",
    "lease": "the tasks that a slave holds, and until when: if it is not heard of by then they go elsewhere",
    "context": "tasks that share a setup, whose result each slave keeps for them",
}


class _Parser(argparse.ArgumentParser):
    """What is wrong with a command line is told in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises SystemExit."""
        self.exit(2, f"parallel: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code.  Raises SystemExit(2) if the command line is wrong."""
    parser = _Parser(
        prog="python3 -m parallel",
        description="Farm tasks out to slaves: the commands beside the library.",
        epilog="\n".join(["words:", *(f"  {word:8} {meaning}" for word, meaning in WORDS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, module in _COMMANDS.items():
        epilog = getattr(module, "EPILOG", None)
        module.add_arguments(commands.add_parser(name, help=module.SUMMARY, description=module.__doc__, epilog=epilog))
    options = parser.parse_args(arguments)
    try:
        code: int = _COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return code
    except SlaveError as error:
        sys.stderr.write(f"parallel: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # "| head": nobody reads any more, at the interpreter's exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
