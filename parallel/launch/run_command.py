"""Running an engine's commands and reading their answers: qsub, squeue, ..."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

from slave.keys import VARIABLE

from ..errors import InputError, LaunchError

_CUSTOMS = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SBATCH_WAIT", "SLURM_TIME_FORMAT")
_PATIENCE = 60.0  # seconds for an engine to answer


def run_command(command: Sequence[str], patience: float = _PATIENCE) -> str:
    """What a command prints.  Raises `LaunchError`."""
    shown = " ".join(map(shlex.quote, command))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            env=engine_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{shown}: no answer in {patience:g} s", late=True) from None
    except OSError as error:
        raise LaunchError(f"{shown}: {error.strerror}") from None
    if done.returncode:
        said = " ".join((done.stderr + b" " + done.stdout).decode(errors="replace").split())
        raise LaunchError(f"{shown}: {said or 'it says nothing'} (exit code {done.returncode})")
    return done.stdout.decode(errors="replace")


def environment() -> dict[str, str]:
    """For commands that might show or pass on their environment: ours without the key.

    A frozen program has its libraries found first, which are not for others (PyInstaller's manual): that is undone.
    """
    ours = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if getattr(sys, "frozen", False):
        for name in ("LD_LIBRARY_PATH", "LIBPATH"):
            before = ours.pop(name + "_ORIG", None)
            ours.pop(name, None)
            if before is not None:
                ours[name] = before
    return ours


def engine_environment() -> dict[str, str]:
    """The same without what a user has set for reading an engine's answers: formats, filters, waiting for the end."""
    return {name: value for name, value in environment().items() if not name.startswith(_CUSTOMS)}


def require(program: str, remedy: str) -> None:
    """Raises `InputError` if there is no such command here; ``remedy`` is what to do about that."""
    import shutil  # slow to import, and seldom needed

    if shutil.which(program) is None:
        path = os.environ.get("PATH", "")
        raise InputError(
            f"{program}: command not found; this program's PATH is {path or 'empty'}. Where {program} works, "
            f"'command -v {program}' tells its folder: {remedy}"
        )


def file_in_memory() -> IO[bytes]:
    """As `temporary_file`, for a few lines, and at once: what that needs is slow to import."""
    return open(os.memfd_create("output"), "w+b") if hasattr(os, "memfd_create") else temporary_file()


def temporary_file() -> IO[bytes]:
    """A file without a name, for what a program says; in memory, or else to be lost, where none can be made."""
    import tempfile  # slow to import, and seldom needed

    try:
        return tempfile.TemporaryFile()
    except OSError:  # no folder for temporary files can be written: TMPDIR, /tmp, /var/tmp, the working folder
        return file_in_memory() if hasattr(os, "memfd_create") else open(os.devnull, "w+b")
