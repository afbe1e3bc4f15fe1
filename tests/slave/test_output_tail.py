"""What the agent reads of its runners' output files."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slave import output_tail
from slave.output_tail import LONGEST_LINE, MOST_BYTES, Budget, Tail, Tails, Unwanted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def budgets(lines: float = 1e9, size: float = 1e9) -> tuple[Budget, Budget]:
    return Budget(0.0, lines), Budget(0.0, size)


def tail_of(path: Path) -> Tail:
    return Tail(3, str(path), Unwanted())


def say(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def told(tail: Tail, last: bool = False, **room: float) -> tuple[bytes, int]:
    part = tail.look(*budgets(**room), last=last)
    assert part is None or part.slave == 3
    return (b"", 0) if part is None else (bytes(part.data), part.left_out)


def test_whole_lines_of_what_came_since_are_told(own_folder: Path) -> None:
    path = own_folder / "out"
    say(path, b"of an earlier run\n")
    tail = tail_of(path)
    say(path, b"one\ntwo\nthr")
    assert told(tail) == (b"one\ntwo\n", 0)
    assert told(tail) == (b"", 0)
    say(path, b"ee\n")
    assert told(tail) == (b"three\n", 0)
    say(path, b"and no end")
    assert told(tail) == (b"", 0) and told(tail, last=True) == (b"and no end\n", 0)
    tail.close()


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_however_it_comes_the_lines_are_the_same(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("tail") / "out"
    path.touch()
    tail, whole = tail_of(path), b""
    for piece in pieces:
        say(path, piece)
        whole += told(tail)[0]
    whole += told(tail, last=True)[0]
    tail.close()
    said = b"".join(pieces).split(b"\n")
    shown = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in (said if said[-1] else said[:-1])]
    assert whole == b"".join(line + b"\n" for line in shown)


def test_a_file_that_comes_later_or_is_emptied(own_folder: Path) -> None:
    path = own_folder / "out"
    tail = tail_of(path)
    assert told(tail) == (b"", 0)
    say(path, b"first line\n")
    assert told(tail) == (b"first line\n", 0)
    os.truncate(path, 0)
    assert told(tail) == (b"", 0)
    say(path, b"anew\n")
    assert told(tail) == (b"anew\n", 0)
    tail.close()


def test_a_named_pipe_and_a_device_are_left_alone(own_folder: Path) -> None:
    os.mkfifo(own_folder / "fifo")
    for path in (own_folder / "fifo", Path("/dev/null"), own_folder):
        assert told(tail_of(path)) == (b"", 0)


def test_there_is_a_budget_and_what_is_beyond_is_counted(own_folder: Path) -> None:
    path = own_folder / "out"
    tail = tail_of(path)
    say(path, b"x\n" * 100)
    assert told(tail, lines=30) == (b"x\n" * 30, 70)
    say(path, b"12345678\n" * 100)
    assert told(tail, size=100) == (b"12345678\n" * 11, 89)
    say(path, b"y" * 99 + b"\n")
    assert told(tail, size=50) == (b"", 1)
    say(path, (b"z" * 99 + b"\n") * 10_000)
    data, left_out = told(tail)
    assert len(data) <= MOST_BYTES and len(data) // 100 + left_out == 10_000
    tail.close()


def test_a_budget_grows_with_time_up_to_a_limit() -> None:
    clock = Clock()
    budget = Budget(10.0, 30.0, clock)
    budget.spend(30)
    assert budget.look() == 0
    clock.now = 2.0
    assert budget.look() == 20
    clock.now = 100.0
    assert budget.look() == 30


def test_long_lines_and_bars_that_return_to_their_beginning(own_folder: Path) -> None:
    path = own_folder / "out"
    tail = tail_of(path)
    say(path, b"a" * 5000 + b"\n 10%|#  |\r 50%|## |\r100%|###|\nwindows\r\n")
    data, _ = told(tail)
    assert data == b"a" * (LONGEST_LINE - 3) + b"...\n100%|###|\nwindows\n"
    tail.close()


def test_what_the_slave_program_says_itself_is_not_what_tasks_print(own_folder: Path) -> None:
    path, log = own_folder / "out", logging.getLogger("slave")
    path.touch()
    tails = Tails()
    tails.add(3, str(path))
    log.addHandler(tails.unwanted)
    try:
        log.warning("connected: %d slaves", 2)
    finally:
        log.removeHandler(tails.unwanted)
    say(path, b"slave: connected: 2 slaves\nslave: connected: 2 slaves\nhello\n")
    (part,) = tails.look(1.0)
    assert bytes(part.data) == b"slave: connected: 2 slaves\nhello\n", "the second one was printed by a task"
    assert tails.look(1.0) == [] and tails.patience(1.0) > 0
    tails.close()


def test_all_slaves_share_the_budget(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_tail, "Budget", functools.partial(Budget, clock=Clock()))  # it does not grow meanwhile
    tails = Tails()
    for slave in range(3):
        tails.add(slave, str(own_folder / f"out{slave}"))
        say(own_folder / f"out{slave}", b"x\n" * 3000)
    parts: list[Any] = tails.look(1.0)
    kept = sum(bytes(part.data).count(b"\n") for part in parts)
    assert 4000 <= kept < 4100 and kept + sum(part.left_out for part in parts) == 9000
    say(own_folder / "out1", b"the last")
    assert [bytes(part.data) for part in tails.ended(1)] in ([b"the last\n"], [b""])
    tails.remove(1)
    assert tails.ended(1) == []
    tails.close()
