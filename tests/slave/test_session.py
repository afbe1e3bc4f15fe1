"""The slave's side of the conversation: single answers, and long ones against a master that keeps its own ledger."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slave import session as session_module
from slave.errors import MasterFinished, MasterGone
from slave.protocol import (
    FAILURE,
    NO_LEASE,
    VALUE,
    CommandsReply,
    Drain,
    EnlistReply,
    FetchRequest,
    GiveBack,
    JoinRequest,
    LeaseMessage,
    OutcomeMessage,
    Ran,
    RebuildFailure,
    Recall,
    RunnerBeat,
    SetupFailure,
    encode_command,
    outcome_message,
    task_entry,
)
from slave.session import (
    ANY_LEASE,
    BEATS_PER_LEASE,
    KEEP_UNASKED,
    MOST_UNANSWERED,
    REFUSED_SECONDS,
    UNREACHABLE_LEASES,
    AgentSession,
    IllegalMove,
    RunnerSession,
    commands_of,
)
from tests.support.examples import stories

PURE = stories(200, 40, several_faults=False)


class Sized(bytes):
    """Claims to be as long as it says, to save memory."""

    size: int

    @classmethod
    def of(cls, size: int) -> Sized:
        self = cls()
        self.size = size
        return self

    def __len__(self) -> int:
        return self.size


def posted_one_by_one(session: RunnerSession) -> list[OutcomeMessage]:
    """The outcomes that are unanswered; none was posted with others."""
    found = [one for one in session.unanswered if isinstance(one, tuple)]
    assert len(found) == len(session.unanswered)
    return found


def lease(number: int, *contexts: int, first: int = 1) -> LeaseMessage:
    """A lease of tasks ``first`` ..., one of each of these contexts."""
    return LeaseMessage(number, [task_entry(first + at, of, b"p") for at, of in enumerate(contexts)], {}, [])


@pytest.fixture
def runner() -> RunnerSession:
    """Connected, and with lease 7 of tasks 1, 2 and 3, of contexts 1, 2 and 1."""
    session = RunnerSession(4, 4711, "run")
    session.join_request(1)
    session.joined()
    session.fetched(lease(7, 1, 2, 1))
    session.check()
    return session


def test_the_sessions_neither_wait_nor_look_at_a_clock() -> None:
    source = ast.parse(Path(session_module.__file__).read_text())
    found = {name.name for node in ast.walk(source) if isinstance(node, ast.Import) for name in node.names}
    found |= {node.module or "" for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    assert found == {
        "__future__",
        "collections",
        "collections.abc",
        "itertools",
        "random",
        "errors",
        "pieces",
        "protocol",
    }


# -- a runner, move by move


def test_a_runner_joins_without_a_lease_and_fetches() -> None:
    session = RunnerSession(4, 4711, "run")
    assert session.join_request(1) == JoinRequest(4, 4711, 1, "run", NO_LEASE)
    assert session.fetch_request() == FetchRequest(4, 4711, 1, [])
    session.fetched(lease(7, 1, 2))
    assert [task for task, _, _ in session.unstarted] == [1, 2] and session.lease == 7
    session.check()


def test_outcomes_are_posted_one_way_and_forgotten_with_the_next_answer(runner: RunnerSession) -> None:
    first, one_way = runner.outcome(VALUE, b"one", ())
    assert one_way and first == outcome_message(4, 7, 1, 1, VALUE, b"one", ())
    second, one_way = runner.outcome(FAILURE, b"two", ())
    assert one_way and second == outcome_message(4, 7, 2, 2, FAILURE, b"two", ())
    assert runner.unanswered == [first, second] and runner.unanswered_bytes == 6
    runner.check()
    runner.answered()
    assert runner.unanswered == [] and runner.unanswered_bytes == 0
    runner.check()


@pytest.mark.parametrize(
    ("data", "buffers", "one_way"),
    [
        (Sized.of(KEEP_UNASKED - 1), (), True),
        (Sized.of(KEEP_UNASKED), (), False),
        (b"small", (b"buffer",), False),
        (b"small", [], True),
    ],
)
def test_a_large_outcome_is_posted_with_an_answer_and_not_kept(
    runner: RunnerSession, data: bytes, buffers: Sequence[bytes], one_way: bool
) -> None:
    message, found = runner.outcome(VALUE, data, buffers)
    assert found is one_way
    assert runner.unanswered == ([message] if one_way else [])
    runner.check()


def test_when_much_is_unanswered_the_next_outcome_is_posted_with_an_answer() -> None:
    session = RunnerSession(4, 4711, "run")
    session.fetched(lease(7, *[1] * 10))
    size = KEEP_UNASKED - 1
    for _ in range(MOST_UNANSWERED // size):
        assert session.outcome(VALUE, Sized.of(size), ())[1]
    rest = MOST_UNANSWERED - session.unanswered_bytes
    assert not session.outcome(VALUE, Sized.of(rest + 1), ())[1]
    assert session.outcome(VALUE, Sized.of(rest), ())[1], "it is no more than may be"
    session.check()
    session.answered()
    assert session.outcome(VALUE, Sized.of(size), ())[1]


def test_the_lease_is_held_until_the_next_fetch_is_answered(runner: RunnerSession) -> None:
    """The master may not have heard of the last outcomes when the connection breaks, and would give the tasks away."""
    for _ in range(3):
        runner.outcome(VALUE, b"", ())
    runner.fetch_request()
    assert runner.join_request(2).lease == 7
    assert len(runner.unanswered) == 3
    assert runner.fetch_request().connection == 2
    runner.fetched(LeaseMessage(NO_LEASE, [], {}, []))
    assert runner.join_request(3).lease == NO_LEASE and runner.unanswered == []
    runner.check()


def test_the_master_is_told_once_how_long_the_tasks_took(runner: RunnerSession) -> None:
    runner.ran(0, 0, 0.0)
    runner.ran(1, 2, 0.5)
    runner.ran(2, 1, 0.25)
    runner.ran(3, 1, -5.0)  # a task has put the clock back: the master would take that for nonsense, and hang up
    for _ in range(2):  # the first answer was lost
        assert runner.fetch_request().ran == [Ran(1, 2, 0.5), Ran(2, 1, 0.25), Ran(3, 1, 0.0)]
    runner.give_back()
    runner.fetched(lease(8, 1))
    assert runner.fetch_request().ran == []


@pytest.mark.parametrize(
    ("recall", "recalled", "leaves"), [(0, False, False), (6, False, False), (7, True, False), (ANY_LEASE, True, True)]
)
def test_what_a_recall_means(runner: RunnerSession, recall: int, recalled: bool, leaves: bool) -> None:
    assert runner.recalled(recall) is recalled
    assert runner.leaves(recall) is leaves


def test_what_was_not_started_is_given_back(runner: RunnerSession) -> None:
    runner.outcome(VALUE, b"", ())
    assert runner.give_back() == GiveBack(4, 7, [2, 3])
    assert not runner.unstarted and list(runner.tasks()) == []
    assert runner.give_back() == GiveBack(4, 7, []), "nothing new, but it will be answered"
    runner.check()


def test_a_task_that_cannot_be_rebuilt_leaves_the_lease_alone(runner: RunnerSession) -> None:
    first, *rest = [task for task, _, _ in runner.unstarted]
    context = runner.unstarted[0][1]
    assert runner.rebuild_failed(b"why", "numpy", "help") == (4, 7, context, first, b"why", "numpy", "help")
    assert [task for task, _, _ in runner.unstarted] == rest and not runner.unanswered
    runner.check()


def test_only_the_tasks_of_a_context_whose_setup_failed_leave_the_lease(runner: RunnerSession) -> None:
    tasks = runner.tasks()
    assert next(tasks)[0] == 1
    assert runner.setup_failed(1, b"why") == SetupFailure(4, 1, b"why", 7, [1, 3])
    assert next(tasks)[0] == 2, "who is going through the tasks sees the rest"
    runner.outcome(VALUE, b"", ())
    assert next(tasks, None) is None
    runner.check()


def test_a_runner_ends_when_the_master_is_done() -> None:
    session = RunnerSession(4, 4711, "run")
    session.fetched(None)
    assert session.over and session.leaves(0) and not session.unanswered
    session.check()


def test_it_waits_longer_from_try_to_try_until_it_is_taken_in() -> None:
    session = RunnerSession(4, 4711, "run")
    pauses = [session.pause() for _ in range(10)]
    for expected, pause in zip([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0], pauses):
        assert 0.7 * expected <= pause <= 1.3 * expected
    session.joined()
    assert session.pause() < 0.1
    assert pauses == [RunnerSession(4, 4711, "run").pause(), *pauses[1:]], "the same process, the same pauses"
    session.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unanswered_bytes", 1),
        ("lease", 8),
        ("lease", NO_LEASE),
        ("slave", 5),
        ("over", True),
    ],
)
def test_check_finds_what_does_not_fit(runner: RunnerSession, field: str, value: Any) -> None:
    runner.outcome(VALUE, b"one", ())
    runner.check()
    setattr(runner, field, value)
    with pytest.raises(AssertionError):
        runner.check()


# -- a runner in a long conversation

BAD_CONTEXT = 3  # its setup fails
SIZES = st.sampled_from([0, 1, KEEP_UNASKED - 1, KEEP_UNASKED - 1, KEEP_UNASKED, MOST_UNANSWERED])
# what happens to a question: it is answered, it is lost, or its answer is; each of the last two with the connection,
# and of the outcomes posted before it (without an answer, on that connection) so many arrive
FAULTS = st.lists(st.tuples(st.sampled_from(["lost", "answer lost"]), st.integers(0, 3)), max_size=3)


class Master:
    """Knows one slave.  Its ledger is its own: where each task is, and which have been settled, in which order."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int]] = []  # task, context
        self.held: dict[int, int] = {}  # task to context
        self.lease = self.leases = self.connection = 0
        self.settled: list[int] = []
        self.failed: set[int] = set()
        self.done = False

    def requeue(self, tasks: Sequence[int], ran: set[int]) -> None:
        back = [(task, self.held.pop(task)) for task in tasks if task in self.held]
        assert not ran & {task for task, _ in back}, "a task whose outcome is known was taken away"
        self.waiting[:0] = back

    def join(self, request: JoinRequest, ran: set[int]) -> None:
        assert (request.slave, request.pid, request.run) == (4, 4711, "run")
        assert request.connection > self.connection
        self.connection = request.connection
        if request.lease != self.lease:
            self.requeue(list(self.held), ran)

    def post(self, message: OutcomeMessage) -> None:
        _, _, context, task, *_ = message
        if task in self.held:
            assert self.held.pop(task) == context
            self.settled.append(task)
        assert task in self.settled

    def fetch(self, request: FetchRequest, size: int, ran: set[int]) -> LeaseMessage | None:
        assert request.connection == self.connection
        self.requeue(list(self.held), ran)
        if not self.waiting and self.done:
            return None
        granted = [one for one in self.waiting if one[1] not in self.failed][:size]
        if not granted:
            self.lease = NO_LEASE
            return LeaseMessage(NO_LEASE, [], {}, [])
        self.waiting = [one for one in self.waiting if one not in granted]
        self.leases += 1
        self.lease, self.held = self.leases, dict(granted)
        return LeaseMessage(self.lease, [task_entry(task, of, b"p") for task, of in granted], {}, [])


