"""Write slave.pyz: the slave program as one file, to be copied to other machines, where any Python from 3.9 on runs it.

The same release gives the same file, byte by byte, whose SHA-256 is printed.  Exit codes: 0 it is written; 1 it is
not; 2 wrong command line.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..launch.slave_file import slave_file, slave_file_hash

SUMMARY = "write slave.pyz, the slave program as one file for other machines"

_MODE = 0o755


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument(
        "file", nargs="?", default="slave.pyz", help="where to write it (default: %(default)s); - for stdout"
    )


def run(options: argparse.Namespace) -> int:
    """See the package's text."""
    data = slave_file()
    if options.file == "-":
        sys.stdout.buffer.write(data)
        return 0
    draft = f"{options.file}.{os.getpid()}"
    try:
        with open(draft, "xb") as file:
            file.write(data)
        os.chmod(draft, _MODE)
        os.replace(draft, options.file)  # so that nobody ever runs half of one
    except OSError as error:
        sys.stderr.write(f"parallel: {options.file} cannot be written: {error.strerror}\n")
        return 1
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)
    sys.stdout.write(
        f"{options.file}: {len(data)} bytes, SHA-256 {slave_file_hash()}\n"
        f"Copy it to another machine and run there: python3 {os.path.basename(options.file)} HOST:PORT\n"
    )
    return 0
