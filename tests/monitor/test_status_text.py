"""How a status looks as text."""

from __future__ import annotations

import logging

from parallel.monitor.status import EventStatus, Status
from parallel.monitor.status_text import lines

from .fake_source import context, slave


def test_what_is_told_of_a_run() -> None:
    busy = slave(0, done=12345, task=7, label="fit", runs_for=3.0, memory=3 << 20, losses=2)
    events = [EventStatus(3.0, logging.WARNING, "lost\nslave 1")]
    fits = context(
        1, label="fits", done=5_000_000, waiting=10, running=2, rate=12_345.6, time_left=0.001, complete=False
    )
    told = lines(
        Status("run.py", "0.1.0", 75.0, False, [fits], [busy, slave(1, "idle", done=12345)], 0, events, ["no room"])
    )
    assert told == [
        "run.py (release 0.1.0), up 75 s",
        "  ! no room",
        "",
        "context       done          of  failed  running  waiting  a second  left",
        "fits     5,000,000  5,000,012+       0        2       10    12,346  1 ms",
        "",
        "slave  host  state    done  busy  memory   heard  lost  for  task",
        "0      here  busy   12,345   50%   3 MiB  100 ms     2  3 s  fit (7)",
        "1      here  idle   12,345   50%          100 ms",
        "",
        "what happened last:",
        "  !        3 s ago  lost slave 1",
    ]


def test_of_a_thousand_slaves_those_in_trouble_have_lines() -> None:
    slaves = [slave(number, "idle") for number in range(1000)]
    slaves[500], slaves[900] = slave(500, "lost"), slave(900, "stopped")
    slaves[3] = slave(3, task=1, runs_for=100.0)
    told = lines(Status("m", "0", 1.0, True, [], slaves, ended=7), width=60, height=12)
    rows = [line.split()[:3] for line in told if " here " in line]
    assert ["500", "here", "lost"] in rows and ["900", "here", "stopped"] in rows and ["3", "here", "busy"] in rows
    assert len(rows) <= 8 and f"({1000 - len(rows)} more and 7 that have ended are not shown)" in told
    assert max(map(len, told)) <= 60 and "shuts down" in told[0]


def test_several_contexts_have_a_sum_and_few_lines() -> None:
    told = lines(Status("m", "0", 1.0, False, [context(id, done=2) for id in range(1, 31)]))
    assert "(10 more contexts)" in told and any(line.startswith("all ") and " 60 " in line for line in told)


def test_a_master_without_anything() -> None:
    assert lines(Status("m", "0", 1.0, False)) == ["m (release 0), up 1 s", "", "no contexts", "", "no slaves"]
