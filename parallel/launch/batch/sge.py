"""SGEQsubSlaveArray: slaves that (Son of, Univa, Altair) Grid Engine starts.  See qsub(1), qstat(1), qdel(1)."""

from __future__ import annotations

import getpass
import re
import xml.etree.ElementTree
from collections.abc import Collection, Sequence
from typing import Callable

from ...errors import LaunchError
from .array import BatchArray
from .engine import Piece, Places, TaskState

REMEDY = (
    "add it to PATH where this program is started (a notebook, an IDE and cron do not read your shell's profile), for "
    "instance by '. $SGE_ROOT/default/common/settings.sh', or in the program: os.environ['PATH'] += ':/its/folder'"
)

_PASSING = re.compile(
    r"unable to (contact|send message to) qmaster|failed receiving gdi request|communication error|got no answer"
    r"|timeout|connection refused|try again|max_u_jobs|max_jobs|not allowed to submit more",
    re.IGNORECASE,
)


_ACCOUNTED = ("taskid", "failed", "exit_status")  # see accounting(5)


class GridEngine:
    """See `Engine`."""

    name, first, program, remedy = "SGE", 1, "qsub", REMEDY
    index = "index=$(($1 + SGE_TASK_ID - 1))"

    def submission(self, script: str, name: str, piece_of: tuple[int, int], options: Sequence[str]) -> list[str]:
        """Our options first: of what is given twice the last counts, which is the user's."""
        place, count = piece_of
        ours = ["-terse", "-N", name, "-S", "/bin/sh", "-j", "y", "-o", "/dev/null"]
        return ["qsub", *ours, *options, "-sync", "n", "-t", f"1-{count}", script, str(place)]

    def job_id(self, answer: str) -> str:
        """``12.1-4:1``; options may have it say more before, and a wrapper may take the option -terse away."""
        found = re.findall(r"^(\d+)(?:\.\d+-\d+:\d+)?\s*$", answer, re.MULTILINE)
        found = found or re.findall(r"^Your job(?:-array)? (\d+)\b", answer, re.MULTILINE)
        if not found:
            raise ValueError(f"qsub's answer names no job: {answer!r}")
        return str(found[-1])

    def passing(self, complaint: str) -> bool:
        """A queue master that restarts, or a user's limit."""
        return _PASSING.search(complaint) is not None

    def advice(self, complaint: str) -> str:
        """A shell that has not read its settings."""
        if "initialize environment" in complaint or "SGE_ROOT" in complaint:
            return "the variables of Grid Engine are not set: '. $SGE_ROOT/default/common/settings.sh' sets them"
        return ""

    def limit_question(self) -> list[str]:
        """See sge_conf(5), max_aj_tasks."""
        return ["qconf", "-sconf"]

    def limit(self, answer: str) -> int | None:
        """0 means no limit."""
        found = re.search(r"^max_aj_tasks\s+(\d+)", answer, re.MULTILINE)
        return int(found.group(1)) or None if found else None

    def search(self, name: str) -> list[str]:
        """``qstat -j NAME`` fails where there is no such job; a list does not."""
        return ["qstat", "-xml", "-u", getpass.getuser()]

    def found(self, answer: str, name: str) -> str | None:
        """Among the user's jobs."""
        jobs = _root(answer).iter("job_list")
        return next((one.findtext("JB_job_number") for one in jobs if one.findtext("JB_name") == name), None)

    def look(self, jobs: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """One call for all, and one more for each job with tasks that wait, for the reason."""
        found = parse_qstat(run(["qstat", "-xml", "-g", "d", "-s", "prs", "-u", getpass.getuser()]), jobs)
        for job in {job for (job, _), state in found.items() if not state.running}:
            try:
                reasons = run(["qstat", "-j", job])
            except LaunchError:
                continue  # it has ended in between
            for (one, task), state in found.items():
                if one == job and not state.running:
                    found[one, task] = state._replace(words=with_reason(state.words, task + self.first, reasons))
        return found

    def hidden(self, piece: Piece, listed: bool, run: Callable[[Sequence[str]], str]) -> Collection[int]:
        """~/.sge_qstat may hide all of a job, which qstat knows by its id all the same."""
        if listed:
            return ()
        try:
            run(["qstat", "-j", piece.job])
        except LaunchError:
            return ()
        return range(piece.tasks)

    def history_question(self, job: str) -> list[str]:
        """The accounting, if this host may read it, and if it is written already."""
        return ["qacct", "-j", job]

    def history(self, answer: str) -> dict[int, str]:
        """One section for each task."""
        found: dict[int, str] = {}
        for section in re.split(r"^=+$", answer, flags=re.MULTILINE):
            told = {name: re.search(rf"^{name}\s+(\S.*?)\s*$", section, re.MULTILINE) for name in _ACCOUNTED}
            task, failed, status = told.values()
            if task and failed and status and task.group(1).isdigit():
                words = f"qacct says: failed {failed.group(1)}, exit status {' '.join(status.group(1).split())}"
                found[int(task.group(1)) - self.first] = words
        return found

    def deletion(self, job: str, tasks: Sequence[int] | None) -> list[str]:
        """``-t`` takes one range only; several tasks are several jobs' names."""
        if tasks is None:
            return ["qdel", job]
        return ["qdel", *(f"{job}.{task + self.first}" for task in tasks)]


def parse_qstat(answer: str, jobs: Sequence[str]) -> dict[tuple[str, int], TaskState]:
    """The tasks of these jobs in the answer to ``qstat -xml -g d``."""
    found: dict[tuple[str, int], TaskState] = {}
    for entry in _root(answer).iter("job_list"):
        job, state = entry.findtext("JB_job_number", ""), entry.findtext("state", "")
        if job in jobs:
            for task in _tasks(entry.findtext("tasks", "1")):
                words = _words(state, entry.findtext("queue_name", ""))
                found[job, task - 1] = TaskState(_runs(state), words, "E" in state)
    return found


def _root(answer: str) -> xml.etree.ElementTree.Element:
    try:
        return xml.etree.ElementTree.fromstring(answer)
    except xml.etree.ElementTree.ParseError as error:
        raise LaunchError(f"qstat -xml answers in another language: {error}") from None


def _tasks(text: str) -> list[int]:
    """``5``, or ``5-8:1`` where qstat does not list them one by one."""
    tasks: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)-(\d+):(\d+)", part)
        tasks += range(int(found.group(1)), int(found.group(2)) + 1, int(found.group(3))) if found else [int(part)]
    return tasks


