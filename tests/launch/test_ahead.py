"""The interpreter that the first manager starts before it imports the rest: what becomes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import environment

PROGRAM = """
import os, sys, resource
import parallel

def pids():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()

def agent():
    return os.getppid(), os.getcwd(), os.environ.get("SAID_LATE")

if __name__ == "__main__":
    manager = parallel.Manager(OPTIONS)
    ahead = pids()
    BETWEEN
    context = manager.get_context()
    context.add_task(agent)
    (agent, folder, said), = context.get_results_unordered()
    print(len(ahead), ahead == [str(agent)], pids() == [str(agent)], folder == os.getcwd(), said)
    manager.shutdown()
    print(pids())
"""
LOCAL = "manager.add_slave(parallel.LocalSlave())"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")


def run(folder: Path, between: str, options: str = "", program: str = PROGRAM) -> list[str]:
    path = folder / "program.py"
    path.write_text(program.replace("OPTIONS", options).replace("BETWEEN", between))
    command = [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("options", ["", "output=None"])
def test_it_becomes_the_agent(tmp_path: Path, options: str) -> None:
    assert run(tmp_path, LOCAL, options) == ["1 True True True None", "[]"]
    assert (tmp_path / "slave0.output").exists() == (not options)


def test_what_the_agent_says_stands_in_the_first_slaves_output(tmp_path: Path) -> None:
    run(tmp_path, LOCAL)
    assert "connected: 1 slave" in (tmp_path / "slave0.output").read_text()


@pytest.mark.parametrize(
    "change",
    [
        "os.mkdir('other'); os.chdir('other')",
        "os.environ['SAID_LATE'] = 'x'",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))",
        "os.nice(1)",
        "sys.warnoptions.append('error::UserWarning')",
        "os.kill(int(ahead[0]), 9); os.waitid(os.P_PID, int(ahead[0]), os.WEXITED | os.WNOWAIT)",
    ],
)
def test_another_one_takes_its_place_if_it_is_not_what_would_be_started_now(tmp_path: Path, change: str) -> None:
    said = "x" if "SAID_LATE" in change else "None"
    assert run(tmp_path, f"{LOCAL}; {change}") == [f"1 False True True {said}", "[]"]


@pytest.mark.parametrize("options", ["output='-'", "port=0", "host='127.0.0.1'", "python=sys.executable"])
def test_there_is_none_where_slaves_may_be_others(tmp_path: Path, options: str) -> None:
    assert run(tmp_path, "print(len(ahead)); manager.shutdown(); sys.exit()", options) == ["0"]


def test_the_second_manager_starts_none(tmp_path: Path) -> None:
    assert run(tmp_path, f"manager.shutdown(); manager = parallel.Manager(); print(pids()); {LOCAL}")[0] == "[]"


def test_it_ends_with_the_first_slave_that_is_no_local_one(tmp_path: Path) -> None:
    other = "manager.add_slave(parallel.SSHSlave('nowhere')); print(pids()); manager.shutdown(); sys.exit()"
    assert run(tmp_path, other) == ["[]"]


def test_it_ends_with_a_manager_that_never_begins_and_with_one_that_cannot_be(tmp_path: Path) -> None:
    assert run(tmp_path, "manager.shutdown(); print(pids()); sys.exit()") == ["[]"]
    assert run(tmp_path, "del manager; sys.exit()") == []
    refused = "try: parallel.Manager(ship=['absent'])\n    except parallel.InputError: print(pids()); sys.exit()"
    program = PROGRAM.replace("manager = parallel.Manager(OPTIONS)", refused)
    assert run(tmp_path, LOCAL, program=program) == ["[]"]
