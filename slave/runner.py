"""A runner: fetches a lease, runs its tasks one at a time, posts each outcome before it starts the next task.

    fetch -> for each task: note it in the status, set its context up (once), run it, post the outcome -> fetch ...

Posting is one-way, so a short task does not pay for a round trip, and yet its outcome has left this process before the
next task begins, or lies where the agent sees it (gathering.py): nothing that the next task does can hold it back.
What was posted since the last answer of the master is kept and posted again when the connection had to be made anew;
the master drops what it has already.  What there is to say, session.py decides; here it is said.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Protocol, TypeVar

from . import cpus, forks, limits, process_tree, streams
from .contexts import Contexts, SetupFailed
from .conversation import BROKEN, MOST_BREAKS, REFUSED, AnotherMaster, Conversation, NotThrough
from .dial import Address
from .environment import Environment
from .errors import ProtocolError
from .gathering import Gatherer, SharedMemory
from .handover import Resting, leave, next_config
from .imported_files import ImportedFiles
from .imports import ModuleClient, pieces
from .link import Link, ModuleServiceProxy, ResultQueueProxy, TaskQueueProxy
from .missing import missing_module, remedy, shown
from .module_cache import ModuleCache
from .named import NamedTuple
from .outcome import Packed, pack_failure, pack_value
from .parted import Arrived, missing, pieces_of
from .private_files import open_output
from .protocol import (
    ARCHIVE,
    ATOMS,
    MODULES,
    RUNNER,
    VALUE,
    Buffer,
    LeaseMessage,
    Role,
    SetupFailure,
)
from .session import RunnerSession
from .shared_status import (
    ANOTHER,
    DEADLINE,
    KEEPS,
    LEAVES,
    NAPS,
    OUTDATED_CODE,
    RECALL,
    RECYCLE,
    SETUP,
    SHORTEST,
    STAGE,
    STARTING,
    TASK,
    UNHEARD,
    WORKED,
    SharedStatus,
)
from .stretch import Stretch
from .voice import Speaker, Voice

_LONGEST_LIMIT = 1e9  # seconds; what is longer is no limit
_NANO = 1_000_000_000
_MOST_REASON = 2000  # bytes
_LOOK_FOR_AGENT = 0.5  # seconds between two looks whether the agent lives, where nothing tells of its end

T = TypeVar("T")


class RunnerConfig(NamedTuple):
    """What an agent tells a new runner: who it is and where the master is."""

    slave: int
    run: str
    addresses: Sequence[Address]
    key: bytes
    patience: float
    environment: Mapping[str, Any]
    output: str | None
    shielded: bool = False  # takes no notice of SIGTERM
    master: str | None = None  # the fingerprint of the agent's master: no other one is served
    encrypt: bool = True
    siblings: int = 1  # runners on this machine, this one among them
    mark: str = ""  # how the agent's guard knows what its runners have started
    guarded: bool = False  # there is such a guard
    voice: Voice | None = None  # what the agent wants to hear while tasks run
    keeps: bool = False  # if the master is killed, this process may be kept for the next one


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> object:
        """Close it."""


class NotRebuilt(Exception):
    """A task cannot be rebuilt here, so it has not begun; ``error`` says why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Runner:
    """The loop of one runner process."""

    _may_be_fast = True  # tasks may run in a `Stretch`

    def __init__(self, config: RunnerConfig, status: SharedStatus, memory: SharedMemory, waker: socket.socket) -> None:
        self._status, self._waker, self._memory = status, waker, memory
        self._gathered = Gatherer(memory, self._wake_agent)
        self._be(config)
        self._cache = ModuleCache()
        self._modules = ModuleClient(lambda: _link(config, MODULES), config.slave, self._cache)
        self._environment = Environment(config.environment, self._modules)
        self._contexts = Contexts(self._environment, self._setup_of)
        self._contexts.noting, self._voice = config.keeps, config.voice
        self.speaker: Speaker | None = None
        forks.watch()
        self._output_may_vanish = streams.may_vanish()
        self._has_run: dict[int, int] = {}  # by context how many of its tasks, where that is limited
        self._shortest = math.inf  # the shortest time limit of a task so far: the agent looks at its clock so often

    def _be(self, config: RunnerConfig) -> None:
        """The runner that the config says."""
        self._config = config
        self._session = RunnerSession(config.slave, os.getpid(), config.run)
        self._link = _link(config, RUNNER)
        self._link.gathered = self._gathered
        self._tasks = self._link.proxy(TaskQueueProxy)
        self._results = self._link.proxy(ResultQueueProxy)
        self._talk = Conversation(self._session, self._link, self._tasks, self._results, self._status)
        self._service = self._link.proxy(ModuleServiceProxy)
        self._stretch = Stretch(self._session, self._status, self._gathered, self)

    def work(self) -> None:
        """Run tasks until the master is done or the agent asks us to leave; for one master after the other, if so.

        Raises `AnotherMaster` if this run is over and another began there.
        """
        self._environment.apply()
        if self._config.keeps:
            self._environment.note_files()
        self._files = ImportedFiles(self._environment.from_start)
        first = True
        while True:
            try:
                if not first and not self._change_hands():
                    return
                self._serve()
                if self._status[KEEPS] != LEAVES:
                    return
            except Resting:
                pass
            first = False

    def _change_hands(self) -> bool:
        """Rest until there is another master, and join that; False if a fresh process must serve it."""
        status = self._status
        self._link.drop()
        self._modules.rest()
        for cell in (TASK, SETUP, DEADLINE, UNHEARD):
            status[cell] = 0
        config = next_config(status, self._memory)
        status[STAGE] = STARTING
        why = "what is wanted of its output has changed" if config.voice != self._voice else ""
        self._be(config)
        self._modules.change(lambda: _link(config, MODULES), config.slave)
        new = self._get(functools.partial(self._tasks.environment, config.slave))
        why = why or self._environment.another(new)
        if why:
            leave(self._memory, why.encode("utf-8", "replace")[:_MOST_REASON])
            status[OUTDATED_CODE] = ANOTHER
            return False
        self._contexts.keep()
        self._has_run.clear()
        if self.speaker is not None:
            self.speaker.renumber(config.slave)
        return True

    def _serve(self) -> None:
        session = self._session
        while not session.leaves(self._status[RECALL]):
            self._modules.rest()
            lease = self._talk.ask(lambda: self._tasks.fetch(session.fetch_request()))
            session.fetched(lease)
            if lease is not None:
                self._contexts.forget(lease.forget)
                try:
                    current = lease.environment <= self._environment.number or self._update()
                except NotThrough as error:
                    for _ in session.tasks():
                        self._tell_not_rebuilt(_not_here("what has changed in the program", error))
                    continue
                if not current or self._edited():
                    self._status[OUTDATED_CODE] = 1
                    self._give_back()
                    return
                self._run_lease(lease)
                if self._config.keeps:
                    self._environment.note_files()
                if self._status[OUTDATED_CODE]:
                    return
                if self._environment.session is not None:
                    self._files.learn()
        if session.unanswered:
            # else the agent's word that this process has ended may overtake our last outcome, and its task be run again
            self._give_back()

    def _run_lease(self, lease: LeaseMessage) -> None:
        """Run the tasks of a lease, or give them back."""
        if self._output_may_vanish:
            streams.steady_output()
        session, status, limits = self._session, self._status, lease.limits
        if limits:
            self._announce(min(limits.values()))
        current, count, began = 0, 0, 0.0
        fast = self._may_be_fast and not limits and not lease.most
        if lease.entries:
            status[STAGE] = WORKED
            if status[NAPS]:
                status[TASK] = session.unstarted[0][0]  # before it looks
                self._wake_agent()
        for task, context, payload in session.tasks():
            status[TASK] = task
            if status[RECALL] and session.recalled(status[RECALL]):
                self._give_back()
                break
            if context != current:
                if count:
                    session.ran(current, count, time.perf_counter() - began)
                current, count = 0, 0
                if not self._contexts.ready(context) and not self._set_up(context):
                    continue
                current, began = context, time.perf_counter()
            if fast:
                ran, went_on = self._run_stretch(context)
                count += ran
                if went_on:
                    continue
            try:
                self.post(self._outcome_of(context, payload, limits.get(task)))
                count += 1
                if lease.most and self._has_run_enough(context, lease.most):
                    break
            except NotRebuilt as failed:
                self._tell_not_rebuilt(failed.error)
        status[UNHEARD] = bool(session.unanswered)
        status[TASK] = 0
        session.ran(current, count, time.perf_counter() - began)

    def _run_stretch(self, context: int) -> tuple[int, bool]:
        """Run tasks of the context in a stretch: how many ran, and whether the first unstarted one is another now."""
        stretch = self._stretch
        ran = stretch.run(self._contexts.call_of(context), self._environment.loads)
        error, stretch.error = stretch.error, None
        if error is not None:
            self._tell_not_rebuilt(error)
        return ran, bool(ran) or error is not None

    def _has_run_enough(self, context: int, most: Mapping[int, int]) -> bool:
        """Whether this process is to leave for a fresh one; then the rest of the lease has been given back."""
        self._has_run[context] = self._has_run.get(context, 0) + 1
        if self._has_run[context] < most.get(context, math.inf):
            return False
        self._status[OUTDATED_CODE] = RECYCLE
        self._give_back()
        return True

    def _update(self) -> bool:
        """Take over what has changed in the master; False if a fresh process must do that."""
        return self._environment.update(self._get(functools.partial(self._tasks.environment, self._session.slave)))

    def _edited(self) -> bool:
        """Whether somebody has edited what only this process has imported, and means the new one."""
        session = self._environment.session
        return session is not None and bool(self._files.edited(session))

    def _announce(self, limit: float) -> None:
        """Have the agent look often enough at the time of a task that may run for ``limit`` seconds at most."""
        if limit < self._shortest:
            self._shortest = limit
            self._status[SHORTEST] = max(1, int(min(limit, _LONGEST_LIMIT) * _NANO))
            self._wake_agent()

    def _wake_agent(self) -> None:
        try:
            self._waker.send(b"!")
        except BlockingIOError:
            pass  # it is being woken already

    def _outcome_of(self, context: int, payload: Arrived, limit: float | None) -> Packed:
        if limit is not None:
            self._status[DEADLINE] = time.monotonic_ns() + int(min(limit, _LONGEST_LIMIT) * _NANO)
        rebuilt = False
        try:
            if type(payload) in ATOMS:
                task = payload
            elif type(payload) is not bytes and missing(payload):
                raise MemoryError(f"no memory here for {missing(payload)} bytes of the task")
            else:
                task = self._environment.loads(payload)
            if forks.came_back:
                forks.leave(None)
            rebuilt = True
            packed = pack_value(self._contexts.call(context, task))
            if forks.came_back:
                forks.leave(None)
            return packed
        except BaseException as error:  # sys.exit and KeyboardInterrupt too: a task's own affair costs no slave
            if forks.came_back:
                forks.leave(error)
            if not rebuilt:  # whatever its class does
                raise NotRebuilt(error) from None
            return pack_failure(error)
        finally:
            if limit is not None:
                self._status[DEADLINE] = 0

    def _tell_not_rebuilt(self, error: BaseException) -> None:
        """The task has not begun: another slave may have what is missing here."""
        _, data, _ = pack_failure(error)
        told = self._session.rebuild_failed(data, shown(missing_module(error)), shown(remedy(error)))
        self._talk.tell(self._results.rebuild_failed, told)

    def _set_up(self, context: int) -> bool:
        """Run the context's setup; False if it raised or does not arrive here, and then the master has been told so."""
        self._status[SETUP] = context
        try:
            self._contexts.arguments(context)
            return True
        except SetupFailed as failed:
            _, data, _ = failed.outcome
            self._tell_setup_failed(self._session.setup_failed(context, data))
            return False
        except NotThrough as error:  # which says nothing of the setup
            self._tell_not_rebuilt(_not_here("the context's setup", error))
            return False
        finally:
            self._status[SETUP] = 0

    def _tell_setup_failed(self, told: SetupFailure) -> None:
        """Tell the master; if it refuses that, in a way that it cannot refuse."""
        try:
            self._talk.tell(self._results.setup_failed, told)
        except REFUSED as error:
            _, data, _ = pack_failure(RuntimeError(f"setup failed, and how could not be told the master: {error}"))
            self._talk.tell(self._results.setup_failed, told._replace(data=data))

    def _setup_of(self, context: int) -> Buffer | None:
        """The pickled setup: a large one crosses the network once for all runners of a machine."""
        slave, service = self._session.slave, self._service
        shares = self._config.siblings > 1 and not self._link.stays_here
        found = self._get(functools.partial(service.setup, slave, context)) if shares else None
        if found is not None and found.kind == ARCHIVE:
            try:
                return self._cache.setup(
                    found.digest,
                    lambda: pieces(found.size, lambda at: self._get(lambda: service.setup_piece(slave, context, at))),
                )
            except (OSError, ProtocolError) as error:
                print(f"slave: a large setup cannot be kept for the other slaves here: {error}", file=sys.stderr)
        return self._get(functools.partial(self._tasks.setup_of, self._session.slave, context))

    def post(self, packed: Packed) -> None:
        """Post an outcome before the next task begins, or where the agent will see it if that runs on."""
        message, one_way = self._session.outcome(*packed)
        if not one_way:
            self._talk.post_and_wait(message)
            return
        try:
            if packed[0] == VALUE:
                self._results.gather(message, time.monotonic_ns(), last=not self._session.unstarted)
            else:
                self._results.post(message)
        except BROKEN as error:
            self._talk.drop(error)
            self._talk.ensure_connected()  # and that posts it again

    def send_gathered(self) -> None:
        """Send what was gathered; on a new connection, if need be."""
        try:
            self._link.send_gathered()
        except BROKEN as error:
            self._talk.drop(error)
            self._talk.ensure_connected()

    def _get(self, question: Callable[[], T]) -> T:
        """What the master has to send, and may be large.  Raises `NotThrough`."""
        return self._talk.ask(question, MOST_BREAKS)

    def _give_back(self) -> None:
        self._talk.tell(self._results.give_back, self._session.give_back())


