"""Slaves behind a pipe, with a stand-in for ssh: what is sent when, what is tried again, whose words are believed."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

import parallel
from parallel.launch import bootstrap, pipe, piped_program
from tests.conftest import Make
from tests.support import deaths, tasks
from tests.support.waiting import eventually

Ssh = Callable[[str], Path]
THERE = 'for there; do :; done; exec sh -c "$there"'  # what ssh does: it has a shell run its last argument


@pytest.fixture
def ssh(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """Makes a program named ssh of this shell code, in which $log is a file; returns that."""

    def make_it(code: str) -> Path:
        folder = own_folder / "bin"
        folder.mkdir(exist_ok=True)
        log = own_folder / "log"
        (folder / "ssh").write_text(f"#!/bin/sh\nlog={log}\n{code}\n")
        (folder / "ssh").chmod(0o755)
        return log

    monkeypatch.setenv("PATH", f"{own_folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(piped_program, "_TO_END", 60.0)  # on a busy machine too it is known what was said at the end
    return make_it


def run(manager: parallel.Manager, task: Callable[[], object], **more: object) -> object:
    """The result of one task on a slave that ssh starts."""
    manager.add_slave(parallel.SSHSlave("node1", 1, **more))  # type: ignore[arg-type]
    context = manager.get_context()
    context.add_task(task)
    (result,) = context.get_results_unordered()
    return result


@pytest.mark.parametrize("shell", ["exec cat", "exec sh", "echo 'welcome 12 34'; exec sh", "exec sh -x"])
def test_nothing_is_sent_before_the_far_side_has_said_that_it_is_ours(
    make: Make, ssh: Ssh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shell: str
) -> None:
    """`exec zsh` in the startup file there: another shell reads what comes, and runs it."""
    monkeypatch.setattr(pipe, "_SILENT", 0.1)
    log = ssh(f"mkfifo $log.in; cat <$log.in & exec 3>$log.in; tee $log | {{ {shell}; }}")
    manager = make(0)
    manager.add_slave(parallel.SSHSlave("node1", 1))
    manager.begin()
    eventually(lambda: re.search(r"cannot come: ssh runs, .* on node1 says nothing; .*\(exec zsh\)", caplog.text), 60)
    eventually(log.exists, what="the file of what is sent")
    assert log.read_bytes() == b""
    manager.shutdown()
    assert log.read_bytes() == b""


def test_a_greeting_and_a_shell_that_shows_its_commands_are_not_taken_for_the_far_side(make: Make, ssh: Ssh) -> None:
    ssh(f"echo 'Last login: today'; echo 17 4; printf 'no newline'; set -x; {THERE}")
    assert run(make(0), functools.partial(tasks.square, 3)) == 9
    # lines of the shell's trace, which has a pipe of its own, may come between them
    lines = Path("slave0.output").read_text().splitlines()
    assert [line for line in lines if line in ("Last login: today", "17 4")] == ["Last login: today", "17 4"], lines


def test_the_word_of_the_far_side_does_not_stand_in_the_command() -> None:
    command = bootstrap.receiving_command("python3", (123456789, 987654321))
    assert bootstrap.hello_of((123456789, 987654321)) == b"1111111110" and "1111111110" not in command


@pytest.mark.parametrize(
    "words",
    [
        "kex_exchange_identification: Connection closed by remote host",
        "kex_exchange_identification: read: Connection reset by peer",
        "Connection closed by 10.0.0.1 port 22",
        "Connection timed out during banner exchange",
        "ssh: Could not resolve host: Temporary failure in name resolution",
    ],
)
def test_what_may_pass_is_tried_again(make: Make, ssh: Ssh, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A server with MaxStartups turns many away that knock at once."""
    monkeypatch.setattr(pipe, "_PAUSE", (0.05, 0.1))
    monkeypatch.setattr("parallel.launch.group._POLL_SECONDS", 0.02)
    log = ssh(f"echo x >>$log\n[ $(wc -l <$log) -gt 3 ] || {{ echo '{words}' >&2; exit 255; }}\n{THERE}")
    assert run(make(0), functools.partial(tasks.square, 3)) == 9
    assert len(log.read_text().splitlines()) == 4


def test_what_does_not_pass_is_told_after_some_tries(make: Make, ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PAUSE", (0.01, 0.02))
    monkeypatch.setattr("parallel.launch.group._POLL_SECONDS", 0.02)
    log = ssh("echo x >>$log; echo 'Connection reset by 10.0.0.1 port 22' >&2; exit 255")
    with pytest.raises(parallel.NoMoreSlavesError, match=r"(?s)exited with code 255.*Connection reset by 10.0.0.1"):
        run(make(0), tasks.give)
    assert len(log.read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        (255, "me@node1: Permission denied (publickey,password).", r"\(nobody is there to type a password; make a key"),
        (255, "Host key verification failed.", r"\(log in once by hand, ssh node1"),
        (
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED @ Host key verification failed.",
            r"\(its key is another",
        ),
        (
            255,
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
            r"\(ssh offers too many",
        ),
        (0, "You may not run commands here.", r"code 0 \(it ended without having run what starts Python"),
        (127, "sh: 1: exec: /opt/python3: not found", r"\(name the Python to use there: SSHSlave\('node1', python="),
        (
            126,
            "sh: 1: exec: /opt/python3: Permission denied",
            r"\(what is to start Python there cannot be run; name the",
        ),
        (1, "sh: something is not found: Permission denied (never)", r"code 1;"),
        (255, "ssh: connect to host node1 port 22: Connection refused", r"code 255;"),
    ],
)
def test_remedies(make: Make, ssh: Ssh, code: int, words: str, remedy: str) -> None:
    ssh(f"echo '{words}' >&2; exit {code}")
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        run(make(0), tasks.give)
    assert re.search(rf"exited with code {code} {remedy}|exited with {remedy}", str(caught.value)), str(caught.value)
    assert words in str(caught.value)


def test_a_python_2_on_the_far_side_says_that_it_is_too_old() -> None:
    """As far as this Python can play one: its stdin is text of bytes, and has no buffer."""
    command = bootstrap.RECEIVER.format(1, 2)
    assert not set(command) & set("'\"!")
    played = "import sys; from types import SimpleNamespace as N; s = sys.stdin.buffer\n"
    played += f"sys.stdin = N(readline=s.readline, read=s.read); sys.version_info = (2, 7)\n{command}"
    told = subprocess.run(
        [sys.executable, "-c", played], input=bootstrap.payload({}, 1), capture_output=True, check=False
    )
    assert told.returncode == 6 and b"this is Python 2.7" in told.stderr and b"needs 3.9 or newer" in told.stderr


@pytest.mark.parametrize("output", ["slave%d.output", None])
def test_a_tasks_words_are_no_remedys_symptom(make: Make, ssh: Ssh, output: str | None) -> None:
    ssh(THERE)
    manager = make(0, output=output)
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        run(manager, deaths.shout_and_go)
    assert "ssh-copy-id" not in str(caught.value) and "name the Python" not in str(caught.value)
