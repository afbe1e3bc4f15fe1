"""What a person pastes on another machine: the command that the manager prints, and a token."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.launch import join
from parallel.launch.join import join_command
from parallel.launch.slave_file import slave_file, slave_file_hash
from slave.handshake import FETCH, GREETING_SIZE, HEAD_SIZE
from slave.keys import default_file, find_key
from slave.token import Token, new_once, reusable
from tests.conftest import Make
from tests.support import hosts as bare_hosts
from tests.support.network import TwoHosts, possible
from tests.support.ports import unused_port
from tests.support.programs import ROOT, Program, pyenv, pythons
from tests.support.terminals import Terminal
from tests.support.waiting import eventually

OLD = [path for version in ("2.7", "3.6", "3.8") for path in pyenv(version)]
NETWORK = pytest.mark.skipif(not possible() or not bare_hosts.possible(), reason="namespaces need root and iproute2")
SQUARES = [0, 1, 4, 9, 16]


def results(manager: parallel.Manager) -> list[int]:
    context = manager.get_context()
    for number in range(5):
        context.add_task(functools.partial(pow, number, 2))
    return sorted(context.get_results_unordered())


def elsewhere(folder: Path) -> dict[str, str]:
    """The environment of another user of this machine, as far as a slave program looks at it."""
    home = folder / "another home"
    home.mkdir(exist_ok=True)
    return {"HOME": str(home), "PYTHONPATH": "", "PYTHONWARNINGS": "default"}


def local_command(manager: parallel.Manager) -> str:
    """The join command of a manager as it would be on this machine."""
    encrypt = "--no-encryption" not in manager.join_command
    match = re.search(r"--master ([0-9a-f]+)", manager.join_command)
    assert match
    return join_command([f"127.0.0.1:{manager.address[1]}"], match.group(1), encrypt, slave_file_hash())


class Fed:
    """A shell command that gets a line on stdin."""

    def __init__(self, command: str, line: str, cwd: Path, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **variables},
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and wants none
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def ends(self) -> tuple[int, str]:
        """Its exit code and what it said."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


@pytest.fixture
def folder(own_folder: Path) -> Path:
    path = own_folder / "somewhere else"
    path.mkdir()
    (path / "socket.py").write_text("raise SystemExit('a file of the folder was imported')\n")
    return path


def test_the_printed_command_holds_no_path_and_no_secret(make: Make, own_folder: Path) -> None:
    manager = make(0, port=0)
    command = manager.join_command
    assert str(ROOT) not in command and str(Path.home()) not in command and sys.executable not in command
    assert find_key().decode() not in command and reusable(find_key()).decode() not in command
    assert slave_file_hash() in command and "\n" not in command
    code = command.split('"')[1]
    assert not set(code) & set('"$`!%'), "a shell would take that for its own"
    assert command.startswith(f'python3 -c "{code}" ') and len(command) < 1200


@pytest.mark.parametrize("which", ["key", "reusable", "once"])
@pytest.mark.parametrize("encrypt", [True, False])
def test_it_is_pasted_with_a_token_on_stdin(
    make: Make, folder: Path, own_folder: Path, which: str, encrypt: bool
) -> None:
    manager = make(0, port=0, encrypt=encrypt)
    word = find_key().decode() if which == "key" else manager.make_token(reusable=which == "reusable")
    slave = Fed(local_command(manager) + " -n 2 --key-file -", word, folder, elsewhere(own_folder))
    assert results(manager) == SQUARES
    manager.shutdown()
    code, said = slave.ends()
    assert code == 0, said
    assert "slave: connected: 2 slaves" in said


