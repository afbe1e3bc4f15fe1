"""Slaves that outlive their master, and serve the next run of its program."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.launch.staging import _WATCHDOG
from slave.errors import MasterGone
from slave.next_master import same_program
from tests.conftest import Make
from tests.support.programs import Program, slave
from tests.support.waiting import eventually

# a launcher whose jobs outlive it, as those of a batch system do
SCRIPT = """
import functools, os, subprocess, sys, threading
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

def setup(number):
    open('setups', 'a').write(f'{number}\\n')
    return os.getpid()

def work(x, pid):
    assert pid == os.getpid()
    return x, os.getppid()

if __name__ == '__main__':
    first, wait, number = not os.path.exists('begun'), float(sys.argv[1]), open('number').read()
    open('begun', 'a').close()
    with parallel.Manager(slaves_wait=wait, output=None) as m:
        c = m.get_context(functools.partial(setup, int(number)), checkpoint='fit.results')
        for x in range(2 if first else 4):
            c.add_task(work, x)
        if first:
            m.add_slave(Detached())
        for x, agent in c.get_results_unordered():
            print('result', x, agent, flush=True)
        if first:
            print('all are there', flush=True)
            threading.Event().wait()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended just now


def is_over(pid: int) -> bool:
    return not exists(pid)


def agent_of(folder: Path) -> int:
    return int((folder / "pids").read_text().split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("", ""),
        ("script", "script.py has changed, or may have"),
        ("setup", ""),
        ("arguments", "the program's argv has changed"),
    ],
)
def test_a_slave_serves_the_next_run_of_a_program_that_was_killed(
    own_folder: Path, run: Any, change: str, why: str
) -> None:
    """It keeps what setup has returned, if nothing has changed."""
    (own_folder / "number").write_text("1")
    first = run(SCRIPT, "60")
    first.says(r"(?m)^all are there$", 60)
    agent = agent_of(own_folder)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    log = own_folder / "log"
    eventually(lambda: "waiting 60 s for its program" in log.read_text(), 60, "a slave that waits")
    assert exists(agent)
    if change == "setup":
        (own_folder / "number").write_text("2")
    second = run(SCRIPT + "# other\n" * (change == "script"), "60", *["more"] * (change == "arguments"))
    assert second.ends(120) == 0, second.err
    assert sorted(int(line.split()[1]) for line in second.out.splitlines()) == [0, 1, 2, 3]
    assert {int(line.split()[2]) for line in second.out.splitlines()} == {agent}
    setups = {"": ["1"], "setup": ["1", "2"]}.get(change, ["1", "1"])
    assert (own_folder / "setups").read_text().split() == setups
    assert why in log.read_text()
    assert ("sets up anew" in log.read_text()) == bool(why)
    eventually(lambda: not exists(agent), 60, "the end of the slave with the second run")


KEY = "a key that no other test has: such slaves look for any master of theirs"

# a program whose slaves somebody has started by hand
BY_HAND = """
import os, sys, threading
import parallel

def setup():
    with open('setups', 'a') as file:
        file.write('1 ')
    return os.getpid()

def work(x, pid):
    return x, pid == os.getpid()

if __name__ == '__main__':
    with parallel.Manager(port=int(sys.argv[1]), slaves_wait=float(open('wait').read()), output=None) as m:
        c = m.get_context(setup)
        print(list(c.map(work, range(3))), flush=True)
        threading.Event().wait()
"""


def held_port() -> socket.socket:
    """A port that the system gives to nobody else meanwhile; masters may listen there, for this one does not."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", 0))
    return made


@pytest.mark.slow
def test_a_slave_that_keeps_waits_as_long_as_the_master_says(own_folder: Path, run: Any) -> None:
    """It serves the next run with what it has set up, and ends when none came in that time."""
    held = held_port()
    port = str(held.getsockname()[1])
    kept: Program | None = None
    for wait in ("60", "1"):
        (own_folder / "wait").write_text(wait)
        master = run(BY_HAND, port, PARALLEL_AUTHKEY=KEY)
        kept = kept or slave(f"127.0.0.1:{port}", "--keep", "-n", "1", "-v", PARALLEL_AUTHKEY=KEY)
        try:
            master.says(r"\[\(0, True\), \(1, True\), \(2, True\)\]", 60)
            master.process.send_signal(signal.SIGKILL)
            master.process.wait()
            kept.says(f"waiting {wait} s for its program", 60)
        except BaseException:
            kept.kill()
            raise
    assert (own_folder / "setups").read_text() == "1 "
    assert kept is not None
    assert kept.ends(60) == MasterGone.exit_code
    held.close()
    assert "was not started again within 1 s" in kept.err


@pytest.mark.slow
def test_slaves_that_do_not_wait_end_at_once_and_others_when_nobody_came(own_folder: Path, run: Any) -> None:
    for wait, words in (("0", ""), ("2", "was not started again within 2 s")):
        Path("fit.results").unlink(missing_ok=True)
        Path("begun").unlink(missing_ok=True)
        Path("number").write_text("1")
        first = run(SCRIPT, wait)
        first.says(r"(?m)^all are there$", 60)
        agent = agent_of(own_folder)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        eventually(functools.partial(is_over, agent), 60, "the end of the slave")
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
    done = subprocess.run(["/bin/sh", "-c", _WATCHDOG, str(folder), "0.1"], input=b"", check=False, timeout=60)
    assert done.returncode == 0
    assert not folder.exists()
    folder.mkdir()
    subprocess.run(["/bin/sh", "-c", _WATCHDOG, str(folder), ""], input=b"touch deleted\n", check=True, timeout=60)
    assert Path("deleted").exists()
    assert not folder.exists()


def test_impossible_times(make: Make) -> None:
    for seconds in (-1, "x", True, 1e9):
        with pytest.raises(parallel.InputError, match="slaves_wait"):
            parallel.Manager(slaves_wait=seconds)  # type: ignore[arg-type]
    assert make(0, slaves_wait=5).join_command
