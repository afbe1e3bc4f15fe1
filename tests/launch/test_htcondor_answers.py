"""What HTCondor's event log and commands say, as they did: pure functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.launch.batch.engine import Piece, TaskState
from parallel.launch.batch.event_log import SUBMITTED, Event, Progress, after, events
from parallel.launch.batch.htcondor import HTCondorEngine, parse_condor_q
from parallel.launch.batch.htcondor_folder import HTCondorFolder
from parallel.launch.job import Job
from parallel.launch.staging import StagingFolder

SUBMIT = """000 (013.002.000) 2026-11-25 21:53:40 Job submitted from host: <10.0.0.1:9618?addrs=10.0.0.1-9618&alias=a>
    [ JobBatchName = "parallel-1f" ]
...
"""
EXECUTE = """001 (013.002.000) 2026-11-25 21:53:45 Job executing on host: <10.0.0.7:9618?alias=node7.example.org&noUDP>
	SlotName: slot1_1@node7.example.org
	CondorScratchDir = "/var/lib/condor/execute/dir_34770/scratch"
	Cpus = 1
...
"""
EVICTED = """004 (013.002.000) 2026-11-25 21:54:59 Job was evicted. Code 1022 Subcode 0
	(0) CPU times
		Usr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
	0  -  Run Bytes Sent By Job
	Reason: Job vacated by schedd
	Partitionable Resources :    Usage  Request Allocated
...
"""
STARTER = """021 (013.002.000) 2026-11-25 21:55:09 Error from starter on slot1_1@node7:
	Failed to execute '/scratch/script' with arguments 3: (errno=8: 'Exec format error')
	Code 6 Subcode 8
...
"""
HELD = """012 (013.002.000) 2026-11-25 21:56:00 Job was held.
	Transfer input files failure at node7 while receiving files: data: no such file
	Code 13 Subcode 2
...
"""
RELEASED = "013 (013.002.000) 11/25 21:57:00 Job was released.\n\tvia condor_release (by user ada)\n...\n"
ENDED = """005 (013.002.000) 2026-11-25 21:58:48 Job terminated.
	(1) Normal termination (return value 3)
		Usr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
