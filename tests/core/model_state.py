"""What the model of the scheduler knows (model.py says what changes it), and the steps that its rules share.

As plain as can be: nothing is cached or counted, everything is walked.  Nothing here reads what the scheduler keeps:
how often a task was tried, where it is, who is to be answered and with what, is found out here once more.
"""

from __future__ import annotations

import math
from typing import Any

from parallel.core.effects import AllDone, Closed, Granted, News, NoSlaves, SetupFailed, TasksWanted
from slave.protocol import GIVEN_UP, Command, StopTasks

NOTHING = Granted(None, ())


class ModelTask:
    """A task that was added.  ``over``: it has its outcome, or was cancelled or dropped."""

    def __init__(self, id: int, context: int, retries: int) -> None:
        self.id, self.context, self.retries = id, context, retries
        self.failures = self.blamed = self.attempts = 0
        self.over = False


class ModelLease:
    """Tasks that a slave holds, in order."""

    def __init__(self, id: int, tasks: list[int], now: float, term: float) -> None:
        self.id, self.tasks, self.granted, self.deadline = id, tasks, now, now + term
        self.recalled = False


class ModelSlave:
    """A slave.  ``contact`` is '', 'heard', 'cut' or 'lost'."""

    def __init__(self, number: int, agent: str) -> None:
        self.number, self.agent = number, agent
        self.launched = self.open_ended = False
        self.draining = self.dismissed = self.parted = self.ended = False
        self.pid = self.connection = self.running = 0
        self.speaks = False  # the end of that connection was not read yet
        self.contact, self.due = "", math.inf
        self.cut_until = 0.0  # when it is missed if it is cut off
        self.failed: set[int] = set()  # contexts whose setup failed here
        self.knows: set[int] = set()  # contexts that its process may have set up
        self.forget: list[int] = []  # contexts that its process is to forget
        self.told: list[int] = []  # those that it was told in an answer of which it is not known that it arrived
        self.lease: ModelLease | None = None
        self.call: Any = None  # for tasks, that waits
        self.until = 0.0

    @property
    def leaving(self) -> bool:
        return self.draining or self.dismissed

    @property
    def connected(self) -> bool:
        return self.pid != 0 and not self.leaving and not self.ended and self.contact != "lost"

    @property
    def held(self) -> list[int]:
        return [] if self.lease is None else self.lease.tasks


class ModelEnding:
    """A process has ended, says its agent; what it posted may not have been read yet, which is waited for."""

    def __init__(self, pid: int, task: int, setup: int, cause: str, until: float) -> None:
        self.pid, self.task, self.setup, self.cause, self.until = pid, task, setup, cause, until
        self.closes = self.leaves = False  # its agent gives the slave up; or ends itself


