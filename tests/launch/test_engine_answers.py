"""What the batch systems are asked and answer, as they did: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from parallel.errors import LaunchError
from parallel.launch.batch.engine import Piece, TaskState
from parallel.launch.batch.sge import GridEngine, parse_qstat, with_reason
from parallel.launch.batch.sge_pe import Granted, parse_hostfile, start_command
from parallel.launch.batch.slurm import SlurmEngine, parse_squeue
from parallel.launch.run_command import run_command

QSTAT = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>7</JB_job_number><JB_name>parallel-1f</JB_name><state>r</state>
      <queue_name>all.q@node3</queue_name><slots>1</slots><tasks>1</tasks>
    </job_list>
    <job_list state="running">
      <JB_job_number>7</JB_job_number><state>t</state><queue_name>all.q@node4</queue_name><tasks>2</tasks>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>7</JB_job_number><state>qw</state><queue_name></queue_name><tasks>3</tasks>
    </job_list>
    <job_list state="pending">
      <JB_job_number>7</JB_job_number><state>Eqw</state><tasks>4-8:2,9</tasks>
    </job_list>
    <job_list state="pending"><JB_job_number>8</JB_job_number><state>hqw</state></job_list>
    <job_list state="pending"><JB_job_number>9</JB_job_number><state>Rq</state></job_list>
  </job_info>
</job_info>
"""

QSTAT_J = """\
job_number:                 7
error reason          4:      11/23/2026 12:36:12 [1001:5017]: error: can't chdir to /no/such: No such file or directory
error reason         44:      11/23/2026 12:36:12 [1001:5017]: error: something else
scheduling info:            queue instance "all.q@vm" dropped because it is full
                            All queues dropped because of overload or full
"""


def test_what_grid_engine_says_of_tasks() -> None:
    found = parse_qstat(QSTAT, ["7", "8", "9"])
    assert found["7", 0] == TaskState(True, "running (r) in all.q@node3")
    assert found["7", 1] == TaskState(True, "running (t) in all.q@node4")
    assert found["7", 2] == TaskState(False, "queued (qw)")
    assert {task for job, task in found if found[job, task].words == "in error state Eqw"} == {3, 5, 7, 8}
    assert found["8", 0] == TaskState(False, "held (hqw)")
    assert not found["9", 0].running
    assert set(parse_qstat(QSTAT, ["8"])) == {("8", 0)}


def test_why_grid_engine_lets_a_task_wait() -> None:
    mend = "(mend that, then 'qmod -cj' with the job's id, or delete the job)"
    assert with_reason("in error state Eqw", 4, QSTAT_J) == (
        f"in error state Eqw: can't chdir to /no/such: No such file or directory {mend}"
    )
    assert with_reason("queued (qw)", 3, QSTAT_J) == (
        'queued (qw): queue instance "all.q@vm" dropped because it is full; '
        "All queues dropped because of overload or full"
    )
    assert with_reason("queued (qw)", 3, "job_number: 7\n") == "queued (qw)"


def test_grid_engines_command_lines() -> None:
    engine = GridEngine()
    command = engine.submission("/a b/script", "parallel-1f", (20, 5), ["-q", "long.q", "-o", "/tmp"])
    ours = ["-terse", "-N", "parallel-1f", "-S", "/bin/sh", "-j", "y", "-o", "/dev/null"]
    assert command == ["qsub", *ours, "-q", "long.q", "-o", "/tmp", "-sync", "n", "-t", "1-5", "/a b/script", "20"]
    assert engine.deletion("7", [0, 3]) == ["qdel", "7.1", "7.4"] and engine.deletion("7", None) == ["qdel", "7"]
    assert engine.job_id("warning: no access\n12.1-4:1\n") == "12" and engine.job_id("3\n") == "3"
    with pytest.raises(ValueError, match="names no job"):
        engine.job_id("Your job is 12")
    assert engine.limit("max_aj_instances  2000\nmax_aj_tasks                 75000\n") == 75000
    assert engine.limit("max_aj_tasks  0\n") is None and engine.limit("") is None
    assert engine.found(QSTAT, "parallel-1f") == "7" and engine.found(QSTAT, "parallel-2") is None