class TracedRunner(Runner):
    """One that also tells when it does what: see traced.py."""

    _may_be_fast = False

    def __init__(self, config: RunnerConfig, status: SharedStatus, memory: SharedMemory, waker: socket.socket) -> None:
        super().__init__(config, status, memory, waker)
        from .traced import Notes, TracedContexts, TracedTaskQueue

        self._notes = Notes(config.slave)
        tasks, contexts = self._link.proxy(TracedTaskQueue), TracedContexts(self._environment, self._setup_of)
        tasks.notes = contexts.notes = self._notes
        self._tasks, self._contexts = tasks, contexts

    def _outcome_of(self, context: int, payload: Arrived, limit: float | None) -> Packed:
        pieces = [] if type(payload) in ATOMS else pieces_of(payload)
        size = missing(payload) + sum(len(memoryview(piece)) for piece in pieces)
        self._notes.begins(self._status[TASK], context, size)
        return super()._outcome_of(context, payload, limit)

    def post(self, packed: Packed) -> None:
        """See `Runner.post`."""
        super().post(packed)
        self._notes.posted(packed)


def _not_here(what: str, error: NotThrough) -> OSError:
    return OSError(f"{what} does not get from the master to {socket.gethostname()}: {error}")


def _link(config: RunnerConfig, kind: str) -> Link:
    role = Role(kind, config.slave, "", os.getpid(), 0)
    return Link(config.addresses, config.key, role, config.patience, master=config.master, encrypt=config.encrypt)


