"""What a runner does on a path on which large packets are lost."""

from __future__ import annotations

import functools
import pickle
import socket
from typing import Any, Callable

import pytest

from slave import runner
from slave.brief import brief, pack_brief_failure
from slave.conversation import Conversation, NotThrough
from slave.gathering import new_shared_memory
from slave.link import CallFailed, Link, ResultQueueProxy, TaskQueueProxy
from slave.outcome import pack_failure, pack_value, unpack_failure
from slave.pieces import outcomes
from slave.protocol import (
    VALUE,
    GiveBack,
    JoinRequest,
    LeaseMessage,
    OutcomeMessage,
    RebuildFailure,
    SetupFailure,
    task_entry,
)
from slave.runner import RunnerConfig
from slave.session import RunnerSession
from slave.shared_status import UNHEARD, new_shared_status

CONTEXT = 1 << 40  # numbers as large as they get in a long run
LEASE = 1 << 40
SMALLEST_PACKET = 576  # bytes that each path carries
HEADERS = 40 + 32 + 22  # of IPv6, of TCP with time stamps, of TLS
ROOM = SMALLEST_PACKET - HEADERS
LONG = "é" * 70_000


class Path:
    """The way to a master: what is larger than ``room`` breaks the connection, when an answer is waited for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.connected, self.count, self.stuck = False, 0, False
        self.arrived: list[Any] = []
        self.unheard: list[int] = []
        self.status = new_shared_status(True)
        self._waiting: list[Any] = []  # behind what is stuck, or in the same packet

    def connect(self) -> None:
        self.connected, self.stuck, self._waiting = True, False, []
        self.count += 1

    def drop(self) -> None:
        self.connected = False

    def join(self, request: JoinRequest) -> bool:
        return True

    def post(self, outcome: OutcomeMessage) -> None:
        self._waiting.append(outcome)

    def post_values(self, message: bytes) -> None:
        self._waiting.extend(outcomes(message))

    def ask(self, method: str, word: Any) -> None:
        calls: list[tuple[str, Any]] = [*(("post", one) for one in self._waiting), (method, word)]
        if sum(len(pickle.dumps(("results", name, (tuple(what),), {}), 5)) for name, what in calls) > self.room:
            raise TimeoutError(110, "Connection timed out")
        self.arrived += [*self._waiting, word]
        self._waiting = []
        self.unheard.append(self.status[UNHEARD])

    def post_and_wait(self, outcome: OutcomeMessage) -> None:
        self.ask("post_and_wait", outcome)

    def rebuild_failed(self, failure: RebuildFailure) -> None:
        self.ask("rebuild_failed", failure)

    def setup_failed(self, failure: SetupFailure) -> None:
        self.ask("setup_failed", failure)

    def give_back(self, word: GiveBack) -> None:
        self.ask("give_back", word)


def broken(*_: object) -> Any:
    raise EOFError


@pytest.fixture(params=[ROOM, 1400])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 64)
    return Path(request.param)


def talk(path: Path, tasks: int) -> tuple[RunnerSession, Conversation]:
    """A runner that has just got a lease of so many tasks."""
    session = RunnerSession(CONTEXT, 1 << 22, "run")
    session.fetched(LeaseMessage(LEASE, [task_entry(LEASE + n, CONTEXT, b"") for n in range(tasks)], {}, [], 0))
    return session, Conversation(session, path, path, path, path.status)


def give_back(path: Path, session: RunnerSession) -> Callable[[], None]:
    return functools.partial(path.give_back, session.give_back())


def test_a_result_that_does_not_get_through_is_left_to_others(path: Path) -> None:
    session, conversation = talk(path, 1)
    message, one_way = session.outcome(*pack_value(bytes(300_000)))
    assert not one_way
    conversation.post_and_wait(message)
    (told,) = path.arrived
    assert isinstance(told, RebuildFailure) and (told.lease, told.task) == (LEASE, LEASE)
    failure = unpack_failure(told.data)
    assert failure.type_name == "OSError"
    assert failure.message.startswith("its result of 300,0") and "bytes does not get from hhh" in failure.message
    assert failure.message.endswith("the MTU of a tunnel or a VPN)")
    assert path.count == 4, "three connections broke"


def test_of_results_that_were_posted_one_way_each_gets_through_that_can(path: Path) -> None:
    """The question after them is what breaks, again and again."""
    session, conversation = talk(path, 40)
    conversation.ensure_connected()
    for number in range(40):
        message, one_way = session.outcome(VALUE, bytes(5000 if number in (3, 20) else 50), ())
        assert one_way
        path.post(message)
    conversation.ask(give_back(path, session))
    session.check()
    assert not session.unanswered
    *told, last = path.arrived
    assert isinstance(last, GiveBack) and not last.unstarted
    lost = [one.task for one in told if isinstance(one, RebuildFailure)]
    arrived = [one[3] for one in told if not isinstance(one, RebuildFailure)]
    assert lost == [LEASE + 3, LEASE + 20] and sorted(lost + arrived) == [LEASE + n for n in range(40)]
    assert path.status[UNHEARD] == 0


def test_the_agent_knows_that_not_all_results_have_arrived_while_they_are_posted_one_by_one(path: Path) -> None:
    session, conversation = talk(path, 2)
    conversation.ensure_connected()
    for _ in range(2):
        path.post(session.outcome(VALUE, bytes(5000), ())[0])
    path.status[UNHEARD] = 1
    conversation.ask(give_back(path, session))
    assert path.unheard == [1, 1, 0], "as it was while each word was read"


def test_what_gets_through_together_is_not_posted_one_by_one(path: Path) -> None:
    session, conversation = talk(path, 2)
    conversation.ensure_connected()
    for _ in range(2):
        path.post(session.outcome(VALUE, bytes(50), ())[0])
    conversation.ask(give_back(path, session))
    assert [type(one) for one in path.arrived] == [tuple, tuple, GiveBack] and path.count == 1


def test_of_statistics_that_do_not_get_through_the_question_for_tasks_does_without(path: Path) -> None:
    session, conversation = talk(path, 0)
    for number in range(500):
        session.ran(CONTEXT + number, 1, 0.125)
    conversation.ask(lambda: path.ask("fetch", session.fetch_request()))
    (asked,) = path.arrived
    assert asked.ran == []


@pytest.mark.parametrize("words", [LONG, "\ud800" * 9000, ""], ids=["long", "surrogates", "none"])
def test_how_a_task_or_a_setup_failed_is_told_briefly_if_not_otherwise(path: Path, words: str) -> None:
    class Difficult(Exception):
        pass

    Difficult.__qualname__ = "D" * 3000
    session, conversation = talk(path, 500)
    _, data, _ = pack_failure(Difficult(words))
    printable = words.encode(errors="backslashreplace").decode()
    conversation.tell(path.rebuild_failed, session.rebuild_failed(data, LONG, LONG))
    conversation.tell(path.setup_failed, session.setup_failed(CONTEXT, data))
    not_rebuilt, failed = path.arrived
    assert not_rebuilt.task == LEASE and failed.context == CONTEXT
    assert failed.unstarted == [LEASE + n for n in range(1, 6)], "the others come back with the next question for tasks"
    for told in path.arrived:
        failure = unpack_failure(told.data)
        assert failure.type_name.endswith("DDD") and failure.message[:5] == printable[:5]


def test_who_reads_the_slaves_output_has_the_whole_of_what_is_told_briefly(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session, conversation = talk(path, 1)
    _, data, _ = pack_failure(ValueError("x" * 2000 + " the end"))
    conversation.tell(path.rebuild_failed, session.rebuild_failed(data, "", ""))
    assert "in few words: ValueError: " + "x" * 2000 + " the end" in capfd.readouterr().err


def test_of_many_tasks_that_are_given_back_some_are_named(path: Path) -> None:
    session, conversation = talk(path, 500)
    conversation.tell(path.give_back, session.give_back())
    assert [len(one.unstarted) for one in path.arrived] == [5]


def test_an_outcome_that_the_master_refuses_is_replaced_and_refused_again_it_ends_the_runner(path: Path) -> None:
    refused = 0

    def refuse(outcome: OutcomeMessage) -> None:
        nonlocal refused
        refused += 1
        if refused != 2:
            raise CallFailed("no")

    path.post_and_wait = refuse  # type: ignore[method-assign]
    session, conversation = talk(path, 2)
    conversation.post_and_wait(session.outcome(*pack_value(bytes(300_000)))[0])
    assert refused == 2
    with pytest.raises(CallFailed):
        conversation.post_and_wait(session.outcome(*pack_value(bytes(300_000)))[0])
    assert refused == 4


def test_what_the_master_has_to_send_and_does_not_arrive_is_given_up(path: Path) -> None:
    _, conversation = talk(path, 1)
    with pytest.raises(NotThrough, match=r"^3 connections broke over it .*MTU"):
        conversation.ask(broken, 3)


def test_what_is_brief_stays_as_it_is() -> None:
    data = pack_brief_failure("OSError", "no")
    assert unpack_failure(data)[:3] == ("OSError", "no", "")
    back, failed = GiveBack(1, 2, [3]), SetupFailure(1, 2, data, 3, [4])
    not_rebuilt = RebuildFailure(1, 2, 3, 4, data, "numpy", "")
    assert (brief(back), brief(failed), brief(not_rebuilt)) == (back, failed, not_rebuilt)


class OldEnvironment:
    """As it was when the agent came; what has changed since does not arrive."""

    same_machine, number, session = True, 1, None
    from_start: frozenset[str] = frozenset()

    def __init__(self, *_: object) -> None:
        pass

    def apply(self) -> None:
        pass

    def update(self, environment: object) -> bool:
        raise AssertionError("nothing has arrived")


def test_tasks_that_need_what_does_not_arrive_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[RebuildFailure] = []
    entries = [task_entry(n, 1, b"") for n in (7, 8)]
    leases = iter([LeaseMessage(3, entries, {}, [], 2), LeaseMessage(0, [], {}, [], 1), None])
    monkeypatch.setattr(runner, "Environment", OldEnvironment)
    monkeypatch.setattr(Link, "connect", lambda link: None)
    monkeypatch.setattr(Link, "connected", True)
    monkeypatch.setattr(TaskQueueProxy, "fetch", lambda proxy, request: next(leases))
    monkeypatch.setattr(TaskQueueProxy, "environment", broken)
    monkeypatch.setattr(ResultQueueProxy, "rebuild_failed", lambda proxy, failure: told.append(failure))
    config = RunnerConfig(0, "run", [("127.0.0.1", 1)], b"k" * 32, 1.0, {}, None)
    ours, agents = socket.socketpair()
    with ours, agents:
        runner.Runner(config, new_shared_status(True), new_shared_memory(True), ours).work()
    assert [(one.lease, one.task) for one in told] == [(3, 7), (3, 8)]
    reason = unpack_failure(told[0].data).message
    assert reason.startswith("what has changed in the program does not get from the master to ") and "MTU" in reason
