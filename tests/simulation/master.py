"""The master's process: what parallel/service does (dispatcher, peers, timer), around the real scheduler.

One turn: read some of what has arrived, outcomes of all slaves first, then the other calls; then what the user's
threads and the launchers left; then the tick, if it is due; then the effects.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable

from parallel.core.effects import Answer, Deliver, Granted, HangUp, Pause, Refuse, WantTasks
from parallel.core.scheduler import Scheduler
from parallel.service.task_queue import lease_message
from parallel.service.timer import ExpiryTimer
from slave.protocol import (
    COMMANDS,
    REPORTS,
    RUNNER,
    CommandsReply,
    End,
    LeaseMessage,
    OutcomeMessage,
    ValuesMessage,
    encode_command,
    unpack_entries,
)
from slave.protocol import outcomes_of as posted_alone
from tests.support.known_inputs import outcomes_of

from .ledger import Ledger
from .network import END, Connection
from .plan import Plan
from .runner import Refused
from .world import World

if TYPE_CHECKING:
    from .users import SimulatedContext

_TURN = 0.00005  # seconds from something to the turn that deals with it, at least


class Call:
    """A call of a slave's that waits for its answer."""

    __slots__ = ("answered", "arguments", "connection", "method")

    def __init__(self, connection: Connection, method: str, arguments: tuple[Any, ...]) -> None:
        self.connection, self.method, self.arguments = connection, method, arguments
        self.answered = False

    def __repr__(self) -> str:
        return f"<{self.method} on {self.connection.name}>"


class Ticket:
    """A thread of the user's that waits; ``then`` is called with the answer."""

    __slots__ = ("answered", "then")

    def __init__(self, then: Callable[[Any], None]) -> None:
        self.then, self.answered = then, False


