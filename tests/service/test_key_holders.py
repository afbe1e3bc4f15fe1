"""Who holds the key and makes no sense: he costs his own connection, and nothing else."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import pickle
import random
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

import parallel
from parallel.service import checked, result_queue
from parallel.service import server as server_module
from parallel.service.peer import is_our_limit
from slave.dial import dial
from slave.errors import ProtocolError
from slave.protocol import COMMANDS, REPORTS, RUNNER, WATCHER, RunnerEnded, checked_outcome
from slave.wire import MOST_BODY, MOST_BUFFERS, Connection
from tests.conftest import Make
from tests.support import relays, tasks
from tests.support.programs import Program, script
from tests.support.waiting import eventually

KEY = b"the key of these tests"
QUICK = 500
MUTATIONS = int(os.environ.get("PARALLEL_TEST_MUTATIONS", "0"))  # more frames, 20,000 say: minutes
PART = 2_000  # of them in one test


def at(manager: parallel.Manager) -> tuple[str, int]:
    return "127.0.0.1", manager.address[1]


@contextmanager
def holder(port: int, kind: str = "test", slave: int = 0, agent: str = "") -> Iterator[Connection]:
    """A connection of somebody who holds the key and has said who he is."""
    connection = dial([("127.0.0.1", port)], KEY, 5.0)
    try:
        connection.limit(30)
        connection.send((None, "accept_connection", ((kind, slave, agent, 1, 1),), {}))
        assert connection.recv() == ("#RETURN", None)
        yield connection
    finally:
        connection.close()


def is_cut(connection: Connection) -> bool:
    """Whether the master has hung up; what it still says is passed over."""
    try:
        while True:
            connection.recv()
    except (EOFError, ConnectionError):
        return True


# -- silence


def test_who_says_nothing_is_hung_up_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS", 0.3)
    manager = make(0, port=0, authkey=KEY)
    connections = [dial([at(manager)], KEY, 5.0) for _ in range(3)]
    try:
        for connection in connections:
            connection.limit(30)
            assert is_cut(connection)
        eventually(lambda: "did not say who it is within 0.3 s" in caplog.text, 30)
        warnings = [record for record in caplog.records if "did not say who it is" in record.getMessage()]
        assert [record.levelno for record in warnings].count(logging.WARNING) <= 1
    finally:
        for connection in connections:
            connection.close()


def test_half_a_first_message_is_silence_too(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS", 0.3)
    manager = make(0, port=0, authkey=KEY)
    halves = [relays.frame((None, "accept_connection", (), {}))[:20], struct.pack("!IQ", 1, 1 << 20)]
    for half in halves:
        connection = dial([at(manager)], KEY, 5.0)
        try:
            connection.limit(30)
            connection.transport.write(half)
            assert is_cut(connection)
        finally:
            connection.close()


def test_half_a_large_message_is_silence_too(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever stalls inside one would hold a thread for ever."""
    manager = make(0, port=0, authkey=KEY, lease=1.0)
    with holder(manager.address[1]) as connection:
        connection.transport.write(struct.pack("!IQQ", 1, 10, 1 << 20) + b"x" * 1000)
        assert is_cut(connection)
    eventually(lambda: "is cut: nothing came for 1 s inside a message" in caplog.text, 30)


def test_the_systems_word_that_a_machine_is_gone_is_no_half_a_message() -> None:
    """A cable was pulled while nothing was under way: TCP may find that out before the lease is over."""
    assert is_our_limit(socket.timeout("timed out"))
    gone = OSError(errno.ETIMEDOUT, "Connection timed out")
    assert isinstance(gone, TimeoutError) and not is_our_limit(gone)


# -- announcements


def announcements() -> dict[str, bytes]:
    return {
        "body of 8 MB and a byte": struct.pack("!IQ", 0, MOST_BODY + 1),
        "body of 2^63": struct.pack("!IQ", 0, 1 << 63),
        "2^16 buffers and one": struct.pack("!IQ", MOST_BUFFERS + 1, 10),
        "2^32 buffers": struct.pack("!IQ", (1 << 32) - 1, 10),
        "a buffer of 2^44 and a byte": struct.pack("!IQQ", 1, 10, (1 << 44) + 1),
        "a buffer of 2^64": struct.pack("!IQQ", 1, 10, (1 << 64) - 1),
    }


