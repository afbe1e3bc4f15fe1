"""A strict fake around the scheduler: the test turns the clock, says what happens, and takes every effect in its order.

Modelled on tako's tests/utils/env.rs.  What a test does not take is found when it ends (`Env.finish`), and so is an
invariant that does not hold.  Events are recorded, and may be looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, TypeVar

from parallel.core import events as ev
from parallel.core.chunk import Chunk
from parallel.core.effects import Answer, Deliver, Effect, Granted, Outcome, Pause, Refuse, WantTasks
from parallel.core.scheduler import Scheduler
from parallel.core.slave import SlaveRecord
from parallel.core.state import ContextRules
from parallel.core.task import Task
from slave.protocol import (
    BY_ITSELF,
    RUNNER,
    VALUE,
    EnlistReply,
    EnlistRequest,
    FetchRequest,
    GiveBack,
    JoinRequest,
    OutcomeMessage,
    Ran,
    RebuildFailure,
    Role,
    RunnerBeat,
    RunnerEnded,
    SetupFailure,
    ValuesMessage,
    outcome_message,
)
from tests.support.known_inputs import KnownInputs, outcomes_of

PID = 4711  # of a slave's first process
RUN = "this run"
Event = TypeVar("Event", bound=ev.Event)
Kind = TypeVar("Kind")


class Call:
    """Whoever waits for an answer.  The scheduler knows nothing of it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


class Launched(NamedTuple):
    """A slave that a launcher is to start: see parallel/launch/slave_service.py."""

    name: str = "job 12.1"
    open_ended: bool = False
    has_launcher: bool = True


