"""What can happen to a network in the middle of a run, between two hosts."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.support.network import Firewall, TwoHosts, possible
from tests.support.programs import Program
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(not possible(), reason="making network namespaces needs root and iproute2"),
    pytest.mark.skipif(not Firewall.possible(), reason="this machine has no iptables"),
]

MASTER = """
import functools, os, time
import parallel
from tests.support import tasks
if __name__ == '__main__':
    with parallel.Manager(port=5757, lease=LEASE, host=HOST) as m:
        print('at', *m.address, flush=True)
        c = m.get_context()
        JOB
        for result in c.get_results_unordered():
            print('done', str(result)[:20], flush=True)
"""
GATES = "[c.add_task(functools.partial(tasks.wait_for, f'gate{n}')) for n in range(5)]"
FROM_MASTER = ("INPUT", "-p", "tcp", "--sport", "5757", "-j", "DROP")  # on the slave's host
TO_MASTER = ("INPUT", "-p", "tcp", "--dport", "5757", "-j", "DROP")  # on the master's host
REFUSED = ("INPUT", "-p", "tcp", "--dport", "5757", "-j", "REJECT", "--reject-with", "tcp-reset")


def start_master(
    hosts: TwoHosts, programs: list[Program], folder: Path, lease: float, job: str = GATES, host: str | None = None
) -> Program:
    text = MASTER.replace("LEASE", str(lease)).replace("JOB", job).replace("HOST", repr(host))
    (folder / "script.py").write_text(text)
    programs.append(Program(*hosts.on("master"), sys.executable, "script.py", cwd=folder))
    programs[-1].says(r"at \S+ 5757\n")
    return programs[-1]


# a machine that answers, and has nobody listening for three seconds, has no master any more
UNDAUNTED = """
from slave import cli, session
session.REFUSED_SECONDS = 60.0
cli.run()
"""


def start_slave(
    hosts: TwoHosts,
    programs: list[Program],
    *options: str,
    on: str = "slave",
    at: str = "",
    program: tuple[str, str] = ("-m", "slave"),
) -> Program:
    address = at or hosts.addresses["master"]
    programs.append(Program(*hosts.on(on), sys.executable, *program, f"{address}:5757", "-n", "1", *options))
    return programs[-1]


def open_gates(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"gate{number}").touch()


def starts(folder: Path, number: int) -> int:
    path = folder / f"gate{number}.started"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["from the master", "to the master", "refused"])
def test_a_network_that_is_cut_for_longer_than_the_lease(
    hosts: TwoHosts, programs: list[Program], own_folder: Path, way: str
) -> None:
    """One way, or by a firewall: the task runs elsewhere within lease and a quarter, and the slave works on later."""
    lease = 5.0
    rule = {"from the master": FROM_MASTER, "to the master": TO_MASTER, "refused": REFUSED}[way]
    wall = Firewall(hosts, "slave" if way == "from the master" else "master")
    master = start_master(hosts, programs, own_folder, lease)
    far = start_slave(hosts, programs, program=("-c", UNDAUNTED))
    open_gates(own_folder, 0)
    eventually(lambda: starts(own_folder, 1))
    near = start_slave(hosts, programs, on="master", at="127.0.0.1")
    # Which of the others it gets depends on how many came with the far slave's first lease.
    eventually(lambda: any(starts(own_folder, n) for n in (2, 3, 4)), what="the near slave to have a task")
    open_gates(own_folder, 2, 3, 4)
    began = time.monotonic()
    if way != "from the master":
        rule = (rule[0], "-s", hosts.addresses["slave"], *rule[1:])
    wall.add(*rule)
    eventually(lambda: starts(own_folder, 1) >= 2, 60, "the task to run on the near slave")
    if way != "from the master":  # there the slave's heartbeats still arrive for a while
        assert time.monotonic() - began < 1.25 * lease + 15.0
    master.says(r"parallel: lost slave 0 \(started by hand.*; its (task goes to another slave|\d tasks go to)")
    far.says("the connection to the master broke")  # else it is open again as nothing had been
    wall.remove(*rule)
    far.says("connected to the master again")
    open_gates(own_folder, 1)
    assert master.ends() == 0
    assert master.out.count("done") == 5, "one outcome each"
    assert far.ends() == 0 and near.ends() == 0


def losses(master: Program) -> int:
    return len(re.findall("parallel: lost slave 0", master.err))


@pytest.mark.slow
def test_cuts_while_a_task_is_computed_are_no_attempts(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    """Four of them, each longer than the lease, with three attempts: the task's one process goes on all the time."""
    job = "c.add_task(functools.partial(tasks.wait_for, 'gate0'))"
    master = start_master(hosts, programs, own_folder, 2.0, job)
    slave = start_slave(hosts, programs)
    eventually(lambda: starts(own_folder, 0))
    for cut in range(1, 5):
        hosts.cable(up=False)
        # not one more than there were just now: if it was busy for a lease it may be lost already, which is said once
        eventually(lambda cut=cut: losses(master) >= cut, what="a lost slave")  # type: ignore[misc]
        # each end finds out by its own clock: plugged in before the slave has, it would go on as if nothing had been
        slave.says(rf"(?s)(the connection to the master broke.*){{{cut}}}")
        hosts.cable(up=True)
        slave.says(rf"(?s)(connected to the master again.*){{{cut}}}")
    open_gates(own_folder, 0)
    assert master.ends() == 0, master.err
    assert slave.ends() == 0
    assert master.out.count("done") == 1


