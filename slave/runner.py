"""A runner: fetches a lease, runs its tasks one at a time, posts each outcome before it starts the next task.

    fetch -> for each task: mark it, set its context up (once), run it, pack the outcome, post it -> fetch ...

Posting is one-way, so a short task does not pay for a round trip, and yet its outcome has left this process before the
next task begins: nothing that the next task does can hold it back.  What was posted since the last answer of the master
is kept and posted again when the connection had to be made anew; the master drops what it has already.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Protocol, TypeVar

from . import outcome, wire
from .contexts import Contexts, SetupFailed
from .dial import Address
from .errors import SlaveError
from .home import Home
from .link import CallFailed, Entry, Lease, Link, ResultQueueProxy, TaskQueueProxy
from .mark import ANY_LEASE, DEADLINE, RECALL, SETUP, SHORTEST, TASK, Mark

_KEEP_UNASKED = 256 * 1024  # bytes of an outcome from which it is not kept for a second try but posted with an answer
_MOST_UNANSWERED = 1 << 20  # bytes of outcomes posted one way, after which one is posted with an answer
_DIAL_AGAIN = 0.05, 2.0  # seconds between two tries to connect: at first, at most
_BROKEN = (OSError, EOFError, SlaveError)

_LONGEST_LIMIT = 1e9  # seconds; what is longer is no limit
_NANO = 1_000_000_000

_PR_SET_PDEATHSIG = 1  # prctl(2)

T = TypeVar("T")


class Assignment(NamedTuple):
    """What an agent tells a new runner: who it is and where the master is."""

    number: int
    run: str
    addresses: Sequence[Address]
    key: bytes
    patience: float
    surroundings: dict[str, Any]
    output: str | None
    shielded: bool = False  # takes no notice of SIGTERM


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> object:
        """Close it."""


class AnotherMaster(Exception):
    """The address answers, and has no use for this runner."""


class Runner:
    """The loop of one runner process."""

    def __init__(self, assignment: Assignment, mark: Mark, bell: socket.socket) -> None:
        self._number, self._run, self._pid = assignment.number, assignment.run, os.getpid()
        role = ("runner", self._number, self._pid)
        self._link = Link(assignment.addresses, assignment.key, role, assignment.patience)
        self._tasks = self._link.proxy(TaskQueueProxy)
        self._results = self._link.proxy(ResultQueueProxy)
        self._home = Home(assignment.surroundings)
        self._contexts = Contexts(self._home, self._setup_of)
        self._mark, self._bell = mark, bell
        self._shortest = math.inf  # the shortest time limit of a task so far: the agent looks at its clock so often
        self._lease = 0  # the one we hold; 0 while we ask for one
        self._unanswered: list[tuple[int, int, outcome.Packed]] = []  # lease, task, outcome
        self._unanswered_size = 0  # bytes

    def work(self) -> None:
        """Run tasks until the master is done or the agent asks us to leave.

        Raises `AnotherMaster` if this run is over and another began there.
        """
        # what the master has not answered is asked for once more before we end: else the agent's word that this process
        # has ended may overtake our last outcome, and its task be run again
        self._home.move_in()
        ran: list[tuple[int, int, float]] = []
        while self._mark[RECALL] != ANY_LEASE:
            self._lease, found = 0, self._insist(functools.partial(self._fetch, ran))
            self._answered()
            if found is None:
                return
            lease, forgotten = found
            self._contexts.forget(forgotten)
            ran = self._run_lease(lease)
        if self._unanswered:
            self._give_back([])

    def _fetch(self, ran: Sequence[tuple[int, int, float]]) -> tuple[Lease, list[int]] | None:
        return self._tasks.fetch(self._number, self._pid, ran)

    def _run_lease(self, lease: Lease) -> list[tuple[int, int, float]]:
        """Run the tasks of a lease; returns context, number of tasks and seconds for each stretch of one context."""
        number, entries, limits = lease
        self._lease, mark = number, self._mark
        if limits:
            self._announce(min(limits.values()))
        ran: list[tuple[int, int, float]] = []
        current, count, began = 0, 0, time.perf_counter()
        for index, (task, context, payload) in enumerate(entries):
            mark[TASK] = task
            if mark[RECALL] in (number, ANY_LEASE):
                self._give_back(entries[index:])
                break
            if context != current:
                ran.append((current, count, time.perf_counter() - began))
                if not self._contexts.ready(context) and not self._set_up(context, entries[index:]):
                    entries = [entry for entry in entries[index:] if entry[1] != context]
                    return ran[1:] + self._run_lease((number, entries, limits))
                current, count, began = context, 0, time.perf_counter()
            self._post(task, self._outcome_of(context, payload, limits.get(task)))
            count += 1
        mark[TASK] = 0
        ran.append((current, count, time.perf_counter() - began))
        return ran[1:]

    def _announce(self, limit: float) -> None:
        """Have the agent look often enough at the time of a task that may run for ``limit`` seconds at most."""
        if limit < self._shortest:
            self._shortest = limit
            self._mark[SHORTEST] = max(1, int(min(limit, _LONGEST_LIMIT) * _NANO))
            try:
                self._bell.send(b"!")
            except BlockingIOError:
                pass  # it rings already

    def _outcome_of(self, context: int, payload: wire.Buffer, limit: float | None) -> outcome.Packed:
        if limit is not None:
            self._mark[DEADLINE] = time.monotonic_ns() + int(min(limit, _LONGEST_LIMIT) * _NANO)
        try:
            if isinstance(payload, wire.Unfit):
                raise MemoryError(f"no memory here for the task of {payload.size} bytes")
            return outcome.pack_value(self._home.loads(payload)(*self._contexts.arguments(context)))
        except BaseException as error:  # sys.exit and KeyboardInterrupt too: a task's own affair costs no slave
            return outcome.pack_failure(error)
        finally:
            self._mark[DEADLINE] = 0

    def _set_up(self, context: int, entries: Sequence[Entry]) -> bool:
        """Run the context's setup; False if it raised, and then the master has been told so."""
        self._mark[SETUP] = context
        try:
            self._contexts.arguments(context)
            return True
        except SetupFailed as failed:
            unstarted = [entry[0] for entry in entries if entry[1] == context]
            data = failed.outcome[1]
            self._insist(lambda: self._results.setup_failed(self._number, context, data, self._lease, unstarted))
            return False
        finally:
            self._mark[SETUP] = 0

    def _setup_of(self, context: int) -> wire.Buffer | None:
        payload = self._insist(lambda: self._tasks.setup_of(self._number, context))
        self._answered()
        return payload

    def _post(self, task: int, packed: outcome.Packed) -> None:
        """Post an outcome.  When too much waits to be read in the master, it answers late, and so we go on late."""
        _, data, buffers = packed
        size = _KEEP_UNASKED if buffers else len(data)  # type: ignore[arg-type]  # no buffers: data is bytes
        if size < _KEEP_UNASKED and self._unanswered_size + size <= _MOST_UNANSWERED:
            self._unanswered.append((self._lease, task, packed))
            self._unanswered_size += size
            try:
                self._results.post(self._number, self._lease, task, packed)
            except _BROKEN:
                self._link.drop()
                self._ensure_connected()  # and that posts it again
        else:
            self._insist(lambda: self._results.post_and_wait(self._number, self._lease, task, packed))
            self._answered()

    def _answered(self) -> None:
        """The master answered a call: so it has what we posted before."""
        self._unanswered.clear()
        self._unanswered_size = 0

    def _give_back(self, entries: Sequence[Entry]) -> None:
        unstarted = [entry[0] for entry in entries]
        self._insist(lambda: self._results.hand_back(self._number, self._lease, unstarted))
        self._answered()

    def _insist(self, call: Callable[[], T]) -> T:
        """Make a call, on a new connection if the old one is broken or breaks."""
        while True:
            try:
                self._ensure_connected()
                return call()
            except _BROKEN:
                self._link.drop()

    def _ensure_connected(self) -> None:
        """Connect if need be, however long it takes: the agent decides when to give the master up.

        Raises SystemExit when it has, or when the master was done before we ever found it.
        """
        pause, longest = _DIAL_AGAIN
        jitter = random.Random(os.getpid())  # an instance of its own: the global one belongs to the tasks
        while not self._link.connected:
            try:
                self._link.connect()
                if not self._tasks.join(self._number, self._pid, self._run, self._lease):
                    raise AnotherMaster("the master has given this slave up, or another one answers at its address")
                for unanswered in self._unanswered:
                    self._results.post(self._number, *unanswered)
            except _BROKEN:
                self._link.drop()
                if self._mark[RECALL] == ANY_LEASE:
                    sys.exit()
                time.sleep(pause * jitter.uniform(0.7, 1.3))
                pause = min(longest, 2 * pause)


