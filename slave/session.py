"""The slave's side of the conversation with the master, decided and not carried out.

Nothing here waits, sends, or reads a clock: link.py, runner.py and agent.py do, and time is passed in.  So one seed can
run these very decisions against the master's, in simulated time.

A runner has one connection, on which it says one thing after the other:

    join, the unanswered outcomes again     first of all on every new connection
    fetch                                   answered by a lease: its tasks are `unstarted` then
    an outcome for each task                one way as a rule: kept as unanswered, until anything is answered
    setup or rebuilding failed, give back   answered; what they name leaves `unstarted`

An answer says that the master has read all that was said before it on the same connection.  A question whose connection
breaks is asked again on the next one, after the above.

An agent has two connections; they break, and come back, together.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from .errors import MasterFinished, MasterGone
from .pieces import outcomes
from .protocol import (
    NO_LEASE,
    RELEASE,
    Buffer,
    Command,
    CommandsReply,
    EnlistReply,
    EnlistRequest,
    FetchRequest,
    GiveBack,
    JoinRequest,
    LeaseMessage,
    OutcomeMessage,
    Ran,
    RebuildFailure,
    RunnerBeat,
    SetupFailure,
    TaskEntry,
    decode_command,
)

ANY_LEASE = (1 << 64) - 1  # in a recall: whichever lease the slave holds or is about to get, and then it is to leave

KEEP_UNASKED = 256 * 1024  # bytes of an outcome from which it is not kept for a second try but posted with an answer
MOST_UNANSWERED = 1 << 20  # bytes of outcomes posted one way, after which one is posted with an answer
MOST_PIECES = 1 << 16  # bytes of values that travel together
_DIAL_AGAIN = 0.05, 2.0  # seconds between two tries of a runner to connect: at first, at most

BEATS_PER_LEASE = 6
REFUSED_SECONDS = 3.0  # a machine that answers and has nobody listening for so long has no master any more
UNREACHABLE_LEASES = 10  # the same for a machine that does not answer: the network may come back, and we work on then
_ENLIST_AGAIN = 0.25  # seconds between two tries of an agent to reach a master that was lost
_LONGEST_WAIT = 3600.0  # seconds; no system waits for as long as a lease without end would ask for


class RunnerSession:
    """What a runner has to say to the master.

    It is in one of three states, which its fields tell:

    ================  ========================  ==========================================================
    state             fields                    left by
    ================  ========================  ==========================================================
    asks for a lease  `unstarted` is empty      `fetched`: works if it brought a task; done if it brought None
    works             the task that runs is     `outcome`, `setup_failed`, `rebuild_failed` and `give_back`,
                      first in `unstarted`      when nothing is left in it: asks
    done              `over`                    never
    ================  ========================  ==========================================================
    """

    def __init__(self, slave: int, pid: int, run: str) -> None:
        self.slave, self.pid, self.run = slave, pid, run
        # this process's connections so far, and so the number of the current one
        self.connection = 0
        # the lease whose tasks we have, or had until the answer to the next fetch: the master may not have heard of all
        # outcomes yet, and would give these tasks away again if we came back without it
        self.lease = NO_LEASE
        # tasks of the lease, in the order in which to run them, of which neither the outcome is known nor the master
        # told that they are not run here; so the first one may be running
        self.unstarted: deque[TaskEntry] = deque()
        # outcomes of tasks of the lease that were posted one way and may not have arrived, in the order of posting;
        # bytes are values that were made in pieces (pieces.py)
        self.unanswered: list[OutcomeMessage | bytes] = []
        self.unanswered_bytes = 0
        # what to say of the last lease with the next fetch
        self.statistics: list[Ran] = []
        # whether the master is done
        self.over = False
        self._pause = _DIAL_AGAIN[0]
        self._jitter = random.Random(pid)  # an instance of its own: the global one belongs to the tasks

    def check(self) -> None:
        """Raise AssertionError if the fields do not fit together."""
        sizes = [len(one) if type(one) is bytes else _size(one[5], one[6]) for one in self.unanswered]  # type: ignore[arg-type]
        assert self.unanswered_bytes == sum(sizes) <= MOST_UNANSWERED
        assert all(size < KEEP_UNASKED for size in sizes)
        unanswered = self._outcomes()
        assert {lease for _, lease, *_ in unanswered} <= {self.lease}, "outcomes of an earlier lease are unanswered"
        assert {slave for slave, *_ in unanswered} <= {self.slave}
        known = [task for _, _, _, task, *_ in unanswered] + [task for task, _, _ in self.unstarted]
        assert len(known) == len(set(known)), "a task is held twice"
        assert self.lease != NO_LEASE or not known, "a task without a lease"
        assert not (self.over and known), "done, and yet holds tasks"
        assert _DIAL_AGAIN[0] <= self._pause <= _DIAL_AGAIN[1]

    # -- connections

    def join_request(self, connection: int) -> JoinRequest:
        """What to say first on a new connection; if welcome, then the `unanswered` outcomes again, in their order."""
        self.connection = connection
        return JoinRequest(self.slave, self.pid, connection, self.run, self.lease)

    def joined(self) -> None:
        """The master has taken this connection for ours, and has been sent the unanswered outcomes on it."""
        self._pause = _DIAL_AGAIN[0]

    def pause(self) -> float:
        """The seconds to wait before the next try to connect, since one has failed."""
        pause, self._pause = self._pause, min(_DIAL_AGAIN[1], 2 * self._pause)
        return pause * self._jitter.uniform(0.7, 1.3)

    def answered(self) -> None:
        """The master answered a question: so it has all outcomes that were posted before."""
        self.unanswered.clear()
        self.unanswered_bytes = 0

    def say_less(self) -> list[OutcomeMessage]:
        """Connections break over what is said: leave out what can be, and return what is to be posted one by one."""
        self.statistics = []
        outcomes = self._outcomes()
        self.answered()
        return outcomes

    def _outcomes(self) -> list[OutcomeMessage]:
        """Those that are unanswered."""
        found: list[OutcomeMessage] = []
        for one in self.unanswered:
            found += outcomes(one) if type(one) is bytes else (one,)  # type: ignore[arg-type]
        return found

    # -- leases

    def leaves(self, recall: int) -> bool:
        """Whether to end instead of asking or connecting again, now that the agent calls ``recall`` back (0: none)."""
        return self.over or recall == ANY_LEASE

    def fetch_request(self) -> FetchRequest:
        """The question for the next lease.  To be made anew if it is asked again."""
        return FetchRequest(self.slave, self.pid, self.connection, self.statistics)

    def fetched(self, lease: LeaseMessage | None) -> None:
        """The answer to it; None if the master is done."""
        self.answered()
        self.statistics = []
        if lease is None:
            self.lease, self.over = NO_LEASE, True
        else:
            self.lease = lease.lease
            self.unstarted.extend(lease.entries)

    def tasks(self) -> Iterator[TaskEntry]:
        """The first unstarted task, until there is none.  Whoever takes it must deal with it before the next."""
        unstarted = self.unstarted
        while unstarted:
            yield unstarted[0]

    def recalled(self, recall: int) -> bool:
        """Whether to start no further task of the lease, now that the agent calls ``recall`` back (0: none)."""
        return recall in (ANY_LEASE, self.lease)

    def give_back(self) -> GiveBack:
        """What to say when no further task of the lease is started here.

        If there was none left it says nothing new, and yet is answered: which tells that all outcomes have arrived.
        """
        unstarted = [task for task, _, _ in self.unstarted]
        self.unstarted.clear()
        return GiveBack(self.slave, self.lease, unstarted)

    def setup_failed(self, context: int, data: Buffer) -> SetupFailure:
        """What to say when setup of the first unstarted task's context raised: all tasks of that context go back."""
        gone = [task for task, other, _ in self.unstarted if other == context]
        kept = [entry for entry in self.unstarted if entry[1] != context]
        self.unstarted.clear()
        self.unstarted.extend(kept)
        return SetupFailure(self.slave, context, data, self.lease, gone)

    def rebuild_failed(self, data: Buffer, module: str, remedy: str) -> RebuildFailure:
        """What to say when the first unstarted task cannot be rebuilt here."""
        task, context, _ = self.unstarted.popleft()
        return RebuildFailure(self.slave, self.lease, context, task, data, module, remedy)

    def ran(self, context: int, tasks: int, seconds: float) -> None:
        """Note how long a stretch of one context's tasks took."""
        if tasks:
            self.statistics.append(Ran(context, tasks, max(0.0, seconds)))  # a task may have put the clock back

    # -- outcomes

    def outcome(self, kind: int, data: Buffer, buffers: Sequence[Buffer]) -> tuple[OutcomeMessage, bool]:
        """What to post of the first unstarted task, and whether one way.

        With an answer if it is large, or if too much is unanswered: when too much waits to be read in the master, it
        answers late, and so we go on late.
        """
        task, context, _ = self.unstarted.popleft()
        message = (self.slave, self.lease, context, task, kind, data, buffers)  # `outcome_message`, here too
        size = KEEP_UNASKED if buffers else len(data)  # type: ignore[arg-type]  # `_size`, but this line runs often
        if size >= KEEP_UNASKED or self.unanswered_bytes + size > MOST_UNANSWERED:
            return message, False
        self.unanswered_bytes += size
        self.unanswered.append(message)
        return message, True

    def values(self, count: int, message: bytes) -> None:
        """So many of the first unstarted tasks have returned; their values are on their way, posted one way.

        ``message``: these, as pieces.py makes it, and no larger than `MOST_PIECES`.  Only as long as it `keeps` them.
        """
        deque(itertools.starmap(self.unstarted.popleft, itertools.repeat((), count)), 0)  # a loop in compiled code
        self.unanswered_bytes += len(message)
        self.unanswered.append(message)

    @property
    def keeps(self) -> bool:
        """Whether one more message of `values` may be unanswered."""
        return self.unanswered_bytes + MOST_PIECES <= MOST_UNANSWERED


