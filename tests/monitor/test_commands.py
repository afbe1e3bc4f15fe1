"""``python3 -m parallel status | stop | drain | add``: from this machine and, with the key, from others."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

import parallel
from parallel.__main__ import main
from parallel.monitor.client import Refused, Watcher
from parallel.monitor.plain_json import shaped
from parallel.monitor.status import Status
from parallel.service import registry
from slave.dial import dial
from slave.errors import MasterGone, ProtocolError, Unreachable
from slave.keys import Key
from slave.protocol import COMMANDS, REPORTS, RUNNER, WATCHER
from slave.token import new_once, reusable
from tests.conftest import Make
from tests.support.inside import inside
from tests.support.programs import Program, environment
from tests.support.tasks import give, raise_value_error, wait_for
from tests.support.waiting import eventually

KEY = b"the key of these tests"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        code = main(list(arguments))
    except SystemExit as ended:
        code = int(str(ended.code))
    told = capsys.readouterr()
    return code, told.out, told.err


def at(manager: parallel.Manager) -> str:
    return f"127.0.0.1:{manager.address[1]}"


def test_status_finds_the_masters_of_this_user_on_this_machine(
    make: Make, capsys: pytest.CaptureFixture[str], own_folder: Path
) -> None:
    manager = make(2, lease=8.0)  # heartbeats, which tell of memory, come at a quarter of it
    context = manager.get_context(label="fits")
    gate = str(own_folder / "gate")
    context.add_task(raise_value_error)
    for number in range(4):
        context.add_task(wait_for, gate, label=f"run {number}")
    results = context.get_results_unordered(errors="return")
    next(results)
    eventually(lambda: context.progress.running == 2)
    eventually(lambda: [event.text for event in manager.status().events if "has joined" in event.text])
    code, out, err = said(capsys, "status")
    assert (code, err) == (0, "")
    assert f"process {os.getpid()} (release" in out and "fits" in out and " run 0 (" in out and " busy" in out
    assert "failed last:" in out and "ValueError: " in out and "what happened last:" in out and "has joined" in out
    code, out, _ = said(capsys, "status", "--json", str(os.getpid()))
    told = json.loads(out)
    assert shaped(Status, told).total.running == 2
    assert [failure["error"].partition(":")[0] for failure in told["failures"]] == ["ValueError"]
    assert "Traceback" in told["failures"][0]["traceback"]
    eventually(lambda: all(slave.memory > 1 << 20 for slave in manager.status().slaves), what="their memory")
    Path(gate).touch()
    list(results)
    manager.shutdown()
    code, out, err = said(capsys, "status")
    assert (code, out) == (4, "") and err.startswith("parallel: no master of yours runs on this machine")


def test_status_of_another_machine_wants_the_key(
    make: Make, capsys: pytest.CaptureFixture[str], own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(0, port=0, authkey=KEY)
    keys = own_folder / "key"
    for text, expected in ((KEY.decode(), 0), ("another key of 16 bytes", 3), ("short", 7)):
        keys.write_text(text)
        keys.chmod(0o600)
        code, out, err = said(capsys, "status", at(manager), "--key-file", str(keys))
        assert code == expected, err
        assert (out == "") == (err != "") == (code != 0) and err.count("\n") <= 1
    monkeypatch.setenv("PARALLEL_AUTHKEY", KEY.decode())
    assert said(capsys, "status", at(manager))[0] == 0
    monkeypatch.setenv("PARALLEL_AUTHKEY", f"{parallel_token(KEY)}")
    assert said(capsys, "status", at(manager))[0] == 0


def parallel_token(key: bytes) -> str:
    from slave.token import Token

    return Token(reusable(key)).text()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["status", "nowhere"], 2, "'nowhere' is not HOST:PORT"),
        (["status", "1"], 2, "process 1 is no master of yours on this machine"),
        (["status", "127.0.0.1:1"], 4, "127.0.0.1:1: connection refused"),
        (["status", "--every", "0"], 2, "'0' is not a pause: 0.1 to 86400 seconds"),
        (["drain"], 2, "the following arguments are required: SLAVE"),
        (["drain", "x"], 2, "'x' is not a whole number from 0 on"),
        (["drain", "0", "--grace", "soon"], 2, "'soon' is not a number of seconds from 0 on"),
        (["add", "0"], 2, "'0' is not a whole number from 1 to 10,000"),
        (["add", "1"], 4, "no master of yours runs on this machine"),
        (["stop"], 4, "no master of yours runs on this machine"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARALLEL_AUTHKEY", KEY.decode())
    found, out, err = said(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("parallel: ") and text in err and err.count("\n") == 1


@pytest.mark.usefixtures("patient")
def test_slaves_are_added_and_drained_and_the_master_is_stopped(
    make: Make, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(1)
    manager.wait_for_slaves(1)
    assert said(capsys, "add", "2") == (0, "2 more slaves will join\n", "")
    manager.wait_for_slaves(3, timeout=60)
    assert said(capsys, "drain", "1") == (0, "slave 1 gets no more tasks, and ends\n", "")
    eventually(lambda: [slave.state for slave in manager.slaves] == ["idle", "ended", "idle"], what="slave 1's end")
    code, out, err = said(capsys, "drain", "7")
    assert (code, out) == (10, "") and "has no slave 7" in err and err.count("\n") == 1
    second = make(0, port=0, authkey=KEY)
    code, _, err = said(capsys, "stop")
    assert code == 2 and "2 masters of yours run here, name one by its process id" in err
    second.shutdown()
    code, out, _ = said(capsys, "stop")
    assert code == 0 and out.endswith("shuts down\n")
    eventually(lambda: manager.closed, 60)
    assert "shutting down, as python3 -m parallel stop said" in caplog.text


def test_a_stopped_slave_is_told_as_stopped(make: Make) -> None:
    manager = make(1, lease=8.0)
    manager.wait_for_slaves(1)
    pid = manager.slaves[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: manager.slaves[0].state == "stopped", 60, "the state 'stopped'")
        assert "stopped by somebody (kill -CONT lets them go on): slave 0" in manager.status().trouble[0]
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: manager.slaves[0].state == "idle", what="the state 'idle'")


_MASTER = """
import os, signal, sys
import parallel

