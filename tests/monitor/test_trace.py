"""`Manager(trace=...)`: the trace of a run, checked against the format's specification."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.core import events as ev
from parallel.monitor.chrome import ChromeTrace
from parallel.monitor.trace import Trace
from parallel.monitor.trace_reader import events_of, summarize
from slave.protocol import GIVEN_UP, TIMED_OUT, VALUE, Times
from tests.support.inside import inside
from tests.support.programs import Program
from tests.support.waiting import eventually

from . import trace_format


def setup() -> int:
    return 3


def add(x: int, offset: int) -> int:
    return x + offset


def fail(offset: int) -> None:
    raise ValueError("<script>alert(1)</script>")


def die(offset: int) -> None:
    os._exit(3)


def meet(folder: str, offset: int) -> None:
    """Takes two slaves."""
    (Path(folder) / str(os.getpid())).touch()
    eventually(lambda: len(os.listdir(folder)) == 2, 60, "the other one")


def bars(events: list[dict[str, Any]], cat: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X" and event["cat"] == cat]


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["name"] == name]


@pytest.mark.usefixtures("patient")
def test_a_run_with_failures_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with parallel.Manager.local(2, trace=path, output=None) as manager:
        context = manager.get_context(setup, retries=1, label="sums")
        manager.wait_for_slaves(2)
        (tmp_path / "both").mkdir()
        ids = [context.add_task(meet, str(tmp_path / "both")) for _ in range(2)]
        ids += [context.add_task(add, x) for x in range(50)]
        labelled = context.add_task(add, 50, label="the last one")
        failing = context.add_task(fail)
        assert len(list(context.get_results_unordered(errors="return"))) == 54
        deadly = context.add_task(die)  # by itself: of others that came with it nobody would tell but the master
        assert len(list(context.get_results_unordered(errors="return"))) == 1
    events = trace_format.read(path)
    trace_format.check(events)
    tasks = bars(events, "task")
    assert Counter(bar["args"]["task"] for bar in tasks) == {
        **dict.fromkeys([*ids, labelled], 1),
        failing: 2,
    }  # tried again
    told = [bar for bar in tasks if "seen" not in bar["args"]]  # by the slaves; before one is killed it may not come to
    assert len(told) > 20 and {bar["name"] for bar in told} <= {"meet", "add", "fail", "the last one"}
    assert [bar["args"]["task"] for bar in named(events, "the last one")] == [labelled]
    failed = [bar for bar in tasks if bar["args"]["task"] == failing]
    assert {bar["args"]["failed"] for bar in failed} <= {"ValueError: <script>alert(1)</script>", "raised"}
    assert {bar["cname"] for bar in failed} == {"bad"}
    assert [bar["args"]["task"] for bar in bars(events, "lost")] == [deadly] * 3
    assert len(named(events, "retry")) == 1 and len(named(events, "given up")) == 1
    setups = bars(events, "setup")
    assert 2 <= len(setups) <= 5 and {bar["name"] for bar in setups} == {"setup of sums"}  # once a process
    assert named(events, "run begins") and named(events, "run ends")
    rows = {event["tid"]: event["args"]["name"] for event in named(events, "thread_name")}
    assert rows[0] == "master" and rows[1].startswith("slave 0 (LocalSlave()")
    assert named(events, "tasks")[-1]["args"] == {"waiting": 0, "done": 55, "failed": 2}


@pytest.mark.usefixtures("patient")
def test_maps_are_named_by_their_function(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with parallel.Manager.local(1, trace=path, output=None) as manager:
        assert list(manager.get_context(setup).map(add, range(100))) == list(range(3, 103))
    events = trace_format.read(path)
    trace_format.check(events)
    # a slave may be ended before it tells of the last
    told = [bar for bar in bars(events, "task") if "seen" not in bar["args"]]
    assert told and {bar["name"] for bar in told} == {"add"}


_KILLED = """
import os, signal, sys
import parallel

def hold(x):
    return x

if __name__ == "__main__":
    with parallel.Manager.local(1, trace=sys.argv[1], output=None) as manager:
        context = manager.get_context()
        for x in range(5):
            context.add_task(hold, x)
        for _ in context.get_results_unordered():
            pass
        print("read", flush=True)
        sys.stdin.read()
        signal.pause()
