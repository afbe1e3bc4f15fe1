"""Where the key is found, what is refused, and that nothing shows it."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slave.agent_config import AgentConfig
from slave.errors import KeyTrouble
from slave.keys import VARIABLE, Key, default_file, find_key, make_key, new_key
from slave.runner import RunnerConfig
from tests.support.programs import environment
from tests.support.terminals import Terminal
from tests.support.users import OTHER, as_user, folder_of, needs_root, shared_folder

TEXT = "0123456789abcdef" * 4


def write(path: Path, data: bytes = TEXT.encode(), mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# -- the order of search


def test_the_argument_comes_first_then_the_variable_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made = find_key(create=True)
    assert find_key() == made
    monkeypatch.setenv(VARIABLE, "  from the variable\n")
    assert find_key() == b"from the variable"
    assert find_key(b"from the argument") == b"from the argument"


def test_a_slave_does_not_make_a_key() -> None:
    with pytest.raises(KeyTrouble, match="no key: .*authkey does not exist and PARALLEL_AUTHKEY is not set; copy the"):
        find_key()


def test_a_named_file_that_is_missing_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(KeyTrouble, match=f"^the key file {tmp_path}/none does not exist; .*--key-file FILE$"):
        find_key(key_file=tmp_path / "none", ask=True)
    with pytest.raises(KeyTrouble, match="the key file ~nobodyofthatname/key has no place: there is no such user"):
        find_key(key_file="~nobodyofthatname/key")


def test_a_key_for_one_run_needs_no_file() -> None:
    assert new_key() != new_key() and len(new_key()) == 64
    assert not default_file().parent.exists()


# -- who may have a hand in the file


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620, 0o601])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "key", mode=mode)
    with pytest.raises(KeyTrouble, match=f"others; make it yours alone: chmod 600 {file}$"):
        find_key(key_file=file)


@needs_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(write(tmp_path / "key"), OTHER, OTHER)
    with pytest.raises(KeyTrouble, match=f"key belongs to uid {OTHER}, who may read and change it; make a copy that"):
        find_key(key_file=tmp_path / "key")


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o702, 0o2777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    file = write(folder / "key")
    folder.chmod(mode)
    with pytest.raises(KeyTrouble, match=f"others may write to the folder {folder}; .*: chmod go-w '{folder}'$"):
        find_key(key_file=file)
    folder.chmod(0o755)
    assert find_key(key_file=file) == TEXT.encode()


def test_a_folder_like_that_of_all_temporary_files_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    file = write(folder / "key")
    folder.chmod(0o1777)
    with pytest.raises(KeyTrouble, match="others may write to the folder .*; keep the key in a folder of your own$"):
        find_key(key_file=file)
    file.unlink()


@needs_root
def test_a_folder_of_another_user_is_refused_for_reading_and_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(OTHER, tmp_path / "folder", 0o755)
    file = write(tmp_path / "folder" / "key")
    with pytest.raises(KeyTrouble, match=f"folder belongs to uid {OTHER}; keep the key in a folder of your own$"):
        find_key(key_file=file)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config").mkdir()
    folder_of(OTHER, tmp_path / ".config" / "parallel")
    with pytest.raises(KeyTrouble, match=f"cannot be made: the folder .*parallel belongs to uid {OTHER}; keep the key"):
        find_key(create=True)
    assert not os.listdir(default_file().parent)


@pytest.mark.parametrize("what", ["a FIFO", "a folder", "a socket", "a device"])
def test_what_is_no_file_is_named_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "key"
    if what == "a FIFO":
        os.mkfifo(path, 0o600)
    elif what == "a folder":
        path.mkdir(0o700)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as place:
            place.bind("key")  # short enough
    else:
        path = Path(os.devnull)
    with pytest.raises(KeyTrouble, match=f"the key file {path} is {what}, and no file; set PARALLEL_AUTHKEY") as told:
        find_key(key_file=path)
    assert (what == "a FIFO") is ("from a pipe with --key-file -" in str(told.value))


def test_a_fifo_in_the_place_of_the_default_file_stops_nobody(tmp_path: Path) -> None:
    make_key(default_file())
    default_file().unlink()
    os.mkfifo(default_file(), 0o600)
    for create in (False, True):
        with pytest.raises(KeyTrouble, match="is a FIFO"):
            find_key(create=create)


def test_a_link_to_a_good_file_will_do_and_one_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "real")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert find_key(key_file=link) == TEXT.encode()
    file.unlink()
    with pytest.raises(KeyTrouble, match=f"the key file {link} is a link to {file}, which does not exist"):
        find_key(key_file=link)
    default_file().parent.mkdir(parents=True)
    default_file().symlink_to(file)
    for create in (False, True):
        with pytest.raises(KeyTrouble, match=f"authkey is a link to {file}, which does not exist"):
            find_key(create=create)
    assert not file.exists()


def test_both_the_links_folder_and_the_files_are_looked_at(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    write(tmp_path / "there" / "key")
    (tmp_path / "here" / "key").symlink_to(tmp_path / "there" / "key")
    for name in ("here", "there"):
        (tmp_path / name).chmod(0o777)
        with pytest.raises(KeyTrouble, match=f"others may write to the folder {tmp_path / name};"):
            find_key(key_file=tmp_path / "here" / "key")
        (tmp_path / name).chmod(0o700)
    assert find_key(key_file=tmp_path / "here" / "key") == TEXT.encode()


# -- no home


@needs_root
@pytest.mark.parametrize("create", [False, True])
def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    monkeypatch.delenv("HOME")
    said = as_user(OTHER, lambda: find_key(create=create))
    assert said.startswith(f"KeyTrouble: no key: uid {OTHER} has no home folder, so there is no place for the key file")
    for remedy in (VARIABLE, "Manager(authkey=...)", "--key-file"):
        assert said.count(remedy) == 1
    monkeypatch.setenv(VARIABLE, TEXT)
    assert as_user(OTHER, lambda: find_key(create=create) == TEXT.encode()) == "True"


@needs_root
@pytest.mark.parametrize("create", [False, True])
def test_a_home_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    with shared_folder(0o700) as home:
        monkeypatch.setenv("HOME", str(home))
        said = as_user(OTHER, lambda: find_key(create=create))
    what = "made" if create else "read"
    assert said.startswith(f"KeyTrouble: the key file {home}/.config/parallel/authkey cannot be {what}: Permission")
    assert VARIABLE in said


@pytest.mark.parametrize("create", [False, True])
def test_a_home_that_is_no_full_path_is_told(monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    monkeypatch.setenv("HOME", "somewhere")
    with pytest.raises(KeyTrouble, match="HOME is 'somewhere', which is no full path, .*; set PARALLEL_AUTHKEY"):
        find_key(create=create)


def test_a_place_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(KeyTrouble, match=r"cannot be made: .*; set PARALLEL_AUTHKEY, or .* Manager\(authkey=...\)"):
        find_key(create=True)


# -- making it


def modes() -> list[str]:
    folder = default_file().parent
    return [oct(stat.S_IMODE(path.stat().st_mode)) for path in (folder.parent, folder, default_file())]


def test_a_missing_file_is_made_for_its_owner_alone() -> None:
    key = find_key(create=True)
    assert len(key) == 64 and default_file().read_text() == key.decode() + "\n"
    assert modes() == ["0o700", "0o700", "0o600"]
    assert os.listdir(default_file().parent) == ["authkey"]


@needs_root
@pytest.mark.parametrize("mask", [0o777, 0o000, 0o077, 0o227])
def test_it_has_the_right_modes_under_any_umask(monkeypatch: pytest.MonkeyPatch, mask: int) -> None:
    def make() -> object:
        os.umask(mask)
        made = find_key(create=True)
        assert find_key() == made
        make_key(default_file(), replace=True)
        return modes() if find_key() != made else "it is the same"

    with shared_folder() as place:
        monkeypatch.setenv("HOME", str(folder_of(OTHER, place / "home")))
        assert as_user(OTHER, make) == str(["0o700", "0o700", "0o600"])


def test_a_folder_that_exists_keeps_its_mode() -> None:
    default_file().parent.parent.mkdir(mode=0o755)
    with umask(0):
        find_key(create=True)
    assert modes() == ["0o755", "0o700", "0o600"]


def test_masters_that_start_together_agree_on_one_key() -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(find_key(create=True))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert os.listdir(default_file().parent) == ["authkey"]


def test_a_file_system_without_hard_links_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert find_key(create=True) == find_key()
    assert os.listdir(default_file().parent) == ["authkey"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("replace", [False, True])
def test_a_write_that_fails_or_is_interrupted_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, replace: bool
) -> None:
    before = find_key(create=True) if replace else None
    original = os.write

    def some(handle: int, data: bytes) -> int:
        if len(data) > 20:
            return original(handle, data[:20])
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", some)
        with pytest.raises((KeyTrouble, KeyboardInterrupt), match="cannot be made: No space|^$"):
            make_key(default_file(), replace=replace)
    assert os.listdir(default_file().parent) == (["authkey"] if replace else [])
    assert find_key(create=True) == before if replace else len(find_key(create=True)) == 64


def test_a_write_in_small_steps_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: original(handle, data[:7]))
    assert len(find_key(create=True)) == 64


@needs_root
def test_a_full_disk_leaves_no_draft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(home)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        default_file().parent.mkdir(parents=True)
        with open(home / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(KeyTrouble, match="authkey cannot be made: No space left on device; set PARALLEL_AUTHKEY"):
            find_key(create=True)
        assert os.listdir(default_file().parent) == []
        (home / "filler").unlink()
        assert len(find_key(create=True)) == 64
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_a_replaced_key_stays_behind_its_link(tmp_path: Path) -> None:
    file = write(tmp_path / "real")
    default_file().parent.mkdir(parents=True)
    default_file().symlink_to(file)
    make_key(default_file(), replace=True)
    assert default_file().is_symlink() and find_key(key_file=file) == find_key() != TEXT.encode()


# -- what it holds


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        f"\n {TEXT}\t\r\n\r\n".encode(),
        f"{TEXT}\r\n".encode(),
        f"\ufeff{TEXT}\r\n".encode(),
        f"{TEXT}\r\n".encode("utf-16"),  # what ">" writes in Windows PowerShell
        f"\ufeff{TEXT}\n".encode("utf-16-be"),
        f"\ufeff{TEXT}\n".encode("utf-32-le"),
        f'"{TEXT}"\n'.encode(),
        f"'{TEXT}'".encode(),
        f"\u201c{TEXT}\u201d\n".encode(),
        f'\ufeff" {TEXT} " \r\n'.encode("utf-16-le"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_editors_and_shells_put_around_it_does_not_count(tmp_path: Path, data: bytes) -> None:
    assert find_key(key_file=write(tmp_path / "key", data)) == TEXT.encode()


@pytest.mark.parametrize(
    ("data", "trouble"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b'""\n', "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (TEXT.encode("utf-16-le"), "is UTF-16 without a byte order mark, and a key is plain text"),
        (TEXT.encode("utf-16-be"), "is UTF-16 without a byte order mark, and a key is plain text"),
        (f"\ufeff{TEXT}".encode("utf-16-le") + b"x", "begins as UTF-16 and goes on otherwise"),
        (f"{TEXT}\n{TEXT}\n".encode(), "holds several lines, and a key is one"),
        (f"{TEXT}\r{TEXT}".encode(), "holds several lines, and a key is one"),
        (bytes(range(256)), "holds binary data, and a key is plain text"),
        (b"\xff\xfa" * 16, "holds binary data, and a key is plain text"),
        (b"\x01\x02" * 16, "holds binary data, and a key is text"),
        (b"0123456789", "holds a key of 10 bytes; it must be at least 16 bytes long"),
        (b"x" * 70000, "holds more than 65536 bytes, which is no key"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_cannot_be_a_key_is_named(tmp_path: Path, data: bytes, trouble: str) -> None:
    file = write(tmp_path / "key", data)
    with pytest.raises(KeyTrouble, match=f"the key file {file} {trouble}") as caught:
        find_key(key_file=file)
    assert "\n" not in str(caught.value) and TEXT[:20] not in str(caught.value)


def test_the_variable_is_read_as_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" '{TEXT}' \n")
    assert find_key() == TEXT.encode()
    for text, trouble in (("", "is empty"), ("\udcff\udcfa" * 16, "holds binary data"), ("a b", "a key of 3 bytes")):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(KeyTrouble, match=f"the environment variable PARALLEL_AUTHKEY .*{trouble}"):
            find_key()


def test_an_argument_is_taken_as_it_is_if_it_is_long_enough() -> None:
    assert find_key(b' "0123456789abc\n\0 ') == b' "0123456789abc\n\0 '
    with pytest.raises(KeyTrouble, match="the authkey argument holds a key of 5 bytes; it must be at least 16"):
        find_key(b"short")
    with pytest.raises(KeyTrouble, match="must be bytes, not str"):
        find_key("x" * 20)  # type: ignore[arg-type]


# -- asking for it

ASK = "from slave.keys import find_key; key = find_key(ask=True); print('it has', len(key), 'bytes')"


def test_who_sits_at_a_terminal_is_asked_and_the_key_is_not_shown() -> None:
    with Terminal.python(ASK) as terminal:
        terminal.shows(
            "(?s)no key: .*authkey does not exist.*python3 -m parallel key --token.*paste the token, or the key, here"
        )
        terminal.type("too short\n")
        terminal.shows("(?s)what was typed holds a key of 9 bytes.*paste the token, or the key, here")
        terminal.type(f'  "{TEXT}"\n')
        terminal.shows("it has 64 bytes")
        assert terminal.ends() == 0
    assert TEXT not in terminal.shown and "too short" not in terminal.shown
    assert not default_file().exists()


@pytest.mark.parametrize(
    ("typed", "said"), [("\x04", "no key was typed"), ("x\n", "no usable key was typed"), ("\x03", "KeyboardInterrupt")]
)
def test_who_has_no_key_can_say_so(typed: str, said: str) -> None:
    with Terminal.python(f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {ASK}") as terminal:
        for _ in range(3 if typed == "x\n" else 1):
            terminal.shows("paste the token, or the key, here")
            terminal.type(typed)
        terminal.shows(said)
        assert terminal.ends() in (1, -signal.SIGINT)


def test_who_has_a_key_is_not_asked() -> None:
    find_key(create=True)
    with Terminal.python(ASK) as terminal:
        terminal.shows("it has 64 bytes")
        assert terminal.ends() == 0
    assert "paste" not in terminal.shown


def test_where_nobody_sits_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, open(os.devnull)):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(
            KeyTrouble, match=r"copy the master's key file there .*, or set .* or a token .* in a terminal"
        ):
            find_key(ask=True)
        if stdin is not None:
            stdin.close()
    with pytest.raises(KeyTrouble, match="copy the master's key file there"):
        find_key(ask=True)  # a closed stdin


# -- nothing shows it


def test_the_variable_is_forgotten_also_by_what_is_started_later() -> None:
    code = f"""
