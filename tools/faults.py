"""The fault table: every way in which a runner can fail, at every moment of its life, tried and timed.

    python3 tools/faults.py [--rounds 3] [fault ...]

Each trial runs 60 tasks on two local slaves, one of which fails once.  It must give exactly one outcome for each task;
the table tells what the user sees and how soon the slave is back.  tests/whole/test_fault_table.py runs the same.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import parallel  # noqa: E402 - found only after the line above
from tools.sabotage import FAULTS, MOMENTS, failing_setup, failing_victim, sabotage, work  # noqa: E402

TASKS = 60


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
        self._before = self._pids()  # here, since the fault may strike before this thread gets its first turn

    def _pids(self) -> dict[int, int]:
        return {info.number: info.pid for info in self._manager.slaves}

    def run(self) -> None:
        before = self._before
        while not self.done.wait(0.001):
            now = self._pids()
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
            manager.wait_for_slaves(2, 60)
            watch = _Watch(manager, flag)
            watch.start()
            outcomes = _run(manager, name, moment, flag, told.lines)
            if fault.kills or (watch.back is None and moment not in ("setup", "task") and fault.lease == 30.0):
                watch.join(30)
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
    while moment == "between" and not flag.exists():  # the other slave was so quick that this one got nothing more
        for _ in range(8):
            context.add_task(functools.partial(work, -1))
        _read(context, told)
    if moment == "idle":
        flag.with_name(flag.name + ".now").touch()
        while not (flag.exists() and flag.read_text()):
            time.sleep(0.001)
        for number in range(TASKS, 2 * TASKS):
            context.add_task(functools.partial(work, number))
        outcomes.update(_read(context, told))
    return outcomes


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