class RunnerMachine(RuleBasedStateMachine):
    """A runner as runner.py has it, on a connection that breaks at the worst moments, and never a second process.

    So no task may be run twice, and the tasks must be settled in the order in which they were run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session = RunnerSession(4, 4711, "run")
        self.master = Master()
        self.connections = 0
        self.connected = False
        self.on_the_way: list[OutcomeMessage] = []
        self.ran: list[int] = []
        self.tasks = 0
        self.recall = 0
        self.given_back: set[int] = set()

    # -- what happens

    @rule(contexts=st.lists(st.sampled_from([1, 1, 1, 2, BAD_CONTEXT]), min_size=1, max_size=6))
    def add(self, contexts: list[int]) -> None:
        for context in contexts:
            self.tasks += 1
            if context in self.master.failed:
                continue  # its slave is out for that context
            self.master.waiting.append((self.tasks, context))

    @rule(size=st.sampled_from([1, KEEP_UNASKED - 1]), granted=st.integers(1, 8))
    def go_on_in_peace(self, size: int, granted: int) -> None:
        self.go_on(size, (), [], granted)

    @precondition(lambda self: self.session.unstarted)
    @rule(size=st.sampled_from([1, KEEP_UNASKED - 1]), faults=FAULTS, granted=st.integers(1, 8))
    def finish_the_lease(self, size: int, faults: list[tuple[str, int]], granted: int) -> None:
        """In peace; the faults strike the next fetch."""
        while self.session.unstarted:
            self.go_on_in_peace(size, granted)
            self.all_is_well()
        self.go_on(1, (), faults, granted)

    @rule(size=SIZES, buffers=st.sampled_from([(), (), (b"buffer",)]), faults=FAULTS, granted=st.integers(1, 5))
    def go_on(self, size: int, buffers: Sequence[bytes], faults: list[tuple[str, int]], granted: int) -> None:
        session = self.session
        if session.over:
            return
        if not session.unstarted:
            if not session.leaves(self.recall):
                ran = set(self.ran)
                session.fetched(
                    self.ask(lambda: session.fetch_request(), lambda one: self.master.fetch(one, granted, ran), faults)
                )
            return
        task, context, _ = next(session.tasks())
        assert session.recalled(self.recall) is (self.recall in (ANY_LEASE, self.master.lease))
        if session.recalled(self.recall):
            back = session.give_back()
            self.ask(lambda: back, self.give_back, faults)
            assert not self.master.held and not session.unstarted
        elif context == BAD_CONTEXT:
            if task % 3 == 0:
                refused = session.rebuild_failed(b"why", "", "")
                self.ask(lambda: refused, self.rebuild_failed, faults)
                assert task not in self.master.held
                return
            failure = session.setup_failed(context, b"why")
            assert task in failure.unstarted
            self.ask(lambda: failure, self.setup_failed, faults)
            assert [one for one, _, _ in session.unstarted] == list(self.master.held)
        else:
            self.ran.append(task)
            message, one_way = session.outcome(VALUE, Sized.of(size), buffers)
            assert one_way or message not in session.unanswered
            if not one_way:
                self.ask(lambda: message, self.master.post, faults)
            elif self.connected and not faults:
                self.on_the_way.append(message)
            else:
                self.break_down(faults[0][1] if faults else 0)
                self.connect()

    @rule(arrive=st.integers(0, 2))
    def break_down(self, arrive: int) -> None:
        """The connection breaks; so many of the outcomes on the way have arrived."""
        for message in self.on_the_way[:arrive]:
            self.master.post(message)
        self.on_the_way.clear()
        self.connected = False

    @rule(arrive=st.integers(0, 3))
    def some_arrive(self, arrive: int) -> None:
        for message in self.on_the_way[:arrive]:
            self.master.post(message)
        del self.on_the_way[:arrive]

    @precondition(lambda self: self.session.unstarted)
    @rule(which=st.sampled_from([0, -1]))
    def call_back(self, which: int) -> None:
        self.recall = self.session.lease + which

    @precondition(lambda self: len(self.ran) > 5)
    @rule()
    def ask_to_leave(self) -> None:
        self.recall = ANY_LEASE

    # -- what the machine does of that

    def connect(self) -> None:
        while not self.connected:
            assert 0.035 <= self.session.pause() <= 2.6
            self.connections += 1
            self.connected = True
            self.master.join(self.session.join_request(self.connections), set(self.ran))
            self.on_the_way = posted_one_by_one(self.session)
            self.session.joined()

    def ask(self, question: Callable[[], Any], put: Callable[[Any], Any], faults: Sequence[tuple[str, int]]) -> Any:
        """As `Runner._ask`, with these faults and then none."""
        for kind, arrive in faults:
            self.connect()
            asked = question()
            if kind == "answer lost":
                self.some_arrive(len(self.on_the_way))
                put(asked)
            self.break_down(arrive)
        self.connect()
        self.some_arrive(len(self.on_the_way))
        answer = put(question())
        self.session.answered()
        return answer

    def give_back(self, back: GiveBack) -> None:
        assert back.lease == self.master.lease and set(back.unstarted) >= set(self.master.held)
        self.master.requeue(back.unstarted, set(self.ran))

    def rebuild_failed(self, failure: RebuildFailure) -> None:
        assert failure.lease == self.master.lease
        self.master.held.pop(failure.task, None)  # to other slaves

    def setup_failed(self, failure: SetupFailure) -> None:
        assert failure.lease == self.master.lease
        assert set(failure.unstarted) >= {task for task, of in self.master.held.items() if of == BAD_CONTEXT}
        self.master.requeue(failure.unstarted, set(self.ran))
        self.master.failed.add(failure.context)
        self.master.waiting = [one for one in self.master.waiting if one[1] != failure.context]  # to other slaves

    @invariant()
    def all_is_well(self) -> None:
        self.session.check()
        assert len(self.ran) == len(set(self.ran)), "a task was run twice"
        assert self.master.settled == self.ran[: len(self.master.settled)], "outcomes overtook each other"
        unsettled = self.ran[len(self.master.settled) :]
        kept = posted_one_by_one(self.session)
        assert set(unsettled) <= {message[3] for message in kept}, "an outcome is nowhere any more"
        assert sum(len(message[5]) for message in kept) <= MOST_UNANSWERED

    def teardown(self) -> None:
        assert self.session.leaves(self.recall) is (self.recall == ANY_LEASE)
        self.recall, self.master.done = 0, True
        for _ in range(2 * self.tasks + 3):
            self.go_on(1, (), [], 3)
        assert self.session.over and not self.master.waiting and not self.master.held
        assert self.master.settled == self.ran


TestRunner = RunnerMachine.TestCase
TestRunner.settings = PURE


# -- an agent, move by move

TERM = 30.0
HERE = ("10.0.0.1", 5757)


def reply(run: str = "run", numbers: Sequence[int] = (5, 6), done: bool = False) -> EnlistReply:
    return EnlistReply(run, TERM, {}, numbers, done)


@pytest.fixture
def agent() -> AgentSession:
    """Has enlisted at time 100."""
    session = AgentSession("an agent", "host", 4711, "3.11.7", [None, 6])
    session.check()
    session.judge(reply())
    session.enlisted(reply(), HERE, 100.0)
    session.check()
    return session


def test_an_agent_asks_for_its_slaves_first_and_tells_of_them_later() -> None:
    session = AgentSession("an agent", "host", 4711, "3.11.7", [None, 6])
    first = session.enlist_request(1, [], [])
    assert (first.run, first.slaves, first.runners, first.connection) == ("", [None, 6], [], 1)
    session.enlisted(reply(), HERE, 100.0)
    session.lost(101.0)
    beat = RunnerBeat(6, 4712, 3)
    again = session.enlist_request(2, [6], [beat])
    assert (again.run, again.slaves, again.runners, again.connection) == ("run", [6], [beat], 2)
    assert (again.agent, again.host, again.pid, again.version) == ("an agent", "host", 4711, "3.11.7")


def test_a_master_that_is_done_or_another_one_is_not_stayed_for(agent: AgentSession) -> None:
    with pytest.raises(MasterFinished):
        AgentSession("an agent", "host", 4711, "3.11.7", []).judge(reply(done=True))
    with pytest.raises(MasterGone, match="another one listens in its place"):
        agent.judge(reply(run="another"))
    agent.judge(reply())


def test_a_heartbeat_is_due_at_once_and_several_times_in_a_lease(agent: AgentSession) -> None:
    assert agent.patience(100.0) == 0.0
    assert agent.heartbeat_due(100.0) and not agent.heartbeat_due(100.0)
    pause = TERM / BEATS_PER_LEASE
    assert agent.patience(101.0) == pause - 1.0
    assert not agent.heartbeat_due(100.0 + pause - 0.1) and agent.heartbeat_due(100.0 + pause)
    agent.lost(200.0)
    assert not agent.heartbeat_due(300.0)
    agent.enlisted(reply(), HERE, 300.0)
    assert agent.heartbeat_due(300.0), "at once, whatever was planned before"
    agent.check()


def test_a_lease_without_end_is_no_time_to_wait() -> None:
    session = AgentSession("an agent", "host", 4711, "3.11.7", [])
    session.enlisted(reply()._replace(lease=1e12), HERE, 0.0)
    assert session.heartbeat_due(0.0)
    assert session.patience(0.0) == 3600.0


@pytest.mark.parametrize(
    ("lost", "refused", "gives_up"),
    [
        (REFUSED_SECONDS + 0.1, {HERE}, True),
        (REFUSED_SECONDS, {HERE}, False),
        (REFUSED_SECONDS + 0.1, {("10.0.0.2", 5757)}, False),
        (UNREACHABLE_LEASES * TERM, set(), False),
        (UNREACHABLE_LEASES * TERM + 0.1, set(), True),
    ],
)
def test_when_a_lost_master_is_given_up(
    agent: AgentSession, lost: float, refused: set[tuple[str, int]], gives_up: bool
) -> None:
    agent.lost(100.0)
    assert agent.lost_for(100.0 + lost) == pytest.approx(lost)
    assert agent.gives_up(100.0 + lost, refused) is gives_up
    agent.check()


def test_who_drains_looks_for_a_lost_master_no_more(agent: AgentSession) -> None:
    assert not agent.looks_for_master
    agent.lost(100.0)
    assert agent.looks_for_master
    assert agent.drain() and not agent.drain()
    assert not agent.looks_for_master
    agent.check()


def test_commands_are_acknowledged_when_they_have_been_carried_out(agent: AgentSession) -> None:
    assert agent.commands_request() == ("an agent", 0)
    found = CommandsReply(3, [encode_command(Recall(5, 7)), ("unheard of", 1), encode_command(Drain(5, 1.5))])
    assert commands_of(found) == [Recall(5, 7), None, Drain(5, 1.5)]
    assert agent.commands_request() == ("an agent", 0)
    agent.carried_out(found)
    assert agent.commands_request() == ("an agent", 3)
    agent.lost(100.0)
    agent.enlisted(reply(), HERE, 101.0)
    assert agent.commands_request() == ("an agent", 3)


def test_there_is_no_move_that_the_table_does_not_have(agent: AgentSession) -> None:
    with pytest.raises(IllegalMove):
        agent.enlisted(reply(), HERE, 100.0)
    agent.lost(101.0)
    with pytest.raises(IllegalMove):
        agent.lost(102.0)
    assert agent.lost_at == 101.0, "nothing was changed"
    with pytest.raises(IllegalMove):
        AgentSession("an agent", "host", 4711, "3.11.7", []).lost(1.0)
    agent.check()


# -- an agent in a long conversation


class AgentMachine(RuleBasedStateMachine):
    """An agent as agent.py has it; the times at which something must happen are counted here."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.session = AgentSession("an agent", "host", 4711, "3.11.7", [None])
        self.enlisted = False
        self.lost_at: float | None = None
        self.beat_at = -math.inf
        self.commands: list[int] = []  # numbers of commands that the master keeps
        self.last = 0
        self.carried_out: list[int] = []
        self.draining = False

    @rule(seconds=st.sampled_from([0.0, 1.0, TERM / BEATS_PER_LEASE, TERM / 2, TERM, 2.5 * TERM, 10 * TERM]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def it_waits_as_long_as_it_may(self) -> None:
        self.now += self.session.patience(self.now)
        if self.enlisted and self.lost_at is None:
            assert self.session.heartbeat_due(self.now), "it woke before there was anything to do"
            self.beat_at = self.now

    @rule()
    def it_looks_whether_a_heartbeat_is_due(self) -> None:
        due = self.session.heartbeat_due(self.now)
        late = self.now >= self.beat_at + TERM / BEATS_PER_LEASE
        assert due is (self.enlisted and self.lost_at is None and late)
        if due:
            self.beat_at = self.now

    @rule(others=st.booleans(), refused=st.booleans())
    def it_tries_to_enlist_in_vain(self, others: bool, refused: bool) -> None:
        if self.lost_at is None:
            return
        lost = self.now - self.lost_at
        addresses = ([HERE] if refused else []) + ([("10.0.0.2", 1)] if others else [])
        assert self.session.gives_up(self.now, addresses) is (lost > 10 * TERM or (refused and lost > 3.0))

    @rule()
    def it_enlists(self) -> None:
        if self.enlisted and self.lost_at is None:
            return
        request = self.session.enlist_request(1, [9], [])
        assert request.run == ("run" if self.enlisted else "")
        assert list(request.slaves) == ([9] if self.enlisted else [None])
        self.session.judge(reply())
        self.session.enlisted(reply(), HERE, self.now)
        self.enlisted, self.lost_at, self.beat_at = True, None, -math.inf

    @precondition(lambda self: self.enlisted and self.lost_at is None)
    @rule()
    def the_connection_breaks(self) -> None:
        self.session.lost(self.now)
        self.lost_at = self.now

    @rule()
    def a_signal_comes(self) -> None:
        assert self.session.drain() is not self.draining
        self.draining = True

    @precondition(lambda self: self.enlisted and self.lost_at is None)
    @rule(more=st.integers(0, 3), lost=st.booleans())
    def it_asks_for_commands(self, more: int, lost: bool) -> None:
        """``lost``: the connection breaks before it has carried out what it was told."""
        for _ in range(more):
            self.last += 1
            self.commands.append(self.last)
        _, acknowledged = self.session.commands_request()
        self.commands = [number for number in self.commands if number > acknowledged]
        answer = CommandsReply(self.last, [encode_command(Recall(1, number)) for number in self.commands])
        if lost:
            self.the_connection_breaks()
            return
        for command in commands_of(answer):
            assert isinstance(command, Recall)
            self.carried_out.append(command.lease)
        self.session.carried_out(answer)

    @invariant()
    def all_is_well(self) -> None:
        self.session.check()
        assert self.carried_out == list(range(1, len(self.carried_out) + 1)), "lost, or carried out twice"
        assert self.session.connected is (self.enlisted and self.lost_at is None)
        assert self.session.looks_for_master is (self.lost_at is not None and not self.draining)
        assert self.session.lost_for(self.now) == (0.0 if self.lost_at is None else self.now - self.lost_at)


TestAgent = AgentMachine.TestCase
TestAgent.settings = PURE
