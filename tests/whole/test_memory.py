"""Not enough memory, on either side: an error for that task alone."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import script

SIZE = 600_000_000


def test_a_slave_without_memory_says_so_and_goes_on(make: Make) -> None:
    manager = make(1)
    context = manager.get_context(functools.partial(tasks.limit_memory, SIZE))
    context.add_task(functools.partial(tasks.blob_in_list, SIZE))  # which is copied to be sent
    context.add_task(functools.partial(tasks.give, "next"))
    with pytest.raises(parallel.RemoteError, match="MemoryError"):
        list(context.get_results_unordered())
    assert list(context.get_results_unordered()) == ["next"]
    assert manager.slaves[0].tasks_done == 2


@pytest.mark.slow
def test_a_master_without_memory_says_so_and_goes_on(own_folder: Path) -> None:
    program = script(
        own_folder / "script.py",
        f"""
import functools
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        m.wait_for_slaves(1)
        tasks.limit_memory({SIZE})
        c = m.get_context()
        c.add_task(functools.partial(tasks.blob, 2 * {SIZE}))
        c.add_task(functools.partial(tasks.blob, 10))
        for _ in range(2):
            try:
                print([len(r) for r in c.get_results_unordered()])
            except parallel.RemoteError as error:
                print(type(error.exc).__name__, error.message)
""",
    )
    assert program.ends() == 0, program.err
    assert program.out == (
        f"MemoryError the master has no memory for this task's result of {2 * SIZE + 33} bytes or more\n[10]\n"
    ) or program.out.startswith("MemoryError the master has no memory")
