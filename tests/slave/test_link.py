"""The proxies beside the protocol: every method, called as it says, with nothing but builtins in the call."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from slave import link as link_module
from slave import protocol as p
from slave import wire
from slave.gathering import SIZE, WATCHED, Gatherer, new_shared_memory
from slave.link import (
    AgentServiceProxy,
    CallFailed,
    Link,
    ModuleServiceProxy,
    ResultQueueProxy,
    ServiceProxy,
    TaskQueueProxy,
)
from slave.transport import SocketTransport

BEAT = p.RunnerBeat(1, 4711, 7)
OUTCOME = p.outcome_message(1, 2, 3, 4, p.VALUE, b"data", [])

# method of a proxy, its arguments; what goes over the wire; for an answered one what comes back, and what that is then
FOUND = p.ModuleReply(p.ARCHIVE, "cd", 9, ["pkg.quick"], "pkg==1", "/pkg")
CALLS: list[tuple[type[ServiceProxy], str, tuple[Any, ...], tuple[Any, ...], Any, Any]] = [
    (TaskQueueProxy, "join", (p.JoinRequest(1, 4711, 2, "run", 3),), ((1, 4711, 2, "run", 3),), True, True),
    (
        TaskQueueProxy,
        "fetch",
        (p.FetchRequest(1, 4711, 2, [p.Ran(3, 4, 0.5)]),),
        ((1, 4711, 2, [(3, 4, 0.5)]),),
        (5, [3, [6, b"payload"]], {6: 1.5}, [2]),
        p.LeaseMessage(5, [p.task_entry(6, 3, b"payload")], {6: 1.5}, [2]),
    ),
    (TaskQueueProxy, "fetch", (p.FetchRequest(1, 4711, 2, []),), ((1, 4711, 2, []),), None, None),
    (TaskQueueProxy, "setup_of", (1, 3), (1, 3), b"setup", b"setup"),
    (TaskQueueProxy, "environment", (1,), (1,), {"number": 2}, {"number": 2}),
    (ResultQueueProxy, "post", (OUTCOME,), OUTCOME, None, None),
    (ResultQueueProxy, "post_and_wait", (OUTCOME,), OUTCOME, None, None),
    (ResultQueueProxy, "setup_failed", (p.SetupFailure(1, 3, b"why", 2, [4]),), ((1, 3, b"why", 2, [4]),), None, None),
    (
        ResultQueueProxy,
        "rebuild_failed",
        (p.RebuildFailure(1, 2, 3, 4, b"why", "numpy", "install it"),),
        ((1, 2, 3, 4, b"why", "numpy", "install it"),),
        None,
        None,
    ),
    (ResultQueueProxy, "give_back", (p.GiveBack(1, 2, [4]),), ((1, 2, [4]),), None, None),
    (
        AgentServiceProxy,
        "enlist",
        (p.EnlistRequest("a", "run", "host", 1, "3.11", 2, [None, 5], [BEAT], "1.0", ["gpu"]),),
        (("a", "run", "host", 1, "3.11", 2, [None, 5], [(1, 4711, 7, 0, 0)], "1.0", ["gpu"]),),
        ("run", 30.0, {}, [4, 5], False),
        p.EnlistReply("run", 30.0, {}, [4, 5], False),
    ),
    (AgentServiceProxy, "heartbeat", ("a", [BEAT]), ("a", [(1, 4711, 7, 0, 0)]), None, None),
    (
        AgentServiceProxy,
        "runner_ended",
        (p.RunnerEnded("a", 1, 4711, None, 7, 0, p.STOPPED),),
        (("a", 1, 4711, None, 7, 0, p.STOPPED, 0, 0),),
        None,
        None,
    ),
    (AgentServiceProxy, "slave_closed", ("a", 1, "why"), ("a", 1, "why"), None, None),
    (AgentServiceProxy, "recalled", ("a", 1, 2, 7), ("a", 1, 2, 7), None, None),
    (AgentServiceProxy, "draining", ("a", [1]), ("a", [1]), None, None),
    (
        AgentServiceProxy,
        "output",
        ("a", [p.OutputPart(1, b"printed\n", 2)]),
        ("a", [(1, b"printed\n", 2)]),
        None,
        None,
    ),
    (AgentServiceProxy, "records", ("a", [p.RecordPart(1, 1, b"{}", 2)]), ("a", [(1, 1, b"{}", 2)]), None, None),
    (AgentServiceProxy, "leave", ("a", "why"), ("a", "why"), None, None),
    (ModuleServiceProxy, "find", (1, "pkg", "ab"), (1, "pkg", "ab"), tuple(FOUND), FOUND),
    (ModuleServiceProxy, "piece", (1, "cd", 5), (1, "cd", 5), b"data", b"data"),
    (ModuleServiceProxy, "setup", (1, 3), (1, 3), tuple(FOUND), FOUND),
    (ModuleServiceProxy, "setup_piece", (1, 3, 5), (1, 3, 5), b"data", b"data"),
]


class Master:
    """The other end of a link."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.link = Link([("localhost", 1)], b"k" * 16, p.Role(p.RUNNER, 1, "", 4711, 0))
        self.link._connection = wire.Connection(SocketTransport(near))
        self.connection = wire.Connection(SocketTransport(far))
        self.connection.limit(0.0)  # everything is there already, or never comes


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.link.drop()
    made.connection.close()