"""


def test_a_master_that_is_killed_leaves_a_trace_that_can_be_read(tmp_path: Path) -> None:
    script, path = tmp_path / "killed.py", tmp_path / "run.json"
    script.write_text(_KILLED)
    program = Program(sys.executable, str(script), str(path))
    program.says("read")
    eventually(lambda: path.read_text().count('"cat":"task"') == 5, what="five bars in the file")
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    assert not path.read_text().rstrip().endswith("]")
    trace_format.check(trace_format.read_cut(path))
    with open(path) as file:
        summary = summarize(events_of(file))
    assert summary.tasks == 5 and not summary.finished


def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(parallel.InputError, match=r"trace='.*none/run.json' cannot be written: No such file"):
        parallel.Manager(trace=tmp_path / "none" / "run.json")


def test_events_that_come_after_its_end_hold_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel.monitor.trace._MOST_LINES", 0)
    trace = Trace(str(tmp_path / "run.json"), "a program")
    trace.close()
    written = (tmp_path / "run.json").read_bytes()
    late = threading.Thread(target=trace, args=(ev.ManagerClosed(0.0),), daemon=True)
    late.start()
    late.join(60)
    assert not late.is_alive() and (tmp_path / "run.json").read_bytes() == written


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is needed")
def test_a_full_disk_ends_the_trace_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with parallel.Manager.local(1, trace="/dev/full", output=None) as manager:
        context = manager.get_context()
        context.add_task(abs, -3)
        assert list(context.get_results_unordered()) == [3]
        eventually(lambda: "No space left" in caplog.text, what="a warning")
    assert caplog.text.count("the trace /dev/full ends here, it cannot be written: No space left on device") == 1


def test_a_run_without_a_trace_pays_nothing() -> None:
    with parallel.Manager.local(1, output=None) as manager:
        context = manager.get_context()
        context.add_task(_is_traced)
        assert list(context.get_results_unordered()) == [False]
        assert inside(manager, lambda state: (state.traced, state.watched)) == (False, False)


def _is_traced() -> bool:
    return "slave.traced" in sys.modules


# -- from events that are made here

SECOND = 1_000_000_000


def lines_of(*events: ev.Event) -> list[dict[str, Any]]:
    trace = ChromeTrace(100.0)
    lines = [*trace.head("a program"), *(line for event in events for line in trace.lines(event)), *trace.rest()]
    found = list(events_of(["[", *lines]))
    trace_format.check(found)
    return found


def times(slave: int, clock: float, tasks: list[tuple[int, float, float]], lease: int = 1, got: float = 0.0) -> Times:
    """``tasks``: each with when it began and ended, in seconds by the slave's clock."""
    flat: list[int] = []
    for task, begins, ends in tasks:
        b, e = int(begins * SECOND), int(ends * SECOND)
        flat += [task, 1, b, b, e, e, VALUE, 10, 20, 0]
    at = int(got * SECOND)
    return Times(slave, lease, int(clock * SECOND), at, at, 0, (), flat, ("f",), (), ())


def test_the_clock_of_another_machine_is_translated() -> None:
    """Its messages take a while; the quickest one tells best how its clock differs."""
    found = lines_of(
        ev.SlaveJoined(101.0, 0, "slave 0"),
        ev.TasksTimed(103.5, 0, times(0, 5002.0, [(1, 5001.0, 5002.0)])),  # half a second on its way
        ev.TasksTimed(105.0, 0, times(0, 5004.0, [(2, 5003.0, 5004.0)])),  # at once
    )
    first, second = bars(found, "task")
    assert (first["ts"], first["dur"]) == (2.5e6, 1e6)
    assert (second["ts"], second["dur"]) == (4e6, 1e6)


def test_a_clock_of_this_machine_is_taken_as_it_is() -> None:
    found = lines_of(
        ev.SlaveJoined(101.0, 0, "slave 0"), ev.TasksTimed(103.01, 0, times(0, 103.0, [(1, 101.5, 102.5)]))
    )
    assert [bar["ts"] for bar in bars(found, "task")] == [1.5e6]


def test_what_a_slave_could_not_tell_is_drawn_as_the_master_saw_it() -> None:
    found = lines_of(
        ev.SlaveJoined(101.0, 0, "slave 0"),
        ev.TasksLeased(102.0, 1, 0, 7, [1, 2, 3], {}),
        ev.TaskDone(103.0, 1, 1, 0, VALUE, 30),
        ev.TaskRetried(104.0, 1, 2, 0, 1),
        ev.SlaveLost(106.0, 0, "slave 0", "it was killed", "", False, 1, 0),
        ev.TaskAttemptEnded(106.0, 1, 3, 0, 1, "it was killed"),
    )
    tasks = bars(found, "task")
    assert [(bar["ts"], bar["dur"], bar["args"]["seen"]) for bar in tasks] == [
        (2e6, 1e6, "by the master"),
        (3e6, 1e6, "by the master"),
    ]
    assert tasks[1]["args"]["failed"] == "raised"
    (lost,) = bars(found, "lost")
    assert (lost["ts"], lost["dur"], lost["args"]) == (4e6, 2e6, {"task": 3, "end": "it was killed"})


def test_of_a_task_that_was_started_twice_both_copies_are_drawn() -> None:
    found = lines_of(
        ev.TasksLeased(102.0, 1, 0, 7, [1], {1: "slow"}),
        ev.TaskCopied(104.0, 1, 1, 3, 0),
        ev.TasksLeased(104.0, 1, 3, 8, [1], {1: "slow"}),
        ev.TaskDone(105.0, 1, 1, 3, VALUE, 30),
        ev.SlaveLost(105.5, 0, "slave 0", "it was ended: stopped", "", True, 0, 0),
    )
    (copied,) = named(found, "started twice")
    assert (copied["tid"], copied["args"]) == (4, {"task": 1, "context": 1, "other": 0})
    assert named(found, "copy was first")[0]["tid"] == 4
    (done,), (lost,) = bars(found, "task"), bars(found, "copy")
    assert (done["name"], done["ts"], done["dur"], done["tid"]) == ("slow", 4e6, 1e6, 4)
    assert (lost["name"], lost["ts"], lost["dur"], lost["tid"]) == ("copy: slow", 2e6, 3.5e6, 1)


def test_timeouts_given_up_tasks_and_missing_events() -> None:
    found = lines_of(
        ev.SlaveJoined(101.0, 0, "slave 0"),
        ev.TasksLeased(102.0, 1, 0, 7, [1], {1: "slow"}),
        ev.TaskDone(104.0, 1, 1, 0, TIMED_OUT, 30),
        ev.TaskDone(104.5, 1, 2, 0, GIVEN_UP, 30),
        ev.Missed(105.0, 12),
        ev.MasterWasStopped(106.0, 3.5),
    )
    (bar,) = bars(found, "task")
    assert bar["name"] == "slow" and bar["args"]["failed"] == "timed out" and bar["dur"] == 2e6
    assert named(found, "given up")[0]["args"]["task"] == 2
    assert named(found, "events are missing here")[0]["args"] == {"events": 12}
    assert named(found, "the master was stopped")[0]["args"] == {"seconds": 3.5}
