"""What tasks log and warn of, as this program's loggers get it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.core.events import TaskRecord
from parallel.monitor.output import Shower
from parallel.monitor.records import Recorder, levels_of, record_of
from slave.protocol import RECORD, WARNING
from tests.conftest import Make
from tests.support.programs import script, slave
from tests.support.tasks import say
from tests.support.waiting import eventually

TOLD: dict[str, Any] = {
    "name": "my.lib", "level": 30, "level_name": "WARNING", "message": "100% sure", "path": "/x.py", "line": 3,
    "function": "f", "thread": "MainThread", "process": 9, "created": 1.5, "trace": "", "stack": "", "task": 5,
}  # fmt: skip

LOGS = """
import logging, sys, warnings
import parallel
def work(number):
    logging.getLogger('my.lib').info('working on %d', number)
    logging.getLogger('my.quiet').info('nobody wants this')
    logging.getLogger('my.chatty').debug('somebody wants this')
    warnings.warn('it is old')
    print('hello')
    return number
class Show(logging.Handler):
    def emit(self, record):
        if hasattr(record, 'slave'):
            print(record.levelname, record.name, record.getMessage(), record.slave in (0, 1), record.task_id > 0)
if __name__ == '__main__':
    from tests.support import patient
    patient.wait_long()
    logging.basicConfig(level=logging.INFO, handlers=[Show()])
    logging.getLogger('my.quiet').setLevel(logging.ERROR)
    logging.getLogger('my.chatty').setLevel(logging.DEBUG)
    with parallel.Manager.local(2, {options}) as m:
        c = m.get_context()
        for number in range(4):
            c.add_task(work, number)
        assert len(list(c.get_results_unordered())) == 4
"""


def log_of_a_task(level: int, text: str) -> None:
    logging.getLogger("of.a.task").log(level, text)


def test_records_come_with_level_name_slave_and_task(own_folder: Path) -> None:
    options = "forward_logging=True, show_output=True"
    program = script(own_folder / "script.py", LOGS.format(options=options), PYTHONWARNINGS="default")
    assert program.ends() == 0, program.err
    lines = sorted(program.out.splitlines())
    assert lines == sorted(
        [f"INFO my.lib working on {number} True True" for number in range(4)]
        + ["DEBUG my.chatty somebody wants this True True"] * 4
    )
    shown = [line.partition(": ")[2] for line in program.complaints.splitlines()]
    assert shown.count("hello") == 4
    assert len([line for line in shown if line.endswith("UserWarning: it is old")]) == 1, program.err
    assert len(shown) == 6  # with the warning's line of code


def test_by_default_they_stay_where_they_are(own_folder: Path) -> None:
    program = script(own_folder / "script.py", LOGS.format(options=""), PYTHONWARNINGS="default")
    assert program.ends() == 0, program.err
    assert program.out == program.complaints == ""


def test_without_an_output_file_prints_are_shown_too(make: Make) -> None:
    told: list[tuple[int, str]] = []
    manager = make(slaves=1, output=None, show_output=lambda slave, line: told.append((slave, line)))
    context = manager.get_context()
    context.add_task(print, "hello")
    list(context.get_results_unordered())
    eventually(lambda: told)
    assert told == [(0, "hello")]


def test_a_level_is_that_of_the_slaves(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    manager = make(slaves=1, forward_logging="WARNING")
    context = manager.get_context()
    context.add_task(log_of_a_task, logging.INFO, "quiet")
    context.add_task(log_of_a_task, logging.WARNING, "loud")
    list(context.get_results_unordered())
    eventually(lambda: "loud" in caplog.text)
    (record,) = [one for one in caplog.records if one.name == "of.a.task"]
    assert record.message == "loud" and record.__dict__["slave"] == 0 and record.__dict__["task_id"] == 2


@pytest.mark.parametrize("wanted", ["LOUD", [], 1.5])
def test_what_forward_logging_cannot_be(wanted: Any) -> None:
    with pytest.raises(parallel.InputTypeError, match="is not None, True, False or a level"):
        parallel.Manager(forward_logging=wanted)


def test_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels_of(None) is None and levels_of(False) is None
    assert levels_of("INFO") == {"": 20} and levels_of(logging.ERROR) == {"": 40}
    monkeypatch.setattr(logging.getLogger("levels.of.mine"), "level", 35)
    everything = levels_of(True)
    assert everything is not None and everything["levels.of.mine"] == 35 and "" in everything


def test_a_record_keeps_its_text_and_its_time() -> None:
    record = record_of(json.dumps(TOLD).encode(), 3)
    assert record is not None and record.getMessage() == "100% sure", "it is no format any more"
    assert record.__dict__["slave_created"] == 1.5 and record.funcName == "f" and record.exc_info is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"name": 1}', json.dumps({**TOLD, "level": "x"}).encode(), b"\xff\xfe"]
)
def test_what_makes_no_sense_is_nothing(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert record_of(data, 3) is None
    Recorder()(TaskRecord(0.0, 3, "slave 3", RECORD, data, 0))
    Shower(True)(TaskRecord(0.0, 3, "slave 3", WARNING, data, 0))
    assert not caplog.records


def test_that_some_were_left_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Recorder()(TaskRecord(0.0, 3, "slave 3", RECORD, b"", 1234))
    assert "1234 log records of slave 3 were left out" in caplog.text


def test_a_warning_of_several_slaves_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"category": "UserWarning", "message": "old", "path": "/x.py", "line": 3, "text": "/x.py:3: old\n"}
    shower = Shower(True)
    for number in range(3):
        shower(TaskRecord(0.0, number, f"slave {number}", WARNING, json.dumps(told).encode(), 0))
    shower(TaskRecord(0.0, 2, "slave 2", WARNING, json.dumps({**told, "line": 4, "text": "b\n"}).encode(), 0))
    assert capsys.readouterr().err == "slave 0: /x.py:3: old\nslave 2: b\n"


def test_slaves_behind_a_pipe_show_what_tasks_print(make: Make) -> None:
    told: list[tuple[int, str]] = []
    manager = make(slaves=0, show_output=lambda slave, line: told.append((slave, line)))
    manager.add_slave(parallel.PipedCommandSlave("{command}", 1, python=sys.executable))
    context = manager.get_context()
    context.add_task(say, "hello\nand more")
    list(context.get_results_unordered())
    eventually(lambda: len(told) > 1)
    assert told == [(0, "hello"), (0, "and more")]
    eventually(lambda: "and more" in Path("slave0.output").read_text())


def test_slaves_started_by_hand_show_and_log_too(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, str]] = []
    key = b"k" * 32
    manager = make(
        slaves=0,
        port=0,
        authkey=key,
        forward_logging=True,
        show_output=lambda slave, line: told.append((slave, line)),
    )
    program = slave(f"127.0.0.1:{manager.address[1]}", "-n", "1", PARALLEL_AUTHKEY=key.decode())
    try:
        context = manager.get_context()
        context.add_task(say, "hello")
        context.add_task(log_of_a_task, logging.WARNING, "loud")
        list(context.get_results_unordered())
        eventually(lambda: told and "loud" in caplog.text)
        assert told == [(0, "hello")]
        manager.shutdown()
        assert program.ends() == 0 and "hello" in program.out + program.err
    finally:
        program.kill()