...
"""
KILLED = ENDED.replace("(1) Normal termination (return value 3)", "(0) Abnormal termination (signal 9)")
REMOVED = "009 (013.002.000) 2026-11-25 21:58:48 Job was aborted.\n\tvia condor_rm (by user ada)\n...\n"
LOST = "022 (013.002.000) 2026-11-25 21:58:48 Job disconnected, attempting to reconnect\n    Socket closed\n...\n"
BACK = "023 (013.002.000) 2026-11-25 21:58:49 Job reconnected to slot1_1@node7\n    startd address: x\n...\n"
SIZE = "006 (013.002.000) 2026-11-25 21:58:49 Image size of job updated: 150\n\t6  -  MemoryUsage of job (MB)\n...\n"

HOST = "node7.example.org"
RUNS = Progress(TaskState(True, f"running on {HOST}"), HOST)


def told(*texts: str) -> Progress:
    """What is known of job 13.2 after these events."""
    progress = SUBMITTED
    for event in events("".join(texts)):
        assert (event.cluster, event.process) == ("13", 2)
        progress = after(progress, event)
    return progress


@pytest.mark.parametrize(
    ("texts", "progress"),
    [
        ((SUBMIT,), SUBMITTED),
        ((SUBMIT, EXECUTE), RUNS),
        ((SUBMIT, EXECUTE, SIZE), RUNS),
        ((EXECUTE, EVICTED), Progress(TaskState(False, "queued (idle) again: Job vacated by schedd"))),
        ((EXECUTE, HELD, RELEASED), Progress(TaskState(False, "queued (idle) again: released"))),
        ((EXECUTE, LOST, BACK), RUNS),
        ((EXECUTE, EVICTED, EXECUTE), RUNS),
        ((EXECUTE, ENDED), RUNS._replace(exit_code=3)),
        ((EXECUTE, KILLED), RUNS._replace(exit_code=137)),
        ((EXECUTE, REMOVED), RUNS._replace(removed="was removed: via condor_rm (by user ada)")),
    ],
)
def test_progress(texts: tuple[str, ...], progress: Progress) -> None:
    assert told(*texts) == progress


def test_trouble_has_its_reason_and_remedy() -> None:
    held = told(EXECUTE, HELD)
    assert held.state.error and held.host is None
    assert held.state.words == (
        "held: Transfer input files failure at node7 while receiving files: data: no such file "
        "(mend that, then 'condor_release 13.2', or delete it: 'condor_rm 13.2')"
    )
    assert "Exec format error" in told(EXECUTE, STARTER).state.words
    assert told(EXECUTE, LOST).state.words == f"HTCondor has lost the connection to {HOST}: Socket closed"


@given(st.integers(0, len(SUBMIT + EXECUTE + HELD)))
def test_a_log_that_is_being_written_is_read_as_far_as_it_is_whole(end: int) -> None:
    whole = SUBMIT + EXECUTE + HELD
    found, rest = whole[:end], whole[end:]
    used = found.rfind("\n...\n") + 5 if "\n...\n" in found else 0
    assert [*events(found), *events(found[used:] + rest)] == events(whole)


@given(st.text(alphabet="0123456789().: \n\tabc", max_size=300))
def test_a_log_that_makes_no_sense_is_no_error(text: str) -> None:
    progress = SUBMITTED
    for event in events(text + "\n...\n"):
        progress = after(progress, event)
    for number in range(60):
        progress = after(progress, Event(number, "1", 0, (text,)))


def test_what_jobs_print_is_added_to_the_users_files(own_folder: Path) -> None:
    """All of it in one look, however much; what a job prints when it starts again comes behind it."""
    staging = StagingFolder()
    output = own_folder / "slave0.output"
    try:
        folder = HTCondorFolder(staging, [Job(("true",), b"", (0,), str(output), orders={"slots": [(0, None)]})], "")
        printed = Path(folder.path, "0.output")
        folder.look()
        assert not output.exists()
        printed.write_bytes(b"first\n" * 500_000)
        folder.look()
        assert output.read_bytes() == b"first\n" * 500_000
        printed.write_bytes(b"again\n")
        folder.look()
        folder.look()
        assert output.read_bytes()[-12:] == b"first\nagain\n"
    finally:
        staging.remove()


QUEUE = "\n".join(
    [
        "13\t0\t1\tundefined\tundefined",
        "13\t1\t2\tslot1_2@node7.example.org\tundefined",
        "13\t2\t5\tundefined\tvia condor_hold\t(by user ada)",
        "13\t3\t3\tundefined\tundefined",
        "13\t4\t4\tundefined\tundefined",
        "13\t5\t7\tslot1@node8\tundefined",
        "-- a warning that nobody asked for",
    ]
)


def test_condor_q() -> None:
    found = parse_condor_q(QUEUE)
    assert {task: state.running for (_, task), state in found.items()} == {0: False, 1: True, 2: False, 5: True}
    assert found["13", 1].words == "running on node7.example.org" and found["13", 5].words == "suspended on node8"
    assert found["13", 2].error and "via condor_hold\t(by user ada)" in found["13", 2].words
    assert "'condor_q -better-analyze 13.0' tells why" in found["13", 0].words


def test_condor_submit() -> None:
    engine = HTCondorEngine()
    assert engine.job_id("Submitting job(s)..\n2 job(s) submitted to cluster 13.\nTo monitor ...\n") == "13"
    with pytest.raises(ValueError, match="names no cluster"):
        engine.job_id("what?")
    assert engine.submission("/f/submit", "name", (10, 3), ()) == [
        *("condor_submit", "-batch-name", "name", "/f/submit", "first_place=10", "-queue", "3")
    ]
    assert engine.limit("20000\n") == 20000 and engine.limit("Not defined") is None
    assert engine.found("13\n13\n", "name") == "13" and engine.found("", "name") is None


@pytest.mark.parametrize(
    ("complaint", "passing"),
    [
        ("ERROR: Can't find address of local schedd", True),
        ("ERROR: Failed to connect to local queue manager SECMAN:2007:Failed to end classad message.", True),
        ("ERROR: Failed to commit job submission into the queue.", True),
        ("ERROR: Number of submitted jobs would exceed MAX_JOBS_PER_OWNER", True),
        ("ERROR: on Line 2 of submit: ERROR: Failed to parse command file (line 2).", False),
        ("ERROR: docker jobs require a docker_image", False),
        ("ERROR: Failed to create new User record for condor@vm.", False),
    ],
)
def test_what_may_pass(complaint: str, passing: bool) -> None:
    assert HTCondorEngine().passing(complaint) is passing


@pytest.mark.parametrize(
    ("complaint", "advice"),
    [
        ("ERROR: on Line 10 of /f/submit: ERROR: Failed to parse command file (line 10).", "as it is, from line 10 on"),
        ("ERROR: Parse error in expression: RequestMemory = = 5 GB", "as it is, from line 10 on"),
        ("ERROR: I don't know about the 'marsian' universe.", "as it is, from line 10 on"),
        (
            'ERROR: you specified files you want Condor to transfer via "transfer_input_files" and '
            '"transfer_output_files", but you disabled should_transfer_files.',
            "leave should_transfer_files out",
        ),
        ("ERROR: Failed to create new User record for condor@vm.", "HTCondor takes no jobs of this user"),
        ("ERROR: something else", ""),
    ],
)
def test_what_helps_when_a_submission_is_refused(complaint: str, advice: str) -> None:
    told = HTCondorEngine().advice(complaint)
    assert advice in told if advice else not told


def test_condor_history_and_factories() -> None:
    engine = HTCondorEngine()
    answer = (
        "1\t4\t0\tundefined\tslot1_2@node7\tundefined\n"
        "0\t3\tundefined\tundefined\tundefined\tvia condor_rm (by user ada)\n"
        "2\t4\tundefined\t9\tslot1_2@node7\tundefined\n"
    )
    assert engine.history(answer) == {
        1: "completed, exit code 0, on node7",
        0: "removed: via condor_rm (by user ada)",
        2: "completed, killed by signal 9, on node7",
    }
    assert list(engine.hidden(Piece("13", 0, 5), True, lambda command: "3\n")) == [3, 4]
    assert not list(engine.hidden(Piece("13", 0, 5), True, lambda command: "undefined\n"))
    assert engine.deletion("13", [1, 2]) == ["condor_rm", "13.1", "13.2"]