IDLE_AND_WALLED = """
        from tests.support.inside import inside
        said = 0
        while not os.path.exists('walled'):
            idle = inside(m, lambda state: len(state.idle))
            if idle != said:
                print(idle, 'idle', flush=True)
                said = idle
            time.sleep(0.01)
        """


@pytest.mark.slow
@pytest.mark.parametrize("large", ["result", "short result", "task", "setup"])
def test_a_path_on_which_large_packets_vanish(
    hosts: TwoHosts, programs: list[Program], own_folder: Path, large: str
) -> None:
    """It is said on both sides, and after some tries another slave gets the task.

    That one has to be there by then: what no slave can do is the user's error.  The task goes to the one that has idled
    for longer.  A task that does not arrive would go to the other one at once.
    """
    job = {
        "result": "c.add_task(functools.partial(tasks.blob_logged, 'log', 300_000))",
        "short result": "c.add_task(functools.partial(tasks.blob_logged, 'log', 3_000))",
        "setup": "c = m.get_context(functools.partial(len, bytes(300_000))); c.add_task(str)",
        "task": "c.add_task(functools.partial(tasks.length_logged, 'log', bytes(300_000)))",
    }[large]
    master = start_master(hosts, programs, own_folder, 4.0, IDLE_AND_WALLED + job)
    far = start_slave(hosts, programs)
    master.says("1 idle\n")
    near = None if large == "task" else start_slave(hosts, programs, on="master", at="127.0.0.1")
    if near is not None:
        master.says("2 idle\n")
    near_host = "slave" if "result" in large else "master"
    for program in ("iptables", "ip6tables"):
        rule = ("-w", "-A", "OUTPUT", "-o", "eth0", "-m", "length", "--length", "1000:65535", "-j", "DROP")
        assert Program(*hosts.on(near_host), program, *rule).ends() == 0
    (own_folder / "walled").touch()
    far.says("2 connections have broken over one message .*MTU", 90)
    if near is not None:
        what = {"result": r"its result of 300,0\d\d bytes", "short result": r"its result of 3,0\d\d bytes"}
        what["setup"] = "the context's setup"
        master.says(rf"slave 0 .* cannot do task 1, which others may: OSError: {what[large]} does not get .*MTU", 90)
    else:
        master.says(r"what is sent to slave 0 .* has not arrived 2 times, though it is heard: .*MTU", 90)
        near = start_slave(hosts, programs, on="master", at="127.0.0.1")
    assert master.ends(90) == 0, master.err
    assert near.ends() == 0
    assert master.out.count("done") == 1


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["DROP", "REJECT"])
def test_a_firewall_before_the_master(hosts: TwoHosts, programs: list[Program], own_folder: Path, answer: str) -> None:
    wall = Firewall(hosts, "master")
    rule = TO_MASTER if answer == "DROP" else REFUSED
    start_master(hosts, programs, own_folder, 30.0)
    wall.add(*rule)
    slave = start_slave(hosts, programs, "--wait", "0")
    assert slave.ends() == 4
    reason = r"no answer in 5 s \(a firewall\?\)" if answer == "DROP" else "connection refused"
    assert re.search(rf"cannot reach the master at {hosts.addresses['master']}:5757: .*{reason}", slave.err)
    late = start_slave(hosts, programs, "--wait", "60")
    late.says("no master yet")
    wall.remove(*rule)
    open_gates(own_folder, *range(5))
    assert programs[0].ends() == 0 and late.ends() == 0


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["result", "task"])
def test_a_cable_that_is_pulled_for_a_moment_while_much_is_sent(
    hosts: TwoHosts, programs: list[Program], own_folder: Path, direction: str
) -> None:
    """For less than the lease: nothing runs again."""
    job = {
        "result": "[c.add_task(functools.partial(tasks.blob_logged, 'log', 80_000_000)) for n in range(4)]",
        "task": "[c.add_task(functools.partial(tasks.length_logged, 'log', bytes(80_000_000))) for n in range(4)]",
    }[direction]
    master = start_master(hosts, programs, own_folder, 60.0, job)  # TCP sends again ever more seldom, too
    slave = start_slave(hosts, programs)
    eventually((own_folder / "log").exists, 90)
    hosts.cable(up=False)
    assert Program("sleep", "2").ends() == 0
    hosts.cable(up=True)
    assert master.ends(120) == 0 and slave.ends() == 0
    assert master.out.count("done") == 4
    assert len((own_folder / "log").read_text().splitlines()) == 4, "each ran once"
    assert "lost" not in master.err