def test_what_slurm_says_of_tasks() -> None:
    answer = "1|8|PENDING|Resources|\n1|9|PENDING|JobHeldUser|\n1|0|RUNNING|None|n1\n1|1|COMPLETING|None|n1\n"
    answer += "1|2|COMPLETED|None|n1\n1|3|REQUEUED|None|\n\nnonsense\n"
    assert parse_squeue(answer) == {
        ("1", 8): TaskState(False, "queued (PENDING): Resources"),
        ("1", 9): TaskState(False, "held (PENDING): JobHeldUser"),
        ("1", 0): TaskState(True, "running (RUNNING) on n1"),
        ("1", 1): TaskState(True, "running (COMPLETING) on n1"),
        ("1", 3): TaskState(False, "queued (REQUEUED)"),
    }


def test_slurms_command_lines() -> None:
    engine = SlurmEngine()
    command = engine.submission("/a b/script", "parallel-1f", (20, 5), ["-p", "long"])
    ours = ["--parsable", "--job-name=parallel-1f", "--output=/dev/null"]
    assert command == ["sbatch", *ours, "-p", "long", "--array=0-4", "/a b/script", "20"]
    assert engine.deletion("7", [0, 3]) == ["scancel", "7_0", "7_3"] and engine.deletion("7", None) == ["scancel", "7"]
    assert engine.job_id("12\n") == "12" and engine.job_id("sbatch: note\n12;cluster\n") == "12;cluster"
    with pytest.raises(ValueError, match="names no job"):
        engine.job_id("Submitted a job")
    assert engine.limit("MaxArraySize            = 1001\n") == 1001
    assert engine.found("12\n12\n", "x") == "12" and engine.found("", "x") is None


