"""An agent's process: what slave/agent.py does, around the real `AgentSession` and `SlaveState`, in the same order.

With it, what slave/master_link.py and slave/supervisor.py do for it; and what slave/next_master.py and `RunnerPool` do
when the master was killed and another one comes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from slave.errors import MasterFinished, MasterGone
from slave.gathering import LOOK_SECONDS
from slave.protocol import (
    COMMANDS,
    REPORTS,
    WHICHEVER,
    CommandsReply,
    Drain,
    End,
    Recall,
    Role,
    RunnerBeat,
    RunnerEnded,
    StartRunner,
    StopTasks,
)
from slave.session import ANY_LEASE, CONNECTED, AgentSession, commands_of
from slave.shared_status import GOES_ON, KEEPS, LEAVES, RECALL, RESTS, STAGE, TASK
from slave.slave_state import SlaveState

from .network import Broken, Connection
from .runner import Refused, Runner, joined
from .world import Process

if TYPE_CHECKING:
    from .machines import Machine
    from .master import Master
    from .users import Users

DIAL, ASK, WAIT, PAUSE = "dial", "ask", "wait", "pause"
Steps = Generator[tuple[Any, ...], Any, Any]
_PEER = ("master", 1)
_SETTLE, _LOOK_AGAIN = 3.0, 0.1  # for runners to leave a master that is gone; between two looks whether they have
_TO_LEAVE = 1.0  # seconds that idle runners get at the end
_GOODBYE_SECONDS = 1.0
_LOOK_SECONDS = 0.01  # between two looks whether a runner may be started
_NANO = 1_000_000_000
_SIGNAL, _PREEMPTED = 0.0001, 0.2  # seconds at most until a process that is killed ends: mostly, and now and then


class Quits(Exception):
    """The agent's process ends."""


class Slave(SlaveState):
    """One slave of the agent."""

    def __init__(self, agent: Agent, number: int) -> None:
        super().__init__(number)
        self.agent = agent
        self.runner: Runner | None = None

    @property
    def runs(self) -> bool:
        """Whether it has a runner, which has not been found dead."""
        return self.runner is not None

    @property
    def lives(self) -> bool:
        """Whether its runner's process has not ended."""
        return self.runner is not None and self.runner.alive

    @property
    def pid(self) -> int:
        """Its runner's process id, or 0."""
        return self.runner.pid if self.runner is not None else 0

    def kill(self) -> None:
        """End its process now."""
        if self.runner is not None:
            self.agent.strike(self.runner)


