"""SlurmSlaves: slaves in the Slurm allocation in which the master runs.  See srun(1)."""

from __future__ import annotations

import os

from ...errors import InputError
from ..arguments import whole_number, words_of
from ..program_array import Placed, ProgramArray, Start
from ..run_command import require
from .slurm import REMEDY


class SlurmSlaves(ProgramArray):
    """One slave for each task of this allocation, started by one ``srun``.

    For a script that runs in an allocation: ``sbatch -n 16 ...``, ``salloc -n 16 ...``.  ``n``: how many slaves;
    default: the allocation's number of tasks.  ``options``: your own text for srun.

    Raises `InputError` outside an allocation.
    """

    index = "index=$SLURM_PROCID"

    def __init__(self, n: int | None = None, options: str = "") -> None:
        if "SLURM_JOB_ID" not in os.environ:
            raise InputError(
                "SlurmSlaves() works in an allocation, and SLURM_JOB_ID is not set: start this script by 'sbatch -n "
                "TASKS ...' or 'salloc -n TASKS ...'; elsewhere use SlurmSlaveArray"
            )
        granted = next((os.environ[name] for name in _TASKS if os.environ.get(name, "").isdigit()), "1")
        self._n = whole_number(int(granted) if n is None else n, "SlurmSlaves")
        self._options = words_of(options, "srun")
        job = os.environ["SLURM_JOB_ID"]
        super().__init__([Placed(f"SlurmSlaves()[{place}], Slurm job {job}") for place in range(self._n)])

    def __repr__(self) -> str:
        return "SlurmSlaves()"

    def check(self) -> None:
        """See `Slave.check`."""
        require("srun", REMEDY)

    def starts(self, script: str) -> list[Start]:
        """See `ProgramArray.starts`."""
        # a slave that fails must not end the others; and a script that srun itself started has its CPUs already
        ours = ["--kill-on-bad-exit=0", "--wait=0", *(["--overlap"] if "SLURM_STEP_ID" in os.environ else [])]
        return [Start(["srun", f"--ntasks={self._n}", *ours, *self._options, "/bin/sh", script], range(self._n))]


_TASKS = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES")