@pytest.mark.parametrize(
    ("engine", "complaint", "passing"),
    [
        (GridEngine(), "error: unable to contact qmaster using port 6444 on host head", True),
        (GridEngine(), "error: commlib error: got select error (Connection refused)", True),
        (GridEngine(), "Unable to run job: unknown resource foo", False),
        (SlurmEngine(), "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True),
        (SlurmEngine(), "sbatch: error: Unable to contact slurm controller (connect failure)", True),
        (SlurmEngine(), "sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        (SlurmEngine(), "sbatch: error: invalid partition specified: nope", False),
    ],
)
def test_which_refusals_pass(engine: GridEngine, complaint: str, passing: bool) -> None:
    assert engine.passing(complaint) is passing


def test_how_tasks_ended() -> None:
    qacct = """\
==============================================================
qname        all.q
taskid       1
failed       100 : assumedly after job
exit_status  137                  (Killed)
==============================================================
taskid       2
failed       0
exit_status  0
==============================================================
taskid       undefined
failed       0
exit_status  0
Total System Usage
"""
    first, second = (
        "qacct says: failed 100 : assumedly after job, exit status 137 (Killed)",
        "qacct says: failed 0, exit status 0",
    )
    assert GridEngine().history(qacct) == {0: first, 1: second}
    scontrol = """\
JobId=8 ArrayJobId=1 ArrayTaskId=3 JobName=x JobState=TIMEOUT Reason=TimeLimit Dependency=(null)
JobId=9 ArrayJobId=1 ArrayTaskId=4 JobName=x JobState=CANCELLED Reason=None Dependency=(null)
JobId=1 ArrayJobId=1 ArrayTaskId=5-9 JobName=x JobState=PENDING Reason=Resources Dependency=(null)
"""
    assert SlurmEngine().history(scontrol) == {3: "its state is TIMEOUT, TimeLimit", 4: "its state is CANCELLED"}


def test_the_hosts_of_a_parallel_job() -> None:
    text = "n1.cluster 2 all.q@n1 UNDEFINED\nn2 1 all.q@n2 UNDEFINED\nn2 3 other.q@n2 UNDEFINED\n"
    assert parse_hostfile(text) == [Granted("n1.cluster", 2), Granted("n2", 4)]
    for wrong in ("", "n1\n", "n1 many all.q\n"):
        with pytest.raises(ValueError):
            parse_hostfile(wrong)


def test_the_command_for_another_host_survives_a_second_shell() -> None:
    assert start_command("some-other-host", "/it's/script", 3)[-4:] == [
        "some-other-host",
        "/bin/sh",
        "'/it'\"'\"'s/script'",
        "3",
    ]


def test_what_wrappers_leave_of_an_answer_names_the_job() -> None:
    """They add lines, and drop the option that makes the answer short."""
    sge, slurm = GridEngine(), SlurmEngine()
    assert sge.job_id('Welcome\nYour job-array 12.1-4:1 ("parallel-a1") has been submitted\nbye\n') == "12"
    assert sge.job_id('Your job 7 ("parallel-a1") has been submitted\n') == "7"
    assert slurm.job_id("Submitted batch job 12\n") == "12"
    assert slurm.job_id("quota: 3 of 5\nSubmitted batch job 12 on cluster other\n") == "12;other"
    for engine in (sge, slurm):
        with pytest.raises(ValueError, match="names no job"):
            engine.job_id("hello\n")


@pytest.mark.parametrize("options", [["-M", "other"], ["-Mother"], ["--clusters=other"], ["--clusters", "other"]])
def test_a_job_on_another_cluster_is_asked_for_and_deleted_there(options: list[str]) -> None:
    engine = SlurmEngine(options)
    assert engine.search("x")[:3] == ["squeue", "-M", "other"]
    assert engine.found("CLUSTER: other\n12\n12\n", "x") == "12;other"
    assert engine.deletion("12;other", None) == ["scancel", "-M", "other", "12"]
    assert engine.deletion("12;other", [1]) == ["scancel", "-M", "other", "12_1"]
    assert engine.history_question("12;other") == ["scontrol", "-M", "other", "-o", "show", "job", "12"]
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> str:
        asked.append(list(command))
        return "12|0|RUNNING|None|n1\n" if "other" in command else "5|1|PENDING|Resources|\n"

    found = engine.look(["12;other", "5"], run)
    assert set(found) == {("12;other", 0), ("5", 1)}
    assert asked[0][:3] == ["squeue", "-M", "other"] and "-M" not in asked[1]


def test_slurm_is_not_waited_for_until_the_jobs_end() -> None:
    command = SlurmEngine().submission("/s", "n", (0, 2), ["-W", "-p", "long", "--wait"])
    assert "-W" not in command and "--wait" not in command and command[-5:-3] == ["-p", "long"]


def refuse(command: Sequence[str]) -> str:
    raise LaunchError("do not exist")


def test_what_a_list_hides_is_found_by_the_jobs_id() -> None:
    piece = Piece("12", 0, 8)
    sge, slurm = GridEngine(), SlurmEngine()
    assert list(sge.hidden(piece, False, lambda command: "job_number: 12")) == list(range(8))
    assert list(sge.hidden(piece, True, lambda command: "job_number: 12")) == [], "it lists some, so it lists all"
    assert list(sge.hidden(piece, False, refuse)) == list(slurm.hidden(piece, False, refuse)) == []
    answer = (
        "JobId=12 ArrayJobId=12 ArrayTaskId=4-6,7%2 JobName=x JobState=PENDING Reason=Resources\n"
        "JobId=13 ArrayJobId=12 ArrayTaskId=0 JobName=x JobState=RUNNING Reason=None\n"
        "JobId=14 ArrayJobId=12 ArrayTaskId=1 JobName=x JobState=COMPLETED Reason=None\n"
    )
    assert sorted(slurm.hidden(piece, False, lambda command: answer)) == [0, 4, 5, 6, 7]


def test_engines_answer_as_they_do_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_FORMAT", "SQUEUE_STATES", "SQUEUE_USERS", "SCANCEL_STATE", "SBATCH_WAIT"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SBATCH_PARTITION", "long")
    assert "SBATCH_PARTITION=long" in (told := run_command(["env"]))
    assert "SQUEUE" not in told and "SCANCEL" not in told and "SBATCH_WAIT" not in told