import os, subprocess, sys
from slave.keys import forget_variable
held = os.environ[{VARIABLE!r}]
forget_variable()
forget_variable()
assert {VARIABLE!r} not in os.environ
assert held.encode() not in subprocess.run(["env"], capture_output=True).stdout
if not os.fork():
    places = ["/proc/self/environ", f"/proc/{{os.getppid()}}/environ"] if sys.platform == "linux" else []
    os._exit(any(held.encode() in open(place, "rb").read() for place in places))
assert os.wait()[1] == 0
assert os.environ["HOME"]
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**{VARIABLE: TEXT}), capture_output=True, text=True, check=False
    )
    assert done.stdout == "fine\n", done.stderr


def test_no_repr_log_or_traceback_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    key = find_key(TEXT.encode())
    agent = AgentConfig("an agent", [("127.0.0.1", 1)], key, [(None, None)])
    runner = RunnerConfig(1, "a run", [("127.0.0.1", 1)], key, 1.0, {}, None)
    logging.getLogger("slave").warning("%s %r %s %s", key, key, agent, runner)
    try:
        raise ValueError(key, agent)
    except ValueError:
        shown = traceback.format_exc() + caplog.text
    shown += f"{key} {key!r} {agent} {runner!r} {[key]} {key!s} %s" % key
    assert TEXT[:8] not in shown and shown.count("<key>") > 8


def test_a_key_is_its_bytes() -> None:
    key = find_key(TEXT.encode())
    assert key == TEXT.encode() and hash(key) == hash(TEXT.encode()) and len(key) == 64
    again = pickle.loads(pickle.dumps(key))
    assert again == key and type(again) is Key and repr(again) == "<key>"
    assert repr(Key.fromhex(key.hex())) == "<key>" and Key.fromhex(key.hex()) == key
    assert functools.reduce(lambda total, byte: total + byte, key) == sum(TEXT.encode())
