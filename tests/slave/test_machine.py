"""What the slave program asks its machine, and tells it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from slave import machine
from slave.errors import BadRequest
from tests.support.programs import environment
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500M", 500 << 20),
        ("2G", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("100", 100),
        (4096, 4096),
        ("2kb", 2048),
        (2e9, 2 * 10**9),
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    assert machine.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "2X", "1e400", True, None, "G", float("nan"), float("inf")])
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="no size"):
        machine.parse_size(text)  # type: ignore[arg-type]


def test_memory_is_that_of_the_process_and_what_it_started() -> None:
    code = "import sys; data = bytearray(b'x' * (60 << 20)); print(flush=True); sys.stdin.read()"
    family = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    for text, least in ((code, 60), (family, 60)):
        with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            memory = machine.memory_of(process.pid)
            assert memory is not None and least << 20 < memory < (least + 60) << 20
            assert process.stdin is not None
            process.stdin.close()
    assert machine.memory_of(process.pid) is None
    assert machine.tells_memory()


def in_a_child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    return done.stdout.strip()


def test_processors_and_priority() -> None:
    usable = sorted(os.sched_getaffinity(0))
    says = "import os; from slave.machine import use_cpus; print({}, sorted(os.sched_getaffinity(0)))"
    assert in_a_child(says.format("use_cpus('1')")) == f"1 {usable[:1]}"
    assert in_a_child(says.format(f"use_cpus('{usable[-1]}-{usable[-1] + 5},900')")) == f"1 {usable[-1:]}"
    assert in_a_child(says.format("use_cpus('0-99999999999')")) == f"{len(usable)} {usable}"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    nice = "import os; from slave.machine import be_nice; be_nice(3); print(os.getpriority(os.PRIO_PROCESS, 0))"
    assert int(in_a_child(nice)) == min(19, before + 3)


@pytest.mark.parametrize("wanted", ["0", "x", "1-", "900-901", ""])
def test_processors_that_cannot_be_had(wanted: str) -> None:
    with pytest.raises(BadRequest, match="--cpus"):
        machine.use_cpus(wanted)


def test_work_of_others_is_a_sign_of_the_owner_and_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy, ours = [100.0], [1000.0], {1: 50.0}
    monkeypatch.setattr(machine, "_busy_seconds", lambda: busy[0])
    monkeypatch.setattr(machine, "_seconds_of", lambda pids: dict(ours))
    monkeypatch.setattr(machine, "_seconds_without_input", lambda: None)
    monkeypatch.setattr(machine, "_input_interrupts", lambda: "")
    owner = machine.Owner(lambda: [1], 0.5, lambda: now[0])
    owner.look()
    now[0], busy[0], ours[1] = 102.0, 1004.0, 54.0  # two processors, both ours
    owner.look()
    assert owner.away_for() > 1e6
    now[0], busy[0], ours[1] = 104.0, 1007.0, 56.0  # one and a half, of which half a one is not
    owner.look()
    assert owner.away_for() > 1e6
    now[0], busy[0], ours[1] = 106.0, 1011.0, 58.0
    owner.look()
    assert owner.away_for() == 0 and owner.sign == "other programs keep 1.0 processors busy"
    now[0] = 130.0
    assert owner.away_for() == 24


@pytest.mark.parametrize("sign", ["interrupt", "terminal", "none"])
def test_keyboard_and_mouse_are_signs(monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    interrupts = ["1"]
    monkeypatch.setattr(machine, "_busy_seconds", lambda: 0.0)
    monkeypatch.setattr(machine, "_seconds_without_input", lambda: 2.0 if sign == "terminal" else 400.0)
    monkeypatch.setattr(machine, "_input_interrupts", lambda: interrupts[0])
    owner = machine.Owner(lambda: [], 0.5)
    interrupts[0] = "2" if sign == "interrupt" else "1"
    owner.look()
    assert owner.sign == ("" if sign == "none" else "keyboard or mouse are used")


def test_a_real_busy_program_is_seen() -> None:
    owner, mine = machine.Owner(lambda: [], 0.3), machine.Owner(lambda: [busy.pid, os.getpid()], 64.0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) as busy:
        try:
            owner.look()
            mine.look()

            def seen() -> str:  # at some look: the whole machine may stand still for a while
                owner.look()
                return owner.sign

            eventually(lambda: machine._seconds_of([busy.pid])[busy.pid] > 1.0, 60)
            eventually(seen, 60)
            mine.look()
            assert "processors busy" in owner.sign or "keyboard" in owner.sign
            assert "processors busy" not in mine.sign
        finally:
            busy.kill()
