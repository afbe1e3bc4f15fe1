"""SSHSlave on a real sshd: node1 to node3 are addresses of this machine."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import parallel
from slave.cpus import usable_cpus
from slave.process_tree import Process, running
from tests.conftest import Make, children
from tests.engines.conftest import WAIT
from tests.support import engines, tasks
from tests.support.processes import command_lines
from tests.support.programs import pyenv, script
from tests.support.waiting import eventually

pytestmark = pytest.mark.engines

PYTHON = "/usr/bin/env python3"


@pytest.fixture
def config(own_folder: Path) -> Iterator[str]:
    """The options for ssh; afterwards nothing of ours may be left on the hosts, which are this machine."""
    found = engines.need("sshd")["ENGINE_SSH_CONFIG"]
    _there_before.clear()
    _there_before.update(remains())  # what somebody else has killed and not cleared away
    yield f"-F {found}"
    eventually(lambda: not remains(), 60, f"nothing left behind, not {remains()}")


_there_before: set[str] = set()


def remains() -> list[str]:
    """Folders of slaves that came over a pipe, and processes that know them."""
    found = [str(path) for path in Path("/tmp").glob("parallel-slave-*")]
    processes = running()
    for pid in processes:
        try:
            text = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        if ("parallel-slave-" in text or "i.read(int(i.readline()))" in text) and not of_other_tests(pid, processes):
            found.append(text.replace("\0", " "))
    return [one for one in found if one not in _there_before]


def of_other_tests(pid: int, processes: Mapping[int, Process]) -> bool:
    """Whether a process descends from one that runs other tests beside us (pytest-xdist)."""
    above = []
    while pid in processes:
        above.append(pid)
        pid = processes[pid].parent
    return os.getpid() not in above and "PYTEST_XDIST_WORKER" in os.environ and os.getppid() in above


def ssh_clients() -> list[int]:
    """The ssh programs that this process has started."""
    return [int(line.split(":")[0]) for line in children() if ": ssh " in line]


def squares(manager: parallel.Manager, count: int = 100) -> None:
    context = manager.get_context()
    for number in range(count):
        context.add_task(functools.partial(tasks.square, number))
    assert sorted(context.get_results_unordered()) == [number * number for number in range(count)]


def test_several_hosts_with_nothing_installed(config: str, make: Make, own_folder: Path) -> None:
    """No folder of ours is on the path there; each slave's output comes back; no key in any command line."""
    key = b"the key that nobody may see"
    manager = make(0, authkey=key)
    manager.add_slave(parallel.SSHSlave("node1", 2, python=f"cd / && {PYTHON}", options=config))
    manager.add_slave(parallel.SSHSlave("node2", 1, python=f"cd / && {PYTHON}", options=config))
    manager.wait_for_slaves(3, 60)
    shown = command_lines()
    assert key.hex() not in shown and key.decode() not in shown
    squares(manager)
    context = manager.get_context()
    for number in range(12):
        context.add_task(functools.partial(tasks.say, f"said {number}"))
    list(context.get_results_unordered())
    outputs = [own_folder / f"slave{number}.output" for number in range(3)]
    eventually(lambda: sum(path.read_text().count("said ") for path in outputs) == 12)
    eventually(lambda: "slave: connected: 2 slaves" in outputs[0].read_text())
    assert [info.name for info in manager.slaves] == ["SSHSlave('node1', 2)"] * 2 + ["SSHSlave('node2', 1)"]


def test_as_many_slaves_as_there_are_processors(config: str, make: Make, own_folder: Path) -> None:
    manager = make(0)
    slave = parallel.SSHSlave("node3", options=config)
    manager.add_slave(slave)
    manager.wait_for_slaves(usable_cpus(), 60)
    squares(manager)
    assert [info.name for info in manager.slaves] == ["SSHSlave('node3')"] * usable_cpus()
    context = manager.get_context()
    context.add_task(functools.partial(tasks.say, "hello"))
    list(context.get_results_unordered())
    eventually(lambda: any("hello" in path.read_text() for path in own_folder.glob("slave*.output")))
    manager.remove_slave(slave)
    eventually(lambda: {info.state for info in manager.slaves} == {"ended"}, 60, f"the end of all: {manager.slaves}")


def test_the_managers_python_is_honoured(config: str, make: Make) -> None:
    manager = make(0, python="MARK='a b'; export MARK; python3")
    manager.add_slave(parallel.SSHSlave("node1", 1, options=config))
    context = manager.get_context()
    context.add_task(functools.partial(os.getenv, "MARK"))
    assert list(context.get_results_unordered()) == ["a b"]