class Agent(Process):
    """An agent's process.  ``numbers``: of its slaves, None for one that the master is to number."""

    def __init__(self, machine: Machine, id: str, numbers: Sequence[int | None], stays: bool = False) -> None:
        super().__init__(machine.world, f"agent {id}")
        self.machine: Machine = machine
        self.id, self.speed = id, machine.speed
        self.serves: Master | None = None  # the one master that it is connected to, or tries to be
        self.outlives, self.is_launched = machine.outlives(), any(number is not None for number in numbers)
        self._size = len(numbers)
        self.users: Users = machine.users
        self.pid = machine.new_pid()
        self.session = AgentSession(id, machine.name, self.pid, "3", numbers)
        self.slaves: dict[int, Slave] = {}
        self.stays = stays
        self.asked = False  # a signal asks it to end
        self.grace = 30.0
        self._random = self.world.stream(f"agent {self.pid}")
        self._reports: Connection | None = None
        self._commands: Connection | None = None
        self._counts = {REPORTS: 0, COMMANDS: 0}
        self._lives = 0  # masters that it has looked for after the first one
        self._replies: deque[CommandsReply] = deque()
        self._done = False  # the master has said that it is, before a connection to it broke
        self._reports_ended = self._commands_ended = False
        self._steps = self._serve()
        self._waits_for: Any = None  # the connection whose answer it waits for, or WAIT
        self._turn = 0  # counts what it does, so that a wake-up that comes late is told
        self._woken = self._looks = False
        self.later(0.02, self._go_on, None)

    @property
    def run(self) -> str:
        """The name of the master's run."""
        return self.session.first.run

    @property
    def is_served(self) -> bool:
        """Whether it lives, is connected as far as it knows, and the master has not seen the end of that."""
        reports = self._reports
        return self.alive and self.session.connected and reports is not None and reports.server_open

    # -- the loop of slave/agent.py, with the connections of `MasterLink` and the slaves of `Supervisor`

    def _serve(self) -> Steps:
        while True:  # as `find_master` and the command line do
            try:
                yield from self._enlist()
                break
            except (Broken, Refused):
                self._drop()
                yield PAUSE, 0.25
        while True:
            try:
                while True:
                    yield (WAIT,)
                    yield from self._step()
            except MasterGone as error:
                if not self.outlives:
                    raise
                self.world.tell(f"{self.name}: {error}; it waits for another one")
            yield from self._find_next()

    def _find_next(self) -> Steps:
        """As slave/next_master.py."""
        self._keep()
        deadline = self.world.now + self.outlives
        settled = min(deadline, self.world.now + _SETTLE)
        while not self._rests() and self.world.now < settled:
            yield from self._rest(_LOOK_AGAIN)
        while self.world.now < deadline:
            yield from self._rest(0.0)
            try:
                yield from self._enlist_with_next()
                return
            except (Broken, Refused):
                self._drop()
            yield from self._rest(min(1.0, deadline - self.world.now))
        raise Quits("no other master has come")

    def _keep(self) -> None:
        self._drop()
        for slave in self.slaves.values():
            if slave.runner is not None:
                slave.status[KEEPS], slave.status[RECALL] = LEAVES, ANY_LEASE

    def _rests(self) -> bool:
        return all(slave.status[STAGE] == RESTS for slave in self.slaves.values() if slave.runner is not None)

    def _rest(self, seconds: float) -> Steps:
        yield PAUSE, seconds
        if self.asked:
            raise Quits("it was ended by SIGTERM")
        now = int(self.world.now * _NANO)
        for slave in self.slaves.values():
            if slave.runner is not None:
                slave.stop_late(now)
            if slave.runner is not None and not slave.runner.alive:
                slave.ended(slave.runner.exitcode, self.world.now)
                slave.runner = None

    def _enlist_with_next(self) -> Steps:
        self._lives += 1
        self.id, self.serves, self.stays, self._done = f"{self.machine.id} again {self._lives}", None, False, False
        self.session = AgentSession(self.id, self.machine.name, self.pid, "3", [None] * self._size)
        self._counts = {REPORTS: 0, COMMANDS: 0}
        yield from self._enlist()

    def _take_over(self, numbers: Sequence[int]) -> None:
        """As `RunnerPool.change` and `hand_over`: these are its slaves, in the place of those that there were."""
        before, self.slaves = list(self.slaves.values()), {}
        for number in numbers:
            self.slaves[number] = slave = before.pop(0) if before else Slave(self, number)
            slave.number, slave.draining, slave.drain_until = number, False, math.inf
        for slave in self.slaves.values():
            runner = slave.runner
            if runner is None:
                continue
            slave.status[RECALL] = 0
            if slave.lives and slave.status[STAGE] == RESTS:
                slave.begin(slave.status, self.world.now)
                slave.status[KEEPS] = GOES_ON
            else:
                self.world.tell(f"{runner.name} has not ended what it ran for the last master")
                _end_runner(runner)
                slave.runner = None

    def _enlist(self) -> Steps:
        session, first = self.session, self.session.reply is None
        self._reports = yield DIAL, REPORTS
        assert self._reports is not None
        beats = self._alive()
        request = session.enlist_request(self._reports.role.connection, list(self.slaves), beats)
        reply = yield ASK, self._reports, "enlist", (request,)
        session.judge(reply)
        self._commands = yield DIAL, COMMANDS
        self._replies.clear()
        self._reports_ended = self._commands_ended = False
        self._commands.send("commands", *session.commands_request())
        session.enlisted(reply, _PEER, self.world.now)
        session.check()
        self.world.tell(f"{self.name} has enlisted with slaves {list(reply.numbers) if first else list(self.slaves)}")
        if first:
            self.serves, self.users = self.machine.master, self.machine.users
            self._take_over(reply.numbers)
            self._start_runners()

    def _step(self) -> Steps:
        session = self.session
        if self.asked and session.drain():
            self.world.tell(f"{self.name} drains")
            self._drain(list(self.slaves), self.grace)
        now = int(self.world.now * _NANO)
        for slave in list(self.slaves.values()):
            if slave.runs:
                slave.stop_late(now)
        self._reap()
        if not self.slaves and (self.asked or not self.stays):
            yield from self._leave("it was ended by SIGTERM" if self.asked else "it has no slaves any more")
            raise Quits
        if self._done:
            raise MasterFinished("the master is done")
        if session.looks_for_master:
            yield from self._try_again()
        elif session.connected:
            try:
                self._talk()
            except Broken:
                self._lose()

    def _talk(self) -> None:
        if self._replies:
            reply = self._replies.popleft()
            commands = commands_of(reply)
            if any(isinstance(command, End) for command in commands):
                raise MasterFinished("the master is done")
            for command in commands:
                self._carry_out(command)
            self.session.carried_out(reply)
            if self._commands is None:  # a report that one of them led to has shown that it broke
                raise Broken
            self._commands.send("commands", *self.session.commands_request())
        if self._reports_ended or self._commands_ended:
            raise Broken
        if self.session.heartbeat_due(self.world.now):
            self._say("heartbeat", self.id, self._alive())

    def _reap(self) -> None:
        for slave in list(self.slaves.values()):
            runner = slave.runner
            if runner is None or runner.alive:
                continue
            self._pass_on(runner, runner.watch.rest())
            task, setup, cause = slave.ended(runner.exitcode, self.world.now)
            slave.runner = None
            ended = RunnerEnded(self.id, slave.number, runner.pid, runner.exitcode, task, setup, cause)
            self._report("runner_ended", ended)
            if slave.draining:
                self._close_slave(slave.number, "it was asked to end")
            elif slave.hopeless:
                self._close_slave(slave.number, "its process ends right after the start")
        self._start_runners()

    def _pass_on(self, runner: Runner, pieces: bytes) -> None:
        """What a runner has gathered and does not send."""
        gathered = runner.messages(pieces)
        for message in gathered:
            self.world.tell(f"{self.name} passes on task {message[3]} of {runner.name}")
        if gathered:
            self._report("values", *joined(gathered))

    def _look(self) -> None:
        """As `Agent._select`: look what runners have gathered, as long as some ask for that."""
        runners = [one.runner for one in self.slaves.values() if one.runner is not None]
        on = [one.watch.heed() for one in runners]  # all are to be heeded
        self._looks = self.session.connected and any(on)
        if self._looks:
            now = int(self.world.now * _NANO)
            for runner in runners:
                if runner.watch.on:
                    self._pass_on(runner, runner.watch.look(now, lambda: self._random.chance(0.2)))
            self.later(LOOK_SECONDS, self._look)

    def _drain(self, numbers: Sequence[int], grace: float) -> None:
        self._report("draining", self.id, numbers)
        for number in numbers:
            slave = self.slaves.get(number)
            running = None if slave is None else slave.drain(self.world.now + grace, self.world.now)
            if running:
                self._report("recalled", self.id, number, WHICHEVER, running)
            elif slave is not None and not slave.pid:
                self._close_slave(number, "it was asked to end")

    def _close_slave(self, number: int, why: str) -> None:
        del self.slaves[number]
        self._report("slave_closed", self.id, number, why)

    def _start_runners(self) -> None:
        for slave in self.slaves.values():
            if slave.runner is None and self.world.now >= slave.start_after:
                slave.runner = Runner(self, slave, self.machine.new_pid())
                slave.begin(slave.runner.status, self.world.now)

    def _carry_out(self, command: object) -> None:
        if isinstance(command, StartRunner):
            if command.slave not in self.slaves:
                self.slaves[command.slave] = Slave(self, command.slave)
                if self.session.draining:
                    self._drain([command.slave], 0.0)
                self._start_runners()
        elif isinstance(command, (Recall, StopTasks)):
            slave = self.slaves.get(command.slave)
            if isinstance(command, Recall):
                running = None if slave is None else slave.recall(command.lease)
            else:
                running = None if slave is None else slave.stop(command.lease, command.tasks)
            if running is not None:
                self._say("recalled", self.id, command.slave, command.lease, running)
        elif isinstance(command, Drain):
            self._drain([command.slave], command.grace)
        self.world.tell(f"{self.name} carries out {command}")

    def _say(self, method: str, *arguments: Any) -> None:
        if self._reports is None:
            raise Broken
        self._reports.send(method, *arguments)

    def _report(self, method: str, *arguments: Any) -> None:
        if self.session.connected:
            try:
                self._say(method, *arguments)
            except Broken:
                self._lose()

    def _lose(self) -> None:
        if self.session.connected:
            self.world.tell(f"{self.name} has lost the master")
            self._done = any(isinstance(command, End) for reply in self._replies for command in commands_of(reply))
            self.session.lost(self.world.now)
        for slave in self.slaves.values():
            if slave.runner is not None:
                slave.runner.watch.stop()
        self._drop()

    def _drop(self) -> None:
        for connection in (self._reports, self._commands):
            if connection is not None:
                connection.close()
        self._reports = self._commands = None

    def _try_again(self) -> Steps:
        lost = self.session.lost_for(self.world.now)
        try:
            yield from self._enlist()
        except Refused:
            raise Quits from None
        except Broken:
            self._drop()
            if self.session.gives_up(self.world.now, self.machine.refused(self.serves)):
                raise MasterGone(f"the master has been gone for {lost:.0f} s") from None

    def _leave(self, why: str) -> Steps:
        if self.session.connected and self._reports is not None:
            try:
                yield ASK, self._reports, "leave", (self.id, why)
            except (Broken, Refused):
                pass

    def _alive(self) -> list[RunnerBeat]:
        return [
            RunnerBeat(one.number, one.runner.pid, one.status[TASK])
            for one in self.slaves.values()
            if one.runner is not None
        ]

    # -- in simulated time

    def _go_on(self, value: Any, error: BaseException | None = None) -> None:
        self._waits_for = None
        self._turn += 1
        try:
            step = self._steps.send(value) if error is None else self._steps.throw(error)
        except (StopIteration, Quits, MasterFinished, MasterGone) as end:
            self._end(end)
            return
        self.session.check()
        if step[0] == WAIT:
            self._wait()
        elif step[0] == ASK:
            self._ask(step[1], step[2], step[3])
        elif step[0] == DIAL:
            self.machine.dial(self, lambda ok: self._dialled(step[1], ok))
        else:
            self.later(step[1], self._go_on, None)

    def _wait(self) -> None:
        self._waits_for = WAIT
        patience = self.session.patience(self.world.now)
        now = int(self.world.now * _NANO)
        for slave in self.slaves.values():
            if slave.runs:
                patience = min(patience, slave.patience(now))
            else:
                patience = min(patience, max(_LOOK_SECONDS, slave.start_after - self.world.now))
        ended = self.session.state == CONNECTED and (self._reports_ended or self._commands_ended)
        if self._woken or self._replies or ended:
            patience = 0.0
        self._woken = False
        self.later(max(0.001, min(patience, 1e6)), self._wake_up, self._turn)

    def wake(self) -> None:
        """Something has happened that it is to look at."""
        self._woken = True
        if not self._looks:
            self._looks = True
            self.later(0.0002 * self._random.random(), self._look)
        if self._waits_for == WAIT:
            self.later(0.0001 + 0.0004 * self._random.random(), self._wake_up, self._turn)

    def _wake_up(self, turn: int) -> None:
        if turn == self._turn:
            self._woken = False
            self._go_on(None)

    def _ask(self, connection: Connection, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            connection.send(method, *arguments)
        except Broken as error:
            self.later(0.0, self._go_on, None, error)
        else:
            self._waits_for = connection
            if method == "leave":
                self.later(_GOODBYE_SECONDS, self._answer_is_late, self._turn)

    def _answer_is_late(self, turn: int) -> None:
        if turn == self._turn:
            self._go_on(None, Broken())

    def _dialled(self, kind: str, ok: bool) -> None:
        if not ok:
            self._go_on(None, Broken())
            return
        self._counts[kind] += 1
        self._go_on(self.machine.connect(self, Role(kind, 0, self.id, self.pid, self._counts[kind])))

    def heard(self, connection: Connection, value: Any) -> None:
        """The master has answered."""
        self.act(self._heard, connection, value)

    def _heard(self, connection: Connection, value: Any) -> None:
        if connection is self._waits_for:
            if isinstance(value, Refused):
                self._go_on(None, value)
            else:
                self._go_on(value)
        elif connection is self._commands and value is not None:
            self._replies.append(value)
            self.wake()

    def broken(self, connection: Connection) -> None:
        """A connection has ended."""
        self.act(self._broken, connection)

    def _broken(self, connection: Connection) -> None:
        if connection is self._waits_for:
            self._go_on(None, Broken())
        elif connection is self._reports:
            self._reports_ended = True
            self.wake()
        elif connection is self._commands:
            self._commands_ended = True
            self.wake()

    def strike(self, runner: Runner) -> None:
        """End a runner's process.  The system may let others run first, and that process go on for so long."""
        random = self._random
        seconds = _PREEMPTED * random.random() if random.chance(0.1) else _SIGNAL * random.random()
        self.later(seconds, _end_runner, runner)

    def runner_died(self, runner: Runner) -> None:
        """A child has ended."""
        if self.alive:
            self.wake()

    # -- its end

    def signal(self) -> None:
        """Somebody asks it to end; a second time: at once."""
        if not self.alive:
            return
        if self.asked:
            self.act(self._quit)
        else:
            self.asked = True
            self.world.tell(f"{self.name} is asked to end")
            self.wake()

    def _quit(self) -> None:
        if self._waits_for == WAIT:
            self._steps.close()
            self._steps = self._last_words()
            self._go_on(None)

    def _last_words(self) -> Steps:
        yield from self._leave("it was ended by SIGTERM twice")

    def _end(self, end: BaseException) -> None:
        """As `RunnerPool.end`: idle runners get a moment to leave, busy ones are ended."""
        self.world.tell(f"{self.name} ends: {end or type(end).__name__}")
        self._turn += 1
        for slave in self.slaves.values():
            if slave.runner is not None:
                slave.status[KEEPS] = 0
                slave.status[RECALL] = ANY_LEASE
                if slave.busy:
                    slave.kill()
        self.later(
            _TO_LEAVE if any(one.runner and one.runner.alive for one in self.slaves.values()) else 0.0, self._gone
        )

    def _gone(self) -> None:
        self.die("has ended", 0)

    def die(self, how: str, exitcode: int) -> None:
        """Its process ends, and its runners with it."""
        if not self.alive:
            return
        self.world.tell(f"{self.name} {how}")
        self.alive = False
        self._steps.close()
        for slave in self.slaves.values():
            if slave.runner is not None:
                _end_runner(slave.runner)
        if self.machine.on:
            self._drop()
        self.machine.agent_died(self, exitcode)


def _end_runner(runner: Runner) -> None:
    runner.die("is ended by its agent", -9, itself=False)
