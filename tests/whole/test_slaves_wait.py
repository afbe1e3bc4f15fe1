"""Slaves that outlive their master, and serve the next run of its program."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.launch.staging import _WATCHDOG
from slave.next_master import same_program
from tests.conftest import Make
from tests.support.waiting import eventually

# a launcher whose jobs outlive it, as those of a batch system do
SCRIPT = """
import os, subprocess, sys, threading
import parallel

class Detached(parallel.Slave):
    def start(self, job):
        program = subprocess.Popen(job.command, stdin=subprocess.PIPE, stdout=open('log', 'a'), stderr=open('log', 'a'),
                                   start_new_session=True)
        program.stdin.write(job.stdin)
        program.stdin.close()
        open('pids', 'a').write(f'{program.pid}\\n')
    def poll(self):
        return None
    def stop(self):
        pass

def work(x):
    return x, os.getppid()

if __name__ == '__main__':
    first, wait = sys.argv[1] == 'first', float(sys.argv[2])
    with parallel.Manager(slaves_wait=wait, output=None) as m:
        c = m.get_context(checkpoint='fit.results')
        for x in range(2 if first else 4):
            c.add_task(work, x)
        if first:
            m.add_slave(Detached())
        for x, agent in c.get_results_unordered():
            print('result', x, agent, flush=True)
        if first:
            print('waiting', flush=True)
            threading.Event().wait()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def is_over(pid: int) -> bool:
    return not exists(pid)


def agent_of(folder: Path) -> int:
    return int((folder / "pids").read_text().split()[-1])


@pytest.mark.slow
def test_a_slave_serves_the_next_run_of_a_program_that_was_killed(own_folder: Path, run: Any) -> None:
    first = run(SCRIPT, "first", "60")
    first.says("waiting", 30)
    agent = agent_of(own_folder)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    eventually(lambda: "waiting 60 s for its program" in (own_folder / "log").read_text(), 20, "a slave that waits")
    assert exists(agent)
    second = run(SCRIPT, "second", "60")
    assert second.ends(60) == 0, second.err
    assert sorted(int(line.split()[1]) for line in second.out.splitlines()) == [0, 1, 2, 3]
    assert {int(line.split()[2]) for line in second.out.splitlines()} == {agent}
    eventually(lambda: not exists(agent), 10, "the end of the slave with the second run")


@pytest.mark.slow
def test_slaves_that_do_not_wait_end_at_once_and_others_when_nobody_came(own_folder: Path, run: Any) -> None:
    for wait, words in (("0", ""), ("2", "was not started again within 2 s")):
        Path("fit.results").unlink(missing_ok=True)
        first = run(SCRIPT, "first", wait)
        first.says("waiting", 30)
        agent = agent_of(own_folder)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        eventually(functools.partial(is_over, agent), 15, "the end of the slave")
        assert words in (own_folder / "log").read_text()


def test_which_program_is_the_same() -> None:
    assert same_program("fit.py of jo on node1, process 7", "fit.py of jo on node2, process 9")
    assert not same_program("fit.py of jo on node1, process 7", "plot.py of jo on node1, process 7")


def test_the_watchdog_spares_jobs_that_are_to_outlive_the_master(own_folder: Path) -> None:
    """It deletes no job then, and the folder when the time is over and no slave runs."""
    folder = own_folder / "run"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "0.started").touch()
    (folder / "1" / "0.ended").touch()
    done = subprocess.run(["/bin/sh", "-c", _WATCHDOG, str(folder), "0.1"], input=b"", check=False, timeout=20)
    assert done.returncode == 0
    assert not folder.exists()
    folder.mkdir()
    subprocess.run(["/bin/sh", "-c", _WATCHDOG, str(folder), ""], input=b"touch deleted\n", check=True, timeout=20)
    assert Path("deleted").exists()
    assert not folder.exists()


def test_impossible_times(make: Make) -> None:
    for seconds in (-1, "x", True, 1e9):
        with pytest.raises(parallel.InputError, match="slaves_wait"):
            parallel.Manager(slaves_wait=seconds)  # type: ignore[arg-type]
    assert make(0, slaves_wait=5).join_command
