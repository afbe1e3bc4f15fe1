"""What fails in the trials of faults.py, and how: all this runs in a slave."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

from slave import link, runner, wire

MOMENTS = {
    "idle": "waiting for tasks",
    "setup": "in the context's setup",
    "task": "in a task",
    "sending": "while a result is being sent",
    "fetching": "while tasks are being fetched",
    "between": "between two tasks of one lease",
}


def _signal(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(60)  # it is on its way, if not here already


def _segfault() -> None:
    ctypes.string_at(0)


def _exit_at_once() -> NoReturn:
    os._exit(3)


def _raise(kind: type[BaseException]) -> NoReturn:
    raise kind("by the fault table")


def _recurse() -> int:
    return 1 + _recurse()


def _stop(seconds: float) -> None:
    """Be stopped for so long, and be continued."""
    wake = f"sleep {seconds}; kill -CONT {os.getpid()}"
    subprocess.Popen(["/bin/sh", "-c", wake], start_new_session=True, stdout=subprocess.DEVNULL)
    os.kill(os.getpid(), signal.SIGSTOP)


class Fault(NamedTuple):
    """A way to fail: ``strike`` is called in the slave."""

    strike: Callable[[], object]
    moments: tuple[str, ...]
    kills: bool = True  # the runner, wherever it strikes; else the task alone if it strikes inside of one
    lease: float = 30.0


_ALL = tuple(MOMENTS)
_RAISED = tuple(name for name in MOMENTS if name != "idle")  # an exception needs somebody who runs
_LEASE = 0.6  # seconds, of the managers whose slaves are stopped for longer
FAULTS = {
    "SIGKILL": Fault(functools.partial(_signal, signal.SIGKILL), _ALL),
    "segfault": Fault(_segfault, _ALL),
    "os._exit": Fault(_exit_at_once, _ALL),
    "SIGTERM": Fault(functools.partial(_signal, signal.SIGTERM), _ALL),
    "sys.exit": Fault(functools.partial(_raise, SystemExit), _RAISED, kills=False),
    "KeyboardInterrupt": Fault(functools.partial(_raise, KeyboardInterrupt), _RAISED, kills=False),
    "MemoryError": Fault(functools.partial(_raise, MemoryError), _RAISED, kills=False),
    "endless recursion": Fault(_recurse, _RAISED, kills=False),
    "SIGSTOP for 3 leases": Fault(functools.partial(_stop, 3 * _LEASE), _ALL, kills=False, lease=_LEASE),
}


def strike_once(flag: str, name: str) -> None:
    """Fail, if nobody has yet; the flag file tells when (time.monotonic) and in which process."""
    try:
        handle = os.open(flag, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.write(handle, f"{time.monotonic()} {os.getpid()}\n".encode())
    os.close(handle)
    FAULTS[name].strike()


def work(number: int, *_: object) -> int:
    """A task of some milliseconds."""
    end = time.perf_counter() + 0.003
    while time.perf_counter() < end:
        pass
    return number


def failing_work(flag: str, name: str, number: int, *_: object) -> int:
    """The same, and the fault in the middle of it."""
    strike_once(flag, name)
    return work(number)


def failing_victim(flag: str, name: str, number: int, *_: object) -> int:
    """The task in which the fault strikes; the second time it notes when it began."""
    if os.path.exists(flag):
        Path(flag).with_suffix(".again").write_text(str(time.monotonic()))
    return failing_work(flag, name, number)


def failing_setup(flag: str, name: str) -> str:
    """A setup with the fault in it."""
    strike_once(flag, name)
    return "ready"


def sabotage(moment: str, flag: str, name: str, *_: object) -> str:
    """Change the program of this runner, so that it fails at the moment."""
    strike = functools.partial(strike_once, flag, name)
    if moment == "sending":
        _sabotage_sending(strike)
    elif moment == "fetching":
        _sabotage_fetching(strike)
    elif moment == "between":
        _sabotage_posting(strike)
    else:
        assert moment == "idle", moment
        threading.Thread(target=_strike_when_told, args=(flag + ".now", strike), daemon=True).start()
    return "sabotaged"


def _sabotage_sending(strike: Callable[[], None]) -> None:
    send, send_frame = wire.Connection.send, wire.Connection.send_frame

    def half(self: wire.Connection, sending: Callable[[], None]) -> None:
        """Send what has an outcome in it; the first time fail in the middle of it."""
        if getattr(self, "struck", False):
            sending()
            return
        self.struck = True  # type: ignore[attr-defined]
        whole = self.transport
        self.transport = _Halves(whole, strike)
        try:
            sending()
        finally:
            self.transport = whole

    def send_half(self: wire.Connection, message: Any, ahead: bytes = b"") -> None:
        if ahead or message[1] in ("post", "post_and_wait"):
            half(self, lambda: send(self, message, ahead))
        else:
            send(self, message)

    def send_frame_half(self: wire.Connection, frame: bytes) -> None:
        half(self, lambda: send_frame(self, frame))

    wire.Connection.send = send_half  # type: ignore[method-assign]
    wire.Connection.send_frame = send_frame_half  # type: ignore[method-assign]


class _Halves:
    """A transport that fails after the first half of what it is to write."""

    def __init__(self, whole: Any, strike: Callable[[], None]) -> None:
        self.whole, self.strike = whole, strike

    def write(self, data: bytes | memoryview) -> None:
        self.whole.write(data[: len(data) // 2])
        self.strike()
        self.whole.write(data[len(data) // 2 :])

    def write_all(self, views: Sequence[memoryview]) -> None:
        self.write(b"".join(views))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def _sabotage_fetching(strike: Callable[[], None]) -> None:
    fetch = link.TaskQueueProxy.fetch

    def fetch_and_fail(self: link.TaskQueueProxy, *args: Any) -> Any:
        send = self._link.send

        def send_and_fail(message: object) -> None:
            send(message)
            strike()

        self._link.send = send_and_fail  # type: ignore[method-assign]
        try:
            return fetch(self, *args)
        finally:
            del self._link.send

    link.TaskQueueProxy.fetch = fetch_and_fail  # type: ignore[method-assign, assignment]


def _sabotage_posting(strike: Callable[[], None]) -> None:
    post, send_gathered = runner.Runner.post, runner.Runner.send_gathered

    def post_and_fail(self: runner.Runner, packed: Any) -> None:
        post(self, packed)
        strike()

    def send_and_fail(self: runner.Runner) -> None:
        send_gathered(self)
        strike()

    runner.Runner.post = post_and_fail  # type: ignore[method-assign]
    runner.Runner.send_gathered = send_and_fail  # type: ignore[method-assign]


def _strike_when_told(path: str, strike: Callable[[], None]) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)
    strike()