@pytest.mark.parametrize("what", announcements())
def test_too_large_announcement_is_refused(make: Make, what: str, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(0, port=0, authkey=KEY)
    with holder(manager.address[1]) as connection:
        before = resident()
        connection.transport.write(announcements()[what])
        assert is_cut(connection)
        assert resident() - before < 16 << 20
    eventually(lambda: "that is no message" in caplog.text, 30)
    assert caplog.text.count("made no sense") == 1


LARGEST = {
    "body of 8 MB": struct.pack("!IQ", 0, MOST_BODY),
    "2^16 buffers": struct.pack("!IQ", MOST_BUFFERS, 10),
    "a buffer of 2^44": struct.pack("!IQQ", 1, 10, 1 << 44) + b"x" * 10,
    "a buffer of 1 GB": struct.pack("!IQQ", 1, 10, 1 << 30) + b"x" * 10,
}


@pytest.mark.parametrize("what", LARGEST)
def test_largest_announcement_alone_takes_no_memory(make: Make, what: str) -> None:
    """Nothing is filled before it comes; and the master, and others, go on."""
    manager = make(1, port=0, authkey=KEY)
    manager.wait_for_slaves(1, 40)
    with holder(manager.address[1]) as connection:
        before = resident()
        connection.transport.write(LARGEST[what])
        context = manager.get_context()
        for _ in range(20):
            context.add_task(functools.partial(tasks.give, "works"))
        assert list(context.get_results_unordered()) == ["works"] * 20
        assert resident() - before < 30 << 20


def resident() -> int:
    """Bytes of this process's memory that are filled."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# -- what would be found much later, by the dispatcher's thread


WRONG: dict[str, tuple[str, Any]] = {
    "a role without a name": ("", (None, "accept_connection", (([], 1, "", 8, 1),), {})),
    "a runner that is no number": ("", (None, "accept_connection", (("runner", [], "", 8, 1),), {})),
    "an agent that is no text": ("", (None, "accept_connection", (("reports", 0, [], 8, 1),), {})),
    "an agent of many lines": ("", (None, "accept_connection", (("reports", 0, "a\nb", 8, 1),), {})),
    "a number of 2^300": ("", (None, "accept_connection", (("runner", 1 << 300, "", 8, 1),), {})),
    "no call": (RUNNER, 5),
    "half a call": (RUNNER, ("results", "post")),
    "a call of a list": (RUNNER, ([], "post", (), {})),
    "arguments by name": (RUNNER, ("tasks", "setup_of", (1, 1), {"slave": 1})),
    "a word for another slave": (RUNNER, ("tasks", "fetch", ((0, 8, 1, []),), {})),
    "setup that failed elsewhere": (
        RUNNER,
        ("results", "setup_failed", ((0, 1, pickle.dumps(("E", "text", "trace", None), 5), 1, [1]),), {}),
    ),
    "a word for another agent": (REPORTS, ("agents", "slave_closed", ("b" * 32, 0, "it lies"), {})),
    "an outcome without a slave": (RUNNER, ("results", "post", ([], 1, 1, 1, 0, b"", []), {})),
    "an outcome of numbers": (RUNNER, ("results", "post", (1, 1, 1, 1, 0, 5, [5]), {})),
    "an outcome of its own kind": (RUNNER, ("results", "post", (1, 1, 1, 1, 2, b"", []), {})),
    "a beat with a list for a task": (REPORTS, ("agents", "heartbeat", ("a" * 32, [(1, 8, [])]), {})),
    "a stretch of no number of seconds": (RUNNER, ("tasks", "fetch", ((1, 8, 1, [(1, 2, float("nan"))]),), {})),
    "a stretch of less than no time": (RUNNER, ("tasks", "fetch", ((1, 8, 1, [(1, 2, -1.0)]),), {})),
    "a stretch of 2^300 tasks": (RUNNER, ("tasks", "fetch", ((1, 8, 1, [(1, -1 << 300, 0.5)]),), {})),
    "a stretch of a text": (RUNNER, ("tasks", "fetch", ((1, 8, 1, ["1, 2"]),), {})),
    "a fetch by process -2^300": (RUNNER, ("tasks", "fetch", ((1, -1 << 300, 1, []),), {})),
    "a stretch of infinite tasks": (RUNNER, ("tasks", "fetch", ((1, 8, 1, [(1, 2, float("inf"))]),), {})),
    "a host of a million letters": (
        REPORTS,
        ("agents", "enlist", (("a" * 32, "", "h" * 1_000_000, 7, "3", 1, [None], []),), {}),
    ),
    "a slave that asks how things are": (RUNNER, ("monitor", "status", (), {})),
    "a watcher that drains a text": (WATCHER, ("monitor", "drain", ("1", None), {})),
    "a watcher that gives endless grace": (WATCHER, ("monitor", "drain", (1, float("inf")), {})),
    "a watcher that adds half a slave": (WATCHER, ("monitor", "add", (0.5,), {})),
    "a watcher with places of bytes": (WATCHER, ("monitor", "output", (b"{}",), {})),
    "a watcher with a long text": (WATCHER, ("monitor", "output", ("x" * 200_000,), {})),
    "nothing but lists": (RUNNER, [[[[[]]]]] * 50_000),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_costs_its_own_connection_alone(
    make: Make, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    manager = make(1, port=0, authkey=KEY)
    kind, message = WRONG[what]
    for _ in range(3):
        connection = dial([at(manager)], KEY, 5.0)
        try:
            connection.limit(30)
            if kind:
                connection.send((None, "accept_connection", ((kind, 1, "a" * 32, 1, 1),), {}))
                assert connection.recv() == ("#RETURN", None)
            connection.send(message)
            assert is_cut(connection)
        finally:
            connection.close()
    context = manager.get_context()
    for _ in range(20):
        context.add_task(functools.partial(tasks.give, "works"))
    assert list(context.get_results_unordered()) == ["works"] * 20
    told = eventually(
        lambda: [one.getMessage() for one in caplog.records if "made no sense" in one.getMessage()], 30, "a line of it"
    )
    assert len(told) == 1 and "\n" not in told[0] and len(told[0]) < 500


def test_an_agent_speaks_for_its_own_slaves_alone(make: Make) -> None:
    manager = make(1, port=0, authkey=KEY)
    manager.wait_for_slaves(1, 40)
    agent = "a" * 32
    lies: list[tuple[Any, ...]] = [
        ("slave_closed", (agent, 0, "it lies")),
        ("draining", (agent, [0])),
        ("recalled", (agent, 0, 0, 0)),
        ("runner_ended", (tuple(RunnerEnded(agent, 0, manager.slaves[0].pid, -9, 0, 1, "")),)),
        ("leave", (agent, "it lies")),
    ]
    with holder(manager.address[1], REPORTS, 0, agent) as connection:
        for method, arguments in lies:
            connection.send(("agents", method, arguments, {}))
        assert connection.recv() == ("#RETURN", None)  # to the last
    assert manager.slaves[0].state == "idle"
    context = manager.get_context()
    context.add_task(functools.partial(tasks.give, "works"))
    assert list(context.get_results_unordered()) == ["works"]


def test_who_is_cut_is_told_why(make: Make) -> None:
    manager = make(0, port=0, authkey=KEY)
    with holder(manager.address[1], RUNNER, 1) as connection:
        connection.send(("results", "post", (1, 1, 1, 1, 7, b"", []), {}))
        word, why = connection.recv()
        assert word == "#CUT" and "made no sense: an outcome has" in why


# -- mutations


MASTER = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # so that no announcement takes this machine down
import functools, json, logging, os, sys, threading, time
import parallel


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def ping(manager, over, seen):
    while not over.wait(0.01):
        began = time.monotonic()
        assert len(manager.slaves) >= 1
        seen.append(time.monotonic() - began)


def work(context):
    for number in range(50):
        context.add_task(functools.partial(pow, number, 2))
    return sorted(context.get_results_unordered()) == [number * number for number in range(50)]


if __name__ == "__main__":
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("parallel").addHandler(handler)
    with parallel.Manager(port=0, output=None, authkey=b"the key of these tests", lease=9.0) as manager:
        manager.add_slave(parallel.LocalSlave())
        context = manager.get_context()
        for _ in range(20):
            assert work(context)
        over, pings, right, worst = threading.Event(), [], 0, 0.0
        thread = threading.Thread(target=ping, args=(manager, over, pings))
        thread.start()
        print("port", manager.address[1], flush=True)
        while not os.path.exists("warm"):
            assert work(context)
        before = most = resident()
        while not os.path.exists("over"):
            began = time.monotonic()
            assert work(context)
            worst = max(worst, time.monotonic() - began)
            right += 1
            most = max(most, resident())
        over.set()
        thread.join()
        told = dict(ping=max(pings), round=worst, rounds=right, growth=resident() - before, most=most - before)
        print(json.dumps(dict(told, warnings=warnings)), flush=True)
"""

# by whom, what: each as an honest slave says it
MESSAGES: list[tuple[str, Any]] = [
    (REPORTS, ("agents", "enlist", (("a" * 32, "", "host", 7, "3.11.7", 1, [None], []),), {})),
    (REPORTS, ("agents", "heartbeat", ("a" * 32, [(0, 7, 0), (1, 8, 3)]), {})),
    (REPORTS, ("agents", "runner_ended", (("a" * 32, 1, 8, -9, 0, 3, "", 0.5, 1),), {})),
    (REPORTS, ("agents", "slave_closed", ("a" * 32, 1, "it was asked to end"), {})),
    (REPORTS, ("agents", "recalled", ("a" * 32, 1, 3, 2), {})),
    (REPORTS, ("agents", "draining", ("a" * 32, [1, 2]), {})),
    (REPORTS, ("agents", "leave", ("a" * 32, "it was ended by SIGTERM"), {})),
    (COMMANDS, ("agents", "commands", ("a" * 32, 0), {})),
    (RUNNER, ("tasks", "join", ((1, 8, 1, "run", 0),), {})),
    (RUNNER, ("tasks", "fetch", ((1, 8, 1, [(1, 2, 0.5)]),), {})),
    (RUNNER, ("tasks", "setup_of", (1, 1), {})),
    (RUNNER, ("results", "post", (1, 1, 1, 1, 0, pickle.dumps(4, 5), []), {})),
    (RUNNER, ("results", "post_and_wait", (1, 1, 1, 1, 0, bytearray(pickle.dumps(4, 5)), [bytearray(8)]), {})),
    (RUNNER, ("results", "post", (1, 1, 1, 1, 1, pickle.dumps(("E", "text", "trace", None), 5), []), {})),
    (RUNNER, ("results", "setup_failed", ((1, 1, pickle.dumps(("E", "text", "trace", None), 5), 1, [1]),), {})),
    (RUNNER, ("results", "rebuild_failed", ((1, 1, 1, 1, pickle.dumps(("E", "", "", None), 5), "numpy", "help"),), {})),
    (RUNNER, ("results", "give_back", ((1, 1, [2, 3]),), {})),
    ("test", (None, "accept_connection", (("runner", 1, "", 8, 1),), {})),
]
LEAVES: list[Any] = [
    0,
    1,
    -1,
    1 << 31,
    1 << 70,
    -(1 << 70),
    1.5,
    float("nan"),
    float("inf"),
    None,
    True,
    "",
    "x" * 5000,
    b"",
    b"\x80",
]
LEAVES += [[], (), {}, {1: 2}, [[[[]]]], ("a", 1), "agents", "\udc80", object, len, frozenset({1}), [None] * 1000]


class Mutations:
    """Frames that nobody who makes sense sends."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def next(self) -> tuple[str, bytes]:
        """By whom, and what."""
        chance = self._chance
        role, message = chance.choice(MESSAGES)
        how = chance.randrange(10)
        if how < 5:
            return role, relays.frame(self._other(message))
        frame = bytearray(relays.frame(message))
        if how == 5:  # the header
            frame[chance.randrange(12)] ^= 1 << chance.randrange(8)
        elif how == 6:  # cut and filled up
            del frame[chance.randrange(12, len(frame)) :]
            frame[4:12] = (len(frame) - 12).to_bytes(8, "big")
        elif how == 7:  # noise
            frame[12:] = chance.getrandbits(8 * (len(frame) - 12)).to_bytes(len(frame) - 12, "big")
        else:
            for _ in range(chance.choice([1, 1, 1, 2, 5])):
                frame[chance.randrange(12, len(frame))] = chance.randrange(256)
        return role, bytes(frame)

    def _other(self, value: Any) -> Any:
        """A message with something else in the place of one of its parts, at whatever depth."""
        chance = self._chance
        if isinstance(value, (tuple, list)) and value and chance.random() < 0.85:
            parts = list(value)
            how, place = chance.randrange(8), chance.randrange(len(parts))
            if how == 0:
                del parts[place]
            elif how == 1:
                parts.insert(place, chance.choice(LEAVES))
            else:
                parts[place] = self._other(parts[place])
            return type(value)(parts)
        return chance.choice(LEAVES)


def send_mutated(port: int, seed: int, count: int) -> int:
    """Send so many; returns on how many connections, of which each is used until it is cut."""
    mutations, connections, left = Mutations(seed), 0, count
    while left:
        role, frame = mutations.next()
        connections += 1
        with holder(port, role, 1, "a" * 32) as connection:
            while left:
                left -= 1
                try:
                    connection.transport.write(frame)
                    if not answers(connection):
                        break
                except (EOFError, OSError):
                    break
                _, frame = mutations.next()
    return connections


def answers(connection: Connection) -> bool:
    """Whether the master still listens; what else it says is passed over."""
    connection.limit(0.1)
    try:
        connection.send(("tasks", "ping", (), {}))
        while True:
            message = connection.recv()
            if message[0] == "#TRACEBACK" and "'ping'" in message[1]:
                return True
    except OSError:  # it waits for the rest of what was announced, or has hung up
        return False


def kinds(warnings: list[str]) -> list[str]:
    """What the warnings about connections say, without what tells one case from another of its kind."""
    texts = [text for text in warnings if "the connection of" in text]
    return [re.sub(r"[\d\W]+", "#", re.sub(r"'[^'\n]*'|\b0x[0-9a-f]+", "", text))[-80:] for text in texts]


@pytest.fixture
def master(own_folder: Path) -> Iterator[Program]:
    program = script(own_folder / "master.py", MASTER)
    yield program
    program.kill()


@pytest.mark.slow  # it times what happens, on a machine that is to have little else to do
@pytest.mark.parametrize(
    "part, count",
    [pytest.param(0, QUICK, id="few"), *(pytest.param(part, PART, id=str(part)) for part in range(MUTATIONS // PART))],
)
def test_mutated_frames(master: Program, own_folder: Path, part: int, count: int) -> None:
    """An honest slave's tasks and the user's calls go on, memory does not grow, and the log stays readable."""
    seed = random.randrange(1 << 32) if MUTATIONS else 20261125
    print("seed", seed)
    port = int(master.says(r"port (\d+)")[1])
    send_mutated(port, seed + 1, 100)
    (own_folder / "warm").touch()
    connections = send_mutated(port, seed, count)
    (own_folder / "over").touch()
    assert master.ends() == 0, master.err
    told = json.loads(master.out.splitlines()[-1])
    print(connections, "connections;", {key: value for key, value in told.items() if key != "warnings"})
    said = kinds(told["warnings"])
    print(len(said), "warnings about connections")
    assert told["ping"] < 8.0  # less than the lease, for which half a message is waited for
    assert told["round"] < 60  # he can say that he is a slave and takes tasks: until the lease is over
    assert told["growth"] < 30 << 20 and told["most"] < 40 << 20
    assert len(said) == len(set(said)) <= 100
    assert sum("load key" in text for text in said) <= 2  # one kind is one, whatever the byte
    other = [text for text in told["warnings"] if "the connection of" not in text and "slaves may join" not in text]
    print(other)
    assert len(other) < 50


# -- what an honest slave says, and is too large


NINETY_MB = "raise ValueError('x' * 90_000_000)"


def counting(folder: Path, code: str) -> functools.partial[None]:
    """A task or setup that notes each of its runs, and runs ``code``."""
    return functools.partial(exec, f"open({str(folder / 'runs')!r}, 'a').write('!')\n{code}", {})


def clipped(error: parallel.Error, log: str) -> None:
    text = str(error)
    assert "ValueError" in text and "characters are left out" in text
    assert len(text) <= 110_000
    assert len(log) < 10_000 and "made no sense" not in log


def test_setup_with_a_large_exception(make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1)
    context = manager.get_context(counting(own_folder, NINETY_MB))
    context.add_task(functools.partial(pow, 2, 2))
    with pytest.raises(parallel.Error) as caught:
        list(context.get_results_unordered())
    clipped(caught.value, caplog.text)
    assert (own_folder / "runs").read_text() == "!"
    other = manager.get_context()
    other.add_task(functools.partial(pow, 2, 2))
    assert list(other.get_results_unordered()) == [4]


def test_task_with_a_large_exception(make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(1)
    context = manager.get_context()
    context.add_task(counting(own_folder, NINETY_MB))
    with pytest.raises(parallel.Error) as caught:
        list(context.get_results_unordered())
    clipped(caught.value, caplog.text)
    assert (own_folder / "runs").read_text() == "!"
    context.add_task(functools.partial(pow, 2, 2))
    assert list(context.get_results_unordered()) == [4]


class Refusal:
    """Has the master refuse calls, and counts them."""

    def __init__(self, refuses: Callable[[Any], bool]) -> None:
        self._refuses = refuses
        self.count = 0

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def check(*args: Any) -> Any:
            if self._refuses(args[-1]):
                self.count += 1
                raise ProtocolError("it is not to our liking")
            return real(*args)

        return check


def test_outcome_that_is_refused_is_an_error_of_that_task(
    make: Make, own_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Refusal(lambda parts: sum(map(len, (parts[5], *parts[6]))) > 1 << 20)
    monkeypatch.setattr(result_queue, "checked_outcome", refusal(checked_outcome))
    manager = make(1)
    context = manager.get_context()
    bad = context.add_task(functools.partial(tasks.noted, str(own_folder / "runs"), 2 << 20))
    good = context.add_task(functools.partial(pow, 2, 2))
    with pytest.raises(parallel.RemoteError, match="could not be given to the master: .*not to our liking") as caught:
        list(context.get_results_unordered())
    assert caught.value.task_id == bad != good
    assert list(context.get_results_unordered()) == [4]
    assert (own_folder / "runs").read_text() == "!"
    assert refusal.count == 1
    eventually(lambda: "made no sense" in caplog.text, 30, "a line of it")
    assert caplog.text.count("made no sense") == 1


def test_setup_failure_that_is_refused_is_told_without_its_text(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Refusal(lambda parts: isinstance(parts[2], (bytes, memoryview)) and len(parts[2]) > 1 << 20)
    monkeypatch.setattr(checked, "message", refusal(checked.message))
    manager = make(1)
    context = manager.get_context(counting(own_folder, "raise ValueError(bytes(2 << 20))"))
    context.add_task(functools.partial(pow, 2, 2))
    with pytest.raises(parallel.Error, match="could not be told the master: .*not to our liking"):
        list(context.get_results_unordered())
    assert (own_folder / "runs").read_text() == "!"
    assert refusal.count == 1


def test_who_is_refused_always_gives_up(
    make: Make, own_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = Refusal(lambda parts: True)
    monkeypatch.setattr(result_queue, "checked_outcome", refusal(checked_outcome))
    manager = make(1, max_attempts=2)
    context = manager.get_context()
    context.add_task(functools.partial(tasks.noted, str(own_folder / "runs"), 2 << 20))
    with pytest.raises(parallel.Error):
        list(context.get_results_unordered())
    assert refusal.count <= 2 * 2
    assert (own_folder / "runs").read_text() == "!!"