def test_it_asks_for_the_token_at_a_terminal(make: Make, folder: Path, own_folder: Path) -> None:
    manager = make(0, port=0)
    token = manager.make_token()
    with Terminal(["/bin/sh", "-c", local_command(manager) + " -n 1"], **elsewhere(own_folder)) as terminal:
        terminal.shows("(?s)no key: .*key --token.*paste the token")
        terminal.type(token[:-1] + ("0" if token[-1] != "0" else "1") + "\n")
        terminal.shows("(?s)there is an error in this token.*paste the token")
        terminal.type(token + "\n")
        terminal.shows("connected: 1 slave")
        assert results(manager) == SQUARES
        manager.shutdown()
        assert terminal.ends() == 0
    assert token.rpartition("/")[2] not in terminal.shown


def test_a_key_of_this_machine_that_is_not_the_master_s_is_not_the_last_word(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(0, port=0)
    variables = elsewhere(own_folder)
    with monkeypatch.context() as patch:
        patch.setenv("HOME", variables["HOME"])
        find_key(create=True)
    with Terminal(["/bin/sh", "-c", local_command(manager) + " -n 1"], **variables) as terminal:
        terminal.shows("(?s)wrong key: .*paste the token")
        terminal.type(manager.make_token() + "\n")
        terminal.shows("connected: 1 slave")
        manager.shutdown()
        assert terminal.ends() == 0


@pytest.mark.slow
def test_a_token_for_once_is_worthless_afterwards(make: Make, folder: Path, own_folder: Path) -> None:
    manager = make(0, port=0)
    token, variables = manager.make_token(), elsewhere(own_folder)
    first = Fed(local_command(manager) + " -n 1 --key-file -", token, folder, variables)
    manager.wait_for_slaves(1, 60)
    code, said = Fed(local_command(manager) + " -n 1 --wait 0 --key-file -", token, folder, variables).ends()
    assert code == 3 and "the token was used before, and can be used once" in said and len(said.splitlines()) == 1
    assert len(manager.slaves) == 1 and results(manager) == SQUARES
    manager.shutdown()
    assert first.ends()[0] == 0
    again = make(0, port=0)
    code, said = Fed(local_command(again) + " --wait 0 --key-file -", token, folder, variables).ends()
    assert code == 3 and "wrong key" in said


def test_its_slave_comes_back_after_its_connection_broke(make: Make, folder: Path, own_folder: Path) -> None:
    """With what it got in exchange for the token: runners that are replaced need it too."""
    manager = make(0, port=0)
    slave = Fed(local_command(manager) + " -n 1 --key-file -", manager.make_token(), folder, elsewhere(own_folder))
    context = manager.get_context()
    context.add_task(functools.partial(os._exit, 3))
    with pytest.raises(parallel.TaskGivenUp):
        list(context.get_results_unordered())
    assert results(manager) == SQUARES
    manager.shutdown()
    assert slave.ends()[0] == 0


def test_keep_wants_a_token_that_can_be_used_again(make: Make, folder: Path, own_folder: Path) -> None:
    manager = make(0, port=0)
    command = local_command(manager) + " -n 1 --keep --key-file -"
    code, said = Fed(command, manager.make_token(), folder, elsewhere(own_folder)).ends()
    assert code == 7 and "this token holds for one of them" in said


def test_the_token_alone_says_where_the_master_is(make: Make, own_folder: Path) -> None:
    manager = make(0, port=0)
    secret = Token(
        new_once(find_key(), manager.dispatcher.scheduler.state.run), [("127.0.0.1", manager.address[1])], ""
    )
    file = own_folder / "slave.pyz"
    file.write_bytes(slave_file())
    code = f"{shlex.quote(sys.executable)} {shlex.quote(str(file))} -n 1 --key-file -"
    slave = Fed(code, secret.text(), own_folder, elsewhere(own_folder))
    assert results(manager) == SQUARES
    manager.shutdown()
    assert slave.ends()[0] == 0


def test_the_interpreters_flags_are_in_the_command(own_folder: Path) -> None:
    text = "import parallel\nwith parallel.Manager(port=0, output=None) as m: print(m.join_command)\n"
    (own_folder / "script.py").write_text(text)
    program = Program(sys.executable, "-O", "-W", "ignore:a 'b'", "-X", "utf8", "script.py", cwd=own_folder)
    assert program.ends() == 0, program.err
    python, *words = shlex.split(program.out)
    code = words.index("-c")
    assert python == "python3" and words[code + 1].startswith("exec(") and "-O" in words[:code]
    assert "-Wignore:a 'b'" in words[:code] and words[words.index("-X") + 1].startswith("utf8")


@pytest.mark.skipif(not OLD, reason="no Python older than 3.9 on this machine")
def test_old_pythons_say_so_in_one_line(make: Make, folder: Path) -> None:
    command = local_command(make(0, port=0))
    for python in OLD:
        code, said = Fed(python + command[len("python3") :], "", folder, {"PYTHONWARNINGS": ""}).ends()
        assert code and re.fullmatch(r"slave: this is Python \S+; a slave needs 3.9 or newer\n", said), said


@pytest.mark.parametrize("python", [path for _, path in pythons()], ids=[version for version, _ in pythons()])
def test_every_python_can_fetch_it(
    make: Make, folder: Path, own_folder: Path, temporary_folder: Path, python: str
) -> None:
    manager = make(0, port=0)
    command = python + local_command(manager)[len("python3") :] + " -n 1 --key-file -"
    slave = Fed(command, manager.make_token(), folder, elsewhere(own_folder))
    assert results(manager) == SQUARES
    manager.shutdown()
    code, said = slave.ends()
    assert code == 0, said
    assert not list(temporary_folder.iterdir())


# -- the file that is fetched


def fetched(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as sock, sock.makefile("rb") as file:
        sock.sendall(FETCH)
        return file.read()[GREETING_SIZE:]


def test_whoever_asks_is_given_the_file_and_nothing_else(make: Make) -> None:
    assert len(FETCH) == HEAD_SIZE
    manager = make(0, port=0)
    assert fetched(manager.address[1]) == slave_file()
    assert hashlib.sha256(slave_file()).hexdigest() == slave_file_hash()


def test_what_is_not_what_the_command_names_is_not_run(folder: Path, own_folder: Path) -> None:
    """Somebody between, or at an address that the master had once, gives another file."""
    false = b"raise SystemExit('the wrong file was run')"
    served = threading.Event()

    def serve(server: socket.socket) -> None:
        sock, _ = server.accept()
        with sock:
            sock.sendall(bytes(GREETING_SIZE) + false)
            sock.recv(100)
        served.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        port = server.getsockname()[1]
        closed = unused_port()
        command = join_command([f"127.0.0.1:{closed}", f"127.0.0.1:{port}"], "ab" * 8, True, slave_file_hash())
        code, said = Fed(command, "", folder, elsewhere(own_folder)).ends()
        thread.join()
    assert code == 1 and served.is_set()
    (line,) = said.splitlines()
    assert line == (
        f"slave: the slave program cannot be fetched: 127.0.0.1:{closed}: [Errno 111] Connection refused; "
        f"127.0.0.1:{port}: what came is not the slave program that this command names"
    )


def test_who_sends_for_ever_or_drips_is_left(folder: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger at one of its addresses fills no memory, and does not keep the next one from being tried."""
    monkeypatch.setattr(join, "_SECONDS", 4)

    def serve(server: socket.socket, data: bytes, pause: float) -> None:
        sock, _ = server.accept()
        wait, sent = threading.Event(), 0
        with sock:
            try:
                while sent < 100_000_000:
                    sent += sock.send(data)
                    wait.wait(pause)
            except OSError:
                counts.append(sent)  # hung up on

    counts: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as flood, socket.create_server(("127.0.0.1", 0)) as drip:
        threads = [
            threading.Thread(target=serve, args=(flood, bytes(65536), 0)),
            threading.Thread(target=serve, args=(drip, b"x", 0.05)),
        ]
        for thread in threads:
            thread.start()
        at = [f"127.0.0.1:{server.getsockname()[1]}" for server in (flood, drip)]
        code, said = Fed(join_command(at, "ab" * 8, True, slave_file_hash()), "", folder, elsewhere(own_folder)).ends()
        for thread in threads:
            thread.join()
    assert code == 1 and len(counts) == 2
    (line,) = said.splitlines()
    assert f"{at[0]}: what came is not the slave program that this command names; {at[1]}: it takes too long" in line


def answered(sock: socket.socket) -> bool:
    """Whether somebody who asks for the file was given some of it, or hung up on."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    try:
        return bool(poll.poll(0)) or len(sock.recv(GREETING_SIZE + 1, socket.MSG_PEEK)) > GREETING_SIZE
    except BlockingIOError:
        return False


def test_a_crowd_that_asks_for_the_file_keeps_no_slave_out(make: Make, folder: Path, own_folder: Path) -> None:
    manager = make(1, port=0)
    port = manager.address[1]
    crowd = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(300)]
    for sock in crowd:
        sock.sendall(FETCH)  # and nobody reads
        sock.setblocking(False)
    eventually(lambda: all(map(answered, crowd)), 60, "an answer to all of them, which a busy master gives late")
    threading.Event().wait(0.1)  # in which there are five more to be had
    slave = Fed(local_command(manager) + " -n 1 --key-file -", manager.make_token(), folder, elsewhere(own_folder))
    try:
        eventually(lambda: len(manager.slaves) == 2, 60, "the slave")
        assert results(manager) == SQUARES
    finally:
        for sock in crowd:
            sock.close()
    manager.shutdown()
    assert slave.ends()[0] == 0


# -- hosts that share nothing

MASTER = """
import functools, logging, os, sys
import parallel
if __name__ == '__main__':
    with parallel.Manager(port=5757) as m:
        print('token', m.make_token(), flush=True)
        print('reusable', m.make_token(reusable=True), flush=True)
        m.wait_for_slaves(1)
        c = m.get_context()
        for n in range(5):
            c.add_task(functools.partial(pow, n, 2))
        print('results', sorted(c.get_results_unordered()), flush=True)
        c.add_task(os.getuid)
        print('user', *c.get_results_unordered(), flush=True)
"""


@pytest.fixture
def network() -> Iterator[TwoHosts]:
    with TwoHosts() as made:
        yield made


@NETWORK
@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.9", "3.13"])
@pytest.mark.parametrize("word", ["token", "reusable"])
def test_a_machine_that_has_nothing_but_python(network: TwoHosts, own_folder: Path, version: str, word: str) -> None:
    python = next(iter(pyenv(version)), None)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    (own_folder / "script.py").write_text(MASTER)
    master = Program(*network.on("master"), sys.executable, "script.py", cwd=own_folder)
    try:
        command = master.says(r"on another machine run: (.*)\n").group(1)
        token = master.says(rf"{word} (\S+)\n").group(1)
        there = bare_hosts.bare(network, "slave", python, "ls -a; " + command)
        with Terminal(there) as terminal:
            terminal.shows(r"(?s)venv.*paste the token")
            terminal.type(token + "\n")
            terminal.shows("connected: ")
            master.says(re.escape(f"results {SQUARES}"))
            master.says("user 12345\n")
            assert master.ends() == 0
            assert terminal.ends() == 0
    finally:
        master.kill()


def test_the_manager_says_how_to_get_a_token(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make(0, port=0)
    assert "it asks there for a token; this shows one on this machine: python3 -m parallel key --token" in caplog.text
    caplog.clear()
    manager: Any = make(0, port=0, authkey=b"a key by argument")
    assert "it asks there for a token; the manager's make_token() gives one" in caplog.text
    assert manager.make_token() != manager.make_token() and default_file().exists()


def test_a_manager_that_nobody_may_join_has_no_token(make: Make) -> None:
    with pytest.raises(parallel.InputError, match="give it a port"):
        make(1).make_token()
