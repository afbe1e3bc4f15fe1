"""Systems that are not POSIX: both packages with its modules and calls hidden, by the spawn path.

This is as near to Windows as a Linux machine gets; Windows and macOS themselves were not tried.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import parallel
from tests.conftest import Make
from tests.support import tasks
from tests.support.programs import ROOT, Program, environment

HIDE = """
import sys
for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
import os, select, signal, socket
hidden = {
    os: "fork forkpty setsid getpgid killpg getuid geteuid getgid setuid nice getpriority setpriority "
        "sched_getaffinity sched_setaffinity register_at_fork memfd_create mkfifo getloadavg O_NOFOLLOW O_NONBLOCK "
        "fchmod setpgid waitid pidfd_open sysconf",
    signal: "SIGCHLD SIGHUP pthread_sigmask setitimer SIGALRM SIGUSR1 SIGUSR2 SIGPIPE SIGSTOP SIGCONT",
    socket: "AF_UNIX SO_PEERCRED if_nameindex SO_REUSEPORT",
    select: "poll epoll kqueue",
}
for module, names in hidden.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
def socketpair(*_):
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]
socket.socketpair = socketpair  # as the standard library has it where there is no AF_UNIX
"""

IMPORT = (
    HIDE
    + """
import importlib, pkgutil
import parallel, slave
for package in (slave, parallel):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            if found.name != "parallel.frontends.joblib":  # which imports joblib, and that asyncio
                importlib.import_module(found.name)
            print(found.name)
"""
)


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    file = folder / "program.py"
    file.write_text(code)
    return subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment(),
        cwd=folder,
    )


def test_nothing_of_posix_is_needed_at_import(own_folder: Path) -> None:
    done = run(own_folder, IMPORT)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    for path in [*ROOT.glob("slave/*.py"), *ROOT.glob("parallel/**/*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert name in modules | {"slave", "parallel"} or name.endswith("__main__"), f"{name} was not tried"


WIRE = (
    HIDE
    + """
import threading
from slave import certificate, discovery, handshake, introduction, machine, token, wire
from slave.keys import Key
key = Key(b"a key that both sides have")
made = certificate.make_certificate()
context = certificate.server_context(made)
server = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(server.getsockname())
far, _ = server.accept()
one = introduction.OneKey(key)
steps = introduction.receive(far, one, mode=handshake.TLS, fingerprint=made.fingerprint, context=context)
found = []
thread = threading.Thread(target=lambda: found.append(introduction.finish(steps, far, 60)))
thread.start()
mine = wire.Connection(introduction.finish(introduction.introduce(near, key), near, 60))
thread.join()
theirs = wire.Connection(found[0])
mine.send(("a message", 1, [2.0], {"x": b"y" * 100000}))
assert theirs.recv() == ("a message", 1, [2.0], {"x": b"y" * 100000})
mine.close(); theirs.close(); server.close()
text = token.Token(token.new_once(key, "run")).text()
assert token.read_token(text).text() == text
assert discovery.look(key, 0.2) == []
assert machine.parse_size("2G") == 2 << 30
print("well")
"""
)


def test_wire_and_handshake(own_folder: Path) -> None:
    done = run(own_folder, WIRE)
    assert done.stdout == "well\n", done.stderr


SLAVE = (
    HIDE
    + """
if __name__ == "__main__":
    from slave.cli import main
    sys.exit(main(["127.0.0.1:PORT", "-n", "2", "--tag", "here", "--max-memory", "50G"]))
"""
)


def test_a_slave_serves_by_the_spawn_path(make: Make, own_folder: Path) -> None:
    manager = make(0, port=0)
    (own_folder / "program.py").write_text(SLAVE.replace("PORT", str(manager.address[1])))
    program = Program(sys.executable, "program.py", cwd=own_folder)
    try:
        manager.wait_for_slaves(2, 60)
        context = manager.get_context(functools.partial(tasks.give, (2,)), needs={"here"}, max_tasks_per_slave=4)
        for number in range(20):
            context.add_task(functools.partial(pow, number))
        assert sorted(context.get_results_unordered()) == [number**2 for number in range(20)]
        dying = manager.get_context()
        dying.add_task(functools.partial(os._exit, 3))
        with pytest.raises(parallel.TaskGivenUp, match="exited with code 3"):
            list(dying.get_results_unordered())
        manager.shutdown()
        assert program.ends() == 0, program.err
    finally:
        program.kill()
