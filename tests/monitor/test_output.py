"""What tasks print, as it is shown at the master."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.core.events import SlaveJoined, TaskOutput
from parallel.monitor.output import Shower, output_is_wanted
from tests.conftest import Make
from tests.support.programs import script
from tests.support.screens import Seen
from tests.support.tasks import say
from tests.support.waiting import eventually

PRINTS = """
import os, subprocess, sys
import parallel
def work(number):
    print('printed', number)
    print('to stderr', number, file=sys.stderr)
    os.system(f'echo of a child {{number}}')
    return number
if __name__ == '__main__':
    from tests.support import patient
    patient.wait_long()
    with parallel.Manager.local(2, {options}) as m:
        assert sorted(m.get_context().map(work, range({tasks}))) == list(range({tasks}))
"""


def event(data: str, left_out: int = 0, slave: int = 3, output: str = "/far/slave3.output") -> TaskOutput:
    return TaskOutput(0.0, slave, f"slave {slave}", data.encode(), left_out, output)


def test_each_line_is_shown_once_and_in_order(own_folder: Path) -> None:
    program = script(own_folder / "script.py", PRINTS.format(options="show_output=True", tasks=20))
    assert program.ends() == 0, program.err
    lines = program.complaints.splitlines()
    assert program.out == "" and len(lines) == 60
    for slave in (0, 1):
        file = (own_folder / f"slave{slave}.output").read_text().splitlines()
        shown = [line.partition(": ")[2] for line in lines if line.startswith(f"slave {slave}: ")]
        assert shown == [line for line in file if not line.startswith("slave: ")]
    kinds = {line.partition(": ")[2].rpartition(" ")[0] for line in lines}
    assert kinds == {"printed", "to stderr", "of a child"}


@pytest.mark.parametrize("options", ["show_output=False", "show_output=None"])
def test_nothing_is_shown_where_nobody_sits(own_folder: Path, options: str) -> None:
    program = script(own_folder / "script.py", PRINTS.format(options=options, tasks=4))
    assert program.ends() == 0
    written = "".join(path.read_text() for path in own_folder.glob("slave?.output"))
    assert program.complaints == program.out == "" and written.count("printed") == 4


@pytest.mark.slow
def test_on_a_terminal_it_is_shown_and_with_a_dash_once(own_folder: Path) -> None:
    path = own_folder / "script.py"
    for options, before in (("", "slave "), ("output='-'", "printed ")):
        path.write_text(PRINTS.format(options=options, tasks=1))
        with Seen([sys.executable, str(path)], rows=20) as seen:
            assert seen.until_end() == 0
        found = [line for line in seen.lines if "printed 0" in line]
        assert len(found) == 1 and found[0].startswith(before), seen.lines


def test_a_callable_is_given_number_and_line(make: Make) -> None:
    told: list[tuple[int, str]] = []
    manager = make(slaves=1, show_output=lambda slave, line: told.append((slave, line)))
    context = manager.get_context()
    context.add_task(say, "<script>")
    list(context.get_results_unordered())
    eventually(lambda: told)
    assert told == [(0, "<script>")]


@pytest.mark.usefixtures("patient")
def test_a_task_that_prints_without_end_harms_nobody(make: Make) -> None:
    """What is not shown is counted."""
    lines: list[str] = []
    manager = make(slaves=1, show_output=lambda slave, line: lines.append(line))
    context = manager.get_context()
    context.add_task(say, "\n".join(map(str, range(200_000))))
    list(context.get_results_unordered())
    manager.shutdown()
    counts = [int(line.split()[0].replace(",", "")) for line in lines if "left out: see slave0.output" in line]
    shown = [line for line in lines if line.isdigit()]
    assert len(shown) + sum(counts) == 200_000 and shown == sorted(shown, key=int) and len(shown) < 50_000


@pytest.mark.parametrize("shown", [True, False, "x"])
def test_what_show_output_cannot_be(shown: Any) -> None:
    if isinstance(shown, bool):
        assert output_is_wanted(shown) == shown
        return
    with pytest.raises(parallel.InputTypeError, match="a callable that takes a slave's number and a line"):
        parallel.Manager(show_output=shown)


# -- the one who shows


def test_lines_bear_the_slaves_number_and_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    shower = Shower(True)
    shower(event("one\n\x1b[31mred\x1b[2J\ta\n"))
    shower(SlaveJoined(0.0, 3, "slave 3"))
    assert capsys.readouterr().err == "slave 3: one\nslave 3: [31mred[2J\ta\n"


def test_what_is_left_out_is_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shower = Shower(True)
    shower(event("one\n", left_out=1))
    assert capsys.readouterr().err == "slave 3: one\nslave 3: 1 line left out: see /far/slave3.output\n"
    shower(event("", left_out=1000))
    shower(event("", left_out=234))
    assert capsys.readouterr().err == ""
    now[0] += 1.0
    shower(event("two\n"))
    assert capsys.readouterr().err == "slave 3: two\nslave 3: 1,234 lines left out: see /far/slave3.output\n"


def test_where_nobody_asked_for_more_there_is_an_end(capsys: pytest.CaptureFixture[str], own_folder: Path) -> None:
    shower = Shower(None)
    for number in range(1200):
        shower(event(f"{number}\n", output=str(own_folder / "slave3.output")))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:1000] == [f"slave 3: {number}" for number in range(1000)]
    assert lines[1000:] == [
        "parallel: tasks print much: what comes now is in slave3.output and the like (show_output=True: here, too)"
    ]