def main(
    config: RunnerConfig,
    status: SharedStatus,
    memory: SharedMemory,
    waker: socket.socket,
    agent: int,
    inherited: Sequence[Closable] = (),
) -> None:
    """The body of a runner process.

    The agent sees ``status`` and ``memory``, and ``waker`` wakes it.  ``inherited``: the agent's connections, of which
    a fork has copies to close.
    """
    for connection in inherited:
        connection.close()
    _reset_signals(config.shielded)
    _end_with(agent, config.guarded)
    os.environ[process_tree.VARIABLE] = f"{config.mark}.{os.getpid()}."
    streams.empty_stdin()
    streams.make_steady()
    _redirect(config.output)
    cpus.share_threads(config.siblings, os.environ)
    speaker = None
    if config.voice is not None:
        speaker = Speaker(config.slave, waker, lambda: int(status[TASK]))
        speaker.begin(config.voice)
    try:
        kind = TracedRunner if config.environment.get("traced") else Runner
        runner = kind(config, status, memory, waker)
        runner.speaker = speaker
        runner.work()
    except AnotherMaster as error:
        print(f"slave: slave {config.slave} ends: {error}", file=sys.stderr)
    except REFUSED as error:
        sys.exit(f"slave: slave {config.slave} ends: the master has no use for what it says: {error}")
    except MemoryError as error:  # not a task's
        sys.exit(f"slave: slave {config.slave} ends: {limits.explained(error)}")