def _runs(state: str) -> bool:
    return ("r" in state or "t" in state) and "q" not in state


def _words(state: str, queue: str) -> str:
    """See qstat(1), "state"."""
    if "E" in state:
        return f"in error state {state}"
    if "h" in state:
        return f"held ({state})"
    if _runs(state):
        return f"running ({state}) in {queue}"
    return f"queued ({state})"


def with_reason(words: str, task: int, answer: str) -> str:
    """Add to a task's state what ``qstat -j`` says of it: its error, else why the scheduler lets it wait."""
    error = re.search(rf"^error reason\s+{task}:\s+(?:\S+ \S+ )?(?:\[[\d:]+\]: )?(.*?)\s*$", answer, re.MULTILINE)
    if error:
        remedy = "mend that, then 'qmod -cj' with the job's id, or delete the job"
        return f"{words}: {error.group(1).removeprefix('error: ')} ({remedy})"
    scheduling = re.search(r"^scheduling info:\s+(.*(?:\n\s+.*)*)", answer, re.MULTILINE)
    if scheduling:
        reasons = dict.fromkeys(line.strip() for line in scheduling.group(1).splitlines())
        return f"{words}: {'; '.join(list(reasons)[:3])}"
    return words


class SGEQsubSlaveArray(BatchArray):
    """``numslave`` slaves that qsub starts as one array job; ``options``: your own text for qsub, '-q long.q'.

    Raises `InputError` for what cannot be, at `Manager.add_slave` also if there is no qsub.
    """

    def __init__(self, numslave: int, options: str = "") -> None:
        super().__init__(GridEngine(), numslave, options)
