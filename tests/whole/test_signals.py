"""Slaves that are asked to end while their master is stopped, and cannot hear their goodbye."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.programs import Program, script
from tests.support.waiting import eventually


def state(pid: int) -> str:
    """As in /proc: R, S, T, ...; '' when there is no such process or a zombie."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""
    return "" if letter in "ZX" else letter


def stopped_master_and_slave(folder: Path, programs: list[Program], patches: str = "") -> tuple[Program, int]:
    """A slave program, started by hand, whose one runner is in a task, and that runner; their master is stopped."""
    master = script(
        folder / "script.py",
        """
import functools
import parallel
from tests.support import tasks
if __name__ == '__main__':
    m = parallel.Manager(port=0, lease=600)  # for which a slave that waits for its master would wait
    c = m.get_context()
    c.add_task(functools.partial(tasks.wait_for, 'gate'))
    print('port', m.address[1], flush=True)
    list(c.get_results_unordered())
""",
    )
    programs.append(master)
    port = master.says(r"port (\d+)").group(1)
    slave = script(
        folder / "slave_script.py",
        f"""
import sys
from slave import cli, master_link
{patches}
sys.exit(cli.main(['127.0.0.1:{port}', '-n', '1', '--grace', '0.1']))
""",
    )
    programs.append(slave)
    started = folder / "gate.started"
    eventually(lambda: started.exists() and started.read_text().endswith("\n"), 60)
    os.kill(master.process.pid, signal.SIGSTOP)
    eventually(lambda: state(master.process.pid) == "T")
    return slave, int(started.read_text())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_slave_ends_on_a_signal_though_its_master_does_not_listen(
    own_folder: Path, programs: list[Program], signum: signal.Signals
) -> None:
    slave, runner = stopped_master_and_slave(own_folder, programs)
    os.kill(slave.process.pid, signum)
    assert slave.ends(60) == 128 + signum, slave.err
    eventually(lambda: not state(runner), 60, "the end of the runner")


def test_the_second_signal_ends_a_slave_at_once(own_folder: Path, programs: list[Program]) -> None:
    slave, runner = stopped_master_and_slave(own_folder, programs, "master_link._GOODBYE_SECONDS = 600")
    os.kill(slave.process.pid, signal.SIGTERM)
    eventually(lambda: not state(runner), 60, "the end of the runner")
    os.kill(slave.process.pid, signal.SIGINT)
    assert slave.ends(60) == 128 + signal.SIGINT