def only_builtins(message: object) -> bool:
    """Whether no class of ours would be rebuilt from a frame."""
    return b"slave.protocol" not in pickle.dumps(message, 5)


@pytest.mark.parametrize(
    ("kind", "method", "args", "sent", "answer", "found"), CALLS, ids=[method for _, method, *_ in CALLS]
)
def test_a_call_goes_out_plain_and_its_answer_is_a_message(
    master: Master,
    kind: type[ServiceProxy],
    method: str,
    args: tuple[Any, ...],
    sent: tuple[Any, ...],
    answer: Any,
    found: Any,
) -> None:
    call: Callable[..., Any] = getattr(master.link.proxy(kind), method)
    if kind.service.methods[method] == p.ANSWERED:
        master.connection.send(("#RETURN", answer))
        assert call(*args) == found
    else:
        assert call(*args) is None
    message = master.connection.recv()
    assert message == (kind.service.ident, method, sent, {}) and only_builtins(message)


def test_commands_are_asked_for_now_and_read_later(master: Master) -> None:
    proxy = master.link.proxy(AgentServiceProxy)
    proxy.ask_commands("a", 3)
    assert master.connection.recv() == ("agents", "commands", ("a", 3), {})
    master.connection.send(("#RETURN", (4, [p.encode_command(p.Drain(1, 2.0))])))
    reply = proxy.commands()
    assert reply == p.CommandsReply(4, [("drain", 1, 2.0)])


def test_values_are_gathered_by_lease_and_context_and_what_is_too_large_goes_alone(master: Master) -> None:
    proxy = master.link.proxy(ResultQueueProxy)
    master.link.gathered = gatherer = Gatherer(new_shared_memory(fork=True), lambda: None)

    def gather(context: int, task: int, data: bytes, last: bool = False) -> None:
        gatherer.cells[WATCHED] = 1
        gatherer.last = 0  # the one before was short
        proxy.gather(p.outcome_message(1, 2, context, task, p.VALUE, data, ()), 1, last)

    gather(3, 4, b"four")
    gather(3, 5, b"five")
    gather(6, 7, b"seven")
    assert master.connection.recv() == ("results", "values", (1, 2, 3, [4, b"four", 5, b"five"]), {})
    large = b"x" * SIZE
    gather(6, 8, large)
    assert master.connection.recv() == ("results", "values", (1, 2, 6, [7, b"seven"]), {})
    assert master.connection.recv() == ("results", "post", (1, 2, 6, 8, p.VALUE, large, ()), {})
    gather(6, 9, b"nine", last=True)
    master.connection.send(("#RETURN", None))
    proxy.give_back(p.GiveBack(1, 2, []))
    assert [master.connection.recv()[1] for _ in range(2)] == ["values", "give_back"]


def test_each_method_of_the_protocol_has_been_called() -> None:
    called = {(kind.service.ident, method) for kind, method, *_ in CALLS}
    called |= {("agents", "commands"), ("results", "values")}  # above
    called |= {("tasks", "times")}  # tests/monitor/test_trace.py
    services = [service for service in p.SERVICES if service.ident != "monitor"]  # which no slave calls
    assert called == {(service.ident, method) for service in services for method in service.methods}


def test_what_the_master_refuses_is_raised_and_costs_no_connection(master: Master) -> None:
    master.connection.send(("#ERROR", "UnknownSlave: 4"))
    with pytest.raises(CallFailed, match="UnknownSlave: 4"):
        master.link.proxy(TaskQueueProxy).setup_of(4, 1)
    assert master.link.connected


def test_a_call_that_broke_off_costs_the_connection(master: Master) -> None:
    """So that no later call reads its answer."""
    master.connection.close()
    with pytest.raises((OSError, EOFError)):
        master.link.proxy(TaskQueueProxy).setup_of(4, 1)
    assert not master.link.connected
    with pytest.raises(ConnectionError, match="not connected to the master"):
        master.link.proxy(TaskQueueProxy).setup_of(4, 1)


def test_an_answer_to_fetch_that_never_comes_is_missed_in_time(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody between has swallowed it, and nothing comes after it by which TLS would see that."""
    monkeypatch.setattr(link_module, "IDLE_SECONDS", 0.05)
    master.link.patience = 0.05
    with pytest.raises(socket.timeout):
        master.link.proxy(TaskQueueProxy).fetch(p.FetchRequest(1, 4711, 2, []))
    assert not master.link.connected, "the next call is made on another connection"


def test_the_next_try_begins_with_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands at the first one lets the handshake through and breaks what comes then."""
    tried: list[str] = []

    def breaks(addresses: list[tuple[str, int]], *_: object, **__: object) -> wire.Connection:
        tried.append(addresses[0][0])
        near, far = socket.socketpair()
        far.close()
        return wire.Connection(SocketTransport(near))

    monkeypatch.setattr(link_module, "dial", breaks)
    link = Link([("a", 1), ("b", 1)], b"k" * 16, p.Role(p.RUNNER, 1, "", 4711, 0))
    for _ in range(3):
        with pytest.raises((OSError, EOFError)):
            link.connect()
    assert tried == ["a", "b", "a"]
