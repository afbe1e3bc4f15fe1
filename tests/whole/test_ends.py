"""How whole scripts end: Ctrl-C, a kill, the interpreter's exit, the garbage collector; and slaves with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from tests.whole.conftest import MAIN, OPENING, Run


def slaves_of(own_folder: Path) -> list[int]:
    """Processes that write to the slaves' output files in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):  # "[0-9]*/fd/1" raises ProcessLookupError if one ends just then
        try:
            if os.readlink(process / "fd" / "1").startswith(str(own_folder / "slave")):
                found.append(int(process.name))
        except OSError:
            continue
    return found


BUSY = (
    OPENING
    + "import threading\ndef busy(): threading.Event().wait()\n"
    + MAIN
    + "        c = m.get_context()\n        for _ in range(5): c.add_task(busy)\n"
    + "        m.wait_for_slaves(2)\n        print('ready', flush=True)\n"
    + "        for _ in c.get_results_unordered(): pass\n"
)


def test_ctrl_c_in_the_loop_ends_everything_at_once(run: Run, own_folder: Path) -> None:
    program = run(BUSY)
    program.says("ready")
    eventually(lambda: len(slaves_of(own_folder)) == 3)  # the guard has its streams from the agent for a moment
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.ends() in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in program.err
    eventually(lambda: not slaves_of(own_folder), 25, "the end of the slaves")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_slaves_end_when_their_master_is_killed(run: Run, own_folder: Path, signum: int) -> None:
    program = run(BUSY)
    program.says("ready")
    program.process.send_signal(signum)
    assert program.ends() == -signum
    eventually(lambda: not slaves_of(own_folder), 25, "the end of the slaves")


def test_a_manager_that_nobody_shut_down_ends_with_the_interpreter(run: Run, own_folder: Path) -> None:
    program = run(
        OPENING
        + """
if __name__ == '__main__':
    m = parallel.Manager()
    m.add_slave(parallel.LocalSlave())
    c = m.get_context()
    c.add_task(dict)
    print(next(c.get_results_unordered()))
"""
    )
    assert program.ends() == 0, program.err
    assert program.out == "{}\n" and program.complaints == ""
    eventually(lambda: not slaves_of(own_folder), 25, "the end of the slaves")


def test_a_manager_that_is_garbage_ends(run: Run, own_folder: Path) -> None:
    program = run(
        OPENING
        + """
import gc
def use():
    m = parallel.Manager()
    m.add_slave(parallel.LocalSlave())
    c = m.get_context()
    c.add_task(dict)
    print(list(c.get_results_unordered()), flush=True)
if __name__ == '__main__':
    use()
    gc.collect()
    print('waits', flush=True)
    import threading
    threading.Event().wait()
"""
    )
    program.says("waits")
    eventually(lambda: not slaves_of(own_folder), 30, "the end of the slaves")