class Master:
    """See the module's text.  ``check_every``: how many turns go by until all tables are checked.

    ``run``, ``program``: which run it is, and of which program.
    """

    def __init__(
        self,
        world: World,
        plan: Plan,
        ledger: Ledger,
        check_every: int,
        run: str = "this run",
        program: str = "a program",
    ) -> None:
        self.world, self.ledger, self.program = world, ledger, program
        self.scheduler = Scheduler(
            plan.term,
            plan.max_attempts,
            run=run,
            environment={"host": "here"},
            may_join=plan.may_join,
            result_bytes=plan.result_bytes,
        )
        self.state = self.scheduler.state
        self.state.watched = True
        self.contexts: dict[int, SimulatedContext] = {}
        self.outputs: set[int] = set()  # slaves whose output's end is read when they end, which takes time
        self.open = True  # it listens
        self.accepted: Iterator[int] = itertools.count(1)  # numbers the connections
        self.stopped_until = 0.0
        self.turns = 0
        self._timer = ExpiryTimer(self.scheduler)
        self._random = world.stream("the master")
        self._check_every = check_every
        self._readable: dict[Connection, None] = {}
        self._runners: dict[tuple[int, int, int], Connection] = {}
        self._inbox: deque[tuple[Ticket | None, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._gathered: list[OutcomeMessage | ValuesMessage] = []
        self._calls: list[Call] = []
        self._turn_at = math.inf
        self._one_way: dict[str, Callable[..., Any]] = {
            "heartbeat": self.scheduler.agents.heartbeat,
            "recalled": lambda agent, *rest: self.scheduler.agents.recalled(*rest),
            "draining": lambda agent, slaves, now: self.scheduler.agents.draining(slaves, now),
        }

    # -- what comes in

    def arrived(self, connection: Connection) -> None:
        """Something is there to be read."""
        self._readable[connection] = None
        if connection.role.kind == RUNNER:
            self._runners[_key(connection)] = connection
        self._wake()

    def tell(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Have ``method(*arguments, now)`` called in a turn."""
        self._inbox.append((None, method, arguments))
        self._wake()

    def call(self, then: Callable[[Any], None], method: Callable[..., Any], *arguments: Any) -> None:
        """Have ``then`` called with what ``method(*arguments, now)`` returns."""
        self._inbox.append((Ticket(then), method, arguments))
        self._wake()

    def wake(self) -> None:
        """As `Dispatcher.wake`."""
        self._wake()

    def stop(self, seconds: float) -> None:
        """Its process is stopped for so long."""
        self.world.tell(f"the master is stopped for {seconds:g} s")
        self.stopped_until = max(self.stopped_until, self.world.now + seconds)

    def _wake(self) -> None:
        self._turn_again(self.world.now + _TURN + 0.0002 * self._random.random())

    def _turn_again(self, at: float) -> None:
        at = max(at, self.stopped_until, self.world.now)
        if at < self._turn_at:
            self._turn_at = at
            self.world.at(at, self._turn, at)

    # -- one turn

    def _turn(self, planned: float) -> None:
        if planned != self._turn_at:
            self.world.steps -= 1  # an earlier turn has been planned since
            return
        self._turn_at = math.inf
        if self.world.now < self.stopped_until:
            self._turn_again(self.stopped_until)
            return
        now = self.world.now
        if self._readable:
            self._read(now)
            self._carry_out_calls(now)
        if self.state.incoming and self.state.idle:
            self._apply()
        while self._inbox:
            self._carry_out(*self._inbox.popleft(), now)
        self._timer.ring(now)
        self._apply()
        self._examine()
        if self._readable or self._inbox:
            self._wake()
        self._turn_again(self.scheduler.due)

    def _examine(self) -> None:
        self.turns += 1
        self.ledger.quick_check()
        if self.turns % self._check_every == 0:
            self.scheduler.check()
            self.ledger.compare()

    def _read(self, now: float) -> None:
        """Read what has arrived: everything, or what some connections have, in any order."""
        connections = list(self._readable)
        if len(connections) > 1 and self._random.chance(0.3):
            first = self._random.below(len(connections))
            connections = [*connections[first:], *connections[:first]]
            connections = connections[: 1 + self._random.below(len(connections))]
        for connection in connections:
            del self._readable[connection]
            read = False
            while connection.unread and not connection.busy:
                if connection.unread[0] is END and read:
                    self._readable[connection] = None  # seen by the next look there
                    break
                what, read = connection.unread.popleft(), True
                if what is END:
                    self._gone(connection)
                elif what[0] in ("post", "values"):
                    self._gathered.append(what[1])
                else:
                    self._calls.append(Call(connection, *what))

    def _carry_out_calls(self, now: float) -> None:
        if self._gathered:
            batch, self._gathered = self._gathered, []
            self.ledger.outcomes([one for message in batch for one in _outcomes_of(message)])
            self.scheduler.runners.outcomes(batch, now)
            self.ledger.look()
        calls, self._calls = self._calls, []
        for call in calls:
            self._serve(call, now)

    def _serve(self, call: Call, now: float) -> None:
        connection = call.connection
        if connection.busy:
            connection.deferred.append(call)
            return
        method, arguments = call.method, call.arguments
        carry_out = self._one_way.get(method)
        self.ledger.called(method, arguments)
        if carry_out is not None:
            carry_out(*arguments, now)
        else:
            getattr(self, "_" + method)(call, *arguments, now)
        self.ledger.look()

    # -- the calls of slaves

    def _join(self, call: Call, request: Any, now: float) -> None:
        self.scheduler.runners.join(call, request, now)

    def _fetch(self, call: Call, request: Any, now: float) -> None:
        self.scheduler.runners.fetch(call, request, now)

    def _setup_of(self, call: Call, slave: int, context: int, now: float) -> None:
        self._answer(call, self.scheduler.runners.setup_of(slave, context))

    def _environment(self, call: Call, slave: int, now: float) -> None:
        self._answer(call, self.program)

    def _post_and_wait(self, call: Call, *rest: Any) -> None:
        self.ledger.outcomes([call.arguments])
        self.scheduler.runners.outcome_and_wait(call, call.arguments, rest[-1])

    def _setup_failed(self, call: Call, failure: Any, now: float) -> None:
        self.scheduler.runners.setup_failed(call, failure, "LookupError", "no such data", now)

    def _rebuild_failed(self, call: Call, failure: Any, now: float) -> None:
        self.scheduler.runners.rebuild_failed(call, failure, "ImportError", "no such module", now)

    def _give_back(self, call: Call, request: Any, now: float) -> None:
        self.scheduler.runners.give_back(call, request, now)

    def _enlist(self, call: Call, request: Any, now: float) -> None:
        self._answer(call, self.scheduler.agents.enlist(request, call.connection.accepted, now))

    def _commands(self, call: Call, agent: str, acknowledged: int, now: float) -> None:
        call.connection.waiting = call
        self.scheduler.agents.commands(call, agent, acknowledged, now)

    def _runner_ended(self, call: Call, report: Any, now: float) -> None:
        how = f"it ended with exit code {report.exitcode}"
        if report.cause:
            self._runner_has_ended(report, how, now)
        else:
            self._aside(call, report.slave, self._runner_has_ended, report, how)

    def _runner_has_ended(self, report: Any, how: str, now: float) -> None:
        self.ledger.runner_ended(report)
        self.scheduler.agents.runner_ended(report, how, "", now)
        self.ledger.look()

    def _slave_closed(self, call: Call, agent: str, slave: int, why: str, now: float) -> None:
        self._aside(call, slave, self._slave_has_closed, slave, why)

    def _slave_has_closed(self, slave: int, why: str, now: float) -> None:
        self.ledger.slave_closed(slave)
        self.scheduler.agents.slave_closed(slave, why, "", now)
        self.ledger.look()

    def _leave(self, call: Call, agent: str, why: str, now: float) -> None:
        self.scheduler.agents.leave(agent, why, now)
        self._answer(call, None)

    def _aside(self, call: Call, slave: int, then: Callable[..., None], *arguments: Any) -> None:
        """The end of its output is read first; meanwhile nothing more is heard on this connection."""
        if slave not in self.outputs:
            then(*arguments, self.world.now)
            return
        connection = call.connection
        connection.busy = True
        self.world.after(0.1 * self._random.random() ** 3, self.tell, self._back, connection, then, arguments)

    def _back(self, connection: Connection, then: Callable[..., None], arguments: tuple[Any, ...], now: float) -> None:
        connection.busy = False
        then(*arguments, now)
        deferred, connection.deferred = connection.deferred, []
        for call in deferred:
            self._serve(call, now)
        if connection.unread:
            self._readable[connection] = None
            self._read(now)
            self._carry_out_calls(now)

    # -- connections

    def _gone(self, connection: Connection) -> None:
        """As `QueueServer.gone`."""
        connection.server_open = False
        role, now = connection.role, self.state.now
        if role.kind == REPORTS:
            self.scheduler.agents.disconnected(role.agent, role.pid, role.connection, now)
        elif role.kind == COMMANDS:
            self.scheduler.agents.commands_disconnected(role.agent, connection.waiting, now)
        elif role.kind == RUNNER:
            self._runners.pop(_key(connection), None)
            self.scheduler.runner_disconnected(role, now)
        self.ledger.look()

    # -- effects

    def _carry_out(
        self, ticket: Ticket | None, method: Callable[..., Any], arguments: tuple[Any, ...], now: float
    ) -> None:
        value = method(*arguments, now)
        self.ledger.look()
        if ticket is not None:
            self._apply()
            self.world.after(0.0, ticket.then, value)

    def wait_for(self, ticket: Ticket, method: Callable[..., Any], *arguments: Any) -> None:
        """As `Dispatcher.ask`: have ``method(ticket, *arguments, now)`` called, which will answer the ticket."""
        self.tell(self._ask, ticket, method, arguments)

    def _ask(self, ticket: Ticket, method: Callable[..., Any], arguments: tuple[Any, ...], now: float) -> None:
        self._apply()
        method(ticket, *arguments, now)

    def _apply(self) -> None:
        effects, events = self.scheduler.take(self.world.now)
        self.ledger.taken(effects, events)
        for effect in effects:
            if isinstance(effect, Answer):
                self._answer(effect.call, effect.value)
            elif isinstance(effect, Deliver):
                context = self.contexts.get(effect.context)
                if context is not None:
                    added = context.added
                    context.ready.extend(outcomes_of(effect))
                    if effect.last and not self.state.incoming:
                        context.all_known = added
            elif isinstance(effect, Refuse):
                self._answer(effect.call, Refused(effect.reason))
            elif isinstance(effect, HangUp):
                self._hang_up(effect)
            elif isinstance(effect, WantTasks):
                if effect.context in self.contexts:
                    self.contexts[effect.context].wants_tasks = True
            elif isinstance(effect, Pause) and effect.context in self.contexts:
                self.contexts[effect.context].paused = effect.on

    def _hang_up(self, whose: HangUp) -> None:
        """As `QueueServer.hang_up`."""
        connection = self._runners.get(whose)
        if connection is not None and not connection.busy:
            self.world.tell(f"the master hangs up {connection.name}")
            connection.hang_up()
            self._gone(connection)

    def _answer(self, call: Any, value: Any) -> None:
        assert not call.answered, f"{call} is answered twice"
        call.answered = True
        if isinstance(call, Ticket):
            self.world.after(0.0001 * self._random.random(), call.then, value)
        elif isinstance(value, Refused):
            call.connection.answer(value)
        elif call.method == "fetch":
            call.connection.answer(_lease_message(value))
        elif call.method == "commands":
            call.connection.answer(_commands_message(value, call.arguments[1]))
        else:
            call.connection.answer(value)

    # -- its end

    def close(self) -> None:
        """The manager is shut down."""
        self.world.tell("the manager is shut down")
        self.tell(self.scheduler.close)

    def vanish(self, connections: Iterable[Connection]) -> None:
        """Its process is killed: the system closes its connections, and nobody listens any more."""
        self.world.tell("the master is killed")
        self.open, self.stopped_until = False, math.inf
        for connection in connections:
            connection.hang_up()


def _key(connection: Connection) -> tuple[int, int, int]:
    """What `HangUp` says of a runner's connection."""
    return connection.role.slave, connection.role.pid, connection.role.connection


def _outcomes_of(message: OutcomeMessage | ValuesMessage) -> list[OutcomeMessage]:
    """The outcomes that a message has."""
    return posted_alone(message) if len(message) == 4 else [message]


def _lease_message(granted: Granted | None) -> LeaseMessage | None:
    """As service/task_queue.py."""
    if granted is None:
        return None
    message = LeaseMessage(*(lease_message(granted, 0) or ()))
    return message._replace(entries=unpack_entries(message.entries))


def _commands_message(found: Any, acknowledged: int) -> CommandsReply:
    """As service/agent_service.py."""
    if found is None:
        return CommandsReply(acknowledged, [encode_command(End())])
    last, commands = found
    return CommandsReply(last, [encode_command(command) for command in commands])
