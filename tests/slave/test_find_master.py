"""How long a master is looked for, and what ends that."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from slave import by_hand, cli, dial, find_master, process_tree
from slave.agent import Agent
from slave.agent_config import AgentConfig
from slave.errors import (
    Incompatible,
    Intercepted,
    KeyTrouble,
    MasterFinished,
    MasterGone,
    OutOfResources,
    ProtocolError,
    Rejected,
    SlaveError,
    Unreachable,
    WrongKey,
)
from tests.slave.masters import KEY

LOCAL = AgentConfig("an agent", [("127.0.0.1", 9)], KEY, [], stays=True)


def look(
    monkeypatch: pytest.MonkeyPatch, config: AgentConfig, *errors: Exception, lives: int = 1000
) -> tuple[SlaveError, int]:
    """How the search ends if the tries fail so, the last one again and again; and after how many tries.

    ``lives``: for how many tries the master's process is there.
    """
    tries: list[Agent] = []

    def enlist(agent: Agent) -> None:
        tries.append(agent)
        raise errors[min(len(tries), len(errors)) - 1]

    now = [0.0]  # which passes only while it waits

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(Agent, "enlist", enlist)
    monkeypatch.setattr(find_master, "_PAUSE", 0.001)
    monkeypatch.setattr(find_master, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with pytest.raises(SlaveError) as caught:
        find_master.find_master(config, 1e9, 0.05, master_lives=lambda: len(tries) < lives)
    return caught.value, len(tries)


def unreachable(number: int) -> Unreachable:
    """What `dial` raises where connecting fails so."""
    attempts = dial._Attempts(lambda sock: iter(()))  # type: ignore[arg-type,return-value]  # nobody is introduced
    attempts._fail(
        dial.Candidate(socket.AF_INET, ("127.0.0.1", 9), "127.0.0.1:9", ("127.0.0.1", 9)), OSError(number, "x")
    )
    attempts.close()
    error = attempts.failure()
    assert isinstance(error, Unreachable)
    return error


@pytest.mark.parametrize("name", ["ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EACCES", "EPERM", "ENETDOWN"])
def test_a_local_slave_to_which_there_is_no_way_says_so_at_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error, tries = look(monkeypatch, LOCAL, unreachable(getattr(errno, name)))
    assert tries == 1 and str(error).startswith("cannot reach the master at 127.0.0.1:9: ")
    assert str(error).count("127.0.0.1:9") == 1, "the only address is named once"


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EAGAIN, errno.ENFILE, errno.ECONNRESET])
def test_a_local_slave_waits_for_a_master_that_is_busy_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    error, tries = look(monkeypatch, LOCAL, unreachable(number), lives=20)
    assert tries == 20 and isinstance(error, Unreachable)


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), unreachable(errno.EMFILE)])
def test_a_slave_that_has_not_one_descriptor_left_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch, stays: bool, error: Exception
) -> None:
    """Waiting brings none back."""
    told, tries = look(monkeypatch, LOCAL._replace(stays=stays, encrypt=False), error)
    assert tries == 1 and isinstance(told, OutOfResources)
    assert re.search(r"cannot reach the master at 127.0.0.1:9: .*may have \d+ files open.*ulimit -n", str(told))


def test_a_local_slave_of_another_user_says_so_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "master"))
        listener.listen()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(Unreachable, match=r"another user \(uid \d+\) is at the other end; .* 12345") as caught:
            dial.dial([(f"unix:{tmp_path / 'master'}", 0)], KEY, 1)
    assert caught.value.no_way
    assert look(monkeypatch, LOCAL, caught.value)[1] == 1


def test_a_local_slave_does_not_wait_long_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    error, tries = look(monkeypatch, LOCAL, unreachable(errno.ECONNREFUSED))
    assert 2 <= tries < 200 and isinstance(error, Unreachable) and not error.others


def test_a_slave_elsewhere_waits_though_there_is_no_way_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network may come."""
    elsewhere = LOCAL._replace(stays=False, encrypt=False)
    error, tries = look(monkeypatch, elsewhere, unreachable(errno.ENETUNREACH), lives=20)
    assert tries == 20 and isinstance(error, Unreachable)


def test_one_address_that_refuses_does_not_shorten_the_time_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """``refused_seconds`` are for the case that all refuse."""
    mixed = Unreachable("one refuses, and one does not answer", [("10.0.0.1", 1)], others=True)
    elsewhere = LOCAL._replace(stays=False, encrypt=False)
    _, tries = look(monkeypatch, elsewhere, mixed, lives=120)
    assert tries == 120


def test_whether_a_process_is_there() -> None:
    assert process_tree.exists(0) and process_tree.exists(1) and not process_tree.exists(1 << 22)


class Masters:
    """In the place of `find_master`: each search ends in the next of these ways."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: SlaveError) -> None:
        self.ends, self.pauses = list(ends), [0.0]
        monkeypatch.setenv("PARALLEL_AUTHKEY", KEY.decode())
        monkeypatch.setattr(by_hand, "find_master", self.find)
        monkeypatch.setattr(by_hand.time, "sleep", self.pauses.append)  # type: ignore[attr-defined]

    def find(self, config: AgentConfig, wait: float, at_once: object = ()) -> Agent:
        """As `find_master.find_master` ends."""
        raise self.ends.pop(0)


ANSWERS = [
    Rejected("not you"),
    ProtocolError("nonsense"),
    Unreachable("nobody"),
    Intercepted("relayed"),
    WrongKey("another key"),
    Incompatible("another version"),
    MasterGone("gone"),
    MasterFinished("done"),
]


def test_keep_goes_on_whatever_one_master_or_another_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    masters = Masters(monkeypatch, *ANSWERS, KeyTrouble("and this is our own fault"))
    assert cli.main(["host:1", "--keep", "--wait", "0"]) == 7
    assert not masters.ends
    assert sum(masters.pauses) >= 20, "it does not go round in circles where it is refused at once"


@pytest.mark.parametrize("answer", ANSWERS[:-1], ids=lambda one: type(one).__name__)
def test_without_keep_each_of_them_ends_it(monkeypatch: pytest.MonkeyPatch, answer: SlaveError) -> None:
    Masters(monkeypatch, answer)
    assert cli.main(["host:1", "--wait", "0"]) == answer.exit_code


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("-qqq", logging.ERROR),
        ("-q -q", logging.ERROR),
        ("-q", logging.WARNING),
        ("", logging.INFO),
        ("-v", logging.DEBUG),
        ("-v -q", logging.INFO),
        ("-vv", logging.DEBUG),
    ],
)
def test_the_quieter_it_is_asked_to_be_the_less_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, level: int
) -> None:
    log = logging.getLogger("slave")
    Masters(monkeypatch, Unreachable("nobody"))
    cli.main(["host:1", "--wait", "0", *options.split()])
    capsys.readouterr()
    levels = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR]
    for one in levels:
        log.log(one, logging.getLevelName(one))
    assert capsys.readouterr().err.split() == [
        word for one in levels if one >= level for word in ("slave:", logging.getLevelName(one))
    ]
