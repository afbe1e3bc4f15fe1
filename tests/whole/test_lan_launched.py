"""Slaves that a launcher starts on another host, with trouble on the way to the master: what the user is told."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.network import Firewall, TwoHosts, possible
from tests.support.programs import Program

pytestmark = pytest.mark.skipif(not possible(), reason="making network namespaces needs root and iproute2")

MASTER = """
import functools, sys
import parallel
from parallel.core import patience
from parallel.launch import config
from tests.support import tasks
config._ELSEWHERE = (18.0, 3.0)
patience.SELDOM = 5.0  # some of its words come between those of the slave and its end, whenever it has started
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.CommandSlaveArray('ip netns exec SLAVE {command}', 1))
        c = m.get_context()
        for n in range(5):
            c.add_task(functools.partial(tasks.square, n))
        print(*m.address, flush=True)
        print('results', sorted(c.get_results_unordered()), flush=True)
"""


def start_master(hosts: TwoHosts, programs: list[Program], folder: Path) -> Program:
    (folder / "script.py").write_text(MASTER.replace("SLAVE", hosts.names["slave"]))
    programs.append(Program(*hosts.on("master"), sys.executable, "script.py", cwd=folder))
    return programs[-1]


@pytest.mark.skipif(not Firewall.possible(), reason="needs iptables")
@pytest.mark.slow
def test_a_firewall_is_told_of_while_one_waits_and_at_the_end(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    """The fourth classic complaint: the master shows what the slave found, and what to do."""
    Firewall(hosts, "master").add("INPUT", "-i", "eth0", "-p", "tcp", "-j", "DROP")
    Firewall(hosts, "master").add("INPUT", "-i", "lo", "-j", "ACCEPT")
    hosts_without_ipv6(hosts)
    master = start_master(hosts, programs, own_folder)
    found = (
        r"slave: no master yet \(.*10\.213\.77\.1:\d+: no answer in 5 s \(a firewall\?\).*"
        r"Manager\(host=\.\.\.\); .*Manager\(port=\.\.\.\)"
    )
    master.says(rf"parallel: slave 0 \(.*\) cannot come: {found}")
    master.says(rf"not connected yet: slave 0 \(.*\): started on \S+, and not connected; its last words: {found}")
    assert master.ends(90) == 1
    assert "the only slave has ended" in master.err
    assert re.search(r"it exited with code 4 on .*; the end of .*slave0\.output:", master.err)
    assert re.search(r"cannot reach the master at .*10\.213\.77\.1:\d+: no answer in 5 s \(a firewall\?\)", master.err)
    assert "Manager(host=...)" in master.err.split("the only slave has ended")[1]


def hosts_without_ipv6(hosts: TwoHosts) -> None:
    """One address less to wait for."""
    Program("ip", "-n", hosts.names["slave"], "-6", "addr", "flush", "dev", "eth0").ends()


def test_a_master_of_two_networks_of_which_the_slave_sees_one(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    hosts.add_blind_network()
    master = start_master(hosts, programs, own_folder)
    assert master.ends(90) == 0, master.err
    assert "results [0, 1, 4, 9, 16]" in master.out
