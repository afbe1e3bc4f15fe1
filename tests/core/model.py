"""A model of the scheduler: what each thing that can happen does, told once more and as plainly as can be.

The methods have the names and arguments of `tests.core.fake.Env`, but for the call that waits, which comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parallel.core.agents import RECONNECT_SECONDS
from parallel.core.effects import Closed, News
from slave.protocol import (
    FAILURE,
    IDLE_SECONDS,
    POLL_SECONDS,
    TIME_LIMIT,
    TIMED_OUT,
    Drain,
    OutcomeMessage,
    StartRunner,
    StopTasks,
)
from tests.core.model_state import NOTHING, ModelAgent, ModelContext, ModelEnding, ModelSlave, ModelState, ModelTask

REFUSED = "refused"
OVERHEAD = 300  # bytes that count for an outcome besides its data
REPORT_SECONDS = 2.0
HANG_UP_SECONDS = 2.0


class Model(ModelState):
    """See the module's text."""

    # -- runners

    def join(self, call: Any, number: int, pid: int, connection: int, this_run: bool, lease: int) -> None:
        slave = self.known(number)
        if slave is not None and self._is_late(slave, pid, connection):
            self.answers[call] = False
            return
        if number in self.joining:
            self.answers[self.joining.pop(number)[0]] = False
        if slave is None or not this_run:
            self.answers[call] = False
        elif slave.pid not in (0, pid) and not self.closing:
            self.joining[number] = call, pid, connection, lease, self.now + min(REPORT_SECONDS, self.term / 4)
        else:
            self._join(slave, call, pid, connection, lease)

    def _is_late(self, slave: ModelSlave, pid: int, connection: int) -> bool:
        """Whether the same process has joined, or is about to, on a newer connection."""
        newest = self.joining[slave.number][1:3] if slave.number in self.joining else (slave.pid, slave.connection)
        return newest[0] == pid and newest[1] > connection

    def _join(self, slave: ModelSlave, call: Any, pid: int, connection: int, lease: int) -> None:
        if slave.lease is not None and (slave.pid != pid or slave.lease.id != lease):
            self.to_front(slave, list(slave.held))
        self.release(slave)
        if slave.pid != pid:
            self.unlearn(slave)
        else:
            slave.forget, slave.told = slave.told + slave.forget, []
        slave.pid, slave.connection, slave.speaks, slave.parted = pid, connection, True, False
        self.heard(slave)
        self.told.append(("SlaveJoined", slave.number))
        self.answers[call] = True

    def _let_join(self, number: int) -> None:
        if number in self.joining:
            call, pid, connection, lease, _ = self.joining.pop(number)
            slave = self.known(number)
            if slave is None:
                self.answers[call] = False
            else:
                self._join(slave, call, pid, connection, lease)

    def fetch(self, call: Any, number: int, pid: int, connection: int) -> None:
        slave = self.slaves[number]
        if slave.pid != pid or slave.ended:
            self.answers[call] = None if slave.ended and slave.pid == pid else REFUSED
        elif slave.connection != connection:
            self.answers[call] = NOTHING
        else:
            self.release(slave)
            self.heard(slave)
            slave.told = []
            self.to_front(slave, list(slave.held))
            slave.call, slave.until = call, self.now + IDLE_SECONDS
            if self.closing or slave.leaving or (slave.forget and not self.turn(slave.failed | self.paused())):
                self.release(slave)

    def outcomes_came(self, batch: Sequence[OutcomeMessage]) -> None:
        for number, lease, context, id, kind, data, _ in batch:
            task = self.tasks[id]
            if task.over or task.context != context:
                continue
            slave = self.slaves[number]
            current = slave.lease is not None and slave.lease.id == lease and id in slave.held
            if kind == FAILURE and task.retries and current:
                task.retries -= 1
                task.failures += 1
                self.to_front(slave, [id])
            elif kind != FAILURE or current or not (task.retries or task.failures):
                self.settle(id, kind, number, OVERHEAD + len(data))

    def post_and_wait(self, call: Any, message: OutcomeMessage) -> None:
        task, context = self.tasks[message[3]], self.contexts.get(message[2])
        unsettled = not task.over and task.context == message[2]
        self.outcomes_came([message])
        self.flush()
        reading = any(one.readers for one in self.contexts.values())
        if unsettled and context is not None and context.full and not reading and not self.closing:
            context.stalled.append(call)
        else:
            self.answers[call] = None

    def setup_failed(self, call: Any, number: int, context: int, lease: int, unstarted: Sequence[int]) -> None:
        self.give_back(call, number, lease, unstarted)
        slave = self.known(number)
        if slave is not None:
            self._bar(slave, context)

    def _bar(self, slave: ModelSlave, context: int) -> None:
        if context in self.contexts:
            slave.failed.add(context)
            if slave.number not in self.contexts[context].failures:
                self.contexts[context].failures.append(slave.number)

    def give_back(self, call: Any, number: int, lease: int, unstarted: Sequence[int]) -> None:
        slave = self.slaves[number]
        if slave.lease is not None and slave.lease.id == lease:
            self.to_front(slave, [id for id in slave.held if id in unstarted])
        self.answers[call] = None

    def runner_disconnected(self, number: int, pid: int, connection: int) -> None:
        slave = self.slaves[number]
        if (slave.pid, slave.connection) == (pid, connection):
            self.release(slave)
        joining = self.joining.get(number)
        if joining is not None and joining[1:3] == (pid, connection):
            self.answers[self.joining.pop(number)[0]] = False
        if not slave.ended and (slave.pid, slave.connection) == (pid, connection):
            self._hang_up(slave)

    def _hang_up(self, slave: ModelSlave) -> None:
        slave.speaks = False
        self._settle_ending(slave.number)

    # -- agents

    def enlist(
        self, slaves: Sequence[int | None], id: str, run: bool, connection: int, runners: Mapping[int, int]
    ) -> list[int]:
        """``run``: it comes back, to this master.  Returns the numbers of its slaves."""
        if id in self.agents and connection < self.agents[id].connection:
            return self.agents[id].numbers
        self._settle_endings_of(id)
        if run and id not in self.agents:
            return []
        agent = self.agents.setdefault(id, ModelAgent(id))
        agent.connection = connection
        if agent.enlisted and not run:
            self._start_over(agent)
        if agent.enlisted and run:
            self._end_missing(agent, slaves)
        elif not agent.numbers:
            agent.numbers = [self._number_of(agent, number) for number in slaves]
        agent.enlisted = True
        for slave in self.of_agent(id):
            self.heard(slave)
            if slave.pid and runners.get(slave.number, slave.pid) != slave.pid:
                self.lose(slave, 0)
                self._replace(slave)
        return agent.numbers

    def _number_of(self, agent: ModelAgent, number: int | None) -> int:
        if number is not None and self.known(number) is not None:
            return number
        siblings = self.of_agent(agent.id)
        slave = self._new_slave(agent)
        if siblings and siblings[0].launched:
            slave.launched = True
        return slave.number

    def _new_slave(self, agent: ModelAgent) -> ModelSlave:
        slave = ModelSlave(len(self.slaves), agent.id)
        self.slaves[slave.number] = slave
        agent.slaves.append(slave.number)
        return slave

    def _start_over(self, agent: ModelAgent) -> None:
        for slave in self.of_agent(agent.id):
            if slave.pid:
                self.lose(slave, 0)
            if slave.dismissed:
                self.command(agent.id, Drain(slave.number, 0.0))
            self.release(slave)
            self.start_over(slave, agent.id)

    def _end_missing(self, agent: ModelAgent, slaves: Sequence[int | None]) -> None:
        commanded = [*agent.commands[agent.acknowledged :], *agent.predicted]
        starting = [command.slave for command in commanded if isinstance(command, StartRunner)]
        for slave in self.of_agent(agent.id):
            if slave.number not in slaves and slave.number not in starting:
                self.lose(slave, 0)
                self.end(slave)

    def heartbeat(self, beats: Sequence[tuple[int, int, int]]) -> None:
        for number, pid, task in beats:
            slave = self.known(number)
            if slave is not None and slave.pid in (0, pid):
                if task not in (slave.running, 0):
                    self.told.append(("TaskStarted", number, task))
                slave.running = task
                self.heard(slave)

    def runner_ended(self, number: int, task: int, setup: int, cause: str, pid: int, hung_up: bool) -> None:
        """``hung_up``: its connection was read to its end before."""
        slave = self.known(number)
        if slave is not None and hung_up:
            self._hang_up(slave)
        if slave is None or slave.ended or slave.pid not in (0, pid):
            return
        until = self.now + min(HANG_UP_SECONDS, self.term / 4)
        self.endings[number] = ModelEnding(pid, task, setup, cause, until)
        if not slave.speaks:
            self._settle_ending(number)

    def _settle_ending(self, number: int) -> None:
        """All that the process posted was read, or there is no time to wait for it: its end counts now."""
        ending = self.endings.pop(number, None)
        slave = self.known(number)
        if ending is None or slave is None:
            return
        if not self.closing and slave.pid in (0, ending.pid):
            self._ended(slave, ending)
        if ending.closes:
            self.end(slave)
        if ending.leaves:
            self.forget_agent(slave.agent)

    def _ended(self, slave: ModelSlave, ending: ModelEnding) -> None:
        if ending.cause == TIME_LIMIT and ending.task in slave.held:
            self.settle(ending.task, TIMED_OUT, slave.number)
        if ending.setup and not ending.cause:
            self._bar(slave, ending.setup)
        self.lose(slave, 0 if ending.setup or ending.cause else ending.task)
        self._replace(slave)

    def _settle_endings_of(self, agent: str) -> None:
        for slave in self.of_agent(agent) if agent in self.agents else ():
            self._settle_ending(slave.number)

    def _replace(self, slave: ModelSlave) -> None:
        slave.pid = slave.running = 0
        slave.speaks = slave.parted = False
        self._let_join(slave.number)

    def slave_closed(self, number: int) -> None:
        slave = self.known(number)
        if number in self.endings:
            self.endings[number].closes = True
        elif slave is not None:
            self.end(slave)

    def recalled(self, number: int, lease: int, running: int) -> None:
        slave = self.slaves[number]
        if slave.lease is not None and lease in (0, slave.lease.id) and running:
            held = slave.held
            self.to_front(slave, held[held.index(running) + 1 :] if running in held else list(held))

    def draining(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            slave = self.known(number)
            if slave is not None:
                if not slave.leaving:
                    self.told.append(("SlaveLeaving", number))
                slave.draining, slave.parted = not slave.dismissed, False
                self.release(slave)

    def leave_agent(self, id: str) -> None:
        if id in self.agents:
            for slave in self.of_agent(id):
                if slave.number in self.endings:
                    ending = self.endings[slave.number]
                    ending.closes = ending.leaves = True
                else:
                    self.lose(slave, 0)
                    self.end(slave)
            self.forget_agent(id)

    def agent_disconnected(self, connection: int, id: str) -> None:
        agent = self.agents.get(id)
        if agent is not None and agent.connection == connection:
            due = self.now + RECONNECT_SECONDS
            for slave in self.of_agent(id):
                if slave.contact in ("heard", "cut"):
                    slave.contact, slave.due, slave.cut_until = "cut", min(slave.due, due), due
                    if slave.lease is not None:
                        slave.lease.deadline = min(slave.lease.deadline, due)

    def wait_for_commands(self, call: Any, id: str, acknowledged: int) -> None:
        agent = self.agents.get(id)
        if agent is None:
            self.answers[call] = None
        else:
            if agent.call is not None:  # an earlier connection's
                self.answers[agent.call] = (len(agent.commands), [])
            agent.acknowledged = max(agent.acknowledged, acknowledged)
            agent.call, agent.until = call, self.now + POLL_SECONDS

    # -- launchers

    def expect(self, id: str, open_ended: bool, launched: bool) -> int:
        slave = self._new_slave(self.agents.setdefault(id, ModelAgent(id)))
        slave.open_ended, slave.launched = open_ended, launched
        return slave.number

    def start_by_agent(self, number: int, id: str) -> None:
        if self.known(number) is not None:
            self.command(id, StartRunner(number, f"out{number}"))

    def launcher_says_ended(self, id: str, numbers: Sequence[int] | None, successor: str | None) -> list[int]:
        moved: list[int] = []
        self._settle_endings_of(id)
        if id not in self.agents:
            return moved
        for slave in self.of_agent(id):
            if numbers is None or slave.number in numbers:
                slave.launched = False
                self.lose(slave, 0)
                if successor is not None and self.agents[id].enlisted and not slave.leaving:
                    self.start_over(slave, successor)
                    moved.append(slave.number)
                else:
                    self.end(slave)
        if numbers is None:
            self.forget_agent(id)
        return moved

    # -- users

    def add(self, ids: Sequence[int], context: int, retries: int) -> None:
        for id in ids:
            self.tasks[id] = ModelTask(id, context, retries)
            self.contexts[context].queue.append(id)

    def context(self, id: int, speculates: bool) -> None:
        self.contexts[id] = ModelContext(id, speculates)

    def drop_context(self, id: int) -> None:
        context = self.contexts[id]
        for task in self.tasks.values():
            if task.context == id and not task.over:
                self.leave(task.id)
                self.cancelled.add(task.id)
        self.let_go(context)
        for call in list(context.readers):
            self.answer_reader(context, call, Closed)
        del self.contexts[id]
        for slave in self.alive():
            slave.failed.discard(id)
            if id in slave.knows:
                slave.knows.discard(id)
                slave.forget.append(id)
                self.release(slave)

    def cancel(self, context: int, only: int | None = None) -> int:
        """Cancel a context's tasks, or one of them."""
        gone = [id for id, task in self.tasks.items() if task.context == context and not task.over]
        gone = [id for id in gone if only in (None, id)]
        stops: dict[int, tuple[int, list[int]]] = {}
        for id in gone:
            for slave in self.holders(id):
                if slave.lease is not None:
                    stops.setdefault(slave.number, (slave.lease.id, []))[1].append(id)
            self.leave(id)
            self.cancelled.add(id)
        for number, (lease, ids) in stops.items():
            self.command(self.slaves[number].agent, StopTasks(number, lease, ids))
        return len(gone)

    def read(self, call: Any, id: int, for_tasks: bool) -> None:
        context = self.contexts[id]
        self.reads[call] = id
        context.readers[call] = for_tasks
        for other in self.contexts.values():
            self.let_go(other)
        self.results_taken(id, context.put - context.taken)

    def stop_reading(self, call: Any, id: int) -> None:
        context = self.contexts[id]
        if call in context.readers:
            del context.readers[call]
        else:
            for other in list(context.readers):
                self.answer_reader(context, other, News())

    def results_taken(self, id: int, size: int) -> None:
        context = self.contexts[id]
        context.taken = min(context.put, context.taken + size)
        if context.full and context.put - context.taken <= self.result_bytes / 2:
            context.full = False
            self.effects.append(("pause", id, False))
            self.let_go(context)

    def no_more_tasks(self, id: int) -> None:
        self.contexts[id].low_water, self.contexts[id].wants_tasks = 0, False

    def dismiss(self, number: int) -> None:
        slave = self.known(number)
        if slave is not None:
            slave.dismissed, slave.draining, slave.parted = True, False, False
            self.release(slave)
            self.command(slave.agent, Drain(number, 1.0))

    # -- time

    def tick(self, late: float = 0.0) -> None:
        if late > 0.5:
            self._shift(late)
        for slave in self._all_expired():
            self._settle_ending(slave.number)
        expired = self._all_expired()
        silent = [slave for slave in self.alive() if slave.due <= self.now and slave.contact != "lost"]
        for slave in [*expired, *(one for one in silent if one not in expired)]:
            self.lose(slave, 0)
            if slave.contact in ("heard", "cut"):
                slave.contact = "lost"
        late_joins = [one for one, joining in self.joining.items() if joining[4] <= self.now]
        for number in [one for one, ending in self.endings.items() if ending.until <= self.now or one in late_joins]:
            self._settle_ending(number)
        for number in late_joins:
            self._let_join(number)
        for slave in self.alive():
            if slave.call is not None and slave.until <= self.now:
                self.release(slave)
        for agent in self.agents.values():
            if agent.call is not None and agent.until <= self.now:
                self.answers[agent.call] = (len(agent.commands), [])
                agent.call = None

    def _all_expired(self) -> list[ModelSlave]:
        """Slaves whose lease is over, the oldest lease first."""
        leases = [(slave.lease.id, slave) for slave in self.slaves.values() if slave.lease is not None]
        over = [slave for slave in self.slaves.values() if slave.lease is not None and slave.lease.deadline <= self.now]
        return [slave for _, slave in sorted(leases, key=lambda pair: pair[0]) if slave in over]

    def _shift(self, late: float) -> None:
        for slave in self.alive():
            slave.due += late
            slave.cut_until += late
            if slave.lease is not None:
                slave.lease.deadline += late
                slave.lease.granted += late

    def close(self) -> None:
        self.closing = True
        for number in list(self.endings):
            self._settle_ending(number)
        for number in list(self.joining):
            self._let_join(number)
        for slave in self.alive():
            if slave.call is not None:
                self.answers[slave.call] = None
                slave.call = None
        for agent in self.agents.values():
            if agent.call is not None:
                self.answers[agent.call] = None
                agent.call = None
        for context in self.contexts.values():
            self.let_go(context)
