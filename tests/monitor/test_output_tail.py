"""The last lines of slaves' output files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parallel.monitor import output_tail


class Tail:
    """Looks again and again."""

    def __init__(self, *paths: Path) -> None:
        self._paths = {number: str(path) for number, path in enumerate(paths)}
        self._places: dict[str, int] = {}

    def look(self) -> list[tuple[int, str]]:
        found = output_tail.lines(self._paths, self._places)
        self._places = found["places"]
        return list(found["lines"])


def test_new_whole_lines_of_each_file(tmp_path: Path) -> None:
    one, other = tmp_path / "0", tmp_path / "1"
    one.write_text("a\nb\nhal")
    tail = Tail(one, other)
    assert tail.look() == [(0, "a"), (0, "b")]
    with open(one, "a") as file:
        file.write("f\n")
    other.write_text("x\n")
    assert tail.look() == [(0, "half"), (1, "x")]
    assert tail.look() == []
    one.write_text("new\n")  # it was emptied
    assert tail.look() == [(0, "new")]


def test_of_a_long_file_the_end_is_shown_first(tmp_path: Path) -> None:
    path = tmp_path / "0"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    found = Tail(path).look()
    assert found[-1] == (0, "line 9999") and 100 < len(found) < 250
    assert all(text.startswith("line ") for _, text in found), "no part of a line"


def test_what_comes_too_quickly_is_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "0"
    path.write_text("first\n")
    tail = Tail(path)
    tail.look()
    with open(path, "a") as file:
        file.write("x" * 99 + "\n" + ("y" * 99 + "\n") * 5000)
    found = tail.look()
    assert found[0] == (0, f"(492,100 bytes left out: see {path})") and len(found) < 100
    assert tail.look() == []


def test_many_files_together_are_bounded(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(100)]
    for path in paths:
        path.write_text(("z" * 99 + "\n") * 30)
    tail = Tail(*paths)
    assert sum(len(text) + 1 for _, text in tail.look()) <= 62_000
    assert tail.look(), "those that had no room come with the next look"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a FIFO is needed")
def test_nothing_waits_for_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0")
    assert Tail(tmp_path / "0", tmp_path, tmp_path / "none").look() == []


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"\xff<script>\n")
    assert Tail(tmp_path / "0").look() == [(0, "\ufffd<script>")]