def _size(data: Buffer, buffers: Sequence[Buffer]) -> int:
    """The bytes of an outcome, as far as they count here."""
    return KEEP_UNASKED if buffers else len(data)  # type: ignore[arg-type]  # no buffers: data is bytes


NEW, CONNECTED, LOST = "new", "connected", "lost"

_MOVES = {
    (NEW, "enlisted"): CONNECTED,
    (CONNECTED, "lost"): LOST,
    (LOST, "enlisted"): CONNECTED,
}


class IllegalMove(Exception):
    """A move that the table does not have: a bug of ours."""


class AgentSession:
    """How an agent stands with the master.

    ``state`` is NEW until it has enlisted, then CONNECTED, and LOST from the break of its connections until it comes
    back.  `_MOVES` has every move there is; another one raises `IllegalMove` and changes nothing.
    """

    def __init__(
        self, agent: str, host: str, pid: int, version: str, slaves: Sequence[int | None], tags: Sequence[str] = ()
    ) -> None:
        self.agent, self.host, self._pid, self._version = agent, host, pid, version
        self._tags = list(tags)
        self._slaves = list(slaves)  # that it is to have at first; None for one that the master is to number
        self.state = NEW
        # what the master said when we came first: the run, the lease's seconds and the environment stay as they are
        self.reply: EnlistReply | None = None
        # the address at which it was reached last
        self.peer: tuple[str, int] = ("", 0)
        # when the connections broke; None unless LOST
        self.lost_at: float | None = None
        # the number of the last command that was carried out; later ones are given again
        self.acknowledged = 0
        # when the next heartbeat is due, if CONNECTED
        self.next_heartbeat = 0.0
        # whether a signal has asked the agent to end: then a lost master is looked for no more
        self.draining = False

    def check(self) -> None:
        """Raise AssertionError if the fields do not fit together."""
        assert self.state in (NEW, CONNECTED, LOST)
        assert (self.state == NEW) == (self.reply is None)
        assert (self.state == LOST) == (self.lost_at is not None)
        assert self.reply is None or (self.reply.run and not self.reply.done)
        assert self.acknowledged >= 0
        assert self.state != NEW or self.acknowledged == 0

    def _move(self, event: str) -> None:
        to = _MOVES.get((self.state, event))
        if to is None:
            raise IllegalMove(f"an agent that is {self.state} cannot be {event}")
        self.state = to

    @property
    def connected(self) -> bool:
        """Whether there are connections, as far as is known."""
        return self.state == CONNECTED

    @property
    def first(self) -> EnlistReply:
        """What the master said first.  Only for an agent that has enlisted."""
        assert self.reply is not None
        return self.reply

    # -- connections

    def enlist_request(self, connection: int, slaves: Sequence[int], runners: Sequence[RunnerBeat]) -> EnlistRequest:
        """What to say first on connection number ``connection``.

        ``slaves``: those that it has now; ``runners``: theirs that live.  Both count only when it comes back.
        """
        run = self.reply.run if self.reply is not None else ""
        wanted = self._slaves if self.reply is None else slaves
        return EnlistRequest(
            self.agent,
            run,
            self.host,
            self._pid,
            self._version,
            connection,
            list(wanted),
            list(runners),
            RELEASE,
            self._tags,
        )

    def judge(self, reply: EnlistReply) -> None:
        """See whether the answer is one to stay for.

        Raises `MasterFinished` if the master is done, `MasterGone` if it is not the one that we served.
        """
        if reply.done:
            raise MasterFinished("the master has finished")
        if self.reply is not None and reply.run != self.reply.run:
            raise MasterGone("the master has gone, and another one listens in its place")

    def enlisted(self, reply: EnlistReply, peer: tuple[str, int], now: float) -> None:
        """It was, and both connections stand, to the address ``peer``.  A heartbeat is due at once."""
        self._move("enlisted")
        if self.reply is None:
            self.reply = reply
        self.peer, self.lost_at, self.next_heartbeat = peer, None, now

    def lost(self, now: float) -> None:
        """A connection broke."""
        self._move("lost")
        self.lost_at = now

    def drain(self) -> bool:
        """A signal asks the agent to end; False if one had done so before."""
        before, self.draining = self.draining, True
        return not before

    @property
    def looks_for_master(self) -> bool:
        """Whether to try to enlist again."""
        return self.state == LOST and not self.draining

    def lost_for(self, now: float) -> float:
        """The seconds since the connections broke; 0 if they stand."""
        return now - self.lost_at if self.lost_at is not None else 0.0

    def gives_up(self, now: float, refused: Collection[tuple[str, int]] = ()) -> bool:
        """Whether, as a try to come back has failed, it was the last.

        ``refused``: addresses whose machines answered that nobody listens there.
        """
        lost = self.lost_for(now)
        return lost > UNREACHABLE_LEASES * self.first.lease or (self.peer in refused and lost > REFUSED_SECONDS)

    # -- heartbeats and commands

    def heartbeat_due(self, now: float) -> bool:
        """Whether to send a heartbeat now; if so, that is noted as done."""
        if self.state != CONNECTED or now < self.next_heartbeat:
            return False
        self.next_heartbeat = now + self.first.lease / BEATS_PER_LEASE
        return True

    def patience(self, now: float) -> float:
        """The seconds for which there is nothing to do, unless something comes: to the next heartbeat or try."""
        if self.state != CONNECTED:
            return _ENLIST_AGAIN
        return min(max(0.0, self.next_heartbeat - now), _LONGEST_WAIT)

    def commands_request(self) -> tuple[str, int]:
        """The question for commands: always open while the connections stand."""
        return self.agent, self.acknowledged

    def carried_out(self, reply: CommandsReply) -> None:
        """The commands of this answer to it were carried out, and are not to come again."""
        self.acknowledged = reply.last


def commands_of(reply: CommandsReply) -> list[Command | None]:
    """The commands of an answer, in their order; None for one that this release does not know."""
    return [decode_command(parts) for parts in reply.commands]
