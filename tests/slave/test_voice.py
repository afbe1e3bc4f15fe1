"""What a runner tells its agent while tasks run, and what the agent makes of it."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slave import output_tail, streams
from slave.output_tail import Budget, Tails
from slave.protocol import LINES, RECORD, WARNING
from slave.signals import Signals
from slave.voice import Message, Speaker, Voice, message


@pytest.fixture
def ear() -> Iterator[tuple[Signals, Speaker]]:
    """An agent's sockets, and a runner that speaks: slave 7, which runs task 5."""
    signals = Signals()
    yield signals, Speaker(7, signals.waker, lambda: 5)
    streams.listener = None
    signals.waker.close()
    signals.woken.close()


def heard(signals: Signals) -> list[Message]:
    found: list[Message] = []
    while True:
        try:
            came = message(signals.woken.recv(65536))
        except BlockingIOError:
            return found
        found += [] if came is None else [came]


def test_a_byte_that_wakes_is_no_message(ear: tuple[Signals, Speaker]) -> None:
    signals, speaker = ear
    signals.waker.send(b"!")
    speaker.tell(LINES, b"line\n")
    signals.waker.send(b"!")
    assert heard(signals) == [Message(LINES, 7, 0, b"line\n")]


def test_what_finds_no_room_is_counted_and_holds_nobody_up(ear: tuple[Signals, Speaker]) -> None:
    signals, speaker = ear
    for _ in range(10_000):
        speaker.tell(LINES, b"x" * 999 + b"\n")
    came = heard(signals)
    speaker.tell(LINES, b"more\n")
    (last,) = heard(signals)
    assert 10 <= len(came) < 10_000 and len(came) + last.lost == 10_000


def test_a_record_is_told_with_all_that_belongs_to_it(ear: tuple[Signals, Speaker]) -> None:
    signals, speaker = ear
    try:
        raise LookupError("no such thing")
    except LookupError as error:
        record = logging.LogRecord(
            "my.lib", logging.ERROR, "/x.py", 3, "of %s", ("this",), (type(error), error, error.__traceback__), "f"
        )
    speaker.record(record)
    (came,) = heard(signals)
    told = json.loads(came.data)
    assert (came.kind, came.slave) == (RECORD, 7)
    assert (told["name"], told["level"], told["message"], told["task"]) == ("my.lib", 40, "of this", 5)
    assert told["trace"].startswith("Traceback") and told["trace"].endswith("LookupError: no such thing")


def test_records_of_several_threads_stay_whole(ear: tuple[Signals, Speaker]) -> None:
    signals, speaker = ear
    data = [bytes([65 + number]) * 2000 for number in range(4)]

    def tell(one: bytes) -> None:
        for _ in range(5):
            speaker.tell(RECORD, one)

    threads = [threading.Thread(target=tell, args=(one,)) for one in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came.data for came in heard(signals)) == sorted(data * 5)


def test_lines_that_go_to_no_file_are_told_when_they_are_whole(ear: tuple[Signals, Speaker]) -> None:
    signals, speaker = ear
    speaker.begin(Voice(lines=True))
    assert streams.listener is not None
    streams.listener(1, b"one\ntw")
    streams.listener(2, b"of another stream\n")
    streams.listener(1, b"o\n")
    assert [came.data for came in heard(signals)] == [b"one\n", b"of another stream\n", b"two\n"]
    large = b"".join(b"%d\n" % number for number in range(20_000))
    streams.listener(1, large)
    pieces = [came.data for came in heard(signals)]
    assert large.startswith(b"".join(pieces)) and all(piece.endswith(b"\n") for piece in pieces)


def test_a_warning_is_told_once_though_it_is_printed_too(
    ear: tuple[Signals, Speaker], own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signals, speaker = ear

    def shown(message: Any, category: Any, filename: str, lineno: int, file: object, line: str | None) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    monkeypatch.setattr(warnings, "showwarning", shown)  # and not that of whoever runs the tests
    speaker.begin(Voice(warnings=True))
    warnings.showwarning("it is old", UserWarning, "/x.py", 3)
    (came,) = heard(signals)
    printed = capsys.readouterr().err
    assert came.kind == WARNING and json.loads(came.data)["text"] == printed
    path = own_folder / "out"
    path.touch()
    tails = Tails()
    tails.add(7, str(path))
    tails.hear(came)
    path.write_text(printed + "hello\n")
    (part,) = tails.look(1.0)
    assert part.data == b"hello\n" and [one.kind for one in tails.records()] == [WARNING]
    tails.close()


def test_there_is_a_budget_for_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_tail, "Budget", functools.partial(Budget, clock=lambda: 0.0))  # it does not grow now
    tails = Tails(shows=False)
    for _ in range(5000):
        tails.hear(Message(RECORD, 7, 1, b"{}"))
    records = tails.records()
    told = [one for one in records if one.data]
    assert 2000 <= len(told) < 3000 and len(records) < 5000
    assert len(told) + sum(one.left_out for one in records) == 10_000
    assert tails.records() == [] and tails.look(1.0) == []
