"""A machine whose name service does not answer: the interfaces know what is to be known."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.network import TwoHosts, possible
from tests.support.programs import Program

pytestmark = pytest.mark.skipif(not possible(), reason="making network namespaces needs root and iproute2")

MASTER = """
import functools, sys, time
import parallel
from tests.support import tasks
if __name__ == '__main__':
    began = time.monotonic()
    with parallel.Manager(port=5757, output=None, host=HOST) as m:
        print('made after', time.monotonic() - began, 'at', *m.address, flush=True)
        m.add_slave(parallel.LocalSlave())
        for _ in range(2):
            m.add_slave(parallel.CommandSlaveArray('{command}', 1))
        c = m.get_context()
        c.add_task(functools.partial(tasks.square, 3))
        c.add_task(functools.partial(tasks.square, 4))
        if not m.address[0].startswith('lab7'):
            m.wait_for_slaves(3)
        print('results', sorted(c.get_results_unordered()), 'after', time.monotonic() - began, flush=True)
"""


def start_master(hosts: TwoHosts, programs: list[Program], folder: Path, host: str | None) -> Program:
    (folder / "script.py").write_text(MASTER.replace("HOST", repr(host)))
    programs.append(Program(*hosts.on("master"), sys.executable, "script.py", cwd=folder))
    return programs[-1]


def test_a_dead_name_service_holds_nobody_up(hosts: TwoHosts, programs: list[Program], own_folder: Path) -> None:
    hosts.without_names("master")
    master = start_master(hosts, programs, own_folder, None)
    assert master.ends(50) == 0, master.err
    made = re.search(r"made after (\S+) at (\S+)", master.out)
    results = re.search(r"results \[9, 16\] after (\S+)", master.out)
    assert made and results, master.out
    assert made.group(2) == hosts.addresses["master"]
    assert float(made.group(1)) < 40 and float(results.group(1)) < 50, "one question takes a minute"
    assert "name service" not in master.err, "nobody needed it"


def test_a_name_that_the_user_gave_is_asked_for_once_and_not_waited_for(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    hosts.without_names("master")
    master = start_master(hosts, programs, own_folder, "lab7.example")
    assert master.ends(50) == 0, master.err  # by the local slave
    made = re.search(r"made after (\S+) at lab7.example 5757", master.out)
    assert made, master.out
    assert float(made.group(1)) < 40, "one question takes a minute"
    assert "the name service does not answer what host='lab7.example' is; slaves are told the name" in master.err


def test_a_slave_by_hand_says_what_it_waits_for(hosts: TwoHosts, programs: list[Program]) -> None:
    hosts.without_names("slave")
    command = (sys.executable, "-m", "slave", "lab7.example:5757", "-n", "1", "--wait", "0")
    programs.append(Program(*hosts.on("slave"), "env", "PARALLEL_AUTHKEY=" + "k" * 32, *command))
    programs[0].says("the name service has not answered yet; asked for the address of lab7.example", 50)