if __name__ == "__main__":
    with parallel.Manager.local(1, output=None) as manager:
        context = manager.get_context(label=sys.argv[1])
        context.add_task(abs, -1)
        for _ in context.get_results_unordered():
            pass
        print("read", flush=True)
        signal.pause()
"""


def test_watching_goes_on_with_the_next_master(own_folder: Path) -> None:
    (own_folder / "master.py").write_text(_MASTER)
    masters = []

    def start(label: str) -> None:
        masters.append(Program(sys.executable, str(own_folder / "master.py"), label, variables=environment()))
        masters[-1].says("read")

    watching = Program(sys.executable, "-m", "parallel", "status", "--watch", "--every", "0.1")
    try:
        watching.says("no master of yours runs on this machine yet; waiting for one")
        start("the first")
        watching.says("the first +1 +1 +0")
        masters[0].kill()  # SIGKILL: it cannot say goodbye, nor remove its file
        watching.says("has ended; waiting for the next")
        start("the second")
        watching.says("the second +1 +1 +0")
        watching.process.send_signal(signal.SIGINT)
        assert watching.ends() == 130
    finally:
        for program in [*masters, watching]:
            program.kill()


def test_a_master_that_dies_while_it_is_watched_is_told(make: Make) -> None:
    manager = make(0, port=0, authkey=KEY)
    watcher = Watcher([("127.0.0.1", manager.address[1])], KEY)
    assert watcher.status().slaves == []
    manager.shutdown()
    with pytest.raises(MasterGone, match=r"the master at 127\.0\.0\.1:\d+ has ended"):
        watcher.status()
    with pytest.raises((MasterGone, Unreachable)):
        watcher.status()
    watcher.close()


# -- who may what


def test_the_secret_in_the_file_makes_watchers_and_no_slaves(make: Make) -> None:
    manager = make(0)
    assert manager.address
    (entry,) = registry.masters()
    watcher = Watcher([entry.address], entry.key, master=entry.master)
    assert watcher.status().master == entry.name
    watcher.close()
    for kind in (RUNNER, REPORTS, COMMANDS):
        assert answer(entry.address, entry.key, kind)[0] == "#CUT"


def test_tokens_for_one_slave_make_no_watchers(make: Make) -> None:
    manager = make(0, port=0, authkey=KEY)
    address = "127.0.0.1", manager.address[1]
    run = inside(manager, lambda state: state.run)
    assert answer(address, new_once(KEY, run), WATCHER)[0] == "#CUT"
    assert answer(address, new_once(KEY, run), REPORTS)[0] == "#RETURN"
    assert answer(address, reusable(KEY), WATCHER)[0] == "#RETURN"


def answer(address: tuple[str, int], key: Key, kind: str) -> tuple[object, object]:
    """What the master says to who comes with that key in that role."""
    connection = dial([address], key, 60.0)
    try:
        connection.limit(60)
        connection.send((None, "accept_connection", ((kind, 0, "a" * 32, 1, 1),), {}))
        found: tuple[object, object] = connection.recv()
        return found
    finally:
        connection.close()


def test_what_fails_in_the_manager_is_told_to_who_asked(make: Make) -> None:
    manager = make(0, port=0, authkey=KEY)
    watcher = Watcher([("127.0.0.1", manager.address[1])], KEY)
    with pytest.raises(Refused, match="this manager has no slave 5"):
        watcher.drain(5)
    assert watcher.surroundings()["addresses"]
    watcher.close()


# -- the files


def test_the_file_is_private_and_goes_with_the_master(make: Make, own_folder: Path) -> None:
    manager = make(0)
    assert manager.address
    (path,) = (own_folder / "runtime" / "parallel" / "masters").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    manager.shutdown()
    assert list(path.parent.iterdir()) == [] and registry.masters() == []


def test_files_of_dead_masters_and_of_other_machines(make: Make, own_folder: Path) -> None:
    manager = make(0)
    assert manager.address
    (path,) = (own_folder / "runtime" / "parallel" / "masters").iterdir()
    told = json.loads(path.read_text())
    dead, elsewhere, broken = (path.with_name(name) for name in ("dead.json", "elsewhere.json", "broken.json"))
    dead.write_text(json.dumps({**told, "began": told["began"] - 1}))
    elsewhere.write_text(json.dumps({**told, "machine": "another"}))
    broken.write_text("{")
    assert [entry.pid for entry in registry.masters()] == [os.getpid()]
    assert not dead.exists() and elsewhere.exists()
    path.parent.chmod(0o755)
    assert registry.masters() == [], "others could look into the folder"
    path.parent.chmod(0o700)


def test_a_home_that_is_read_only_costs_a_run_nothing(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(registry, "_bases", lambda: ["/proc/nowhere"])
    context = make(1).get_context()
    context.add_task(give, 3)
    assert list(context.get_results_unordered()) == [3]


# -- what comes from elsewhere is looked at


@pytest.mark.parametrize(
    "change",
    [
        {"uptime": "long"},
        {"uptime": float("nan")},
        {"closing": 1},
        {"slaves": {}},
        {"slaves": [3]},
        {"slaves": [{"number": 1}]},
        {"contexts": None},
        {"events": [{"ago": 1.0, "level": "high", "text": ""}]},
        {"trouble": [3]},
        {"master": None},
    ],
)
def test_a_status_of_another_shape_is_refused(change: dict[str, object]) -> None:
    good = Status("m", "0", 1.0, False).as_dict()
    assert shaped(Status, good) == Status("m", "0", 1.0, False)
    with pytest.raises(ProtocolError):
        shaped(Status, {**good, **change})


def test_texts_from_elsewhere_do_not_move_the_cursor() -> None:
    good = Status("m\x1b[2Jm", "0", 1.0, False, trouble=["a\tb\x07"]).as_dict()
    found = shaped(Status, {**good, "a later release's": 1})
    assert found.master == "m [2Jm" and found.trouble == ["a b "]
