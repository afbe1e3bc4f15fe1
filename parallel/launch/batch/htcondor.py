"""HTCondorSlaveArray: slaves on an HTCondor pool.  See condor_submit(1), condor_q(1), condor_history(1), condor_rm(1).

No disk need be shared: HTCondor carries the slave program and what it is told to the machine (htcondor_folder.py), and
the modules of the tasks come from the master.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Callable

from ...errors import InputError, LaunchError
from ..job import Job
from .array import BatchArray
from .engine import Piece, Places, Reports, TaskState
from .event_log import held
from .htcondor_folder import LINES_BEFORE, HTCondorFolder

REMEDY = (
    "add it to PATH where this program is started (a notebook, an IDE and cron do not read your shell's profile), or "
    "in the program: os.environ['PATH'] += ':/its/folder'; it is on the machines of a pool that take jobs in"
)

_PASSING = re.compile(
    r"can't find address|failed to connect|can't connect|unable to connect|connect(ion)? (was )?(refused|reset)"
    r"|failed to (fetch|commit)|no (such )?schedd|schedd .*(not found|is not running)|MAX_JOBS_(PER_OWNER|SUBMITTED)"
    r"|exceed.*max|timed? ?out|temporarily|try again",
    re.IGNORECASE,
)
_QUEUE = re.compile(r"^[ \t]*queue\b", re.IGNORECASE | re.MULTILINE)
_JOB = "ClusterId", "ProcId", "JobStatus", "RemoteHost", "HoldReason"  # what condor_q is asked for
_IDLE, _RUNNING, _REMOVED, _COMPLETED, _HELD, _TRANSFERRING, _SUSPENDED = "1234567"  # JobStatus


class HTCondorEngine:
    """See `Engine`.  An array is a cluster, its tasks are the cluster's processes."""

    name, first, program, remedy, index = "HTCondor", 0, "condor_submit", REMEDY, ""

    def submission(self, script: str, name: str, piece_of: tuple[int, int], options: Sequence[str]) -> list[str]:
        """``script`` is the submit description, in which the user's text stands already."""
        place, count = piece_of
        return ["condor_submit", "-batch-name", name, script, f"first_place={place}", "-queue", str(count)]

    def job_id(self, answer: str) -> str:
        """``2 job(s) submitted to cluster 13.``"""
        found = re.findall(r"submitted to cluster (\d+)", answer)
        if not found:
            raise ValueError(f"condor_submit's answer names no cluster: {answer!r}")
        return str(found[-1])

    def passing(self, complaint: str) -> bool:
        """A schedd that restarts or cannot be reached, or its limit of jobs."""
        return _PASSING.search(complaint) is not None

    def advice(self, complaint: str) -> str:
        """HTCondor names the line; the user's part of the text stands among ours."""
        if "not allowed to own jobs" in complaint or "User record" in complaint:
            return "HTCondor takes no jobs of this user, as of root: run the program as another one"
        if "should_transfer_files" in complaint:
            return (
                "leave should_transfer_files out of HTCondorSlaveArray's description: HTCondor carries the slave "
                "program to its machines; with IF_NEEDED it does not where they share this disk"
            )
        if re.search(r"on Line \d+ of|submit file|command file|Parse error|universe", complaint):
            return (
                "the second argument of HTCondorSlaveArray is put into the submit description as it is, from line "
                f"{LINES_BEFORE + 1} on"
            )
        return ""

    def limit_question(self) -> list[str]:
        """See MAX_JOBS_PER_SUBMISSION in HTCondor's manual."""
        return ["condor_config_val", "MAX_JOBS_PER_SUBMISSION"]

    def limit(self, answer: str) -> int | None:
        """A number; the schedd has the last word, and says it."""
        return int(answer) if answer.strip().isdigit() and int(answer) > 0 else None

    def search(self, name: str) -> list[str]:
        """The clusters of that batch name."""
        return ["condor_q", "-allusers", "-constraint", f'JobBatchName == "{name}"', "-af", "ClusterId"]

    def found(self, answer: str, name: str) -> str | None:
        """One line for each process."""
        words = answer.split()
        return words[0] if words and words[0].isdigit() else None

    def look(self, jobs: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """One call for all."""
        return parse_condor_q(run(["condor_q", *jobs, "-allusers", "-af:t", *_JOB]))

    def hidden(self, piece: Piece, listed: bool, run: Callable[[Sequence[str]], str]) -> Collection[int]:
        """Those that are still to be made: a description with max_idle or max_materialize is a factory of jobs."""
        try:
            answer = run(["condor_q", piece.job, "-allusers", "-factory", "-af", "JobMaterializeNextProcId"])
        except LaunchError:
            return ()
        words = answer.split()
        return range(int(words[-1]), piece.tasks) if words and words[-1].isdigit() else ()

    def history_question(self, job: str) -> list[str]:
        """See condor_history(1)."""
        wanted = "ProcId", "JobStatus", "ExitCode", "ExitSignal", "LastRemoteHost", "RemoveReason"
        return ["condor_history", job, "-af:t", *wanted]

    def history(self, answer: str) -> Mapping[int, str]:
        """One line for each process."""
        found: dict[int, str] = {}
        for line in answer.splitlines():
            process, status, code, signum, host, reason = [*line.split("\t", 5), *[""] * 6][:6]
            if process.isdigit():
                end = f"killed by signal {signum}" if signum.isdigit() else f"exit code {code}"
                words = f"removed: {reason}" if status == _REMOVED else f"completed, {end}"
                found[int(process)] = words if host in ("", "undefined") else f"{words}, on {host.rpartition('@')[2]}"
        return found

    def deletion(self, job: str, tasks: Sequence[int] | None) -> list[str]:
        """See condor_rm(1)."""
        return ["condor_rm", job] if tasks is None else ["condor_rm", *(f"{job}.{task}" for task in tasks)]


def parse_condor_q(answer: str) -> dict[tuple[str, int], TaskState]:
    """The answer to ``condor_q -af:t ClusterId ProcId JobStatus RemoteHost HoldReason``."""
    found: dict[tuple[str, int], TaskState] = {}
    for line in answer.splitlines():
        cluster, process, status, slot, reason = [*line.strip().split("\t", 4), *[""] * 5][:5]
        if cluster.isdigit() and process.isdigit() and status not in (_REMOVED, _COMPLETED):
            found[cluster, int(process)] = _state(f"{cluster}.{process}", status, slot, reason)
    return found


def _state(job: str, status: str, slot: str, reason: str) -> TaskState:
    host = slot.rpartition("@")[2]
    if status in (_RUNNING, _TRANSFERRING):
        return TaskState(True, f"running on {host}")
    if status == _SUSPENDED:
        return TaskState(True, f"suspended on {host}")
    if status == _HELD:
        return held(job, "" if reason == "undefined" else reason)
    return TaskState(False, f"queued (idle): no machine has taken it; 'condor_q -better-analyze {job}' tells why")


class HTCondorSlaveArray(BatchArray):
    """``numslave`` slaves, each a job of one HTCondor cluster.

    ``description``: your own lines for the submit description, ``"request_memory = 2 GB"``, also several, as in a file
    for condor_submit; without ``queue``.  The machines need Python, named by ``Manager(python=...)``, else ``python3``.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no condor_submit.
    """

    def __init__(self, numslave: int, description: str = "") -> None:
        if not isinstance(description, str):
            raise InputError(
                f"the second argument of HTCondorSlaveArray is text for a submit file, not {description!r}"
            )
        if _QUEUE.search(description):
            raise InputError(
                "HTCondorSlaveArray says how many jobs there are to be: leave 'queue' out of its submit description"
            )
        super().__init__(HTCondorEngine(), numslave, description, words=())
        self._description = description

    def make_folder(self, jobs: Sequence[Job]) -> Reports:
        """See `BatchArray`."""
        assert self.staging is not None
        return HTCondorFolder(self.staging, jobs, self._description)
