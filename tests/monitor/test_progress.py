"""How far a run is, as somebody sees it who sits before the terminal."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.monitor import watcher
from parallel.monitor.displays import PlainLines
from parallel.monitor.status import Status
from parallel.monitor.words import Course, Summary
from tests.conftest import Make
from tests.monitor.test_words import tasks
from tests.support.programs import script, without_waiting
from tests.support.screens import Seen
from tests.support.tasks import square, wait_for
from tests.support.waiting import eventually

# two tasks are done at once, one fails, and the others wait for the file "gate"
SCRIPT = """
import contextlib, logging, os, sys, time
import parallel
from tests.support.tasks import raise_value_error, square, wait_for
if __name__ == '__main__':
    from tests.support import patient
    patient.wait_long()
    {before}
    with parallel.Manager.local(2, {options}) as m:
        c = m.get_context(label='fits')
        c.add_task(square, 1)
        c.add_task(square, 2)
        c.add_task(raise_value_error)
        for _ in range(3):
            c.add_task(wait_for, {gate!r}, label='a long one')
        for result in c.get_results_unordered(errors='return'):
            {body}
"""


@pytest.fixture
def see(own_folder: Path) -> Iterator[Any]:
    """Runs the script on a terminal."""
    opened: list[Seen] = []

    def begin(body: str = "pass", options: str = "", before: str = "pass", **how: Any) -> Seen:
        path = own_folder / "script.py"
        path.write_text(SCRIPT.format(body=body, options=options, before=before, gate=str(own_folder / "gate")))
        opened.append(Seen([sys.executable, str(path)], **how))
        return opened[-1]

    yield begin
    for terminal in opened:
        terminal.__exit__()


def opens(own_folder: Path) -> None:
    (own_folder / "gate").touch()


def reads_for(seen: Seen, seconds: float) -> None:
    pause = threading.Event()
    timer = threading.Timer(seconds, pause.set)
    timer.start()
    seen.until(pause.is_set)
    timer.join()


LONG = "3 of 6 tasks done (50%), 1 failed, "


def test_a_run_on_a_terminal(see: Any, own_folder: Path) -> None:
    """What is printed in whatever way is not torn, and the line is the last one until the end."""
    body = "sys.stdout.write(f'result'); sys.stdout.flush(); os.system('printf \" of a child\"'); print('!')"
    seen = see(body)
    seen.until(lambda: seen.last.startswith(LONG) and seen.last.endswith("2 of 2 slaves busy"), what="the line")
    seen.until(lambda: seen.lines[2] == "result of a child!", what="the third result, which is done before it is read")
    assert seen.lines[:4] == ["result of a child!"] * 3 + [""]
    assert "\x1b[31m1 failed" in seen.raw.decode()
    opens(own_folder)
    assert seen.until_end() == 0
    assert seen.lines[:6] == ["result of a child!"] * 6
    assert seen.lines[6].startswith("parallel: 6 tasks done in ") and "; 1 failed; 2 slaves busy " in seen.lines[6]
    assert not any(seen.lines[7:]) and seen.screen.margins is None


def test_what_scrolls_and_what_returns_to_its_line_is_not_torn(see: Any, own_folder: Path) -> None:
    """Log lines, more lines than the screen has, and a bar as tqdm draws it."""
    body = "number = 0\n            while not os.path.exists('go'): time.sleep(0.01)"
    body += "\n            for number in range(30): logging.warning('line %d', number)"
    body += "\n            sys.stderr.write('\\r 10%|#    |'); sys.stderr.flush()"
    body += "\n            while not os.path.exists('seen'): time.sleep(0.01)"
    body += "\n            sys.stderr.write('\\r 99%|#### |\\n'); sys.stderr.flush()"
    seen = see(body, rows=10)
    seen.until(lambda: LONG in seen.last, what="the line")
    (own_folder / "go").touch()
    opens(own_folder)
    seen.until(lambda: seen.lines[8] == " 10%|#    |", what="the bar")
    assert seen.lines[7].startswith("WARNING:root:line 29"), seen.lines
    seen.until(lambda: "slaves busy" in seen.last, what="the line again")
    (own_folder / "seen").touch()
    assert seen.until_end() == 0
    text = [line for line in seen.lines if line]
    assert text[-2] == " 99%|#### |" and text[-1].startswith("parallel: 6 tasks done")
    assert [line for line in text if line.startswith("WARNING")][-1] == "WARNING:root:line 29"


def counts(seen: Seen) -> list[str]:
    """The lines that tell how many of six tasks are done."""
    return [line for line in seen.lines if "3" in line and "6" in line]


@pytest.mark.slow
def test_the_window_is_resized(see: Any, own_folder: Path) -> None:
    seen = see(rows=12, columns=100)
    seen.until(lambda: LONG in seen.last)
    for rows, columns, text in ((9, 50, "3/6, 1 failed, 2/2 busy"), (14, 110, LONG), (6, 12, "3/6, 1!")):
        seen.set_size(rows, columns)
        seen.until(lambda text=text: text in seen.last and counts(seen) == [seen.last], what=f"{text}, and it alone")
    seen.set_size(2, 100)  # no room
    opens(own_folder)
    assert seen.until_end() == 0
    assert any("6 tasks done" in line for line in seen.lines)


@pytest.mark.slow
def test_no_color_is_none(see: Any) -> None:
    seen = see(NO_COLOR="1")
    seen.until(lambda: LONG in seen.last)
    assert b"\x1b[31m" not in seen.raw


@pytest.mark.slow
def test_a_terminal_that_knows_no_commands_gets_none(see: Any, own_folder: Path) -> None:
    seen = see("os.path.exists('gate') or time.sleep(1.5)", TERM="dumb")
    seen.until(lambda: (own_folder / "slave1.output").exists())
    opens(own_folder)
    assert seen.until_end() == 0 and without_waiting(seen.raw) == b""


@pytest.mark.slow
@pytest.mark.parametrize("options", ["progress=False", "progress=True"])
def test_it_is_told_or_not(see: Any, own_folder: Path, options: str) -> None:
    seen = see("result == 4 and time.sleep(1.3)", options)
    if options == "progress=True":
        seen.until(lambda: LONG in seen.last)
    opens(own_folder)
    assert seen.until_end() == 0
    assert (b"\x1b" in seen.raw) == (b"tasks done" in seen.raw) == (options == "progress=True")


def test_a_run_that_is_over_within_a_second_shows_nothing(own_folder: Path) -> None:
    """The second is a minute here: a machine that is busy may need more than one."""
    assert watcher.FIRST == 1.0
    code = "import parallel; from parallel.monitor import watcher; watcher.FIRST = 60.0\n"
    code += "with parallel.Manager.local(1) as m: list(m.get_context().map(abs, range(3)))\n"
    code += "print('over')"
    with Seen([sys.executable, "-c", code]) as seen:
        assert seen.until_end() == 0
    assert without_waiting(seen.raw) == b"over\r\n"


def drawn(seen: Seen) -> int:
    """How often the last of 12 lines was drawn."""
    return seen.raw.count(b"\x1b[12;1H")


@pytest.mark.slow
def test_it_is_drawn_at_most_ten_times_a_second(see: Any, own_folder: Path) -> None:
    seen = see(rows=12)
    seen.until(lambda: LONG in seen.last)
    first, began = drawn(seen), time.monotonic()
    seen.until(lambda: drawn(seen) > first, what="the line once more, and all that was written before")
    before = drawn(seen)
    reads_for(seen, 1.5)
    seen.until(lambda: drawn(seen) > before, what="the line once more")
    took = time.monotonic() - began
    assert drawn(seen) - before <= 10 * took, f"{drawn(seen) - before} times in {took:.1f} s"


def test_a_master_that_is_killed_gives_the_terminal_back(see: Any, own_folder: Path) -> None:
    seen = see()
    seen.until(lambda: LONG in seen.last)
    assert seen.screen.margins is not None
    os.kill(seen.process.pid, signal.SIGKILL)
    seen.until(lambda: seen.screen.margins is None and not seen.last, what="a screen as before")


@pytest.mark.slow
def test_ctrl_c_ends_it(see: Any) -> None:
    seen = see(rows=70)
    seen.until(lambda: LONG in seen.last)
    seen.type("\x03")
    assert seen.until_end() != 0
    text = "\n".join(seen.lines)
    assert seen.screen.margins is None and "3 of 6 tasks done in" in text and "KeyboardInterrupt" in text, text


NOTES_WHO_SHOWS = """
    from parallel.monitor import displays
    show = displays.LastLine.show
    def show_and_note(display, course, seconds):
        show(display, course, seconds)
        open(f'shown{id(display)}', 'w').close()
    displays.LastLine.show = show_and_note
