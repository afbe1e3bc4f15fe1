"""The fault table: every way in which a runner can fail, at every moment of its life, tried and timed.

    python3 tools/faults.py [--rounds 3] [fault ...]

Each trial runs 60 tasks on two local slaves, one of which fails once.  It must give exactly one outcome for each task;
the table tells what the user sees and how soon the slave is back.  tests/whole/test_fault_table.py runs the same.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import parallel  # noqa: E402 - found only after the line above
from slave import link, runner, wire  # noqa: E402

TASKS = 60
MOMENTS = {
    "idle": "waiting for tasks",
    "setup": "in the context's setup",
    "task": "in a task",
    "sending": "while a result is being sent",
    "fetching": "while tasks are being fetched",
    "between": "between two tasks of one lease",
}


# -- what fails: these run in a slave


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
    send = wire.Connection.send

    def send_half(self: wire.Connection, message: Any) -> None:
        if message[1] in ("post", "post_and_wait") and not getattr(self, "struck", False):
            self.struck = True  # type: ignore[attr-defined]
            halves = _Halves(self._sock, strike)
            self._sock = halves  # type: ignore[assignment]
            try:
                send(self, message)
            finally:
                self._sock = halves.sock
        else:
            send(self, message)

    wire.Connection.send = send_half  # type: ignore[method-assign]


class _Halves:
    """A socket that fails after the first half of what it is to send."""

    def __init__(self, sock: Any, strike: Callable[[], None]) -> None:
        self.sock, self.strike = sock, strike

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(data[: len(data) // 2])
        self.strike()
        self.sock.sendall(data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


def _sabotage_fetching(strike: Callable[[], None]) -> None:
    fetch = link.TaskQueueProxy.fetch

    def fetch_and_fail(self: link.TaskQueueProxy, *args: Any) -> Any:
        tell = self._tell

        def tell_and_fail(method: str, *details: object) -> None:
            tell(method, *details)
            strike()

        self._tell = tell_and_fail  # type: ignore[method-assign]
        try:
            return fetch(self, *args)
        finally:
            del self._tell

    link.TaskQueueProxy.fetch = fetch_and_fail  # type: ignore[method-assign, assignment]


def _sabotage_posting(strike: Callable[[], None]) -> None:
    post = runner.Runner._post

    def post_and_fail(self: runner.Runner, task: int, packed: Any) -> None:
        post(self, task, packed)
        strike()

    runner.Runner._post = post_and_fail  # type: ignore[method-assign]


def _strike_when_told(path: str, strike: Callable[[], None]) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)
    strike()


# -- the trial: this runs in the master


class Trial(NamedTuple):
    """What came of one trial."""

    outcomes: Counter[object]  # of each result, and of each error's type
    told: list[str]  # what the user sees on stderr, and the errors that the loop raised
    back: float | None  # seconds from the fault to the slave's next process; None if the process lived on
    rerun: float | None  # seconds from the fault to the next start of the task in which it struck


class _Watch(threading.Thread):
    """Notes when a slave whose process was ``pid`` has another one."""

    def __init__(self, manager: parallel.Manager, flag: Path) -> None:
        super().__init__(daemon=True)
        self._manager, self._flag = manager, flag
        self.done = threading.Event()
        self.back: float | None = None

    def run(self) -> None:
        before: dict[int, int] = {}
        while not self.done.wait(0.001):
            now = {info.number: info.pid for info in self._manager.slaves}
            if self._flag.exists() and self._flag.read_text():
                struck, pid = self._flag.read_text().split()
                number = next((number for number, old in before.items() if old == int(pid)), None)
                if number is not None and now[number] not in (0, int(pid)):
                    self.back = time.monotonic() - float(struck)
                    return
            else:
                before = now


def attempt(name: str, moment: str, folder: Path) -> Trial:
    """Run one trial; ``folder`` is empty and its own."""
    fault, flag, told = FAULTS[name], folder / "struck", _Told()
    logging.getLogger("parallel").addHandler(told)
    try:
        with parallel.Manager(output=str(folder / "slave%d.output"), lease=fault.lease) as manager:
            manager.add_slave(parallel.LocalSlave())
            manager.add_slave(parallel.LocalSlave())
            manager.wait_for_slaves(2, 30)
            watch = _Watch(manager, flag)
            watch.start()
            outcomes = _run(manager, name, moment, flag, told.lines)
            if fault.kills or (watch.back is None and moment not in ("setup", "task") and fault.lease == 30.0):
                watch.join(10)
            watch.done.set()
            watch.join()
    finally:
        logging.getLogger("parallel").removeHandler(told)
    rerun = None
    again = flag.with_suffix(".again")
    if again.exists():
        rerun = float(again.read_text()) - float(flag.read_text().split()[0])
    return Trial(outcomes, told.lines, watch.back, rerun)


def _run(manager: parallel.Manager, name: str, moment: str, flag: Path, told: list[str]) -> Counter[object]:
    setup = functools.partial(failing_setup, str(flag), name) if moment == "setup" else None
    context = manager.get_context(setup)
    if moment not in ("setup", "task"):
        context.add_task(functools.partial(sabotage, moment, str(flag), name))
    for number in range(TASKS):
        if moment == "task" and number == TASKS // 2:
            context.add_task(functools.partial(failing_victim, str(flag), name, number))
        else:
            context.add_task(functools.partial(work, number))
    outcomes = _read(context, told)
    if moment == "idle":
        flag.with_name(flag.name + ".now").touch()
        while not (flag.exists() and flag.read_text()):
            time.sleep(0.001)
        for number in range(TASKS, 2 * TASKS):
            context.add_task(functools.partial(work, number))
        outcomes.update(_read(context, told))
    return outcomes


def failing_victim(flag: str, name: str, number: int, *_: object) -> int:
    """The task in which the fault strikes; the second time it notes when it began."""
    if os.path.exists(flag):
        Path(flag).with_suffix(".again").write_text(str(time.monotonic()))
    return failing_work(flag, name, number)


def _read(context: parallel.Context[Any], told: list[str]) -> Counter[object]:
    outcomes: Counter[object] = Counter()
    while True:
        try:
            for result in context.get_results_unordered():
                outcomes[result] += 1
            return outcomes
        except parallel.RemoteError as error:
            outcomes[error.type_name] += 1
            told.append(f"raises {type(error).__name__}: {str(error).splitlines()[0]}")


class _Told(logging.Handler):
    """Collects what the user sees on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