@pytest.mark.slow
def test_a_slow_and_lossy_line(hosts: TwoHosts, programs: list[Program], own_folder: Path) -> None:
    """0.2 s each way and one packet in a hundred lost: it takes longer, and that is all."""
    line = Program(
        *(sys.executable, "-m", "tests.support.slowlink"),
        *(
            hosts.names["master"],
            "10.213.78.1",
            hosts.names["slave"],
            "10.213.78.2",
            "--delay",
            "0.2",
            "--loss",
            "0.01",
        ),
    )
    programs.append(line)
    line.says("ready")
    job = "[c.add_task(functools.partial(tasks.square, n)) for n in range(20_000)]"
    master = start_master(hosts, programs, own_folder, 30.0, job)
    slave = start_slave(hosts, programs, at="10.213.78.1")
    assert master.ends(240) == 0 and slave.ends() == 0
    assert master.out.count("done") == 20_000
    assert "lost" not in master.err


def test_a_master_in_two_networks_of_which_one_is_seen(
    hosts: TwoHosts, programs: list[Program], own_folder: Path
) -> None:
    """The command that the master prints names both, and the slave finds the one that works."""
    hosts.add_blind_network()
    master = start_master(hosts, programs, own_folder, 30.0)
    command = master.says(r"on another machine run: python3 -c \".*\" (.*)\n").group(1).split()
    assert len(command) >= 2 and any(address.startswith("10.213.99.1:") for address in command)
    addresses = [address.strip("'") for address in command]
    blind_first = sorted(addresses, key=lambda address: not address.startswith("10.213.99."))
    programs.append(Program(*hosts.on("slave"), sys.executable, "-m", "slave", *blind_first, "-n", "1"))
    open_gates(own_folder, *range(5))
    assert master.ends() == 0 and programs[-1].ends() == 0
