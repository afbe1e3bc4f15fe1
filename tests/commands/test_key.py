"""``python3 -m parallel key``, and the dispatch of the commands."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from parallel.__main__ import main
from slave.keys import VARIABLE, default_file, find_key
from tests.support.programs import environment

TEXT = "0123456789abcdef" * 4


class Typed(io.StringIO):
    """A terminal on which somebody has typed something."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Typed:
    typed = Typed()
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("parallel.commands.key.is_terminal", lambda stream: True)
    return typed


def test_help_lists_the_commands_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert re.search(r"\n +key +show where the key is", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["key", "--nonsense"], ["key", "more"]])
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"parallel: .*; see python3 -m parallel( key)? --help\n", told)


def test_a_key_is_made_if_there_is_none_and_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key"]) == 0
    said = capsys.readouterr()
    assert said.err == f"A new key was made: {default_file()}\n"
    assert f"The key is in the file {default_file()}, which only you can read." in said.out
    assert find_key().decode() not in said.out + said.err
    assert stat.S_IMODE(default_file().stat().st_mode) == 0o600
    assert main(["key"]) == 0
    assert capsys.readouterr() == (said.out, "")


def test_it_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "--show"]) == 0
    said = capsys.readouterr()
    assert said.out == find_key().decode() + "\n" and "new key" in said.err


def test_the_variable_comes_before_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TEXT)
    assert main(["key"]) == 0
    said = capsys.readouterr()
    assert "The key is in the environment variable PARALLEL_AUTHKEY" in said.out and TEXT not in said.out + said.err
    assert main(["key", "--show"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"
    assert main(["key", "--replace", "--yes"]) == 2
    assert "PARALLEL_AUTHKEY, which only you can set" in capsys.readouterr().err
    assert os.environ[VARIABLE] == TEXT and not default_file().exists()


@pytest.mark.parametrize("option", [[], ["--show"]])
def test_a_key_that_cannot_be_used_is_told(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    find_key(create=True)
    default_file().chmod(0o644)
    assert main(["key", *option]) == 7
    said = capsys.readouterr()
    assert said.out == "" and re.fullmatch(r"parallel: the key file .*: chmod 600 \S+\n", said.err)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_replacing_asks(terminal: Typed, capsys: pytest.CaptureFixture[str], answer: str, code: int) -> None:
    before = find_key(create=True)
    terminal.write(answer)
    terminal.seek(0)
    assert main(["key", "--replace"]) == code
    said = capsys.readouterr()
    assert (find_key() == before) is bool(code)
    assert "Masters and slaves that run keep the old key" in said.err and "[y/N]" in said.err
    assert ("Nothing was changed." in said.err) is bool(code)
    assert not {before.decode(), find_key().decode()} & set(re.findall(r"\w+", said.out + said.err))
    assert os.listdir(default_file().parent) == ["authkey"]


def test_replacing_without_a_terminal_needs_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_key(create=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["key", "--replace"]) == 2
    assert "add --yes" in capsys.readouterr().err and find_key() == before
    assert main(["key", "--replace", "--yes"]) == 0
    assert "Masters and slaves that run keep the old key" in capsys.readouterr().err and find_key() != before
    assert main(["key", "--yes"]) == 2


def test_replacing_repairs_what_cannot_be_used_and_makes_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "--replace"]) == 0, "there is nothing to be lost"
    default_file().write_bytes(b"\0\1\2")
    default_file().chmod(0o666)
    assert main(["key", "--replace", "--yes", "--show"]) == 0
    assert find_key().decode() in capsys.readouterr().out
    default_file().parent.chmod(0o777)
    assert main(["key", "--replace", "--yes"]) == 7
    assert "chmod go-w" in capsys.readouterr().err


def test_the_lines_that_bring_it_to_another_machine_do_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an ssh and an scp that take a folder for the other machine."""
    (tmp_path / "it's far").mkdir()
    (tmp_path / "bin").mkdir()
    programs = {"ssh": 'cd "$THERE" && exec sh -c "$2"', "scp": 'exec cp "$1" "$2" "$THERE/${3#*:}"'}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n[ $# -le 3 ] || exit 9\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "it's here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "it's here"))
    assert main(["key"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("    ssh", "    scp"))]
    assert len(lines) == 2
    for line in lines:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        subprocess.run(["sh", "-ec", line], env={"PATH": path, "THERE": str(tmp_path / "it's far")}, check=True)
    here = find_key()
    monkeypatch.setenv("HOME", str(tmp_path / "it's far"))
    assert find_key() == here


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "parallel", "key"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and str(default_file()) in done.stdout
    default_file().chmod(0o604)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 7 and done.stderr.startswith("parallel: ") and "Traceback" not in done.stderr


def test_nobody_has_to_read_it_to_the_end() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "parallel", "key"]
    done = subprocess.run(command, env=environment(), stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 0 and "Error" not in done.stderr
