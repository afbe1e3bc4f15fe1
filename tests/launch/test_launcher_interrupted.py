"""The user's thread is interrupted in any line of the launcher: by a signal handler that stops it, by Ctrl-C."""

from __future__ import annotations

import itertools
import linecache
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import pytest

import parallel
from parallel.launch import group
from parallel.launch.config import LaunchConfig
from parallel.launch.launcher import Launcher
from tests.conftest import children
from tests.launch.fake_service import FakeService
from tests.launch.test_launcher import FOR_EVER, Fake, Together
from tests.support.waiting import eventually

HERE = str(Path(group.__file__).parent)
AGENT = ("/bin/sh", "-c", "read orders && exec sleep 1000")


class Interrupted:
    """Calls ``act`` before the ``n``-th line that this thread runs in the launcher, as a signal handler would.

    Not where a ``with`` or ``try`` begins or ends: signals are not looked for there, and of an exception the ``with``
    itself would hear nothing.
    """

    def __init__(self, n: int, act: Callable[[], None]) -> None:
        self._n, self._act, self.seen = n, act, 0

    def __enter__(self) -> Interrupted:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).split()
        if event == "line" and line[0] not in ("with", "try:"):
            self.seen += 1
            if self.seen == self._n:
                sys.settrace(None)
                self._act()
        return self._trace


class Run:
    """A launcher, what is added to it, and what came of that."""

    def __init__(self) -> None:
        self.before, self.service = children(), FakeService("out%d")
        config = LaunchConfig(None, "/the/root", b"k" * 32, "out%d", lambda local: [("127.0.0.1", 9)])
        self.launcher = Launcher(self.service, config)
        self.single, self.array = Fake("single"), Together([Fake("a"), Fake("b")])

    def go(self) -> None:
        """What a user's thread does."""
        for slave in (parallel.LocalSlave(), self.single, self.array):
            self.launcher.add(slave)
        self.launcher.withdraw(2)
        self.launcher.start(FOR_EVER)
        self.launcher.add(parallel.LocalSlave())
        self.launcher.start(FOR_EVER)

    def check(self) -> None:
        """All that was started was stopped, and nothing is left of it."""
        eventually(lambda: [one for one in children() if one not in self.before] == [], 60, "the end of processes")
        if "start" in self.single.calls:
            assert self.single.calls[-1] == "stop"
        if "start" in self.array.calls:
            assert any(call.startswith("stop") for call in self.array.calls)
        eventually(lambda: not launching(), 60, f"the end of {launching()}")


def launching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("parallel launcher of")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(group, "_LATE_SECONDS", 60.0)
    monkeypatch.setattr("parallel.launch.config.slave_command", lambda python, root: AGENT)


def every_line(try_one: Callable[[int], bool], step: int) -> None:
    """Try the first line, and every ``step``-th after it, as long as there is one."""
    for n in itertools.count(1, step):
        if not try_one(n):
            assert n > 100, "there should be more"
            return


def stopped_before_line(n: int, caplog: pytest.LogCaptureFixture) -> bool:
    run = Run()
    took: list[float] = []

    def handler() -> None:
        begun = time.monotonic()
        if n % 2:
            run.launcher.stop(100.0)
        else:  # as the manager does
            stopper = threading.Thread(target=run.launcher.stop, args=(100.0, {threading.get_ident()}))
            stopper.start()
            stopper.join()
        took.append(time.monotonic() - begun)

    with Interrupted(n, handler):
        run.go()
    if not took:
        run.launcher.stop(100.0)
    assert [seconds for seconds in took if seconds > 30.0] == [], f"in line {n} it waited for the interrupted thread"
    assert "left behind" not in caplog.text
    run.check()
    return bool(took)


def interrupted_before_line(n: int, caplog: pytest.LogCaptureFixture) -> bool:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run = Run()
    try:
        with Interrupted(n, interrupt):
            run.go()
        happened = False
    except KeyboardInterrupt:
        happened = True
    begun = time.monotonic()
    run.launcher.stop(100.0)
    assert time.monotonic() - begun < 30.0
    assert "left behind" not in caplog.text
    run.check()
    return happened


def test_a_handler_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    every_line(lambda n: stopped_before_line(n, caplog), 9)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the garbage collector closes what was just being opened
def test_ctrl_c(caplog: pytest.LogCaptureFixture) -> None:
    every_line(lambda n: interrupted_before_line(n, caplog), 10)


@pytest.mark.slow
def test_a_handler_ends_it_in_every_line(caplog: pytest.LogCaptureFixture) -> None:
    every_line(lambda n: stopped_before_line(n, caplog), 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ctrl_c_in_every_line(caplog: pytest.LogCaptureFixture) -> None:
    every_line(lambda n: interrupted_before_line(n, caplog), 1)
