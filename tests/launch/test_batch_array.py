"""BatchArray with a strict fake of an engine and of the time: how often it asks, what it concludes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Callable

import pytest

import parallel
from parallel.launch.batch import array as array_module
from parallel.launch.batch.array import BatchArray
from parallel.launch.batch.engine import Places, TaskState
from parallel.launch.batch.slurm import SlurmEngine
from parallel.launch.job import Job
from parallel.launch.run_command import run_command
from parallel.launch.staging import StagingFolder


class FakeEngine(SlurmEngine):
    """Submits, and tells of its jobs what the test wants."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, int], TaskState] = {}
        self.looks = 0
        self.history_answers: list[str] = []

    def look(self, jobs: Sequence[str], ask: Callable[[Sequence[str]], str]) -> Places:
        assert jobs == ["12"]
        self.looks += 1
        return dict(self.states)

    def history(self, answer: str) -> dict[int, str]:
        self.history_answers.append(answer)
        return {0: "its state is TIMEOUT", 1: "its state is CANCELLED"}


QUEUED, RUNNING = TaskState(False, "queued (PENDING): Resources"), TaskState(True, "running (RUNNING) on n1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(array_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def array(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> BatchArray:
    """Two slaves, submitted as job 12, both queued."""

    def ask(command: Sequence[str], patience: float = 0.0) -> str:
        if command[0] == "sbatch":
            return "12\n"
        if command[:3] == ["scontrol", "show", "config"]:
            return "MaxArraySize            = 1001\n"
        if command == ["scontrol", "-o", "show", "job", "12"]:
            return "the history"
        raise AssertionError(f"nobody should ask {command}")

    monkeypatch.setattr(array_module, "run_command", ask)
    made = BatchArray(engine, 2, "")
    made.staging = StagingFolder()
    engine.states = {("12", 0): QUEUED, ("12", 1): QUEUED}
    try:
        made.start([Job(("true",), b"", (number,), None, orders={"slots": []}) for number in range(2)])
    finally:
        path = made.staging._path
        assert path is not None
        made.staging.remove()
    (Path(path) / "1").mkdir(parents=True)
    return made


def folder_of(array: BatchArray) -> Path:
    assert array._folder is not None
    return Path(array._folder.path)


def test_the_engine_is_asked_at_once_and_then_ever_more_seldom(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    times = []
    for _ in range(300):
        before = engine.looks
        assert array.poll() == [None, None]
        if engine.looks > before:
            times.append(clock.now - 1000)
        clock.now += 1.0
    assert times[:4] == [0.0, 3.0, 8.0, 15.0]
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    assert pauses == sorted(pauses) and pauses[-1] == 20.0
    assert [slave.doing for slave in array.slaves] == [QUEUED.words] * 2


def test_it_is_asked_at_once_when_a_slave_is_not_heard_any_more(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    while clock.now < 1300:
        array.poll()
        clock.now += 1.0
    before, began, times = engine.looks, clock.now, []
    array.urgent = True
    for _ in range(20):
        array.poll()
        if engine.looks > before:
            times.append(clock.now - began)
        before = engine.looks
        clock.now += 1.0
    assert times == [0.0, 3.0, 8.0, 15.0], "at once, and then ever more seldom again"


def test_nobody_is_asked_when_all_have_been_told_to_end(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    array.closing = True
    for _ in range(100):
        array.poll()
        clock.now += 0.05
    assert engine.looks == 0


def looks_again(array: BatchArray, clock: SimpleNamespace) -> list[str | None]:
    """Poll after so long a time that the folder is looked at and the engine is asked."""
    clock.now += 100.0
    return array.poll()


def test_a_task_that_is_missing_once_has_not_ended(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    array.poll()
    engine.states = {("12", 0): QUEUED}
    assert looks_again(array, clock) == [None, None]
    engine.states = {("12", 0): QUEUED, ("12", 1): RUNNING}
    assert looks_again(array, clock) == [None, None]
    engine.states = {("12", 0): QUEUED}
    assert looks_again(array, clock) == [None, None]
    end = "Slurm job 12.1 left the queue before it was started (its state is CANCELLED)"
    assert looks_again(array, clock) == [None, end]
    engine.states = {}
    looks_again(array, clock)
    assert looks_again(array, clock) == [
        "Slurm job 12.0 left the queue before it was started (its state is TIMEOUT)",
        end,
    ]
    assert engine.history_answers == ["the history"], "asked once for all"


def test_an_engine_that_does_not_answer_ends_nobody(
    array: BatchArray, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    def look(jobs: Sequence[str], ask: Callable[[Sequence[str]], str]) -> Places:
        raise parallel.LaunchError("squeue: no answer in 10 s", late=True)

    monkeypatch.setattr(engine, "look", look)
    for _ in range(5):
        assert looks_again(array, clock) == [None, None]


def test_how_the_slave_program_ended_is_read_in_its_folder(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    folder = folder_of(array)
    (folder / "0.started").write_text("node7\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): QUEUED}
    assert array.poll() == [None, None]
    assert array.slaves[0].doing == "started on node7 0 s ago, and not connected"
    clock.now += 2.0
    array.poll()
    assert array.slaves[0].doing == "started on node7 2 s ago, and not connected"
    (folder / "0.ended").write_text("4\n")
    (folder / "1.started").write_text("node8\n")
    (folder / "1.ended").write_text("137\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): RUNNING}
    clock.now += 1.0
    assert array.poll() == [
        "it exited with code 4 on node7: it could not reach the master",
        "it was killed by SIGKILL, perhaps out of memory on node8",
    ]


def test_a_task_that_is_queued_again_has_not_been_started(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    folder = folder_of(array)
    (folder / "0.started").write_text("node7\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): QUEUED}
    array.poll()
    (folder / "0.ended").write_text("143\n")  # it drained when it was told to end
    assert looks_again(array, clock) == [None, None], "the engine has it still, and may start it again"
    engine.states = {("12", 0): QUEUED, ("12", 1): QUEUED}
    assert looks_again(array, clock) == [None, None]
    assert array.slaves[0].doing == QUEUED.words
    assert not (folder / "0.started").exists() and not (folder / "0.ended").exists()
    (folder / "0.started").write_text("node9\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): QUEUED}
    assert looks_again(array, clock) == [None, None]
    assert array.slaves[0].doing.startswith("started on node9 ")


def test_what_an_earlier_start_of_a_job_told_is_forgotten(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    """Also if the engine was never seen to have it queued in between: the script removes what the former one wrote."""
    folder = folder_of(array)
    (folder / "0.started").write_text("node7\n")
    (folder / "0.ended").write_text("143\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): QUEUED}
    assert array.poll() == [None, None]
    (folder / "0.ended").unlink()
    engine.states = {("12", 1): QUEUED}
    looks_again(array, clock)
    end = "Slurm job 12.0 left the queue after it had been started on node7 (its state is TIMEOUT)"
    assert looks_again(array, clock) == [end, None]


def test_a_task_that_was_told_to_end_and_left_the_queue_has_ended(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace
) -> None:
    folder = folder_of(array)
    (folder / "0.started").write_text("node7\n")
    (folder / "0.ended").write_text("143\n")
    engine.states = {("12", 0): RUNNING, ("12", 1): QUEUED}
    assert array.poll() == [None, None]
    engine.states = {("12", 1): QUEUED}
    assert looks_again(array, clock) == [None, None]
    assert looks_again(array, clock) == ["it was killed by SIGTERM, somebody asked it to end on node7", None]


@pytest.mark.parametrize("numslave", [0, -1, 2.0, "2", True, None])
def test_a_number_of_slaves_that_is_none(numslave: object) -> None:
    with pytest.raises(parallel.InputError, match="SlurmSlaveArray needs a number of slaves, a whole one from 1 on"):
        parallel.SlurmSlaveArray(numslave)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", ["-J 'half a quote", None, 3])
def test_options_that_no_shell_would_take(options: object) -> None:
    with pytest.raises(parallel.InputError, match="are no part of a command line for qsub"):
        parallel.SGEQsubSlaveArray(2, options)  # type: ignore[arg-type]


def test_the_key_is_not_handed_to_an_engines_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_AUTHKEY", "a key that qsub -V would show to everybody")
    assert "PARALLEL_AUTHKEY" not in run_command(["env"])


def test_a_command_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(parallel.LaunchError, match=r"^sleep 60: no answer in 0.1 s$") as caught:
        run_command(["sleep", "60"], 0.1)
    assert caught.value.late


def test_a_submission_that_was_interrupted_is_found_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while sbatch runs: nobody has seen the job's number, but it has a name of its own."""
    commands: list[list[str]] = []

    def ask(command: Sequence[str], patience: float = 0.0) -> str:
        commands.append(list(command))
        if command[0] == "sbatch":
            raise KeyboardInterrupt
        return "12\n" if command[0] == "squeue" else ""

    monkeypatch.setattr(array_module, "run_command", ask)
    array = BatchArray(FakeEngine(), 2, "")
    array.staging = StagingFolder()
    try:
        with pytest.raises(KeyboardInterrupt):
            array.start([Job(("true",), b"", (number,), None, orders={"slots": []}) for number in range(2)])
        array.stop(array.slaves)
    finally:
        array.staging.remove()
    name = next(word for word in commands[1] if word.startswith("--job-name=")).split("=")[1]
    assert commands[2:] == [["squeue", "-h", "-n", name, "-o", "%F"], ["scancel", "12"]]


def test_what_the_list_hides_is_not_believed_to_be_gone(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ~/.sge_qstat, or a site's own squeue."""
    engine.states = {}
    monkeypatch.setattr(engine, "hidden", lambda piece, listed, run: [0])
    for _ in range(6):
        ends = array.poll()
        clock.now += 30.0
    assert ends[0] is None and array.slaves[0].doing == "Slurm knows the job, and does not list it"
    assert ends[1] is not None and "left the queue before it was started" in ends[1]


def test_all_that_was_submitted_is_deleted_at_the_end_whatever_the_engine_said(
    array: BatchArray, engine: FakeEngine, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "hidden", lambda piece, listed, run: [])
    engine.states = {}
    for _ in range(4):
        array.poll()
        clock.now += 30.0
    (folder_of(array) / "1.started").write_text("node8\n")
    (folder_of(array) / "1.ended").write_text("0\n")
    array.urgent = True
    array.poll()
    deleted: list[Sequence[str]] = []

    def run(command: Sequence[str], patience: float = 0.0) -> str:
        deleted.append(command)
        return ""

    monkeypatch.setattr(array_module, "run_command", run)
    array.stop([])
    array.finish()
    assert deleted == [["scancel", "12_0"]], "the other one has said itself that it ended"


def test_a_folder_is_cleared_away_once_more_if_not_all_jobs_have_reported_their_end(
    array: BatchArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTCondor's event log, on a busy machine."""
    assert array.staging is not None and array._folder is not None
    monkeypatch.setattr(array_module, "run_command", lambda command, patience=0.0: "")
    array.finish()
    assert not array.staging.written_late
    monkeypatch.setattr(array_module, "_LAST_REPORTS", 0.0)
    monkeypatch.setattr(array._folder, "all_ended", lambda: False)
    array.finish()
    assert array.staging.written_late
