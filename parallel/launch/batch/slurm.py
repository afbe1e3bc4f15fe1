"""SlurmSlaveArray: slaves that Slurm starts as a job array.  See sbatch(1), squeue(1), scontrol(1), scancel(1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Callable

from ...errors import LaunchError
from .array import BatchArray
from .engine import Places, TaskState

REMEDY = (
    "add it to PATH where this program is started (a notebook, an IDE and cron do not read your shell's profile), for "
    "instance by 'module load slurm', or in the program: os.environ['PATH'] += ':/its/folder'"
)

_PASSING = re.compile(
    r"unable to contact slurm controller|socket timed out|temporarily (unable|unavailable)|connection refused"
    r"|zero bytes were transmitted|slurm backup controller|QOSMaxSubmitJob|AssocMaxSubmitJob"
    r"|job violates accounting/QOS policy|too many pending",
    re.IGNORECASE,
)


class SlurmEngine:
    """See `Engine`."""

    name, first, program, remedy = "Slurm", 0, "sbatch", REMEDY
    index = "index=$(($1 + SLURM_ARRAY_TASK_ID))"

    def submission(self, script: str, name: str, piece_of: tuple[int, int], options: Sequence[str]) -> list[str]:
        """Our options first: of what is given twice the last counts, which is the user's."""
        place, count = piece_of
        ours = ["--parsable", f"--job-name={name}", "--output=/dev/null"]
        return ["sbatch", *ours, *options, f"--array=0-{count - 1}", script, str(place)]

    def job_id(self, answer: str) -> str:
        """``12`` or ``12;cluster``."""
        found = re.findall(r"^(\d+)(?:;\S+)?$", answer, re.MULTILINE)
        if not found:
            raise ValueError(f"sbatch's answer names no job: {answer!r}")
        return str(found[-1])

    def passing(self, complaint: str) -> bool:
        """A controller that restarts or is busy, or a user's limit."""
        return _PASSING.search(complaint) is not None

    def advice(self, complaint: str) -> str:
        """Slurm's own words do."""
        return ""

    def limit_question(self) -> list[str]:
        """See slurm.conf(5), MaxArraySize."""
        return ["scontrol", "show", "config"]

    def limit(self, answer: str) -> int | None:
        """MaxArraySize is one more than the highest index."""
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
        return int(found.group(1)) or None if found else None

    def search(self, name: str) -> list[str]:
        """The ids of the jobs of that name."""
        return ["squeue", "-h", "-n", name, "-o", "%F"]

    def found(self, answer: str, name: str) -> str | None:
        """The array's id, in a line for each of its parts."""
        return answer.split()[0] if answer.split() else None

    def look(self, jobs: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """One call for all.  squeue refuses a single id that it does not know any more."""
        try:
            return parse_squeue(run(["squeue", "-h", "-r", "-j", ",".join(jobs), "-o", "%F|%K|%T|%r|%N"]))
        except LaunchError as error:
            if "Invalid job id" in str(error):
                return {}
            raise

    def fate_question(self, job: str) -> list[str]:
        """The controller remembers a job for some minutes after its end."""
        return ["scontrol", "-o", "show", "job", job]

    def fates(self, answer: str) -> dict[int, str]:
        """One line for each task."""
        found: dict[int, str] = {}
        for line in answer.splitlines():
            told = dict(re.findall(r"\b(ArrayTaskId|JobState|Reason)=(\S+)", line))
            if told.get("ArrayTaskId", "").isdigit() and "JobState" in told:
                reason = told.get("Reason", "None")
                words = f"its state is {told['JobState']}"
                found[int(told["ArrayTaskId"])] = words if reason == "None" else f"{words}, {reason}"
        return found

    def deletion(self, job: str, tasks: Sequence[int] | None) -> list[str]:
        """See scancel(1)."""
        if tasks is None:
            return ["scancel", job]
        return ["scancel", *(f"{job}_{task}" for task in tasks)]


def parse_squeue(answer: str) -> dict[tuple[str, int], TaskState]:
    """The answer to ``squeue -h -r -o '%F|%K|%T|%r|%N'``: array's id, task, state, reason, nodes."""
    found: dict[tuple[str, int], TaskState] = {}
    for line in answer.splitlines():
        job, task, state, reason, nodes = [*line.strip().split("|", 4), "", "", "", ""][:5]
        if job and task.isdigit() and state not in _ENDED:
            found[job, int(task)] = _state(state, reason, nodes)
    return found


_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def _state(state: str, reason: str, nodes: str) -> TaskState:
    if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"):
        held = "held" if "Held" in reason or state == "REQUEUE_HOLD" else "queued"
        return TaskState(False, f"{held} ({state}): {reason}" if reason not in ("", "None") else f"{held} ({state})")
    return TaskState(True, f"running ({state}) on {nodes}")


class SlurmSlaveArray(BatchArray):
    """``numslave`` slaves that sbatch starts as one job array; ``options``: your own text for sbatch, '-p long -t 60'.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no sbatch.
    """

    def __init__(self, numslave: int, options: str = "") -> None:
        super().__init__(SlurmEngine(), numslave, options)
