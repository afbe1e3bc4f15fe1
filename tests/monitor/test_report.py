"""``python3 -m parallel report``: where the time of a traced run went, from traces that are made here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.__main__ import main
from parallel.monitor.advice import advice
from parallel.monitor.report import text_of
from parallel.monitor.trace_reader import PARTS, Summary, events_of, summarize

from . import trace_format


class Made:
    """A trace, in seconds."""

    def __init__(self, slaves: int, joined: float = 0.0) -> None:
        self.lines = [self._line(ph="i", name="run begins", ts=0, tid=0, s="g")]
        self._at: dict[int, float] = {}
        for slave in range(slaves):
            self.lines.append(
                self._line(ph="M", name="thread_name", ts=0, tid=slave + 1, args={"name": f"slave {slave}"})
            )
            self.moment("joined", slave, joined)
            self._at[slave] = joined

    def _line(self, **event: Any) -> str:
        return json.dumps({"pid": 1, **event})

    def moment(self, name: str, slave: int, at: float) -> None:
        self.lines.append(self._line(ph="i", name=name, ts=at * 1e6, tid=slave + 1, s="t"))

    def bar(self, cat: str, slave: int, seconds: float, **args: Any) -> Made:
        """The next bar of a slave."""
        at = self._at[slave] + args.get("load", 0) / 1e6
        ts, dur = at * 1e6, seconds * 1e6
        self.lines.append(self._line(ph="X", name="f", cat=cat, ts=ts, dur=dur, tid=slave + 1, args=args))
        self._at[slave] = at + seconds + args.get("send", 0) / 1e6
        return self

    def summary(self) -> Summary:
        events = list(events_of(["[", *self.lines, "]"]))
        trace_format.check(events)
        return summarize(events)

    def advice(self) -> str:
        return "\n".join(advice(self.summary()))


def shares(run: Summary) -> dict[str, float]:
    return {part: round(run.share(part), 3) for part in PARTS if run.share(part) > 0.0005}


def work(made: Made, durations: Sequence[float], slaves: int, **args: Any) -> Made:
    """Tasks, one slave after the other."""
    for number, seconds in enumerate(durations):
        made.bar("task", number % slaves, seconds, **args)
    return made


def test_the_parts_of_the_time_are_told_and_add_up() -> None:
    made = Made(2, joined=1.0)
    made.bar("setup", 0, 2.0).bar("task", 0, 4.0, load=500_000, send=500_000).bar("wait", 0, 1.0, receive=250_000)
    made.bar("task", 0, 1.0)
    made.bar("lost", 1, 3.0)
    made.moment("lost", 1, 4.0)
    run = made.summary()
    assert run.seconds == 10.0
    assert run.slaves[0].parts == {
        "starting": 1.0, "set-up": 2.0, "work": 5.0, "sending": 1.25, "waiting": 0.75, "idle tail": 0.0, "in vain": 0.0,
        "gone": 0.0, "other": 0.0,
    }  # fmt: skip
    assert run.slaves[1].parts["in vain"] == 3.0 and run.slaves[1].parts["idle tail"] == 6.0
    assert sum(run.share(part) for part in PARTS) == pytest.approx(1.0)
    assert "2 tasks in 10 s on 2 slaves, 1 slave lost (the trace has no end" in text_of(run)


def test_tasks_that_were_started_twice_are_told_and_are_no_loss() -> None:
    made = Made(3).bar("task", 0, 4.0).bar("copy", 1, 4.0).bar("copy", 2, 4.0)
    made.moment("started twice", 1, 1.0)
    made.moment("started twice", 0, 1.0)
    made.moment("copy was first", 0, 4.0)
    run = made.summary()
    assert run.slaves[1].parts["in vain"] == 4.0 and not run.lost
    assert "2 tasks were started twice, 1 of those copies was first" in text_of(run)
    assert "fewer losses" not in made.advice()


def test_a_slave_that_has_ended_is_not_idle() -> None:
    made = work(Made(2), [2.0, 2.0], 2)
    made.moment("ended", 1, 3.0)
    made.bar("task", 0, 6.0)
    made.moment("ended", 0, 9.0)
    run = made.summary()
    assert [run.slaves[1].parts[part] for part in ("work", "idle tail", "gone", "other")] == [2.0, 1.0, 5.0, 0.0]
    assert run.slaves[0].parts["gone"] == 0.0, "it ended when the run was over"


def test_slaves_that_waited_before_the_first_task_are_not_counted_as_idle() -> None:
    made = Made(1)
    made.lines[0] = made._line(ph="i", name="run begins", ts=100e6, tid=0, s="g")
    made.bar("wait", 0, 100.0).bar("task", 0, 10.0)
    assert shares(made.summary()) == {"work": 1.0}


# -- what would have helped: each piece of advice where it is due, and not elsewhere


def test_nothing_stands_out_of_a_run_that_was_well_made() -> None:
    made = work(Made(4), [1.0] * 6, 4)
    made.bar("task", 2, 1.0).bar("task", 3, 1.0)  # two tasks each: with twice as many slaves it would be one
    assert made.advice().startswith("more slaves: the 4 were busy for 100% of the time; with 8 ")
    assert "about 1 s in place of 2 s" in made.advice()
    assert work(Made(1), [1.0] * 2, 1).advice().startswith("more slaves: the only one was busy for 100% of the time; ")
    text = text_of(work(Made(4), [1.0] * 4, 4).summary())
    assert text.endswith("what would have helped:\n  - nothing stands out\n")


def test_more_slaves_are_no_advice_where_one_task_takes_all_the_time() -> None:
    assert "more slaves" not in work(Made(2), [10.0, 9.0, 0.1, 0.1], 2).advice()


def test_short_tasks_are_to_be_put_together() -> None:
    told = work(Made(1), [0.0001] * 100, 1, load=100, send=100).advice()
    assert "larger tasks: a task worked for 100 us and cost 200 us to send and unpack; 10 of them in one" in told
    assert "saved about 18 ms" in told and "less data" not in told


def test_much_data_is_told_as_such() -> None:
    told = work(Made(2), [0.1] * 10, 2, send=100_000, out=50_000_000, **{"in": 0}).advice()
    assert "less data: 500 MB were sent, 50 MB for each task; half of that would have saved about 250 ms" in told
    assert "larger tasks" not in told


def test_a_program_that_adds_tasks_too_late() -> None:
    made = Made(4)
    for _ in range(5):
        for slave in range(4):
            made.bar("wait", slave, 3.0).bar("task", slave, 1.0)
    told = made.advice()
    assert "tasks sooner: slaves waited for tasks for 75% of the time" in told
    assert "the run would have ended about 15 s sooner; or 1 in place of 4 slaves would have done" in told


def test_a_long_setup() -> None:
    made = Made(2)
    for slave in range(2):
        made.bar("setup", slave, 5.0).bar("task", slave, 5.0)
    assert "a shorter set-up: 2 of them took 5 s each, 50% of the time; in half the time" in made.advice()


def test_slaves_that_come_late() -> None:
    told = work(Made(2, joined=10.0), [10.0, 10.0], 2).advice()
    assert "slaves earlier: the last one came 10 s after the first task" in told
    assert "ended about 10 s sooner" in told


def test_the_longest_task_at_the_end_should_have_come_first() -> None:
    made = Made(2)
    for _ in range(10):
        made.bar("task", 0, 1.0).bar("task", 1, 1.0)
    made.bar("task", 0, 10.0)
    told = made.advice()
    assert "longest tasks first" in told and "ended about 5 s sooner" in told
    assert "smaller tasks" not in told


def test_a_task_that_is_longer_than_all_others_together_should_be_cut() -> None:
    made = Made(4).bar("task", 0, 100.0)
    for slave in (1, 2, 3):
        made.bar("task", slave, 10.0)
    told = made.advice()
    assert "smaller tasks: the longest one (f) took 100 s, longer than the 32.5 s" in told
    assert "ended the run about 50 s sooner" in told and "longest tasks first" not in told


def test_losses_that_cost_much() -> None:
    made = Made(2)
    made.bar("lost", 0, 30.0)
    made.moment("lost", 0, 30.0)
    work(made, [30.0, 30.0], 2)
    assert "fewer losses: 30 s of work ended with 1 lost slaves" in made.advice()


def test_of_many_slaves_those_that_worked_least_have_lines() -> None:
    made = Made(50)
    for slave in range(50):
        made.bar("task", slave, 1.0 + slave)
    text = text_of(made.summary())
    assert "  slave 19\n  (30 more, which worked for longer than these)" in text


# -- the command


def report(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    code = main(["report", str(path), *more])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.usefixtures("patient")
def test_the_report_of_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    with parallel.Manager.local(1, trace=path, output=None) as manager:
        context = manager.get_context()
        for x in range(20):
            context.add_task(abs, x)
        assert len(list(context.get_results_unordered())) == 20
    code, out, err = report(path, capsys)
    assert (code, err) == (0, "")
    assert "\n20 tasks in " in out and " on 1 slave\n" in out and "where the slaves' time went:" in out
    code, out, _ = report(path, capsys, "--json")
    told = json.loads(out)
    assert code == 0 and told["tasks"] == 20 and told["finished"] and set(told["parts"]) == set(PARTS)


def test_the_last_line_may_be_half_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    lines = work(Made(1), [1.0, 1.0], 1).lines
    path.write_text("[\n" + ",\n".join(lines) + ',\n{"ph": "X", "na')
    code, out, _ = report(path, capsys)
    assert code == 0 and "2 tasks in 2 s on 1 slave (the trace has no end" in out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no task has ended in it"),
        ("hello\n", "it does not begin as a trace of Manager(trace=...) does"),
        ('[\n{"ph": 3},\n', "line 2 is no event"),
        ('[\nnonsense,\n{"ph": "X"}\n', "line 2 is no event: 'nonsense'"),
        ('[\n{"ph": "X", "name": "f"}\n', "an event lacks what it should have: KeyError: 'ts'"),
        ('[\n{"ph": "i", "name": "joined", "tid": 1, "ts": []}\n', "an event lacks what it should have: TypeError"),
        ("[\n\udcff\n", "can't decode"),
    ],
)
def test_what_is_no_trace_is_told_in_one_line(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    code, out, err = report(path, capsys)
    assert (code, out) == (9, "")
    assert err.startswith(f"parallel: {path} cannot be reported on: ") and why in err and err.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = report(tmp_path / "none.json", capsys)
    assert code == 9 and err.endswith("none.json cannot be reported on: No such file or directory\n")
