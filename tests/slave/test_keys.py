"""Where the key is found, and what is refused."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from slave.errors import KeyTrouble
from slave.keys import VARIABLE, default_file, find_key


def test_the_argument_comes_first_then_the_variable_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made = find_key(create=True)
    assert find_key() == made
    monkeypatch.setenv(VARIABLE, "  from the variable\n")
    assert find_key() == b"from the variable"
    assert find_key(b"from the argument") == b"from the argument"


def test_a_missing_file_is_made_for_its_owner_alone() -> None:
    key = find_key(create=True)
    assert len(key) == 64 and default_file().read_text() == key.decode() + "\n"
    assert stat.S_IMODE(default_file().stat().st_mode) == 0o600
    assert os.listdir(default_file().parent) == ["authkey"]


def test_masters_that_start_together_agree_on_one_key() -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(find_key(create=True))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_a_slave_does_not_make_a_key() -> None:
    with pytest.raises(KeyTrouble, match="no key: .*authkey does not exist and PARALLEL_AUTHKEY is not set"):
        find_key()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_text("x" * 64)
    file.chmod(mode)
    with pytest.raises(KeyTrouble, match=f"others; make it yours alone: chmod 600 {file}"):
        find_key(key_file=file)


def test_a_short_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyTrouble, match="the authkey argument holds a key of 5 bytes; it must be at least 16"):
        find_key(b"short")
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(KeyTrouble, match="the environment variable PARALLEL_AUTHKEY holds a key of 0 bytes"):
        find_key()
    file = tmp_path / "key"
    file.touch(0o600)
    with pytest.raises(KeyTrouble, match="holds a key of 0 bytes"):
        find_key(key_file=file)


def test_text_as_argument_is_refused() -> None:
    with pytest.raises(KeyTrouble, match="must be bytes, not str"):
        find_key("x" * 20)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(KeyTrouble, match="cannot be made: .*; set PARALLEL_AUTHKEY or pass authkey="):
        find_key(create=True)