@pytest.mark.parametrize("broken", ["client", "session"])
def test_when_the_connection_breaks_the_slaves_end_and_their_tasks_go_elsewhere(
    config: str, make: Make, own_folder: Path, broken: str
) -> None:
    manager = make(0, max_attempts=1)
    manager.add_slave(parallel.SSHSlave("node1", 2, options=config))
    context = manager.get_context()
    for number in range(2):
        context.add_task(functools.partial(tasks.wait_for, f"gate{number}"))
    manager.begin()
    eventually(lambda: len(list(own_folder.glob("gate*.started"))) == 2, 60)
    pids = [info.pid for info in manager.slaves]
    if broken == "client":
        (client,) = ssh_clients()
        os.kill(client, signal.SIGKILL)
    else:
        os.kill(session_of(pids[0]), signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 60, "the end of the slaves")
    eventually(lambda: [info.state for info in manager.slaves] == ["ended"] * 2, 60, f"{manager.slaves}")
    manager.add_slave(parallel.SSHSlave("node2", 2, options=config))
    for number in range(2):
        (own_folder / f"gate{number}").touch()
    assert len(list(context.get_results_unordered())) == 2


def session_of(pid: int) -> int:
    """The sshd process of the session in which a process runs."""
    while True:
        stat = Path(f"/proc/{pid}/stat").read_text()
        if "(sshd)" in stat:
            return pid
        pid = int(stat.rsplit(")", 1)[1].split()[1])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_slaves_end_with_their_master(config: str, own_folder: Path, signum: int) -> None:
    program = script(own_folder / "script.py", WAIT.format(slave=f"parallel.SSHSlave('node1', 2, options={config!r})"))
    program.says("ready")
    eventually((own_folder / "gate.started").exists)
    program.process.send_signal(signum)
    program.ends()
    eventually(lambda: not remains(), 60)


@pytest.mark.parametrize(
    ("host", "python", "more", "said"),
    [
        ("node1", "/no/such/python", "", r"exited with code 127.*name the Python to use there: SSHSlave\('node1', py"),
        ("nowhere.invalid", None, "", r"exited with code 255 \(the name is wrong, or is missing in ~/\.ssh/config\)"),
        (
            "node1",
            None,
            "-o PubkeyAuthentication=no",
            r"code 255 \(nobody is there to type a password; make a key, ssh-keygen",
        ),
        (
            "node1",
            None,
            "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes",
            r"log in once by hand, ssh node",
        ),
        ("node1", None, "-p 9", r"exited with code 255.*(?s:.*)port 9: Connection refused"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(
    config: str, make: Make, host: str, python: str | None, more: str, said: str
) -> None:
    manager = make(0)
    manager.add_slave(parallel.SSHSlave(host, 1, python=python, options=f"{more} {config}"))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        list(context.get_results_unordered())
    assert re.search(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_a_python_that_is_too_old_says_so(config: str, make: Make, version: str) -> None:
    if not pyenv(version):
        pytest.skip(f"no Python {version} here")
    manager = make(0)
    manager.add_slave(parallel.SSHSlave("node1", 1, python=pyenv(version)[0], options=config))
    context = manager.get_context()
    context.add_task(functools.partial(tasks.square, 3))
    with pytest.raises(parallel.NoMoreSlavesError) as caught:
        list(context.get_results_unordered())
    assert re.search(
        rf"slave: this is Python {version} \(.*\); a slave needs 3\.9 or newer: name one", str(caught.value)
    )


@pytest.mark.parametrize("host", ["", "-oProxyCommand=date", "two words", None])
def test_what_is_no_host(host: object) -> None:
    with pytest.raises(parallel.InputError, match="is no name of a host for ssh"):
        parallel.SSHSlave(host)  # type: ignore[arg-type]


def test_no_ssh(make: Make, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    manager = make(0)
    with (
        monkeypatch.context() as patch,
        pytest.raises(parallel.InputError, match=r"^ssh: command not found; .*PATH is"),
    ):
        patch.setenv("PATH", str(own_folder))
        manager.add_slave(parallel.SSHSlave("node1"))


def test_the_users_own_configuration_is_what_ssh_reads() -> None:
    """No option of ours replaces it: ssh itself finds ~/.ssh/config."""
    command = parallel.SSHSlave("me@node1", 2, options="-p 2222").command(None, (1, 2))
    assert command[:3] == ["ssh", "-p", "2222"] and command[-2] == "me@node1"
    assert "-F" not in command and not [word for word in command if "ConnectTimeout" in word or "Identity" in word]
