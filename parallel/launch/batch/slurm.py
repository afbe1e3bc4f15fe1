"""SlurmSlaveArray: slaves that Slurm starts as a job array.  See sbatch(1), squeue(1), scontrol(1), scancel(1)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Callable

from ...errors import LaunchError
from ..arguments import words_of
from .array import BatchArray
from .engine import Piece, Places, TaskState

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
    """See `Engine`.  A job on another cluster is ``12;cluster``, as sbatch calls it; ``options``: the user's."""

    name, first, program, remedy = "Slurm", 0, "sbatch", REMEDY
    index = "index=$(($1 + SLURM_ARRAY_TASK_ID))"

    _clusters = ""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._clusters = _clusters_of(options)

    def submission(self, script: str, name: str, piece_of: tuple[int, int], options: Sequence[str]) -> list[str]:
        """Our options first: of what is given twice the last counts, which is the user's."""
        place, count = piece_of
        ours = ["--parsable", f"--job-name={name}", "--output=/dev/null"]
        options = [word for word in options if word not in ("-W", "--wait")]  # for its end
        return ["sbatch", *ours, *options, f"--array=0-{count - 1}", script, str(place)]

    def job_id(self, answer: str) -> str:
        """``12`` or ``12;cluster``; a wrapper may add lines, or take the option --parsable away."""
        found = re.findall(r"^(\d+(?:;\S+)?)\s*$", answer, re.MULTILINE)
        if found:
            return str(found[-1])
        told = re.findall(r"^Submitted batch job (\d+)(?: on cluster (\S+))?", answer, re.MULTILINE)
        if not told:
            raise ValueError(f"sbatch's answer names no job: {answer!r}")
        job, cluster = told[-1]
        return f"{job};{cluster}" if cluster else str(job)

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
        return ["squeue", *_at(self._clusters), "-h", "-n", name, "-o", "%F"]

    def found(self, answer: str, name: str) -> str | None:
        """The array's id, in a line for each of its parts, behind a line for its cluster if that was named."""
        found = re.findall(r"^(?:CLUSTER: (\S+)|\s*(\d+))\s*$", answer, re.MULTILINE)
        cluster = ""
        for named, job in found:
            if job:
                return f"{job};{cluster}" if cluster else str(job)
            cluster = named
        return None

    def look(self, jobs: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """One call for all of a cluster."""
        found: dict[tuple[str, int], TaskState] = {}
        for cluster in dict.fromkeys(_split(job)[1] for job in jobs):
            found.update(self._look_at(cluster, [_split(job)[0] for job in jobs if _split(job)[1] == cluster], run))
        return found

    def _look_at(self, cluster: str, numbers: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """squeue refuses a single id that it does not know any more."""
        command = ["squeue", *_at(cluster), "-h", "-r", "-t", "all", "-j", ",".join(numbers), "-o", "%F|%K|%T|%r|%N"]
        try:
            told = parse_squeue(run(command))
        except LaunchError as error:
            if "Invalid job id" in str(error):
                return {}
            raise
        return {(f"{job};{cluster}" if cluster else job, task): state for (job, task), state in told.items()}

    def hidden(self, piece: Piece, listed: bool, run: Callable[[Sequence[str]], str]) -> Collection[int]:
        """The controller itself, asked for the job, filters nothing."""
        try:
            answer = run(self.history_question(piece.job))
        except LaunchError:
            return ()
        found: set[int] = set()
        for line in answer.splitlines():
            told = dict(re.findall(r"\b(ArrayTaskId|JobState)=(\S+)", line))
            if told.get("JobState", "COMPLETED") not in _ENDED:
                found.update(_tasks(told.get("ArrayTaskId", "")))
        return found

    def history_question(self, job: str) -> list[str]:
        """The controller remembers a job for some minutes after its end."""
        number, cluster = _split(job)
        return ["scontrol", *_at(cluster), "-o", "show", "job", number]

    def history(self, answer: str) -> dict[int, str]:
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
        number, cluster = _split(job)
        if tasks is None:
            return ["scancel", *_at(cluster), number]
        return ["scancel", *_at(cluster), *(f"{number}_{task}" for task in tasks)]


def _split(job: str) -> tuple[str, str]:
    """The number and the cluster of a job; '' for the cluster of this host."""
    number, _, cluster = job.partition(";")
    return number, cluster


def _at(cluster: str) -> list[str]:
    return ["-M", cluster] if cluster else []


def _clusters_of(options: Sequence[str]) -> str:
    """The clusters that options for sbatch name: -M a, -Ma, --clusters=a, --clusters a."""
    found = ""
    for place, word in enumerate(options):
        following = options[place + 1] if place + 1 < len(options) else ""
        if word in ("-M", "--clusters", "--cluster"):
            found = following
        elif word.startswith(("--clusters=", "--cluster=")):
            found = word.partition("=")[2]
        elif re.match(r"-M.", word):
            found = word[2:]
    return found


def _tasks(text: str) -> list[int]:
    """``5``, or for tasks that wait ``5-8,10%2``, or ``0-6:2``."""
    tasks: list[int] = []
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found:
            first, last, step = found.groups()
            tasks += range(int(first), int(last or first) + 1, int(step or 1))
    return tasks


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
        super().__init__(SlurmEngine(words_of(options, "sbatch")), numslave, options)
