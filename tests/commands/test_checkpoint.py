"""``python3 -m parallel checkpoint``."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import stat
from pathlib import Path

import pytest

import parallel
from parallel.__main__ import main
from parallel.checkpoint.format import RESULT, Entry
from parallel.checkpoint.lock import Lock
from parallel.checkpoint.results_file import Origin
from parallel.commands import checkpoint
from slave.keys import find_key
from tests.checkpoint.files import Opened, identity
from tests.conftest import Make

FILE = Path("fit.results")


@pytest.fixture
def file(own_folder: Path) -> Path:
    """Three results of two kinds, one of which was made twice."""
    with Opened(FILE, key=find_key(create=True)) as opened:
        walk = opened.file.origin(Origin("Walk", "", ()))
        fit = opened.file.origin(Origin("fit", "", ()))
        for number, key, label, origin, value in (
            (1, b"one", b"", walk, 1.5),
            (2, b"", b"the second", walk, [2, 3]),
            (1, b"one", b"", walk, {"a": 1}),
            (3, "schön".encode(), b"", fit, "x" * 3000),
        ):
            entry = Entry(identity(number), 0, origin, key, label, 1_700_000_000_000_000)
            opened.file.append([(RESULT, entry, pickle.dumps(value), ())])
    return FILE


def run(*arguments: str) -> int:
    return main(["checkpoint", *arguments])


def test_it_shows_what_there_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(file)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file.resolve()}: 3 results, {file.stat().st_size / 1000:.1f} kB"
    assert lines[1].startswith("made from 2023-11-1")
    assert lines[2] == "2 results of Walk, 41 bytes"
    assert lines[3] == "1 result of fit, 3.0 kB"
    assert [line.split(None, 4)[4] for line in lines[4:]] == ["the second", "one", "schön"]


def test_it_tells_who_uses_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = Lock(str(file.resolve()))
    try:
        assert run(str(file)) == 0
        assert f"in use by process {os.getpid()} on " in capsys.readouterr().out
        assert run(str(file), "--compact") == 1
        assert "in use by" in capsys.readouterr().err
    finally:
        lock.release()


def test_nobody_need_read_all_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up(lines: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.writelines", hung_up)
    with pytest.raises(BrokenPipeError):
        checkpoint.run(argparse.Namespace(file=str(file), drop=None, compact=False, export=None, list=False))


def test_drop(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(file), "--drop", "one", "none") == 1
    assert "no result has the key or label 'none': none was dropped" in capsys.readouterr().err
    assert run(str(file), "--drop", "one", "the second") == 0
    assert capsys.readouterr().out == "2 results dropped\n"
    assert run(str(file)) == 0
    assert ": 1 result, " in capsys.readouterr().out


def test_compact(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Opened(file, key=find_key()) as opened:
        before = opened.results()
    size = file.stat().st_size
    assert run(str(file), "--compact") == 0
    assert f"{size / 1000:.1f} kB before, " in capsys.readouterr().out
    assert file.stat().st_size < size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with Opened(file, key=find_key()) as opened:
        assert opened.results() == before
        assert {origin.task for origin in opened.file.origins.values()} == {"Walk", "fit"}
    assert [name for name in os.listdir() if name.startswith("fit")] == ["fit.results"]


def test_export(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [
        ("Walk", None, "the second", [2, 3]),
        ("Walk", "one", None, {"a": 1}),
        ("fit", "schön", None, "x" * 3000),
    ]
    assert run(str(file), "--export", "all.pickle") == 0
    assert run(str(file), "--export", "all.jsonl") == 0
    assert capsys.readouterr().out == "all.pickle: 3 results\nall.jsonl: 3 results\n"
    assert run(str(file), "--export", "-") == 0
    found = pickle.loads(Path("all.pickle").read_bytes())
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert capsys.readouterr().out == Path("all.jsonl").read_text()
    for one in (found, lines):
        assert [(row["task"], row["key"], row["label"], row["result"]) for row in one] == expected
    assert stat.S_IMODE(os.stat("all.pickle").st_mode) == 0o600


def test_what_cannot_be_exported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Opened(file, key=find_key()) as opened:
        opened.add(9, pickle.dumps({1, 2}))
    assert run(str(file), "--export", "all.jsonl") == 1
    assert "is nothing for JSON (set is not known there): export to a .pickle" in capsys.readouterr().err
    with Opened(file, key=find_key()) as opened:
        opened.add(10, b"cno_such_module\nname\n.")
    assert run(str(file), "--export", "all.pickle") == 1
    assert "cannot be rebuilt here (ModuleNotFoundError" in capsys.readouterr().err
    assert run(str(file), "--export", "missing/all.pickle") == 1
    assert not [name for name in os.listdir() if name.startswith("all")]


def test_a_checkpoint_is_overwritten_by_no_export_and_no_trace(
    file: Path, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    before = file.read_bytes()
    os.link(file, "again.json")
    os.symlink(file, "link.json")
    for out in (str(file), "again.json", "link.json"):
        assert run(str(file), "--export", out) == 1
        assert f"{out} is a checkpoint, and would be lost: name another file; nothing" in capsys.readouterr().err
        with pytest.raises(parallel.InputError, match="is a checkpoint, and would be lost"):
            make(trace=out)
    assert file.read_bytes() == before and os.path.islink("link.json")


def test_damaged_results_are_not_counted_as_exported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = file.read_bytes()
    at = data.index(b"x" * 3000)
    file.write_bytes(data[:at] + b"y" + data[at + 1 :])
    for out in ("all.pickle", "all.json"):
        assert run(str(file), "--export", out) == 0
        said = capsys.readouterr()
        assert said.out == f"{out}: 2 results\n" and "a damaged result of fit is left out" in said.err


def test_names_are_shown_in_one_line(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Opened(FILE, key=find_key(create=True)) as opened:
        walk = opened.file.origin(Origin("Walk", "", ()))
        entry = Entry(identity(1), 0, walk, "größe\n\x1b[2J".encode(), b"", 1_700_000_000_000_000)
        opened.file.append([(RESULT, entry, pickle.dumps(1), ())])
    assert run(str(FILE)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("  gr\\xf6\\xdfe\\n\\x1b[2J")


def test_what_is_no_checkpoint(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    find_key(create=True)
    assert run("missing") == 1
    assert "there is no file" in capsys.readouterr().err
    Path("text").write_text("x" * 1000)
    for arguments in ((), ("--compact",), ("--drop", "a"), ("--export", "-")):
        assert run("text", *arguments) == 1
        assert "is no checkpoint" in capsys.readouterr().err
    Path("empty").touch()
    assert run("empty") == 1
    assert "there are no results yet" in capsys.readouterr().err