def _reset_signals(shielded: bool) -> None:
    signal.set_wakeup_fd(-1)
    # a function, and not SIG_IGN, which programs that tasks start would inherit
    signal.signal(signal.SIGTERM, (lambda *_: None) if shielded else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(os, "setsid"):  # Ctrl-C in the agent's terminal is the agent's affair, and the children can be found
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()


def _end_with(agent: int, guarded: bool) -> None:
    """See to it that this process does not outlive its agent, whatever a task is doing by then."""
    if guarded or process_tree.die_with_parent():
        if os.getppid() != agent:
            os._exit(1)  # it died before this runner was known to anybody
    else:
        threading.Thread(target=_watch, args=(agent,), daemon=True, name="watch the agent").start()


def _watch(agent: int) -> None:
    parent = multiprocessing.parent_process()
    if os.name != "posix" and parent is not None:
        parent.join()
    while os.name == "posix" and os.getppid() == agent:
        time.sleep(_LOOK_FOR_AGENT)
    os._exit(1)


def _redirect(output: str | None) -> None:
    if output is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            handle = open_output(output, fifo=True)  # a FIFO: pipe_agent.py's
        except OSError as error:  # its folder is on the master's machine, and not here
            why = error.strerror or error
            print(
                f"slave: {output} cannot be written here ({why}); tasks print where the slave program does",
                file=sys.stderr,
            )
        else:
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.close(handle)