class ModelAgent:
    """An agent, and the slaves that have not ended."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.enlisted = False
        self.connection = 0
        self.numbers: list[int] = []
        self.slaves: list[int] = []
        self.predicted: list[Command] = []  # what it is to be commanded, besides recalls, and was not yet
        self.commands: list[Command] = []  # what it was commanded, all of it
        self.acknowledged = 0
        self.call: Any = None
        self.until = 0.0
        self.online = False
        self.answer_is_lost = False  # the last one that it got with commands


class ModelContext:
    """A context: its waiting tasks in their order, and what came of the others."""

    def __init__(self, id: int, speculates: bool) -> None:
        self.id, self.speculates = id, speculates
        self.queue: list[int] = []
        self.unread: list[int] = []  # bytes of each outcome that was delivered and not taken by the user
        self.put = self.taken = self.untold = 0
        self.full = self.wants_tasks = False
        self.low_water = 0
        self.readers: dict[Any, bool] = {}  # whether for tasks too
        self.stalled: list[Any] = []
        self.failures: list[int] = []


class ModelState:
    """See the module's text."""

    def __init__(self, term: float, max_attempts: int, may_join: bool, result_bytes: float) -> None:
        self.term, self.max_attempts, self.may_join, self.result_bytes = term, max_attempts, may_join, result_bytes
        self.now = 0.0
        self.closing = False
        self.tasks: dict[int, ModelTask] = {}
        self.slaves: dict[int, ModelSlave] = {}  # also those that have ended
        self.agents: dict[str, ModelAgent] = {}
        self.contexts: dict[int, ModelContext] = {}
        self.joining: dict[int, tuple[Any, int, int, int, float]] = {}  # call, pid, connection, lease, until
        self.endings: dict[int, ModelEnding] = {}  # by slave
        self.waiters: dict[Any, int] = {}
        self.reads: dict[Any, int] = {}  # by the call of each reader there ever was: its context
        self.outcomes: dict[int, int] = {}  # how many were delivered of each task
        self.cancelled: set[int] = set()
        # what must come out of the scheduler now
        self.answers: dict[Any, Any] = {}
        self.effects: list[tuple[Any, ...]] = []  # the others, in their order
        self.told: list[tuple[Any, ...]] = []
        self._outbox: dict[int, list[tuple[int, int, int, int]]] = {}

    # -- looking

    def alive(self) -> list[ModelSlave]:
        return [slave for slave in self.slaves.values() if not slave.ended]

    def known(self, number: int) -> ModelSlave | None:
        slave = self.slaves.get(number)
        return None if slave is None or slave.ended else slave

    def of_agent(self, id: str) -> list[ModelSlave]:
        return [self.slaves[number] for number in list(self.agents[id].slaves)]

    def left(self, context: int) -> int:
        return sum(task.context == context and not task.over for task in self.tasks.values())

    def waiting(self) -> int:
        return sum(len(context.queue) for context in self.contexts.values())

    def holders(self, task: int) -> list[ModelSlave]:
        """Who holds the task: two slaves at most, the one that got it first before the other."""
        found = [(slave.lease.id, slave) for slave in self.slaves.values() if slave.lease and task in slave.held]
        return [slave for _, slave in sorted(found, key=lambda pair: pair[0])]

    def paused(self) -> set[int]:
        """Contexts of which too many results wait to be read."""
        return {context.id for context in self.contexts.values() if context.full}

    def turn(self, barred: set[int]) -> list[int]:
        """Waiting tasks in their turn: in a context as they stand, among contexts the one with the older head."""
        queues = [list(context.queue) for context in self.contexts.values() if context.id not in barred]
        order = []
        while any(queues):
            order.append(min((queue for queue in queues if queue), key=lambda queue: queue[0]).pop(0))
        return order

    # -- tasks

    def unhold(self, slave: ModelSlave, task: int) -> None:
        if slave.lease is not None:
            slave.lease.tasks.remove(task)
            if not slave.lease.tasks:
                slave.lease = None

    def to_front(self, slave: ModelSlave, tasks: list[int]) -> None:
        """The slave holds these no more: those that no other one holds wait again."""
        for id in reversed(tasks):
            self.unhold(slave, id)
            if not self.holders(id):
                self.contexts[self.tasks[id].context].queue.insert(0, id)

    def leave(self, id: int) -> None:
        """A task is over."""
        task = self.tasks[id]
        task.over = True
        for slave in self.holders(id):
            self.unhold(slave, id)
        queue = self.contexts[task.context].queue
        if id in queue:
            queue.remove(id)

    def settle(self, id: int, kind: int, by: int, size: int = 0) -> None:
        """It has its outcome, from slave ``by``; of two that held it the other one is stopped."""
        holders = self.holders(id)
        for slave in holders if len(holders) > 1 else ():
            if slave.number != by and slave.lease is not None:
                self.command(slave.agent, StopTasks(slave.number, slave.lease.id, [id]))
        self.leave(id)
        task = self.tasks[id]
        tries = 1 if kind >= GIVEN_UP else 1 + task.failures
        self.contexts[task.context].put += size
        self._outbox.setdefault(task.context, []).append((id, kind, tries, size))

    # -- slaves

    def command(self, agent: str, command: Command) -> None:
        self.agents[agent].predicted.append(command)

    def heard(self, slave: ModelSlave) -> None:
        if slave.contact == "lost":
            self.told.append(("SlaveBack", slave.number))
        slave.contact, slave.due = "heard", self.now + self.term
        if slave.lease is not None:
            slave.lease.deadline = self.now + self.term

    def lose(self, slave: ModelSlave, running: int) -> None:
        held = list(slave.held)
        given_up = 0
        if running in held:
            task = self.tasks[running]
            task.blamed += 1
            held.remove(running)
            if task.blamed >= self.max_attempts:
                given_up = running
                self.settle(running, GIVEN_UP, slave.number)
            else:
                held.insert(0, running)
        self.told.append(("SlaveLost", slave.number, len(held) + bool(given_up), given_up))
        self.to_front(slave, held)
        slave.running = 0
        self.release(slave)

    def release(self, slave: ModelSlave) -> None:
        if slave.call is not None:
            self.answers[slave.call] = None if slave.leaving else Granted(None, slave.forget)
            if not slave.leaving:
                self.told_to_forget(slave)
            slave.call = None

    def told_to_forget(self, slave: ModelSlave) -> None:
        slave.told, slave.forget = slave.told + slave.forget, []

    def unlearn(self, slave: ModelSlave) -> None:
        slave.knows, slave.forget, slave.told = set(), [], []

    def end(self, slave: ModelSlave) -> None:
        self.release(slave)
        self.to_front(slave, list(slave.held))
        self.unlearn(slave)
        if slave.launched and not slave.dismissed:
            self.process_gone(slave)
            slave.parted, slave.draining = True, False
        else:
            slave.ended = True
            self.agents[slave.agent].slaves.remove(slave.number)
            self.told.append(("SlaveEnded", slave.number))

    def process_gone(self, slave: ModelSlave) -> None:
        slave.pid = slave.connection = slave.running = 0
        slave.speaks = False
        slave.contact, slave.due, slave.parted = "", math.inf, False

    def start_over(self, slave: ModelSlave, agent: str) -> None:
        self.process_gone(slave)
        slave.draining = False
        if slave.agent != agent:
            self.agents[slave.agent].slaves.remove(slave.number)
            self.agents.setdefault(agent, ModelAgent(agent)).slaves.append(slave.number)
            slave.agent = agent

    def forget_agent(self, id: str) -> None:
        if id in self.agents and not self.agents[id].slaves:
            del self.agents[id]

    # -- readers

    def flush(self) -> None:
        """What came of tasks goes to the users."""
        outbox, self._outbox = self._outbox, {}
        for id, outcomes in outbox.items():
            context = self.contexts.get(id)
            if context is None:
                continue
            left = self.left(id)
            self.effects.append(("deliver", id, [outcome[:3] for outcome in outcomes], not left))
            context.unread += [size for *_, size in outcomes]
            if not context.full and context.put - context.taken >= self.result_bytes:
                context.full = True
                self.effects.append(("pause", id, True))
            if context.low_water > left and not context.wants_tasks:
                context.wants_tasks = True
                self.effects.append(("want", id))
            for call in list(context.readers)[: len(outcomes) if left else None]:
                self.answer_reader(context, call, News())

    def answer_reader(self, context: ModelContext, call: Any, verdict: object) -> None:
        del context.readers[call]
        self.answers[call] = verdict

    def let_go(self, context: ModelContext) -> None:
        for call in context.stalled:
            self.answers[call] = None
        context.stalled = []

    def verdict(self, context: ModelContext, for_tasks: bool) -> type | None:
        left = self.left(context.id)
        if for_tasks and context.low_water > left:
            return TasksWanted
        if not left:
            return AllDone
        if self.closing:
            return Closed
        able = [slave for slave in self.alive() if slave.number not in context.failures]
        if context.failures:
            return None if any(slave.contact != "lost" for slave in able) else SetupFailed
        return None if able or self.may_join else NoSlaves

    def slaves_verdict(self, wanted: int) -> tuple[bool, Any]:
        """Whether to answer who waits for slaves, and with what."""
        if sum(slave.connected for slave in self.slaves.values()) >= wanted:
            return True, None
        if self.closing:
            return True, Closed
        more = any(slave.open_ended and not self.agents[slave.agent].enlisted for slave in self.alive())
        hopeless = not self.may_join and not more and len(self.alive()) < wanted
        return hopeless, NoSlaves

    def judge(self) -> None:
        """Whoever need not wait any more is to be answered; to be called when everything else is done."""
        self.flush()
        for context in self.contexts.values():
            for call, for_tasks in list(context.readers.items()):
                verdict = self.verdict(context, for_tasks)
                if verdict is not None:
                    self.answer_reader(context, call, verdict)
        for call, wanted in list(self.waiters.items()):
            answer, value = self.slaves_verdict(wanted)
            if answer:
                del self.waiters[call]
                self.answers[call] = value
