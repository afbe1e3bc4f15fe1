"""Master and slave on two hosts of a network of their own."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.network import TwoHosts, possible
from tests.support.programs import Program
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not possible(), reason="making network namespaces needs root and iproute2")

MASTER = """
import functools, sys
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager(port=5757, lease=LEASE) as m:
        print('at', *m.address, flush=True)
        c = m.get_context()
        for n in range(5):
            c.add_task(functools.partial(tasks.wait_for, f'gate{n}'))
        for pid in c.get_results_unordered():
            print('done', flush=True)
"""


def start_master(hosts: TwoHosts, programs: list[Program], folder: Path, lease: float) -> Program:
    (folder / "script.py").write_text(MASTER.replace("LEASE", str(lease)))
    programs.append(Program(*hosts.on("master"), sys.executable, "script.py", cwd=folder))
    programs[-1].says(r"at \S+ 5757\n")  # the key is there, and somebody listens
    return programs[-1]


def open_gates(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"gate{number}").touch()


def test_the_printed_command_joins_from_another_host(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    master = start_master(hosts, programs, own_folder, 30.0)
    assert master.says(r"at (\S+) 5757\n").group(1) == hosts.addresses["master"]
    command = master.says(r"on another machine run: (.*)\n").group(1)
    programs.append(Program(*hosts.on("slave"), *shlex.split("env " + command), "-n", "2"))
    open_gates(own_folder, *range(5))
    assert master.ends() == 0 and programs[-1].ends() == 0
    assert master.out.count("done") == 5


@pytest.mark.parametrize("protocol", [4, 6])
def test_by_address_of_either_protocol(
    hosts: TwoHosts, programs: list[Program], own_folder: Path, protocol: int
) -> None:
    if protocol == 6 and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    master = start_master(hosts, programs, own_folder, 30.0)
    host = hosts.addresses["master"] if protocol == 4 else f"[{hosts.addresses6['master']}]"
    arguments = (sys.executable, "-m", "slave", f"{host}:5757", "-n", "1")
    programs.append(Program(*hosts.on("slave"), *arguments))
    open_gates(own_folder, *range(5))
    assert master.ends() == 0 and programs[-1].ends() == 0


@pytest.mark.slow
def test_a_pulled_cable_costs_time_and_no_task(hosts: TwoHosts, programs: list[Program], own_folder: Path) -> None:
    master = start_master(hosts, programs, own_folder, 4.0)  # the far slave looks for it for ten leases
    arguments = (sys.executable, "-m", "slave", f"{hosts.addresses['master']}:5757", "-n", "1")
    programs.append(Program(*hosts.on("slave"), *arguments))
    open_gates(own_folder, 0, 1)
    eventually((own_folder / "gate2.started").exists)
    hosts.cable(up=False)
    # whoever is first: we, or TCP
    master.says("nothing was heard of it for|its connection ended and did not come back")
    assert "inside a message" not in master.err
    programs.append(Program(*hosts.on("master"), *arguments))
    open_gates(own_folder, 2)
    eventually((own_folder / "gate3.started").exists)
    programs[1].says("the connection to the master broke")  # else it is open again as nothing had been
    hosts.cable(up=True)
    programs[1].says("connected to the master again")
    open_gates(own_folder, 3, 4)
    assert master.ends() == 0
    assert master.out.count("done") == 5
    assert programs[1].ends() == 0 and programs[2].ends() == 0


@pytest.mark.slow
def test_a_slave_whose_master_stays_out_of_reach_ends(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    start_master(hosts, programs, own_folder, 0.8)
    arguments = (sys.executable, "-m", "slave", f"{hosts.addresses['master']}:5757", "-n", "1")
    programs.append(Program(*hosts.on("slave"), *arguments))
    eventually((own_folder / "gate0.started").exists)
    hosts.cable(up=False)
    assert programs[1].ends() == 5
    assert re.search(r"the master has been gone for \d+ s", programs[1].err)


def test_a_cable_that_is_plugged_in_again_within_the_lease_costs_nothing(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    master = start_master(hosts, programs, own_folder, 60.0)  # TCP sends again ever more seldom, too
    arguments = (sys.executable, "-m", "slave", f"{hosts.addresses['master']}:5757", "-n", "1")
    programs.append(Program(*hosts.on("slave"), *arguments))
    open_gates(own_folder, 0)
    eventually((own_folder / "gate1.started").exists)
    hosts.cable(up=False)
    assert Program("sleep", "2").ends() == 0
    open_gates(own_folder, 1, 2, 3, 4)
    hosts.cable(up=True)
    assert master.ends() == 0 and programs[1].ends() == 0
    for number in range(5):
        assert len((own_folder / f"gate{number}.started").read_text().splitlines()) == 1, "it ran once"