"""


@pytest.mark.slow
def test_of_two_managers_one_has_the_line(see: Any, own_folder: Path) -> None:
    gate = str(own_folder / "gate")
    other = f"contextlib.nullcontext(other.get_context().submit(wait_for, {gate!r}))"
    options = f"), parallel.Manager.local(1) as other, {other}, parallel.Manager.local(2"
    seen = see(options=options, before=NOTES_WHO_SHOWS, columns=140)
    seen.until(lambda: "slave" in seen.last and "busy" in seen.last, what="a line")
    seen.until(lambda: len(list(own_folder.glob("shown*"))) == 2, what="the other one, which would show its own, too")
    reads_for(seen, 3.0)  # so long does the slowest task take that it is told of
    opens(own_folder)
    assert seen.until_end() == 0
    assert sum("done in" in line for line in seen.lines) == 2, seen.lines
    assert any("the slowest task took" in line and "task 1 of wait_for" in line for line in seen.lines), seen.lines


# -- elsewhere


def test_where_no_terminal_is_lines_come_ever_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    display, shown = PlainLines(60.0), []
    for seconds in range(1, 1000):
        display.show(Course(tasks(seconds, 1000), 1, 1), float(seconds))
        if capsys.readouterr().err:
            shown.append(seconds)
    assert shown == [60, 120, 240, 480, 960]
    display.end(Summary(tasks(5), 3.0, 0.5, 1, 0))
    assert capsys.readouterr().err == "parallel: 5 tasks done in 3 s; 1 slave busy 50% of it\n"
    PlainLines(60.0).end(Summary(tasks(5), 3.0, 0.5, 1, 0))
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_nothing_from_a_short_run(own_folder: Path) -> None:
    gate = own_folder / "gate"
    gate.touch()
    text = SCRIPT.format(body="time.sleep(0.4)", options="", before="pass", gate=str(gate))
    program = script(own_folder / "script.py", text)
    assert program.ends() == 0 and program.complaints == "" and program.out == ""


@pytest.mark.usefixtures("patient")
def test_a_callable_is_given_the_status(make: Make, own_folder: Path) -> None:
    told: list[Status] = []
    manager = make(slaves=1, progress=told.append)
    context = manager.get_context()
    context.add_task(wait_for, str(own_folder / "gate"))
    results = context.get_results_unordered()
    eventually(lambda: told and told[-1].total.running == 1)
    assert told[0].uptime >= 1.0
    opens(own_folder)
    list(results)
    manager.shutdown()
    assert told[-1].total.done == 1


def test_a_callable_that_raises_is_told_no_more(make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(slaves=1, progress=lambda status: 1 // 0)
    context = manager.get_context()
    context.add_task(wait_for, str(own_folder / "gate"))
    results = context.get_results_unordered()
    eventually(lambda: "how far the run is cannot be told" in caplog.text)
    opens(own_folder)
    assert len(list(results)) == 1


@pytest.mark.parametrize("progress", [1, "yes", []])
def test_what_progress_cannot_be(progress: Any) -> None:
    with pytest.raises(parallel.InputTypeError, match="is not None, True, False or a callable"):
        parallel.Manager(progress=progress)


def test_a_look_costs_no_walk_over_tasks(make: Make) -> None:
    manager = make(slaves=0)
    context = manager.get_context()
    for number in range(20_000):
        context.add_task(square, number)
    assert context.progress.known == 20_000
    context.cancel()


def test_looks_are_seldom_while_there_is_no_work_until_results_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher: Any = None
    looks = watcher.Watcher(dispatcher, True, "m")
    monkeypatch.setattr(watcher, "_IDLE", (0.01, 0.04))
    assert [looks._rest(pause, 0.0) for pause in (0.01, 0.02, 0.04)] == [0.02, 0.04, 0.04]
    looks._thread = threading.current_thread()
    looks.begin()
    assert looks._rest(1e6, 0.0) == 0.01
