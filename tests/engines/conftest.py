"""The batch systems, as tests need them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

import parallel
from parallel.launch.batch import array as array_module
from tests.support import engines
from tests.support.gates import Gates, made_gates
from tests.support.processes import of_all
from tests.support.waiting import eventually

SUM = """
import functools
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave({slaves})
        m.wait_for_slaves({n}, 120)
        c = m.get_context()
        for i in range(100):
            c.add_task(functools.partial(tasks.square, i))
        print('sum', sum(c.get_results_unordered()), 'on', *sorted(info.host for info in m.slaves), flush=True)
        print([info.name for info in m.slaves])
"""
SUMMED = f"sum {sum(i * i for i in range(100))} on "  # what it prints

WAIT = """
import functools, parallel
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager()
    m.add_slave({slave})
    c = m.get_context()
    c.add_task(functools.partial(tasks.wait_for, 'gate'))
    m.wait_for_slaves(2)
    print('ready', flush=True)
    list(c.get_results_unordered())
"""


def run(*command: str) -> str:
    """What a command prints; fails if it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def step_daemons() -> list[str]:
    """What Slurm runs for each job that it has started."""
    return [str(pid) for pid, line in of_all("cmdline") if line.startswith("slurmstepd: [")]


class Batch:
    """One batch system."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.array: Callable[..., parallel.SlaveArray] = {
            "sge": parallel.SGEQsubSlaveArray,
            "slurm": parallel.SlurmSlaveArray,
            "htcondor": parallel.HTCondorSlaveArray,
        }[name]
        self.submit = {"sge": "qsub", "slurm": "sbatch", "htcondor": "condor_submit"}[name]
        self.hold, self.rerun = {
            "sge": ("-h", "-r y"),
            "slurm": ("--hold", "--requeue"),
            "htcondor": ("hold = True", ""),
        }[name]
        self.slots = {"sge": 4, "slurm": 8, "htcondor": 8}[name]
        self.longest = {"sge": 10, "slurm": 11, "htcondor": 11}[name]
        # what starts Python on its machines; where these share no disk with the tests it is none of ours
        self.python = "python3" if name == "htcondor" else sys.executable
        self.shares_disk = name != "htcondor"

    def jobs(self) -> list[tuple[str, str, str]]:
        """Job, task and state of everything queued or running."""
        if self.name == "htcondor":
            answer = run("condor_q", "-allusers", "-af", "ClusterId", "ProcId", "JobStatus")
            states = {"1": "I", "2": "R", "3": "X", "5": "H", "6": "R"}
            lines = [line.split() for line in answer.splitlines()]
            return [(job, task, states.get(state, state)) for job, task, state in lines if state != "4"]
        if self.name == "sge":
            lines = [line.split() for line in run("qstat", "-g", "d").splitlines()[2:]]
            return [(words[0], words[-1], words[4]) for words in lines]
        lines = [line.split() for line in run("squeue", "-h", "-r", "-o", "%F %K %t").splitlines()]
        return [(job, task, state) for job, task, state in lines]

    def running(self) -> list[tuple[str, str]]:
        """Job and task of all that run, of which there is one at least."""
        return eventually(lambda: [(job, task) for job, task, state in self.jobs() if state in ("r", "R")])

    def delete(self, job: str, task: str) -> None:
        """Delete one task of a job."""
        command = {"sge": f"qdel {job}.{task}", "slurm": f"scancel {job}_{task}", "htcondor": f"condor_rm {job}.{task}"}
        run(*command[self.name].split())

    def release(self, job: str) -> None:
        """Let a held job run."""
        command = {"sge": "qrls", "slurm": "scontrol release", "htcondor": "condor_release"}
        run(*command[self.name].split(), job)

    def start_again(self, job: str, task: str) -> None:
        """Stop one task of a job, and have it start again; Slurm would wait for two minutes before it does."""
        if self.name == "sge":
            run("qmod", "-rj", f"{job}.{task}")
            return
        if self.name == "htcondor":
            run("condor_vacate_job", "-fast", f"{job}.{task}")
            return
        run("scontrol", "requeue", f"{job}_{task}")
        self.start_now(f"{job}_{task}")

    def start_now(self, task: str) -> None:
        """Have Slurm start a task of a requeued job, when it is queued again and all of its first start has ended.

        A late word of that, which never comes within the two minutes that Slurm waits, would end the second start.  So
        would a start in the very second of that end: slurmd compares these in whole seconds.
        """
        eventually(lambda: "PD" in [state for _, _, state in self.jobs()], 60, f"a queued job, not {self.jobs()}")
        eventually(lambda: not step_daemons(), 60, "the end of the first start")
        ended = int(time.time())
        eventually(lambda: time.time() > ended + 1.1, 60, "the next second")
        run("scontrol", "update", f"JobId={task}", "StartTime=now")

    def described(self, job: str) -> str:
        """All that everybody may know of a job."""
        if self.name == "sge":
            return run("qstat", "-j", job) + run("qstat", "-xml", "-j", job)
        if self.name == "htcondor":
            return run("condor_q", "-allusers", "-l", job)
        return run("scontrol", "show", "job", "-d", job) + run("scontrol", "write", "batch_script", f"{job}_0", "-")

    def exit_status(self, job: str, task: str) -> str:
        """With which code a task has ended, for the batch system; '' if it does not know yet."""
        if self.name == "sge":
            done = subprocess.run(["qacct", "-j", job, "-t", task], capture_output=True, text=True, check=False)
            found = re.search(r"^failed\s+(\d+).*?^exit_status\s+(\d+)", done.stdout, re.MULTILINE | re.DOTALL)
            return ":".join(found.groups()) if found else ""
        if self.name == "htcondor":
            answer = run("condor_history", f"{job}.{task}", "-limit", "1", "-af", "ExitBySignal", "ExitCode").split()
            return f"{int(answer[0] == 'true')}:{answer[1]}" if answer else ""
        found = re.search(r"JobState=(\S+).*?ExitCode=(\S+)", run("scontrol", "-o", "show", "job", f"{job}_{task}"))
        assert found is not None
        return "" if found.group(1) in ("PENDING", "RUNNING", "COMPLETING") else found.group(2)

    def is_empty(self, seconds: float = 60.0) -> None:
        """Wait until nothing is queued or running."""
        eventually(lambda: self.jobs() == [] or None, seconds, f"an empty queue, not {self.jobs()}")


@pytest.fixture(params=["sge", "slurm", "htcondor"])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    """Each batch system in turn, with an empty queue."""
    yield from prepared(request.param, monkeypatch)


def prepared(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    """A batch system whose clients find it; nothing may be left there."""
    for variable, value in engines.need(name).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(array_module, "_ASK_AGAIN", (0.5, 1.0))
    made = Batch(name)
    made.is_empty()
    yield made
    made.is_empty()


@pytest.fixture
def gates() -> Iterator[Gates]:
    """Where tasks wait until the test lets them pass."""
    with made_gates() as made:
        yield made


def run_folders(home: Path | None = None) -> list[Path]:
    """The folders of runs that have not been removed, and what is said of masters that may have ended (registry.py)."""
    found = (home or Path.home()) / ".cache" / "parallel"
    return [path for path in found.glob("*") if path.name != "masters"] + list(found.glob("masters/*"))


@pytest.fixture(autouse=True)
def no_run_folder_left(own_folder: Path) -> Iterator[None]:
    """What the slaves were told goes with the run."""
    yield
    try:
        eventually(lambda: not run_folders(), 60)
    except AssertionError:
        left = [str(file) for folder in run_folders() for file in (folder, *folder.rglob("*"))]
        raise AssertionError(f"left of a run, 60 s after its test: {left}") from None