class Env:
    """See the module's text.  ``watched``: events of single tasks are made too."""

    def __init__(
        self,
        term: float = 10.0,
        max_attempts: int = 3,
        *,
        may_join: bool = False,
        result_bytes: float = math.inf,
        watched: bool = False,
    ) -> None:
        self.scheduler = Scheduler(
            term,
            max_attempts,
            run=RUN,
            environment={},
            may_join=may_join,
            result_bytes=result_bytes,
            output_of=lambda number: f"out{number}",
        )
        self.state = self.scheduler.state
        self.state.watched = watched
        self.now = 100.0
        self.accepted = 0  # connections of agents
        self.sound = True  # False after something was raised in `do`
        self._in_turn = False
        self.effects: deque[Effect] = deque()
        self.told: list[ev.Event] = []
        self.pass_time(0.0)

    def do(self, method: Callable[..., Kind], *arguments: Any) -> Kind:
        """Call a method of the scheduler as the dispatcher does, and collect what came out."""
        self.sound = False
        value = method(*arguments, self.now)
        if not self._in_turn:
            self.collect()
        self.sound = True
        return value

    @contextlib.contextmanager
    def one_turn(self) -> Iterator[None]:
        """What happens meanwhile is found by the dispatcher in one turn."""
        self._in_turn = True
        yield
        self._in_turn = False
        self.collect()

    def collect(self) -> None:
        """Have the effects and events that are due."""
        effects, events = self.scheduler.take(self.now)
        for effect in effects:
            if isinstance(effect, Deliver):
                effect = effect._replace(outcomes=outcomes_of(effect))
            self.effects.append(effect)
        self.told += events

    def finish(self) -> None:
        """Nothing is left that the test did not take, and all invariants hold."""
        self.nothing_left()
        self.scheduler.check()

    # -- what came out

    def take(self, kind: type[Kind]) -> Kind:
        """The next effect, which is to be of this kind."""
        assert self.effects, f"no effect is left; expected was {kind.__name__}"
        effect = self.effects.popleft()
        assert isinstance(effect, kind), f"the next effect is {effect}; expected was {kind.__name__}"
        return effect

    def take_answer(self, call: Call) -> Any:
        """The value of the next effect, which is to be the answer to this call."""
        answer = self.take(Answer)
        assert answer.call is call, f"{answer} was not given to {call}"
        return answer.value

    def take_refusal(self, call: Call) -> str:
        """Why the call was refused, which is to be the next effect."""
        refusal = self.take(Refuse)
        assert refusal.call is call, f"{refusal} was not given to {call}"
        return refusal.reason

    def take_granted(self, call: Call) -> list[int]:
        """The tasks of the lease that the call was answered with; [] for none."""
        granted = self.take_answer(call)
        assert isinstance(granted, Granted), granted
        return [] if granted.lease is None else list(granted.lease.tasks)

    def take_delivered(self, context: int) -> Sequence[Outcome]:
        """The outcomes of the next effect, which is to deliver some of this context."""
        found = self.take(Deliver)
        assert found.context == context, found
        return found.outcomes

    def take_paused(self, context: int, on: bool) -> None:
        """The next effect is to say that the context pauses, or does not any more."""
        assert self.take(Pause) == Pause(context, on)

    def take_tasks_wanted(self, context: int) -> None:
        """The next effect is to say that the context's reader had better add tasks."""
        assert self.take(WantTasks) == WantTasks(context)

    def nothing_left(self) -> None:
        """No effect is there."""
        assert not self.effects, f"effects that nobody took: {list(self.effects)}"

    def events(self, kind: type[Event]) -> list[Event]:
        """What was told of that kind so far."""
        return [event for event in self.told if isinstance(event, kind)]

    # -- time

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the scheduler ticks whenever it asked for that."""
        for _ in self.ticks(seconds):
            pass

    def ticks(self, seconds: float) -> Iterator[float]:
        """The same step by step: yields the time after each tick."""
        end = self.now + seconds
        while self.scheduler.due <= end:
            self.now = max(self.now, self.scheduler.due)
            self.tick()
            assert self.scheduler.due > self.now, "it ticks again and again, and no time passes"
            yield self.now
        self.now = end

    def stand_still(self, seconds: float) -> None:
        """The master is stopped for so long; then it ticks, which is late."""
        self.now += seconds
        self.tick(max(0.0, self.now - self.scheduler.due))

    def tick(self, late: float = 0.0) -> None:
        """The timer rings, so many seconds too late."""
        self.do(lambda now: self.scheduler.tick(now, late))

    # -- agents

    def enlist(
        self,
        slaves: Sequence[int | None] = (None,),
        agent: str = "a",
        run: str = "",
        connection: int = 1,
        runners: Mapping[int, int] | None = None,
        late: bool = False,
    ) -> EnlistReply:
        """An agent comes, or with ``run`` comes back; ``runners``: the processes of its slaves.

        ``late``: this is read after what it has said on a later connection.
        """
        self.accepted += 1
        beats = [RunnerBeat(number, pid, 0) for number, pid in (runners or {}).items()]
        request = EnlistRequest(agent, run, "here", 1, "3", connection, slaves, beats)
        return self.do(self.scheduler.agents.enlist, request, 0 if late else self.accepted)

    def commands(self, agent: str = "a", acknowledged: int = 0) -> Call:
        """An agent waits for commands."""
        call = Call(f"commands of {agent} after {acknowledged}")
        self.do(self.scheduler.agents.commands, call, agent, acknowledged)
        return call

    def heartbeat(self, number: int, task: int = 0, pid: int = PID, agent: str = "a") -> None:
        """A runner is alive, and its shared status names this task."""
        self.heartbeats([(number, pid, task)], agent)

    def heartbeats(self, beats: Sequence[tuple[int, int, int]], agent: str = "a") -> None:
        """These runners are alive: number, pid, task."""
        self.do(self.scheduler.agents.heartbeat, agent, [RunnerBeat(*beat) for beat in beats])

    def runner_ended(
        self,
        number: int,
        task: int = 0,
        *,
        setup: int = 0,
        cause: str = BY_ITSELF,
        pid: int = PID,
        agent: str = "a",
        exitcode: int = -9,
        hung_up: bool = True,
    ) -> None:
        """A runner's process ended while this ran.  ``hung_up``: its connection was read to its end before."""
        slave = self.state.roster.slaves.get(number)
        if hung_up and slave is not None:
            self.state.now = self.now
            self.scheduler.endings.disconnected(Role(RUNNER, number, "", slave.pid, slave.connection))
        report = RunnerEnded(agent, number, pid, exitcode, task, setup, cause)
        self.do(self.scheduler.agents.runner_ended, report, "it was killed by SIGKILL", "")

    def slave_closed(self, number: int, why: str = "it was asked to end") -> None:
        """An agent gives a slave up."""
        self.do(self.scheduler.agents.slave_closed, number, why, "")

    def recalled(self, number: int, lease: int, running: int) -> None:
        """An agent has called a lease back."""
        self.do(self.scheduler.agents.recalled, number, lease, running)

    def draining(self, *numbers: int) -> None:
        """An agent's slaves end when their tasks have."""
        self.do(self.scheduler.agents.draining, numbers)

    def leave(self, agent: str = "a", why: str = "it was ended by SIGTERM") -> None:
        """An agent ends."""
        self.do(self.scheduler.agents.leave, agent, why)

    def agent_disconnected(self, connection: int = 1, agent: str = "a", pid: int = 1) -> None:
        """An agent's reports connection ended."""
        self.do(self.scheduler.agents.disconnected, agent, pid, connection)

    def commands_disconnected(self, call: Call, agent: str = "a") -> None:
        """The connection on which an agent waits for commands ended."""
        self.do(self.scheduler.agents.commands_disconnected, agent, call)

    # -- launchers

    def expect(self, *slaves: Launched, agent: str = "a") -> list[int]:
        """A launcher's agent is to bring these."""
        return self.do(self.scheduler.launches.expect, agent, slaves)

    def launcher_says_ended(
        self,
        agent: str = "a",
        why: str = "job 12.1 left the queue",
        numbers: Sequence[int] | None = None,
        successor: str | None = None,
    ) -> list[int]:
        """A launcher saw its slave program end."""
        return self.do(self.scheduler.agents.ended, agent, why, numbers, {}, successor)

    def start_by_agent(self, *numbers: int, agent: str = "a") -> None:
        """A launcher has an agent that runs already start these."""
        self.do(self.scheduler.launches.start_by_agent, agent, numbers, "nowhere")

    # -- runners

    def join(self, number: int, pid: int = PID, connection: int = 1, run: str = RUN, lease: int = 0) -> Call:
        """A runner says who it is."""
        call = Call(f"join of slave {number}, pid {pid}")
        self.do(self.scheduler.runners.join, call, JoinRequest(number, pid, connection, run, lease))
        return call

    def joined(self, number: int, pid: int = PID, connection: int = 1, lease: int = 0) -> None:
        """The same, and it may."""
        assert self.take_answer(self.join(number, pid, connection, lease=lease)) is True

    def slave(self, agent: str = "a") -> int:
        """A slave that was started by hand and has joined."""
        (number,) = self.enlist(agent=agent).numbers
        self.joined(number)
        return number

    def fetch(self, number: int, pid: int = PID, connection: int = 1, ran: Sequence[Ran] = ()) -> Call:
        """A slave asks for a lease."""
        call = Call(f"fetch of slave {number}, pid {pid}, connection {connection}")
        self.do(self.scheduler.runners.fetch, call, FetchRequest(number, pid, connection, ran))
        return call

    def fetched(self, number: int, pid: int = PID, connection: int = 1, ran: Sequence[Ran] = ()) -> list[int]:
        """The same, and it is answered at once: with these tasks."""
        return self.take_granted(self.fetch(number, pid, connection, ran))

    def message(self, number: int, task: int, kind: int = VALUE, data: bytes = b"", lease: int = 0) -> OutcomeMessage:
        """What came of a task; under the lease that the slave holds if no ``lease`` is given."""
        context = next((one.id for one in self.state.backlog.contexts.values() if task in one.tasks), 1)
        return outcome_message(number, lease or self.lease_id(number), context, task, kind, data, ())

    def post(self, number: int, *tasks: int, kind: int = VALUE, data: bytes = b"", lease: int = 0) -> None:
        """A slave posts what came of these tasks."""
        self.outcomes([self.message(number, task, kind, data, lease) for task in tasks])

    def outcomes(self, batch: Sequence[OutcomeMessage]) -> None:
        """These outcomes arrive together; a slave's values of one lease and context in one message."""
        messages: list[OutcomeMessage | ValuesMessage] = []
        for whose, some in itertools.groupby(batch, lambda one: (*one[:3], one[4])):
            if whose[3] == VALUE:
                messages.append((*whose[:3], [part for one in some for part in (one[3], one[5])]))
            else:
                messages.extend(some)
        self.do(self.scheduler.runners.outcomes, messages)

    def post_and_wait(self, message: OutcomeMessage) -> Call:
        """A slave posts one outcome and waits until it may go on."""
        call = Call(f"post of slave {message[0]}, task {message[3]}")
        self.do(self.scheduler.runners.outcome_and_wait, call, message)
        return call

    def setup_failed(self, number: int, context: int, lease: int, unstarted: Iterable[int], data: bytes = b"") -> Call:
        """Setup of the context raised on the slave."""
        call = Call(f"setup failed on slave {number}")
        failure = SetupFailure(number, context, data, lease, list(unstarted))
        self.do(self.scheduler.runners.setup_failed, call, failure, "LookupError", "no such data")
        return call

    def cannot_rebuild(self, number: int, task: int, lease: int | None = None, answered: bool = True) -> None:
        """A task of context 1, of the lease that the slave holds, cannot be rebuilt there; ``answered``: at once."""
        call = Call(f"slave {number} cannot rebuild task {task}")
        held = self.lease_id(number) if lease is None else lease
        failure = RebuildFailure(number, held, 1, task, b"why", "numpy", "install it")
        self.do(self.scheduler.runners.rebuild_failed, call, failure, "ModuleNotFoundError", "No module named 'numpy'")
        assert not answered or self.take_answer(call) is None

    def give_back(self, number: int, lease: int, unstarted: Iterable[int]) -> Call:
        """A slave will not start these tasks."""
        call = Call(f"give back of slave {number}")
        self.do(self.scheduler.runners.give_back, call, GiveBack(number, lease, list(unstarted)))
        return call

    def runner_disconnected(self, number: int, pid: int = PID, connection: int = 1) -> None:
        """A runner's connection ended."""
        self.do(self.scheduler.runner_disconnected, Role(RUNNER, number, "", pid, connection))

    # -- users

    def context(self, setup: bytes | None = None, speculate: bool = False, most_tasks: int = 0) -> int:
        """A new context."""
        rules = ContextRules(most_tasks=most_tasks, speculate=speculate)
        return self.do(lambda now: self.scheduler.users.make_context(setup, now, rules))

    def add(
        self,
        count: int = 1,
        context: int = 1,
        *,
        retries: int = 0,
        timeout: float | None = None,
        payload: bytes = b"",
        as_inputs: bool = False,
    ) -> list[int]:
        """Tasks are added, and the dispatcher turns.  ``as_inputs``: of a map."""
        ids = [next(self.state.task_ids) for _ in range(count)]
        if as_inputs:
            inputs = KnownInputs(context, timeout, retries)
            for id in ids:
                inputs.put(id, payload)
            self.state.incoming.append(inputs)
        else:
            self.state.incoming.extend(Task(id, context, payload, timeout, retries) for id in ids)
        self.collect()
        return ids

    def enter(self) -> None:
        """Tasks that were added are entered, as for a slave that asks for some."""
        self.do(lambda now: self.state.take_in())

    def read(self, context: int = 1, for_tasks: bool = False) -> Call:
        """A reader has taken all outcomes, and waits for another one."""
        call = Call(f"reader of context {context}")
        readers = self.scheduler.users.readers
        could_wait = readers.can_wait(context, for_tasks)
        self.do(readers.wait_for_news, call, context, for_tasks)
        told = [effect for effect in self.effects if isinstance(effect, Answer) and effect.call is call]
        assert not (could_wait and told), f"a reader's question could not have waited: {told}"
        return call

    def stop_reading(self, call: Call, context: int = 1) -> None:
        """A reader has gone, by Ctrl-C say."""
        self.do(self.scheduler.users.readers.stop_waiting, call, context)

    def wait_for_slaves(self, wanted: int) -> Call:
        """A thread of the user's waits for slaves."""
        call = Call(f"waiter for {wanted} slaves")
        self.do(self.scheduler.users.wait_for_slaves, call, wanted)
        return call

    def stop_waiting_for_slaves(self, call: Call) -> int:
        """It waits no more."""
        return self.do(self.scheduler.users.stop_waiting_for_slaves, call)

    def more_tasks(self, context: int = 1, seconds: float = 0.0) -> int:
        """A reader asks how many tasks to add."""
        return self.do(self.scheduler.users.tasks_wanted, context, seconds)

    def no_more_tasks(self, context: int = 1) -> None:
        """A reader has no more tasks to add."""
        self.do(self.scheduler.users.no_more_tasks, context)

    def drop_context(self, context: int = 1) -> None:
        """Nobody can ask for its outcomes any more."""
        self.do(self.scheduler.users.drop_context, context)

    def cancel(self, context: int = 1) -> int:
        """The user cancels a context's tasks."""
        return self.do(self.scheduler.users.cancel, context)

    def cancel_task(self, task: int, context: int = 1) -> bool:
        """The user cancels one task."""
        return self.do(self.scheduler.users.cancel_task, context, task)

    def results_taken(self, size: float, context: int = 1) -> None:
        """Readers have taken so many more bytes."""
        self.do(self.scheduler.users.readers.results_taken, context, size)

    def dismiss(self, number: int, grace: float | None = None) -> None:
        """The user has a slave removed."""
        self.do(self.scheduler.users.dismiss, number, grace)

    def close(self) -> None:
        """The manager ends."""
        self.do(self.scheduler.close)

    # -- looking

    def record(self, number: int) -> SlaveRecord:
        """What is known of a slave, also if it has ended."""
        found = self.state.roster.known(number)
        assert found is not None, f"there is no slave {number}"
        return found

    def lease_of(self, number: int) -> list[int]:
        """The tasks that a slave holds."""
        lease = self.state.leases.by_slave.get(number)
        return [] if lease is None else list(lease.tasks)

    def lease_id(self, number: int) -> int:
        """The lease that a slave holds; 0 for none."""
        lease = self.state.leases.by_slave.get(number)
        return 0 if lease is None else lease.id

    def task(self, id: int) -> Task | Chunk:
        """An unsettled task."""
        (found,) = [one.tasks[id] for one in self.state.backlog.contexts.values() if id in one.tasks]
        return found