# -- the table


def main() -> None:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="fault", help=f"of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Median of {options.rounds} rounds, in ms: the slave is back after (its task runs elsewhere after)\n")
    print("| fault of a runner | " + " | ".join(MOMENTS.values()) + " |\n|---" + "|---" * len(MOMENTS) + "|")
    said: list[str] = []
    for name in options.faults or FAULTS:
        cells = [_cell(name, moment, options.rounds, said) for moment in MOMENTS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print("\nEvery task gave exactly one outcome in every trial.  What the user sees, for example:\n")
    print("\n".join(said))


def _cell(name: str, moment: str, rounds: int, said: list[str]) -> str:
    if moment not in FAULTS[name].moments:
        return ""
    trials = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            trial = attempt(name, moment, Path(folder))
        wrong = {outcome: count for outcome, count in trial.outcomes.items() if count != 1}
        if wrong:
            raise SystemExit(f"{name} {MOMENTS[moment]}: not one outcome each: {wrong}; {trial.told}")
        trials.append(trial)
    said.extend(f"- {name} {MOMENTS[moment]}: {line}" for line in trials[0].told[:2])
    backs = [trial.back for trial in trials if trial.back is not None]
    reruns = [trial.rerun for trial in trials if trial.rerun is not None]
    text = f"{1000 * statistics.median(backs):.0f}" if backs else "it goes on"
    return text + (f" ({1000 * statistics.median(reruns):.0f})" if reruns else "")


if __name__ == "__main__":
    main()