def main(
    assignment: Assignment, mark: Mark, bell: socket.socket, agent: int, inherited: Sequence[Closable] = ()
) -> None:
    """The body of a runner process.

    ``bell`` wakes the agent.  ``inherited``: the agent's connections, of which a fork has copies to close.
    """
    for connection in inherited:
        connection.close()
    _reset_signals(assignment.shielded)
    _end_with(agent)
    _redirect(assignment.output)
    try:
        Runner(assignment, mark, bell).work()
    except (AnotherMaster, CallFailed) as error:
        print(f"slave: runner {assignment.number} ends: {error}", file=sys.stderr)


def _reset_signals(shielded: bool) -> None:
    signal.set_wakeup_fd(-1)
    # a function, and not SIG_IGN, which programs that tasks start would inherit
    signal.signal(signal.SIGTERM, (lambda *_: None) if shielded else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(os, "setsid"):  # Ctrl-C in the agent's terminal is the agent's affair, and the children can be found
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()


def _end_with(agent: int) -> None:
    """See to it that this process does not outlive its agent, whatever a task is doing by then."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != agent:
            os._exit(1)  # it died before the call above
        return
    parent = multiprocessing.parent_process()
    if parent is not None:
        watch = threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True, name="watch the agent")
        watch.start()


def _redirect(output: str | None) -> None:
    if output is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a task printed survives its death
