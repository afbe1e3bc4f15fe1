"""What a runner tells and asks the master, over as many connections as that takes.

There are paths on which large packets are lost: those of a tunnel or a VPN, if a firewall drops what would tell the
sender.  There a connection is made and small words pass, and each larger one breaks its connection, every time anew.
So what has broken some connections is not said in the same way once more:

- outcomes that were posted one way are posted one by one, with an answer: together they may have been too large;
- in place of an outcome the master is told that others are to run the task;
- in place of a long account of a failure, or a long list of tasks, it is given a brief one;
- what the master would have to send is done without, if it can be (see `runner.Runner`).
"""

from __future__ import annotations

import functools
import math
import socket
import sys
import time
from typing import Callable, Protocol, TypeVar

from .brief import Word, brief, clipped, pack_brief_failure
from .errors import Intercepted, Oversized, ProtocolError, SlaveError
from .handover import Resting
from .link import CallFailed
from .outcome import pack_failure, unpack_failure
from .protocol import GiveBack, JoinRequest, OutcomeMessage, RebuildFailure, outcome_message
from .session import RunnerSession
from .shared_status import JOINED, KEEPS, LEAVES, RECALL, STAGE, UNHEARD, SharedStatus

BROKEN = (OSError, EOFError, SlaveError)
REFUSED = (CallFailed, Oversized)
_MOST_TRIES = 2  # of a call to which the answer is nonsense
MOST_BREAKS = 3  # of connections over one word
_BREAKS_TOGETHER = 2  # over what was posted one way and the question behind it
_MOST_ERROR = 60  # bytes of the text of why a connection broke
_LARGE = "the master can be reached, so perhaps large packets are lost on the way (the MTU of a tunnel or a VPN)"

T = TypeVar("T")


class NotThrough(Exception):
    """A word does not reach the master, or its answer us, though connections can be made."""


class AnotherMaster(Exception):
    """The address answers, and has no use for this runner."""


class _Link(Protocol):
    """What is used of `link.Link`."""

    count: int

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""

    def connect(self) -> None:
        """Make one."""

    def drop(self) -> None:
        """Close it."""


class _Tasks(Protocol):
    """What is used of `link.TaskQueueProxy`."""

    def join(self, request: JoinRequest) -> bool:
        """Say who we are."""


class _Results(Protocol):
    """What is used of `link.ResultQueueProxy`."""

    def post(self, outcome: OutcomeMessage) -> None:
        """Post one way."""

    def post_values(self, message: bytes) -> None:
        """Post values one way: see `RunnerSession.values`."""

    def post_and_wait(self, outcome: OutcomeMessage) -> None:
        """Post, and wait for the answer."""

    def rebuild_failed(self, failure: RebuildFailure) -> None:
        """Say that others are to run a task."""


class Conversation:
    """See the module's text."""

    def __init__(
        self, session: RunnerSession, link: _Link, tasks: _Tasks, results: _Results, status: SharedStatus
    ) -> None:
        self._session, self._link, self._status = session, link, status
        self._tasks, self._results = tasks, results
        self._to_post = 0  # outcomes that are still to be posted one by one

    def ask(self, question: Callable[[], T], most_breaks: float = math.inf) -> T:
        """Make an answered call, again on a new connection if the old one is broken or breaks.

        Raises `CallFailed` if the master refuses it, or if it answers nonsense twice; `NotThrough` if connections that
        could be made broke so often over it.
        """
        nonsense = breaks = 0
        while True:
            try:
                self.ensure_connected()
                answer = question()
                break
            except BROKEN as error:
                self.drop(error)
                breaks += 1
                text = str(error)
                why = clipped(text, _MOST_ERROR)
                nonsense += isinstance(error, ProtocolError) and not isinstance(error, Intercepted)
            if breaks > 1:
                print(f"slave: {breaks} connections have broken over one message ({why}); {_LARGE}", file=sys.stderr)
            if nonsense == _MOST_TRIES:
                raise CallFailed(text)
            if breaks >= _BREAKS_TOGETHER and self._post_one_by_one():
                breaks = 0
            elif breaks >= most_breaks:
                raise NotThrough(f"{breaks} connections broke over it ({why}); {_LARGE}")
        self._session.answered()
        self._status[UNHEARD] = bool(self._to_post)
        return answer

    def tell(self, call: Callable[[Word], object], word: Word) -> None:
        """Tell the master; briefly, if it does not get through.  Raises one of `REFUSED` if the master refuses it."""
        try:
            self.ask(functools.partial(call, word), most_breaks=MOST_BREAKS)
        except NotThrough:
            if not isinstance(word, GiveBack):  # who reads our output is to have the whole of it
                print(f"slave: the master is told in few words: {unpack_failure(word.data).traceback}", file=sys.stderr)
            self.ask(functools.partial(call, brief(word)))

    def post_and_wait(self, message: OutcomeMessage) -> None:
        """Post an outcome; if the master refuses it, that is what came of the task."""
        try:
            self._post_and_wait(message)
        except REFUSED as error:
            trouble = RuntimeError(f"the task ran, and its outcome could not be given to the master: {error}")
            slave, lease, context, task, *_ = message
            self._post_and_wait(outcome_message(slave, lease, context, task, *pack_failure(trouble)))

    def _post_and_wait(self, message: OutcomeMessage) -> None:
        try:
            self.ask(functools.partial(self._results.post_and_wait, message), most_breaks=MOST_BREAKS)
        except NotThrough as error:
            self._let_others(message, error)

    def _let_others(self, message: OutcomeMessage, error: NotThrough) -> None:
        """The result does not get through, and what is small does: have another slave run the task."""
        slave, lease, context, task, *_ = message
        size = sum(len(memoryview(part)) for part in (message[5], *message[6]))
        where = clipped(socket.gethostname(), _MOST_ERROR)
        why = f"its result of {size:,} bytes does not get from {where} to the master: {error}"
        data = pack_brief_failure("OSError", why)
        told = RebuildFailure(slave, lease, context, task, data, "", "")
        self.ask(functools.partial(self._results.rebuild_failed, told))

    def _post_one_by_one(self) -> bool:
        """Post what was posted one way, with answers; whether there was anything."""
        outcomes = self._session.say_less()
        for number, message in enumerate(outcomes, 1):
            self._to_post = len(outcomes) - number
            self.post_and_wait(message)
        return bool(outcomes)

    def drop(self, error: BaseException) -> None:
        """The connection broke; who reads our output is told if somebody seems to have a hand in that."""
        self._link.drop()
        if isinstance(error, ProtocolError):
            print(f"slave: {error}; connecting again", file=sys.stderr)

    def ensure_connected(self) -> None:
        """Connect if need be, however long it takes: the agent decides when to give the master up.

        Raises SystemExit when it has, or when the master was done before we ever found it; `Resting` if the runner is
        to be kept for the next master.
        """
        session = self._session
        while not self._link.connected:
            try:
                self._link.connect()
                if not self._tasks.join(session.join_request(self._link.count)):
                    raise AnotherMaster("the master has given this slave up, or another one answers at its address")
                for unanswered in session.unanswered:
                    if type(unanswered) is bytes:
                        self._results.post_values(unanswered)
                    else:
                        self._results.post(unanswered)  # type: ignore[arg-type]
                session.joined()
                self._status[STAGE] = max(JOINED, self._status[STAGE])
            except BROKEN:
                self._link.drop()
                if session.leaves(self._status[RECALL]):
                    if self._status[KEEPS] == LEAVES:
                        raise Resting() from None
                    sys.exit()
                time.sleep(session.pause())
