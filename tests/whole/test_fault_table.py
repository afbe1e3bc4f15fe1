"""The table of tools/faults.md: each fault of a runner at each moment; the trials are those of tools/faults.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.programs import ROOT
from tools import faults
from tools.sabotage import FAULTS, MOMENTS

MEANING = {
    "SIGKILL": "it was killed by SIGKILL, perhaps out of memory",
    "segfault": "it was killed by SIGSEGV, a crash in compiled code",
    "os._exit": "it exited with code 3",
    "SIGTERM": "it was killed by SIGTERM, somebody asked it to end",
    "sys.exit": "SystemExit",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "MemoryError": "MemoryError",
    "endless recursion": "RecursionError",
}
CELLS = [
    pytest.param(name, moment, marks=[] if name == "SIGKILL" else [pytest.mark.slow])
    for name, fault in FAULTS.items()
    for moment in fault.moments
]


@pytest.mark.parametrize(("name", "moment"), CELLS)
def test_each_task_has_one_outcome_and_the_slave_is_back(own_folder: Path, name: str, moment: str) -> None:
    folder = own_folder / "trial"
    folder.mkdir()
    trial = faults.attempt(name, moment, folder)
    fault = FAULTS[name]
    raised = not fault.kills and name in MEANING
    assert set(trial.outcomes.values()) == {1}, trial.told
    expected = set(range(faults.TASKS * (2 if moment == "idle" else 1)))
    if moment not in ("setup", "task"):
        expected.add("sabotaged")  # type: ignore[arg-type]
    if raised and moment == "task":
        expected ^= {faults.TASKS // 2, MEANING[name]}  # type: ignore[arg-type]
    assert set(trial.outcomes) == expected
    if name not in MEANING:
        return
    told = "\n".join(trial.told)
    assert (MEANING[name] if fault.kills or moment in ("setup", "task") else "it exited with code 1") in told
    if fault.kills or moment not in ("setup", "task"):
        assert trial.back is not None and trial.back < 20, (
            "it is milliseconds, as tools/faults.md tells, on an idle machine; no lease of 30 s is waited for"
        )
    if fault.kills and moment == "task":
        assert trial.rerun is not None and trial.rerun < 20


def test_the_table_has_each_fault_and_moment() -> None:
    rows = re.findall(
        r"^\| (.*) \|$", (ROOT / "tools" / "faults.md").read_text().partition("## Everything")[0], re.MULTILINE
    )
    moments, *cells = [row.split(" | ") for row in rows]
    assert moments[1:] == list(MOMENTS.values())
    filled = {cell[0]: [text.strip() != "" for text in cell[1:]] for cell in cells}
    assert filled == {name: [moment in fault.moments for moment in MOMENTS] for name, fault in FAULTS.items()}
